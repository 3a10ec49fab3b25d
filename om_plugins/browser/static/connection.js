// Shows a toast when the server cannot be reached, and replaces it when the connection is back.
import { toast } from "./toasts.js";
import { word } from "./words.js";

const PROBE_MS = 3000;
const LONGEST_MS = 30_000;
const KEY = "om-connection";

/** 1, 2, 4 … 30 s; half of it is random, so that not all browsers come back at once. */
export function backoff(failures) {
  return Math.min(LONGEST_MS, 1000 * 2 ** failures) * (0.5 + Math.random() / 2);
}

/**
 * Watch the connection. It sends nothing until the browser goes offline or a request failed.
 *
 * @param {string} prefix where `health` is
 * @param {() => void} [onRestored] called when a lost connection is back
 * @returns {() => void} suspect: call it when a request failed
 */
export function watchConnection(prefix, onRestored = () => {}) {
  let probing = false;
  let wake = () => {};

  async function alive() {
    const options = { cache: "no-store", signal: AbortSignal.timeout(PROBE_MS) };
    try {
      return (await fetch(`${prefix}/health`, options)).status < 500;
    } catch {
      return false;
    }
  }

  /** Wait for the time, or until something changes; a hidden page waits until it is visible. */
  function pause(delay_ms) {
    return new Promise((resolve) => {
      const timer = document.hidden ? 0 : setTimeout(resolve, delay_ms);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async function suspect() {
    if (probing) return wake();
    probing = true;
    let lost = false;
    for (let failures = 0; !(await alive()); failures++) {
      // one failure may come from leaving the page; two, or the browser's own event, do not
      if (!lost && (failures || !navigator.onLine)) {
        lost = true;
        const retry = { label: word("retry"), run: () => wake() };
        toast.warning(word("lost"), { key: KEY, actions: [retry] });
      }
      await pause(backoff(failures));
    }
    probing = false;
    if (!lost) return;
    toast.success(word("restored"), { key: KEY, duration_s: 4 });
    onRestored();
  }

  addEventListener("offline", () => suspect());
  addEventListener("online", () => wake());
  addEventListener("om-unreachable", () => suspect()); // ask() or query() got no answer
  document.addEventListener("visibilitychange", () => wake());
  return suspect;
}
