// The fault panel: a button each, and the state that every worker sees.
import { write } from "./format.js";

export class Faults {
  constructor(root, words, changed) {
    this.root = root;
    this.words = words;
    this.failed = root.querySelector("#fault-failed");
    for (const form of root.querySelectorAll("[data-fault] form")) {
      form.addEventListener("submit", async (event) => {
        event.preventDefault();
        const button = form.querySelector("button");
        if (button.getAttribute("aria-disabled") === "true") return;
        button.setAttribute("aria-disabled", "true");
        write(this.failed, "");
        try {
          const answer = await fetch(form.action, { method: "POST", headers: { Accept: "application/json" } });
          if (!answer.ok) throw new Error(String(answer.status));
          this.show((await answer.json()).faults);
          changed();
        } catch (error) {
          write(this.failed, words.fault_failed.replace("{why}", error.message));
        } finally {
          button.removeAttribute("aria-disabled");
        }
      });
    }
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
  }
}
