// The engines' page: boards come in and fill it, its forms are sent without leaving it.
import { Feed } from "./console_feed.js";
import { make, settle } from "./console_parts.js";
import { toast } from "./toasts.js";

const BASE = new URL("..", import.meta.url).pathname;
const STATES = { polling: "Every 2 s", paused: "Paused", lost: "No connection" };
const first = JSON.parse(document.getElementById("board").textContent);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
let newest = 0; // a board that was asked for before an action must not undo what it showed

function show(board) {
  if (board.shape !== first.shape) return location.reload();
  if (board.at < newest) return undefined;
  newest = board.at;
  for (const element of all("[data-text]")) {
    const { text: place } = element.dataset;
    if (element.textContent !== board.texts[place]) element.textContent = board.texts[place];
    if ("level" in element.dataset) element.dataset.level = board.levels[place];
  }
  for (const element of all("[data-flag]")) {
    const [, not, place] = /^(!?)(.*)$/.exec(element.dataset.flag);
    element.hidden = board.flags[place] === Boolean(not);
  }
  for (const button of all("[data-pressed]")) button.setAttribute("aria-pressed", board.flags[button.dataset.pressed]);
  for (const input of all("[data-value]")) {
    const value = board.values[input.dataset.value];
    const was = input.parentElement.querySelector("[data-was]");
    if (input.value === was.value) input.value = value; // nobody is at it
    was.value = value;
  }
  for (const list of all("[data-order]")) {
    const wanted = board.orders[list.dataset.order];
    const now = all(":scope > article", list).map(({ id }) => id);
    if (now.join() !== wanted.join()) list.append(...wanted.map((id) => document.getElementById(id)));
  }
  return undefined;
}

function tell(state) {
  const shown = document.getElementById("state");
  shown.dataset.state = state === "polling" ? "live" : state;
  if (state === "away") settle(shown, [make("a", { href: BASE }, "Signed out: sign in again")]);
  else if (shown.textContent !== STATES[state]) shown.textContent = STATES[state];
}

/** What is wrong with a form, each word beside its field; nothing when all is well. */
function complain(form, errors = {}) {
  for (const place of all("[data-why]", form)) {
    const why = errors[place.dataset.why] ?? "";
    place.textContent = why;
    const input = place.dataset.why && form.elements[place.dataset.why];
    if (!input?.setAttribute) continue;
    if (why) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  }
  form.querySelector("[aria-invalid]")?.focus();
}

/** Where the focus goes when the button that had it is gone. */
function next(form, { name, value }) {
  const same = name && all(`button[name="${name}"]`, form).find((one) => one.value !== value && one.checkVisibility());
  const [field] = [form.elements[value]].flat().filter((one) => one?.checkVisibility?.());
  return same || field || document.getElementById("main");
}

async function send(form, button) {
  const body = new URLSearchParams(new FormData(form, button));
  if (button) button.setAttribute("aria-disabled", "true"); // a disabled one would lose the focus
  try {
    const answer = await fetch(form.action, {
      method: "POST", headers: { Accept: "application/json" }, body, signal: AbortSignal.timeout(10_000),
    });
    const reply = await answer.json();
    if (answer.ok) {
      complain(form);
      // what was sent is in force now: the board says how
      const alone = button?.name === "back" && form.elements[button.value];
      for (const input of alone ? [alone] : all("[data-value]", form)) {
        input.value = input.parentElement.querySelector("[data-was]").value;
      }
      show(reply.board);
      if (button && !button.checkVisibility()) next(form, button).focus();
      toast.success(reply.message);
    } else if (reply.errors) complain(form, reply.errors);
    else toast.error(reply.detail ?? "It could not be changed.");
  } catch {
    toast.error("The server could not be reached. Please try again.");
  }
  button?.removeAttribute("aria-disabled");
}

document.addEventListener("submit", (event) => {
  const { target: form, submitter } = event;
  if (!form.matches("[data-act]")) return;
  event.preventDefault();
  if (submitter?.getAttribute("aria-disabled") !== "true") send(form, submitter);
});

const feed = new Feed(BASE, { show, tell, from: "engines.json" });
show(first);
if (document.hidden) feed.pause();
else feed.begin();
