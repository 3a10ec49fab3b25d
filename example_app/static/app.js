// The overview: creates the parts of the page, and polls the status while the page is visible.
import { Assistant } from "./assistant.js";
import { Faults } from "./faults.js";
import { Note } from "./note.js";
import { Panels } from "./panels.js";
import { Timeline } from "./timeline.js";

const POLL_MS = 2000;
const STALE_S = 1.5;
const INTERVAL_S = 3; // the page also reads at once when the server reports a change

const root = document.getElementById("app");
const texts = JSON.parse(root.dataset.texts);
const panels = new Panels(root, texts, root.dataset.language);
const faults = new Faults(root, texts, () => poll());
const timeline = new Timeline(root, texts);
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
    // The panels show their age, and a toast reports a lost connection on every page.
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

new Assistant(root, texts).askFromAddress();

const { query } = await import(document.querySelector('script[src*="/static/om.js"]').src);
for (const [name, panel] of Object.entries(initial.panels)) {
  query(`panel:${name}`, `${root.dataset.panels}${name}`, {
    stale_time: STALE_S,
    interval: INTERVAL_S,
    live: true,
    ...(panel.data && { initial: panel, initial_at: panel.at }),
  }).subscribe(({ data }) => data && panels.show({ [name]: data }));
}
new Note(root, texts, query, initial.note);
