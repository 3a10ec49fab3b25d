// What just happened in all workers: one line each, newest first.
import { element, write } from "./format.js";

export class Timeline {
  constructor(root, words) {
    this.list = root.querySelector("#timeline");
    this.words = words;
    this.shown = "";
  }

  show(events) {
    const said = JSON.stringify(events);
    if (said === this.shown) return;
    this.shown = said;
    if (!events.length) {
      this.list.replaceChildren(element("li", { class: "hint", text: this.words.timeline_empty }));
      return;
    }
    // Rows are kept, so that nobody loses a selection for a line that did not change.
    const known = new Map([...this.list.children].map((row) => [row.dataset.id, row]));
    this.list.replaceChildren(
      ...events.map((event) => {
        const id = `${event.at} ${event.text}`;
        const row = known.get(id) ?? this.#row(event, id);
        write(row.querySelector(".times"), event.count > 1 ? `×${event.count}` : "");
        return row;
      }),
    );
  }

  #row(event, id) {
    const time = new Date(event.at * 1000).toLocaleTimeString("en-GB");
    const row = element(
      "li", { "data-level": event.level },
      element("time", { text: time, datetime: new Date(event.at * 1000).toISOString() }),
      element("span", { class: "what" }, event.text, " ", element("b", { class: "times" })),
      element("span", { class: "worker", text: `${this.words.worker} ${event.worker}` }),
    );
    row.dataset.id = id;
    return row;
  }
}
