// The first page: shows the overview in cards and tiles, and sends what buttons ask for.
import { cards, plain } from "./console_cards.js";
import { Feed } from "./console_feed.js";
import { make, settle } from "./console_parts.js";
import { Tiles } from "./console_tiles.js";
import { toast } from "./toasts.js";

const BASE = new URL("..", import.meta.url).pathname;
const STATES = {
  live: "Live", polling: "Every 2 s", paused: "Paused", lost: "No connection", away: "Signed out",
};
const FORM_TOKEN = document.querySelector("script[data-form-token]").dataset.formToken;
const byId = (id) => document.getElementById(id);
const tiles = new Tiles();
let shown = null; // the id of each notification that the page has, by key

function show(picture) {
  const [level, words] = verdict(picture);
  const heading = byId("verdict");
  if (heading.textContent !== words) heading.textContent = words;
  heading.dataset.level = level;
  tiles.show(picture);
  for (const [id, card] of Object.entries(cards)) {
    const section = byId(id);
    const { about, content } = card(picture);
    settle(section.querySelector("[data-content]"), content);
    if (about != null) section.querySelector("[data-about]").textContent = about;
  }
  for (const [name, card] of Object.entries(picture.cards)) settle(place(name, card.title), plain(card));
  for (const section of document.querySelectorAll("[data-feature]")) {
    if (!(section.dataset.feature in picture.cards)) section.remove();
  }
  notify(picture.notifications ?? []);
}

/** Where the card of a feature shows its content; a new card goes into the column with fewer. */
function place(name, title) {
  const id = `feature-${name}`;
  if (!byId(id)) {
    const [column] = [...document.querySelectorAll(".column")].sort((a, b) => a.children.length - b.children.length);
    column.append(make(
      "section", { class: "card", id, "data-feature": name, "aria-labelledby": `${id}-title` },
      make("header", {}, make("h2", { id: `${id}-title` }, title)), make("div", { class: "content", "data-content": "" }),
    ));
  }
  return byId(id).querySelector("[data-content]");
}

/** The level and one sentence for the whole state. */
function verdict({ alerts, engines, patterns = [], monitoring, hub }) {
  const firing = alerts.active.filter(({ state }) => state === "firing");
  if (firing.length > 1) return ["bad", `${firing.length} alerts: ${firing[0].message}`];
  if (firing.length) return [firing[0].kind === "error" ? "bad" : "warn", firing[0].message];
  const offline = engines.filter(({ state }) => state === "offline");
  if (offline.length) return ["warn", `${offline[0].engine} is offline; ${offline[0].chain} goes on without it`];
  if (patterns.some(({ count }) => count >= 3)) return ["warn", "Errors of the same kind come again and again"];
  if (engines.some(({ state }) => state === "degraded")) return ["warn", "An engine has trouble"];
  if (hub === "alone") return ["warn", "The hub is out of reach: this is one worker's view"];
  if (!monitoring) return ["none", "Monitoring is switched off (OM_MONITORING)"];
  return ["good", "All is well"];
}

/** Show new notifications for operators as toasts, too. */
function notify(notes) {
  const known = shown;
  shown = new Map(notes.map((note) => [note.key || note.id, note.id]));
  if (!known) return;
  for (const { id, key, kind, title, message, progress, ours } of [...notes].reverse()) {
    if (!ours || known.get(key || id) === id) continue;
    toast.show({ kind, title, message, key: key || id, percent: progress });
  }
}

/** Show the state of the feed. */
function tell(state) {
  const label = byId("state");
  label.dataset.state = state;
  if (state !== "away") {
    if (label.textContent !== STATES[state]) label.textContent = STATES[state];
    return;
  }
  settle(label, [make("a", { href: BASE }, "Signed out: sign in again")]);
}

/** Send an action; a toast shows the outcome. `done(answer)` returns its text. */
async function act(button, path, body, done) {
  button.disabled = true;
  try {
    const answer = await fetch(`${BASE}console/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-OM-Form-Token": FORM_TOKEN },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(10_000),
    });
    const said = await answer.json();
    if (!answer.ok) toast.error(said.detail ?? "It could not be done.");
    else if (done) toast.success(done(said));
  } catch {
    toast.error("The server could not be reached. Please try again.");
  }
  setTimeout(() => (button.disabled = false), 1500);
}

function purge(form) {
  const { what, value } = Object.fromEntries(new FormData(form));
  act(form.querySelector("button"), "purge", { [what]: value.trim() }, ({ purged }) => `Taken back in all workers; this one had ${purged}.`);
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-purge]")) return;
  event.preventDefault();
  purge(event.target);
});

document.addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  const { recover, silence, seconds } = button?.dataset ?? {};
  if (recover) act(button, "recover", { subject: recover });
  if (silence) {
    const words = seconds === "0" ? `Notifications of ${silence} are on again.` : `No notifications of ${silence} for an hour.`;
    act(button, "silence", { rule: silence, seconds }, () => words);
  }
  if (button?.dataset.span) {
    for (const one of document.querySelectorAll("[data-span]")) one.setAttribute("aria-pressed", one === button);
    feed.look(button.dataset.span);
  }
});

const feed = new Feed(BASE, { show, tell });
show(JSON.parse(byId("picture").textContent));
if (document.hidden) feed.pause();
else feed.begin();
