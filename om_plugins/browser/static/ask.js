// Calls an engine route and reads its answer while it arrives.
//
//   import { ask } from "/_om/static/om.js";
//   const { text, meta } = await ask("/api/assistant", { question: "…" }, {
//     onChunk: (piece) => output.append(piece),
//   });
//
// It writes nothing into the page, so it works under any policy, Trusted Types included.

/** A problem document (RFC 9457) as an error; its message is for the person who asked. */
export class AskError extends Error {
  constructor(detail, problem = {}) {
    super(detail);
    this.name = "AskError";
    this.status = problem.status ?? 0;
    this.title = problem.title ?? "";
    this.instance = problem.instance ?? "";
    this.retryAfter = problem.retry_after ?? null; // seconds
    this.problem = problem;
  }
}

const BROKEN = "The connection was lost before the answer was complete. Please try again.";
const UNREACHABLE = "The service cannot be reached. Check your connection and try again.";
const MAX_EVENT = 2 ** 20;

/**
 * @param {string} url an engine route
 * @param {unknown} payload sent as JSON
 * @param {{onChunk?: (piece: unknown) => void, onMeta?: (meta: object) => void,
 *          signal?: AbortSignal, headers?: Record<string, string>}} [options]
 *   onChunk gets pieces of text, or the whole payload when the engine does not stream;
 *   onMeta gets {engine, tier, attempts, degraded, stale} before the first of them
 * @returns {Promise<{text: string, payload: unknown, meta: object}>}
 * @throws {AskError} with the problem's plain words; an AbortError when `signal` stopped it
 */
export async function ask(url, payload, { onChunk, onMeta, signal, headers = {} } = {}) {
  let response;
  try {
    response = await fetch(url, {
      method: "POST",
      headers: {
        ...headers,
        "Content-Type": "application/json",
        Accept: "text/event-stream, application/json;q=0.9",
      },
      body: JSON.stringify(payload ?? null),
      signal,
    });
  } catch (error) {
    if (error?.name === "AbortError" || signal?.aborted) throw error;
    dispatchEvent(new Event("om-unreachable")); // live.js checks the connection
    throw new AskError(UNREACHABLE);
  }
  const kind = (response.headers.get("Content-Type") ?? "").split(";")[0].trim().toLowerCase();
  if (!response.ok) throw await refusal(response, kind);
  if (kind !== "text/event-stream") {
    const meta = metaOf(response.headers);
    const whole = await json(response, signal);
    onMeta?.(meta);
    onChunk?.(whole);
    return { text: textOf([whole]), payload: whole, meta };
  }

  const pieces = [];
  let meta = {};
  let done = false;
  for await (const { name, data } of events(response.body, signal)) {
    if (name === "meta") {
      meta = data;
      onMeta?.(meta);
    } else if (name === "chunk") {
      pieces.push(data);
      onChunk?.(data);
    } else if (name === "error") {
      throw new AskError(data?.detail ?? BROKEN, data ?? {});
    } else if (name === "done") {
      done = true;
      break;
    }
  }
  if (!done) throw new AskError(BROKEN);
  const text = textOf(pieces);
  const whole = pieces.length === 1 && typeof pieces[0] !== "string" ? pieces[0] : { answer: text };
  return { text, payload: whole, meta };
}

/** Yield the events of a body, each as soon as it is complete; chunks may end anywhere. */
async function* events(body, signal) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      let piece;
      try {
        piece = await reader.read();
      } catch (error) {
        throw error?.name === "AbortError" || signal?.aborted ? error : new AskError(BROKEN);
      }
      rest += piece.done ? decoder.decode() : decoder.decode(piece.value, { stream: true });
      let end;
      while ((end = /\r?\n\r?\n/.exec(rest))) {
        const event = parse(rest.slice(0, end.index));
        rest = rest.slice(end.index + end[0].length);
        if (event) yield event;
      }
      if (piece.done) return;
      if (rest.length > MAX_EVENT) throw new AskError(BROKEN);
    }
  } finally {
    reader.cancel().catch(() => {}); // it may have failed already
  }
}

function parse(block) {
  let name = "message";
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    const [, field, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (field === "event") name = value;
    else if (field === "data") data.push(value);
  }
  if (!data.length) return null;
  try {
    return { name, data: JSON.parse(data.join("\n")) };
  } catch {
    throw new AskError(BROKEN);
  }
}

function textOf(pieces) {
  return pieces
    .map((piece) => {
      if (typeof piece === "string") return piece;
      // a model that refuses says why, and a page that shows texts has to show that
      const answer = piece?.answer || piece?.text || piece?.refusal;
      return typeof answer === "string" ? answer : "";
    })
    .join("");
}

function metaOf(headers) {
  return {
    engine: headers.get("OM-Engine") ?? "",
    tier: Number(headers.get("OM-Tier") ?? 1),
    attempts: Number(headers.get("OM-Attempts") ?? 1),
    degraded: headers.get("OM-Degraded") === "?1",
    stale: headers.get("OM-Stale") === "?1",
  };
}

async function json(response, signal) {
  try {
    return await response.json();
  } catch (error) {
    throw error?.name === "AbortError" || signal?.aborted ? error : new AskError(BROKEN);
  }
}

async function refusal(response, kind) {
  const fallback = `The service answered with an error (${response.status}). Please try again later.`;
  let problem = {};
  if (kind === "application/problem+json") {
    try {
      problem = (await response.json()) ?? {};
    } catch {
      // no problem document: the status is the message
    }
  }
  const detail = typeof problem.detail === "string" && problem.detail ? problem.detail : fallback;
  return new AskError(detail, { ...problem, status: response.status });
}
