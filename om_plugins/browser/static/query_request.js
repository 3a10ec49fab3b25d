// One request of query.js: what an answer means, and the errors of answers without a value.

const FINAL = new Set([400, 401, 403, 404, 405, 406, 410, 422, 451]);
const JSON_TYPE = /^(application|text)\/([\w.+-]+\+)?json\b/;

/** An answer without a value. Its message is the `detail` of a problem document (RFC 9457). */
export class QueryError extends Error {
  constructor(message, { status = 0, retryAfter = null, final = FINAL.has(status) } = {}) {
    super(message);
    this.name = "QueryError";
    this.status = status; // 0: no answer
    this.retryAfter = retryAfter; // seconds
    this.final = final; // true: the same request would get the same answer
  }
}

/** Nobody is signed in: the answer was a 401, or a redirect to a page. */
export class SignInError extends QueryError {
  constructor(message, { status = 0, url = "" } = {}) {
    super(message || "Please sign in.", { status, final: true });
    this.name = "SignInError";
    this.url = url; // the page that the redirect led to; empty when the browser may not know it
  }
}

/**
 * Send a GET request and read its answer.
 *
 * @param {string} address an absolute URL
 * @param {{headers: Record<string, string>, tag?: string, signal: AbortSignal}} options
 *   tag: the entity tag of the value that the page has
 * @returns {Promise<{data: unknown, tag: string | null} | null>} null: that value is still right
 * @throws {QueryError}; what `signal` says when it stopped the request
 */
export async function request(address, { headers, tag, signal }) {
  const asked = new Headers({ Accept: "application/json", ...headers });
  if (tag) asked.set("If-None-Match", tag);
  const options = { headers: asked, signal, cache: "no-store" };
  const response = await fetch(address, options).catch(() => followed(address, options));
  if (response.status === 304 && tag) return null;
  if (!response.ok) throw await refusal(response);
  const text = await response.text().catch(() => lost(signal));
  signal.throwIfAborted();
  const none = response.status === 204 || response.status === 205;
  return { data: none ? null : parsed(text, address, response), tag: response.headers.get("ETag") };
}

/** Find out why a request failed. A redirect to another site fails like a lost connection. */
async function followed(address, options) {
  const { signal } = options;
  signal.throwIfAborted();
  const answer = await fetch(address, { ...options, redirect: "manual" }).catch(() => lost(signal));
  if (answer.type !== "opaqueredirect") return answer;
  return fetch(address, options).catch(() => {
    signal.throwIfAborted();
    throw new SignInError();
  });
}

function lost(signal) {
  signal.throwIfAborted();
  dispatchEvent(new Event("om-unreachable")); // live.js checks the connection
  throw new QueryError("The service cannot be reached.");
}

function parsed(text, address, response) {
  try {
    return JSON.parse(text);
  } catch {
    const { status, url, redirected } = response;
    const type = (response.headers.get("Content-Type") ?? "").split(";")[0].trim();
    const isJson = JSON_TYPE.test(type);
    if (redirected && !isJson && isElsewhere(url, address)) throw new SignInError("", { status, url });
    if (!text.trim()) {
      const nothing = "The service answered with nothing instead of JSON (no value is null, or the status 204).";
      throw new QueryError(nothing, { status, final: true });
    }
    const what = isJson ? "incomplete JSON" : `${type || "text"} instead of JSON`;
    throw new QueryError(`The service answered with ${what}.`, { status, final: !isJson });
  }
}

/** Whether it is another page, and not the same one with another scheme or a slash at its end. */
function isElsewhere(url, address) {
  const page = ({ hostname, pathname }) => hostname + pathname.replace(/\/+$/, "");
  return page(new URL(url)) !== page(new URL(address));
}

async function refusal(response) {
  const { status, redirected, url } = response;
  let detail = "";
  const kind = response.headers.get("Content-Type") ?? "";
  try {
    if (kind.startsWith("application/problem+json")) ({ detail } = await response.json());
  } catch {
    // no problem document: the status is the message
  }
  const said = typeof detail === "string" ? detail : "";
  if (status === 401) return new SignInError(said, { status, url: redirected ? url : "" });
  const wait = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  const retryAfter = Number.isFinite(wait) ? Math.max(wait, 0) : null;
  return new QueryError(said || `The service answered with an error (${status}).`, { status, retryAfter });
}
