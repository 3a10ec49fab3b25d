// Data from the server, kept in the page: stale-while-revalidate, as in om.cache on the server.
//
//   import { query } from "/_om/static/om.js";
//   const servers = query("servers", "/api/servers", { stale_time: 30, live: true });
//   servers.subscribe(({ data, error, fetching }) => draw(data));
//
// TanStack Query's core (query-core.js) does the work. This module adds times in seconds, the
// server's keys, entity tags, the requests of a page that becomes visible again, and the server's
// announcements of changes (`om-changed` on window, from live.js).
import { QueryClient, QueryObserver, focusManager, onlineManager } from "./query-core.js";

const THROTTLE_MS = 5000; // also for a page that often gains and loses focus
const SPREAD_MS = 250; // all pages hear of a change at once; this spreads their requests
const AGAIN_MS = [1500, 4000]; // by then every worker knows of a change, or its copy has expired
const LONGEST_MS = 30_000;
const PLAIN = new Set(["string", "number", "boolean"]);
const NEVER = new Set([400, 401, 403, 404, 405, 406, 410, 422, 451]);

/** An answer without a value. Its message is the `detail` of a problem document (RFC 9457). */
export class QueryError extends Error {
  constructor(message, status = 0, retryAfter = null) {
    super(message);
    this.name = "QueryError";
    this.status = status;
    this.retryAfter = retryAfter; // seconds
  }
}

const client = new QueryClient();
const known = new Map(); // by hash: the last answer with an entity tag, and its tag
const pending = new Set(); // hashes of keys that changed since the last request for them
let refocus = true;
let lastFocus = -Infinity;
let timer = 0;

focusManager.setEventListener((notice) => {
  const look = () => {
    refocus = !document.hidden && Date.now() - lastFocus >= THROTTLE_MS;
    if (refocus) lastFocus = Date.now();
    notice(); // also when it is too soon: waiting retries continue
  };
  document.addEventListener("visibilitychange", look);
  addEventListener("focus", look);
  return () => {
    document.removeEventListener("visibilitychange", look);
    removeEventListener("focus", look);
  };
});
onlineManager.setOnline(navigator.onLine);
client.mount();
client.getQueryCache().subscribe(({ type, query }) => type === "removed" && known.delete(query.queryHash));
addEventListener("om-changed", ({ detail }) => changed(detail?.keys ?? null));
document.addEventListener("visibilitychange", () => document.hidden || (pending.size && soon()));

/**
 * @param {string | (string | number | boolean | null)[]} key as on the server
 * @param {string} url answers a GET with JSON
 * @param {{stale_time?: number, cache_time?: number, retries?: number, retry_delay?: number,
 *          interval?: number, live?: boolean, initial?: unknown, initial_at?: number,
 *          headers?: Record<string, string>}} [options]
 *   stale_time: seconds for which a value is fresh (300); cache_time: seconds for which one that
 *   nobody shows is kept (1800); retries, retry_delay: attempts after the first one (3), and the
 *   first pause (1 s), which doubles; interval: seconds after which a page that is looked at asks
 *   again (0: only when something else makes it); live: ask again when the server says that the
 *   key changed; initial, initial_at: a value that came with the page, and its Unix time
 */
export function query(key, url, options = {}) {
  if ("retry" in options) throw new TypeError("query(): retry was renamed to retries");
  const queryKey = keyOf(key);
  const address = String(new URL(url, document.baseURI));
  const { stale_time = 300, cache_time = 1800, retries = 3, retry_delay = 1, interval = 0 } = options;
  const { live = false, initial, initial_at, headers = {} } = options;
  const settings = {
    queryKey,
    queryFn: ({ signal }) => load(queryKey, address, headers, signal),
    staleTime: stale_time * 1000,
    gcTime: cache_time * 1000,
    retry: (failures, error) => failures < retries && !NEVER.has(error.status),
    retryDelay: (failures, error) => pause(failures, retry_delay, error),
    refetchInterval: interval > 0 && interval * 1000,
    refetchOnWindowFocus: () => refocus,
    meta: { live: Boolean(live) },
    ...(initial !== undefined && {
      initialData: initial,
      initialDataUpdatedAt: (initial_at ?? Date.now() / 1000) * 1000,
    }),
  };
  return {
    /** Call back with the state, now and at each change; the first subscriber starts the query. */
    subscribe(callback) {
      const observer = new QueryObserver(client, settings);
      const tell = (result) => callback(stateOf(result));
      const stop = observer.subscribe(tell);
      tell(observer.getCurrentResult());
      return stop;
    },
    /** Return the fresh value, else the server's answer. */
    fetch: () => client.fetchQuery(settings),
    /** Return the server's present answer. */
    refetch: () => client.fetchQuery({ ...settings, staleTime: 0 }),
    /** Return the stored value, fresh or stale. */
    get: () => client.getQueryData(queryKey),
    /** Show another value before the server has it. */
    set: (value) => void client.setQueryData(queryKey, value),
    /** Mark the value as stale, and ask again if the page shows it. */
    invalidate: () => client.invalidateQueries({ queryKey, exact: true }),
  };
}

function keyOf(key) {
  const members = Array.isArray(key) ? key : [key];
  const plain = members.every((one) => one === null || PLAIN.has(typeof one));
  if (!plain || !(Array.isArray(key) || typeof key === "string")) {
    throw new TypeError("a key is text, or an array of text, numbers, true, false and null");
  }
  return marked(key);
}

/** `"a"` and `["a"]` are two keys, as on the server. */
function marked(key) {
  return Array.isArray(key) ? ["tuple", ...key] : ["text", key];
}

function stateOf({ data, error, isStale, fetchStatus, dataUpdatedAt }) {
  return {
    data,
    error,
    stale: isStale,
    fetching: fetchStatus === "fetching",
    paused: fetchStatus === "paused", // offline: it continues by itself
    at: dataUpdatedAt / 1000,
  };
}

function pause(failures, first_s, { retryAfter }) {
  if (retryAfter !== null && retryAfter !== undefined) return Math.min(retryAfter * 1000, LONGEST_MS);
  return Math.min(first_s * 1000 * 2 ** failures, LONGEST_MS) * (0.5 + Math.random() / 2);
}

async function load(queryKey, address, headers, signal) {
  const hash = JSON.stringify(queryKey);
  const before = known.get(hash);
  const asked = new Headers({ Accept: "application/json", ...headers });
  if (before?.address === address) asked.set("If-None-Match", before.tag);
  let response;
  try {
    response = await fetch(address, { headers: asked, signal, cache: "no-store" });
  } catch (error) {
    if (signal.aborted) throw error;
    dispatchEvent(new Event("om-unreachable")); // live.js checks the connection
    throw new QueryError("The service cannot be reached.");
  }
  if (response.status === 304 && before) return before.data;
  if (!response.ok) throw await refusal(response);
  const data = response.status === 204 ? null : await response.json();
  const tag = response.headers.get("ETag");
  if (tag) known.set(hash, { address, tag, data });
  else known.delete(hash);
  return data;
}

async function refusal(response) {
  const wait = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  let detail = "";
  const kind = response.headers.get("Content-Type") ?? "";
  try {
    if (kind.startsWith("application/problem+json")) ({ detail } = await response.json());
  } catch {
    // no problem document: the status is the message
  }
  const fallback = `The service answered with an error (${response.status}).`;
  const message = typeof detail === "string" && detail ? detail : fallback;
  return new QueryError(message, response.status, Number.isFinite(wait) ? Math.max(wait, 0) : null);
}

/** Handle an announcement that these keys changed; null: any key may have changed. */
function changed(keys) {
  const hashes = new Set((keys ?? []).map((key) => JSON.stringify(marked(key))));
  for (const one of client.getQueryCache().getAll()) {
    if (one.meta?.live && (keys === null || hashes.has(one.queryHash))) pending.add(one.queryHash);
  }
  if (pending.size && !document.hidden) soon();
}

function soon(delay_ms = Math.random() * SPREAD_MS) {
  timer ||= setTimeout(() => {
    timer = 0;
    const now = [...pending];
    pending.clear();
    ask(now);
  }, delay_ms);
}

async function ask(hashes, [again_ms, ...later] = AGAIN_MS) {
  const cache = client.getQueryCache();
  const before = new Map(hashes.map((hash) => [hash, cache.get(hash)?.state.data]));
  await client.invalidateQueries({ predicate: ({ queryHash }) => before.has(queryHash) });
  if (!again_ms) return;
  // a worker that does not know of the change yet answers with the old value
  const same = hashes.filter((hash) => {
    const one = cache.get(hash);
    return one?.isActive() && one.state.data === before.get(hash);
  });
  if (same.length) setTimeout(() => ask(same, later), again_ms);
}
