// The timeline: the events of all workers, newest first.
import { element, write } from "./format.js";

export class Timeline {
  constructor(root, texts) {
    this.list = root.querySelector("#timeline");
    this.texts = texts;
    this.shown = "";
  }

  show(events) {
    const text = JSON.stringify(events);
    if (text === this.shown) return;
    this.shown = text;
    if (!events.length) {
      this.list.replaceChildren(element("li", { class: "hint", text: this.texts.timeline_empty }));
      return;
    }
    // Known rows stay in the page, so that a selection in an unchanged row is not lost.
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
      element("span", { class: "worker", text: `${this.texts.worker} ${event.worker}` }),
    );
    row.dataset.id = id;
    return row;
  }
}
