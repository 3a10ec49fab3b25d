// Data from the server, kept in the page: stale-while-revalidate, as in om.cache on the server.
//
//   import { query } from "/_om/static/om.js";
//   const servers = query("servers", "/api/servers", { stale_time: 30, live: true });
//   servers.subscribe(({ data, error, fetching }) => draw(data));
//
// TanStack Query's core (query-core.js) does the work. This module adds times in seconds, the
// server's keys, entity tags, the requests of a page that becomes visible again, the server's
// announcements of changes (`om-changed` on window, from live.js), and the end of a session.
//
// An entry of the core's cache has the key, the address and the headers of its request as its
// `queryKey`. The values in it are never given out: who asks gets a copy.
import { QueryClient, QueryObserver, focusManager, onlineManager } from "./query-core.js";
import { QueryError, SignInError, request } from "./query_request.js";

export { QueryError, SignInError };

const THROTTLE_MS = 5000; // also for a page that often gains and loses focus
const SPREAD_MS = 250; // all pages hear of a change at once; this spreads their requests
const AGAIN_MS = [1500, 4000]; // after both, every worker knows of a change, or its copy has expired
const LONGEST_MS = 30_000;
const PLAIN = new Set(["string", "number", "boolean"]);
const ALL = null; // in place of a key
const FORGOTTEN = `om-forgotten ${new URL("..", import.meta.url).pathname.replace(/\/$/, "")}`;

const client = new QueryClient();
const cache = client.getQueryCache();
const known = new Map(); // by hash: the last answer with an entity tag, and its tag
const live = new Set(); // hashes of entries that follow the server's announcements
const pending = new Set(); // hashes of entries whose key changed since the last request for them
const rounds = new Map(); // by hash: the requests that the latest change of its key led to
const forgotten = new Map(); // by name of the key, or ALL: how often it was forgotten
let refocus = true;
let lastFocus = -Infinity;
let timer = 0;
let mark = readMark(); // changes with each forget() of any tab

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
cache.subscribe(({ type, query: entry, action }) => {
  if (type === "removed") {
    known.delete(entry.queryHash);
    live.delete(entry.queryHash);
    rounds.delete(entry.queryHash);
  } else if (action?.type === "error" && endsSession(action.error, entry)) {
    queueMicrotask(() => forget(ALL)); // the core is at work on this entry now
  }
});
addEventListener("om-changed", ({ detail }) => changed(detail?.keys ?? null));
document.addEventListener("visibilitychange", () => document.hidden || (pending.size && soon()));
addEventListener("storage", ({ key, newValue }) => key === FORGOTTEN && heard(newValue));
// no event reaches a page that the browser keeps for its button "back"
addEventListener("pageshow", ({ persisted }) => persisted && readMark() !== mark && heard(null));

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
 *
 * A value is JSON data. It is kept for the key, the URL and the headers together.
 */
export function query(key, url, options = {}) {
  if ("retry" in options) throw new TypeError("query(): retry was renamed to retries");
  const name = nameOf(marked(plain(key)));
  const address = String(new URL(url, document.baseURI));
  const { stale_time = 300, cache_time = 1800, retries = 3, retry_delay = 1, interval = 0 } = options;
  const { initial, initial_at = Date.now() / 1000, headers = {} } = options;
  const first = copy(initial);
  const begun = timesForgotten(name);
  const queryKey = [marked(key), address, ...new Headers(headers)];
  const settings = {
    queryKey,
    queryFn: ({ signal }) => load(queryKey, headers, signal),
    staleTime: stale_time * 1000,
    gcTime: cache_time * 1000,
    retry: (failures, error) => failures < retries && !error.final,
    retryDelay: (failures, error) => pause(failures, retry_delay, error),
    refetchInterval: interval > 0 && interval * 1000,
    refetchOnWindowFocus: () => refocus,
  };

  /** Return the entry of the core's cache; it begins with the value that came with the page. */
  function entry() {
    const one = cache.build(client, client.defaultQueryOptions(settings));
    if (options.live) live.add(one.queryHash);
    const unset = first !== undefined && one.state.data === undefined;
    if (unset && begun === timesForgotten(name)) {
      one.setData(first, { updatedAt: initial_at * 1000, manual: true });
    }
    return one;
  }

  /** Return a copy of what `ask` gets. Its request goes on when the last subscriber leaves. */
  async function answer(ask) {
    const one = entry();
    const before = timesForgotten(name);
    const leave = new QueryObserver(client, { ...settings, enabled: false }).subscribe(() => {});
    let value;
    try {
      value = await ask(one);
    } catch (error) {
      if (error instanceof QueryError || before === timesForgotten(name)) throw error;
    } finally {
      leave();
    }
    if (before === timesForgotten(name)) return copy(value);
    throw new DOMException("The value was forgotten before the answer came.", "AbortError");
  }

  return {
    /** Call back with the state, now and at each change; the first subscriber starts the query. */
    subscribe(callback) {
      if (typeof callback !== "function") throw new TypeError("subscribe() needs a function");
      entry();
      const observer = new QueryObserver(client, settings);
      const tell = teller(callback);
      const stop = observer.subscribe(tell);
      tell(observer.getCurrentResult());
      return stop;
    },
    /** Return the fresh value, else the server's answer. */
    fetch: () => answer(() => client.fetchQuery(settings)),
    /** Return the server's answer to a request that begins now. */
    refetch: () => answer((one) => anew(one, settings)),
    /** Return the stored value, fresh or stale. */
    get: () => copy(entry().state.data),
    /** Show another value, or what a function makes of the value, before the server has it. */
    set(value) {
      const one = entry();
      if (value === undefined) throw new TypeError("set() needs a value; forget() removes it");
      const next = typeof value === "function" ? value(copy(one.state.data)) : value;
      if (next === undefined) return; // the function leaves it as it is
      one.setData(copy(next), { manual: true });
      if (one.state.fetchStatus === "fetching") one.cancel({ revert: true }); // to what was set
    },
    /** Mark the values of the key as stale, and ask again for those that the page shows. */
    invalidate: () => renew(cache.getAll().filter((one) => nameOf(one.queryKey[0]) === name)),
    /** Remove the values of the key, in all tabs; a page that shows one asks again. */
    forget: () => forget(name),
  };
}

/**
 * Remove all values, in all tabs of this browser: for when somebody signs in or out. Requests
 * under way end with an AbortError; a page that shows a value asks again.
 */
query.forget = () => forget(ALL);

/** Return what tells a subscriber of changes; each has a copy of the value. */
function teller(callback) {
  let last = null;
  let given;
  return (result) => {
    const state = stateOf(result);
    if (last && Object.keys(state).every((field) => Object.is(state[field], last[field]))) return;
    if (state.data !== last?.data) given = copy(state.data);
    last = state;
    try {
      callback({ ...state, data: given });
    } catch (error) {
      reportError(error); // the others are told nevertheless
    }
  };
}

function copy(value) {
  if (value === null || (typeof value !== "object" && typeof value !== "function")) return value;
  try {
    return structuredClone(value);
  } catch (error) {
    throw new TypeError(`a value of query() is JSON data: ${error.message}`);
  }
}

function plain(key) {
  const members = Array.isArray(key) ? key : [key];
  const known = members.every((one) => one === null || PLAIN.has(typeof one));
  if (known && (Array.isArray(key) || typeof key === "string")) return key;
  throw new TypeError("a key is text, or an array of text, numbers, true, false and null");
}

/** `"a"` and `["a"]` are two keys, as on the server. */
function marked(key) {
  return Array.isArray(key) ? ["tuple", ...key] : ["text", key];
}

function nameOf(markedKey) {
  return JSON.stringify(markedKey);
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

async function load(queryKey, headers, signal) {
  const hash = JSON.stringify(queryKey);
  const before = known.get(hash);
  const answer = await request(queryKey[1], { headers, tag: before?.tag, signal });
  if (!answer) return before.data;
  if (answer.tag) known.set(hash, answer);
  else known.delete(hash);
  return answer.data;
}

/** Ask now: an answer to an earlier request may be older than what the caller knows of. */
function anew(entry, settings) {
  // a paused request has not begun
  if (entry.state.fetchStatus === "fetching") entry.cancel({ silent: true });
  return entry.fetch(settings); // who waited for the earlier answer gets this one
}

async function renew(entries) {
  const asked = entries.map((one) => {
    const wanted = one.isActive() || one.state.fetchStatus !== "idle";
    one.invalidate();
    return wanted && anew(one).catch(() => {}); // subscribers get the error in their state
  });
  await Promise.all(asked);
}

/** Handle an announcement that these keys changed; null: any key may have changed. */
function changed(keys) {
  const names = new Set((keys ?? []).map((key) => nameOf(marked(key))));
  for (const { queryKey, queryHash } of cache.getAll()) {
    if (live.has(queryHash) && (keys === null || names.has(nameOf(queryKey[0])))) pending.add(queryHash);
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

/**
 * Ask now, and once more in the end. A worker that does not know of the change yet answers with an
 * older value, which may be another one than the page shows: only the last answer is sure. The
 * request between them is for a page whose value is still the old one.
 */
async function ask(hashes) {
  const round = Symbol("round");
  const entries = hashes.map((hash) => cache.get(hash)).filter(Boolean);
  const before = new Map(entries.map((one) => [one, one.state.data]));
  for (const { queryHash } of entries) rounds.set(queryHash, round);
  await renew(entries);
  for (const [step, pause_ms] of AGAIN_MS.entries()) {
    await new Promise((resume) => setTimeout(resume, pause_ms));
    const last = step === AGAIN_MS.length - 1;
    const due = entries.filter(
      (one) => one.isActive() && rounds.get(one.queryHash) === round && (last || one.state.data === before.get(one)),
    );
    await renew(due);
  }
}

// --- the end of a session -----------------------------------------------------------------------

/** Whether the error means that the person whose values these are is no longer signed in. */
function endsSession(error, { state, queryKey: [, address, ...headers] }) {
  // who had no value before was a visitor before, too
  const had = error instanceof SignInError && state.data !== undefined;
  const ownIdentity = headers.some(([name]) => name === "authorization");
  return had && !ownIdentity && new URL(address).origin === location.origin;
}

function timesForgotten(name) {
  return (forgotten.get(ALL) ?? 0) + (forgotten.get(name) ?? 0);
}

async function forget(name) {
  forgetHere(name);
  mark = JSON.stringify([Date.now(), Math.random(), name]);
  try {
    localStorage.setItem(FORGOTTEN, mark);
  } catch {
    // storage is off, and cookies with it: there is no session that tabs share
  }
}

function heard(received) {
  mark = received ?? readMark();
  let name = ALL;
  try {
    if (received) name = JSON.parse(received)[2] ?? ALL;
  } catch {
    // not ours: forget all
  }
  forgetHere(name);
}

function readMark() {
  try {
    return localStorage.getItem(FORGOTTEN);
  } catch {
    return null; // storage is off
  }
}

function forgetHere(name) {
  forgotten.set(name, (forgotten.get(name) ?? 0) + 1);
  for (const one of cache.getAll()) {
    if (name !== ALL && nameOf(one.queryKey[0]) !== name) continue;
    known.delete(one.queryHash);
    if (!one.getObserversCount()) {
      cache.remove(one);
      continue;
    }
    one.reset();
    if (one.isActive()) one.fetch().catch(() => {}); // subscribers get the error in their state
  }
}
