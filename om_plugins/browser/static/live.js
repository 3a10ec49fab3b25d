// Shows the server's notifications, and a lost connection, as toasts.
//
//   import { connect } from "/_om/static/live.js";
//   connect();                    // om.js calls it for <script data-om-live>
//
// A page that shows notifications itself listens on window for `om-notification` and calls
// preventDefault(). The event `om-changed` has the keys that changed on the server, for query.js.
import { watchConnection } from "./connection.js";
import { report } from "./problems.js";
import { Stream } from "./stream.js";
import { toast } from "./toasts.js";

const PREFIX = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const ACTIONS = new Set(["refresh", "report", "link", "dismiss"]);
const MAX_MISSED = 50;
const connected = new Set();

/** Receive notifications from `prefix`; a second call for the same one does nothing. */
export function connect({ prefix = PREFIX } = {}) {
  if (connected.has(prefix)) return;
  connected.add(prefix);
  const missed = new Map(); // arrived while this tab was hidden, and no other tab has shown them
  let stream = null;
  const suspect = watchConnection(prefix, () => stream.wake());

  function note(received) {
    const { id, key } = received;
    if (document.hidden && !isShown(key)) {
      missed.set(id || received, received);
      if (missed.size > MAX_MISSED) missed.delete(missed.keys().next().value);
      return;
    }
    if (!document.hidden) stream.tell({ shown: id });
    show(received);
  }
  function receive(message) {
    if (message?.shown) missed.delete(message.shown);
    if (message?.trouble) suspect();
  }
  function trouble() {
    stream.tell({ trouble: true });
    suspect();
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    const waiting = [...missed.values()];
    missed.clear();
    waiting.forEach(note);
  });
  addEventListener("om-action", (event) => {
    if (event.detail.action !== "report") return;
    event.preventDefault();
    report(event.detail, prefix);
  });
  const changed = (keys) => dispatchEvent(new CustomEvent("om-changed", { detail: { keys } }));
  stream = new Stream(prefix, { note, changed, tell: receive, trouble });
}

function isShown(key) {
  const { toasts = [] } = document.querySelector("om-toasts") ?? {};
  return Boolean(key) && toasts.some(({ options }) => options.key === key);
}

/** Check what came over the network. It is shown as text only. */
function show(note) {
  const event = new CustomEvent("om-notification", { detail: note, cancelable: true });
  if (!dispatchEvent(event)) return;
  const { kind, message, title, progress, duration_s, key } = note;
  const actions = (Array.isArray(note.actions) ? note.actions : [])
    .filter((one) => ACTIONS.has(one?.action) && one.label)
    .slice(0, 4)
    .map(({ label, action, value = "" }) => ({ label: String(label), action, value: String(value) }));
  toast.show({
    kind,
    message: String(message ?? "").slice(0, 2000),
    title: String(title ?? "").slice(0, 200),
    percent: typeof progress === "number" ? progress : null,
    actions,
    duration_s: typeof duration_s === "number" ? duration_s : null,
    key: key ? String(key) : "",
  });
}
