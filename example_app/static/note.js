// The note: one text that every open page shows and every visitor can change.
import { write } from "./format.js";

export class Note {
  constructor(root, texts, query, initial) {
    const shown = root.querySelector("#note");
    const form = root.querySelector(".note form");
    const note = query("note", root.dataset.note, { live: true, initial });
    note.subscribe(({ data }) => write(shown, data?.text || texts.note_none));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button");
      button.disabled = true;
      try {
        const body = new URLSearchParams(new FormData(form));
        const answer = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" } });
        if (!answer.ok) throw new Error(String(answer.status));
        form.reset();
        note.refetch().catch(() => {}); // this page does not wait until the server notifies all pages
      } catch (error) {
        write(shown, texts.fault_failed.replace("{why}", error.message));
      } finally {
        button.disabled = false;
      }
    });
  }
}
