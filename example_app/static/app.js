// The overview: poll the readings while the page is seen, and wire its parts.
import { Assistant } from "./assistant.js";
import { Faults } from "./faults.js";
import { Panels } from "./panels.js";
import { Timeline } from "./timeline.js";

const POLL_MS = 2000;
const FIRST_MS = 600; // the page may have come with an old reading, which began a new one

const root = document.getElementById("app");
const words = JSON.parse(root.dataset.words);
const panels = new Panels(root, words, root.dataset.language);
const faults = new Faults(root, words, () => poll());
const timeline = new Timeline(root, words);
let timer = 0;

function show(status) {
  panels.show(status.panels);
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

show(JSON.parse(root.dataset.initial));
timer = setTimeout(poll, FIRST_MS);
setInterval(() => document.hidden || panels.tick(), 1000);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));

new Assistant(root, words).askFromAddress();
