// The fault panel: a button for each fault, and the state that all workers share.
import { write } from "./format.js";

export class Faults {
  constructor(root, texts, changed) {
    this.root = root;
    this.texts = texts;
    this.changed = changed;
    this.failed = root.querySelector("#fault-failed");
    this.om = import(document.querySelector('script[src*="/static/om.js"]').src);
    for (const form of root.querySelectorAll("[data-fault] form, [data-scenario] form")) {
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
      const { faults, cooldown_s } = await answer.json();
      this.show(faults);
      this.changed();
      if (cooldown_s) this.#showCooldown(cooldown_s);
    } catch (error) {
      write(this.failed, this.texts.fault_failed.replace("{why}", error.message));
    } finally {
      button.removeAttribute("aria-disabled");
    }
  }

  // Errors of one kind start a recovery once in 15 minutes. The button starts one at any time.
  async #showCooldown(cooldown_s) {
    const { toast } = await this.om;
    const form = this.root.querySelector("[data-scenario=repair] form");
    toast.info(this.texts.cooldown.replace("{min}", Math.ceil(cooldown_s / 60)), {
      key: "cooldown",
      actions: [{
        label: this.texts.repair_do,
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
      const w = this.texts;
      const switched = name === "slow" || name === "garble";
      const text =
        name === "analyst" ? w[`state_${value}`] : switched ? (value ? w.on : w.off) : value ? w.broken : w.works;
      const shown = row.querySelector("[data-state]");
      write(shown, text);
      shown.classList.toggle("bad", broken);
      form.action = broken ? form.dataset.fix : form.dataset.break;
      write(form.querySelector("button"), broken ? form.dataset.undo : form.dataset.do);
      const remote = state.analyst === "remote" && (name === "analyst" || switched);
      form.querySelector("button").disabled = remote;
    }
    for (const name of ["transient", "permanent"]) {
      this.root.querySelector(`[data-scenario=${name}] button`).disabled = state.analyst === "remote";
    }
  }
}
