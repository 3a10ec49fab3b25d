// The fault panel: a button each, and the state that every worker sees.
import { write } from "./format.js";

export class Faults {
  constructor(root, words, changed) {
    this.root = root;
    this.words = words;
    this.changed = changed;
    this.failed = root.querySelector("#fault-failed");
    this.om = import(document.querySelector('script[src*="/static/om.js"]').src);
    for (const form of root.querySelectorAll("[data-fault] form, [data-drill] form")) {
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        this.#send(form);
      });
    }
  }

  async #send(form) {
    const button = form.querySelector("button");
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    write(this.failed, "");
    try {
      const answer = await fetch(form.action, { method: "POST", headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(String(answer.status));
      const { faults, rests_s } = await answer.json();
      this.show(faults);
      this.changed();
      if (rests_s) this.#rests(rests_s);
    } catch (error) {
      write(this.failed, this.words.fault_failed.replace("{why}", error.message));
    } finally {
      button.removeAttribute("aria-disabled");
    }
  }

  // Recovery does not try the same again for a quarter of an hour; by hand it does.
  async #rests(rests_s) {
    const { toast } = await this.om;
    const form = this.root.querySelector("[data-drill=repair] form");
    toast.info(this.words.rests.replace("{min}", Math.ceil(rests_s / 60)), {
      key: "rests",
      actions: [{
        label: this.words.repair_do,
        run: (shown) => {
          shown.dismiss();
          this.#send(form);
        },
      }],
    });
  }

  show(state) {
    for (const row of this.root.querySelectorAll("[data-fault]")) {
      const name = row.dataset.fault;
      const form = row.querySelector("form");
      const value = state[name];
      const broken = name === "analyst" ? value !== "running" && value !== "remote" : value;
      const w = this.words;
      const switched = name === "slow" || name === "garble";
      const text =
        name === "analyst" ? w[`state_${value}`] : switched ? (value ? w.on : w.off) : value ? w.broken : w.works;
      const shown = row.querySelector("[data-state]");
      write(shown, text);
      shown.classList.toggle("bad", broken);
      form.action = broken ? form.dataset.mend : form.dataset.break;
      write(form.querySelector("button"), broken ? form.dataset.undo : form.dataset.do);
      const remote = state.analyst === "remote" && (name === "analyst" || switched);
      form.querySelector("button").disabled = remote;
    }
    for (const name of ["passing", "lasting"]) {
      this.root.querySelector(`[data-drill=${name}] button`).disabled = state.analyst === "remote";
    }
  }
}
