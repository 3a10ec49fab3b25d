// "Report problem": send what a toast said to the server, and say what became of it.
import { word } from "./words.js";

const PREFIX = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const TIMEOUT_MS = 10_000;

/**
 * POST `{message, reference, url, language}` to `{prefix}/problems`; the toast tells how it goes.
 *
 * @param {{toast: object, value?: string, about?: string}} action what `om-action` carries
 * @param {string} [prefix] where the server's part is
 */
export async function report({ toast, value = "", about }, prefix = PREFIX) {
  const { title, message } = toast.options;
  about ??= [title, message].filter(Boolean).join(": ");
  toast.update({ kind: "progress", title: "", message: word("sending"), actions: [], percent: null });
  try {
    const response = await fetch(`${prefix}/problems`, {
      method: "POST",
      // a header of our own: other sites cannot send it without being asked first
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
