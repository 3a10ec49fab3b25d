// "Report problem": sends the text of a toast to the server and shows the outcome.
import { word } from "./words.js";

const PREFIX = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const TIMEOUT_MS = 10_000;

/**
 * POST `{message, reference, url, language}` to `{prefix}/problems`; the toast shows the outcome.
 *
 * @param {{toast: object, value?: string, about?: string}} action the detail of `om-action`
 * @param {string} [prefix] `OM_PREFIX`
 */
export async function report({ toast, value = "", about }, prefix = PREFIX) {
  const { title, message } = toast.options;
  about ??= [title, message].filter(Boolean).join(": ");
  toast.update({ kind: "progress", title: "", message: word("sending"), actions: [], percent: null });
  try {
    const response = await fetch(`${prefix}/problems`, {
      method: "POST",
      // other sites cannot send this header without a preflight request
      headers: { "Content-Type": "application/json", "X-OM": "1" },
      body: JSON.stringify({
        message: about,
        reference: value,
        url: location.pathname,
        language: document.documentElement.lang || navigator.language,
      }),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const { id } = await response.json();
    toast.complete(word("sent", String(id).slice(0, 40)), { duration_s: 8 });
  } catch {
    const again = { label: word("again"), action: "report", value, about };
    toast.fail(word("unsent"), { actions: [again] });
  }
}
