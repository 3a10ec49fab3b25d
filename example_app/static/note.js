// The note: one text for all pages. Whoever writes it, every open page shows it.
import { write } from "./format.js";

export class Note {
  constructor(root, words, query, initial) {
    const shown = root.querySelector("#note");
    const form = root.querySelector(".note form");
    const note = query("note", root.dataset.note, { live: true, initial });
    note.subscribe(({ data }) => write(shown, data?.text || words.note_none));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button");
      button.disabled = true;
      try {
        const body = new URLSearchParams(new FormData(form));
        const answer = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" } });
        if (!answer.ok) throw new Error(String(answer.status));
        form.reset();
        note.refetch().catch(() => {}); // the server tells all pages; this one need not wait for it
      } catch (error) {
        write(shown, words.fault_failed.replace("{why}", error.message));
      } finally {
        button.disabled = false;
      }
    });
  }
}
