// The overview: show the readings while the page is seen, and wire its parts.
import { Assistant } from "./assistant.js";
import { Faults } from "./faults.js";
import { Note } from "./note.js";
import { Panels } from "./panels.js";
import { Timeline } from "./timeline.js";

const POLL_MS = 2000;
const STALE_S = 1.5;
const AGAIN_S = 3; // and at once when the server says that a reading is new

const root = document.getElementById("app");
const words = JSON.parse(root.dataset.words);
const panels = new Panels(root, words, root.dataset.language);
const faults = new Faults(root, words, () => poll());
const timeline = new Timeline(root, words);
let timer = 0;

function show(status) {
  faults.show(status.faults);
  timeline.show(status.timeline);
}

async function poll() {
  clearTimeout(timer);
  try {
    const answer = await fetch(root.dataset.status, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(String(answer.status));
    show(await answer.json());
  } catch {
    // The panels say how old they are; that the connection is lost, a toast says on every page.
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(poll, POLL_MS);
}

const initial = JSON.parse(root.dataset.initial);
show(initial);
panels.show(initial.panels);
timer = setTimeout(poll, POLL_MS);
setInterval(() => document.hidden || panels.tick(), 1000);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));

new Assistant(root, words).askFromAddress();

const { query } = await import(document.querySelector('script[src*="/static/om.js"]').src);
for (const [name, panel] of Object.entries(initial.panels)) {
  query(`panel:${name}`, `${root.dataset.panels}${name}`, {
    stale_time: STALE_S,
    interval: AGAIN_S,
    live: true,
    ...(panel.data && { initial: panel, initial_at: panel.at }),
  }).subscribe(({ data }) => data && panels.show({ [name]: data }));
}
new Note(root, words, query, initial.note);
