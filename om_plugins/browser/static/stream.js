// Notifications from the server: one tab, the leader, holds the browser's only stream and passes
// them on to the other tabs.
//
// Only visible tabs compete to be the leader (a Web Lock, which ends with its tab), so a
// browser in the background holds no stream. When the server has no free stream (204), the leader
// polls. Ids are stored, so a new leader continues where the last one ended.
import { backoff } from "./connection.js";

const POLL_MS = 15_000;
const LATER_MS = Array(20).fill(POLL_MS); // then the server may have a stream again
// Sooner at first: the notification that belongs to this page may still be on its way, and the
// server's only stream may be that of the page before, whose end it has not noticed yet.
const EARLY_MS = [1000, 3000, 8000];
const RESIGN_MS = 30_000; // hidden for longer: another tab may lead
const REOPEN_MS = 5000; // servers end streams now and then; longer is trouble
const SILENT_MS = 90_000; // a working server ends its streams more often than that
const UNREAD_MS = 2000; // too short to read a toast
const MAX_FRESH = 20;
const RECENT_MS = 600_000; // an id older than that is not resumed by a new page
const MAX_SEEN = 200;
const KEPT_MS = 50_000; // the server repeats the changes of the last minute; after a longer absence some are lost
const CURSOR = { kind: "cursor" }; // shows nothing; its id says where to continue
const REFUSED = new Set([401, 403, 404, 405, 410]);

export class Stream {
  #prefix;
  #on;
  #channel;
  #store;
  #term = null; // the AbortController of this tab's request to lead
  #last = "";
  #fresh = []; // what arrived just now: the id before it, and when
  #seen = new Set();
  #heard = Date.now(); // a page is as new as its data
  #resign;
  #wake = () => {};

  /**
   * @param {string} prefix where `events` is
   * @param {{note: (note: object) => void, changed?: (keys: unknown[] | null) => void,
   *          tell?: (message: object) => void, trouble?: () => void}} on
   *   note: a notification, once per tab; changed: keys of the server's cache that changed, null
   *   when that cannot be known; tell: another tab's message; trouble: a request failed
   */
  constructor(prefix, on) {
    this.#prefix = prefix;
    this.#on = on;
    this.#store = `om-last ${prefix}`;
    this.#recall();
    this.#open();
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.#resign);
      if (!document.hidden) this.#lead();
      else this.#resign = setTimeout(() => this.#end(), navigator.locks ? RESIGN_MS : 0);
    });
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", ({ persisted }) => persisted && this.#open());
  }

  /** Send a message to the browser's other tabs. */
  tell(message) {
    this.#channel?.postMessage({ tell: message });
  }

  /** Stop waiting, because the connection is back. */
  wake() {
    this.#wake();
  }

  #open() {
    this.#channel = new BroadcastChannel(`om ${this.#prefix}`);
    this.#channel.onmessage = ({ data }) => {
      if (data.note) this.#receive(data.note, data.id);
      else if (data.changed !== undefined) this.#on.changed?.(data.changed);
      else this.#on.tell?.(data.tell);
    };
    this.#lead();
  }

  #close() {
    // the next page shows again what arrived while this page was being left
    const [fresh] = this.#fresh.filter(([, at]) => Date.now() - at < UNREAD_MS);
    this.#remember(fresh?.[0]);
    this.#end();
    this.#channel?.close();
    this.#channel = null;
  }

  #end() {
    this.#term?.abort();
    this.#term = null;
  }

  #lead() {
    if (this.#term || document.hidden) return;
    const { signal } = (this.#term = new AbortController());
    if (!navigator.locks) return void this.#serve(signal); // plain HTTP: each tab has its own stream
    const reign = () =>
      new Promise((resolve) => {
        signal.addEventListener("abort", resolve);
        this.#serve(signal);
      });
    navigator.locks.request(`om-leader ${this.#prefix}`, { signal }, reign).catch(() => {}); // ended first
  }

  async #serve(signal) {
    let delays = EARLY_MS;
    for (let failures = 0; !signal.aborted; ) {
      const opened = await this.#listen(signal);
      if (opened) failures = 0;
      else {
        let answer;
        for (const delay_ms of delays) {
          answer = await this.#poll(signal);
          if (answer !== "ok") break;
          failures = 0;
          await this.#pause(delay_ms, signal);
          if (signal.aborted) return;
        }
        if (answer === "refused") return;
        delays = LATER_MS;
        if (answer === "ok") continue;
      }
      if (signal.aborted) return;
      this.#on.trouble?.();
      await this.#pause(backoff(failures++), signal);
    }
  }

  /** Wait until the browser gives up the stream; resolves to whether it was ever open. */
  #listen(signal) {
    return new Promise((resolve) => {
      const source = new EventSource(this.#address());
      let opened = false;
      let timer;
      let watch;
      const alive = () => {
        clearTimeout(watch);
        watch = setTimeout(end, SILENT_MS);
      };
      const end = () => {
        clearTimeout(timer);
        clearTimeout(watch);
        source.close();
        resolve(opened);
      };
      signal.addEventListener("abort", end, { once: true });
      alive();
      source.onopen = () => {
        alive();
        opened = true;
        clearTimeout(timer);
        timer = 0;
      };
      source.onmessage = ({ data, lastEventId }) => {
        alive();
        this.#hear();
        this.#hand(data, lastEventId);
      };
      // a page that saw no notification yet continues from this id
      source.addEventListener("ready", ({ lastEventId }) => {
        this.#hear();
        this.#hand(CURSOR, lastEventId);
      });
      source.addEventListener("changed", ({ data }) => {
        alive();
        this.#hear();
        this.#change(data);
      });
      source.onerror = () => {
        if (source.readyState === EventSource.CLOSED) end();
        else timer ||= setTimeout(() => this.#on.trouble?.(), REOPEN_MS);
      };
    });
  }

  async #poll(signal) {
    try {
      const response = await fetch(this.#address("poll=1"), {
        cache: "no-store",
        headers: { Accept: "application/json" },
        signal: AbortSignal.any([signal, AbortSignal.timeout(POLL_MS)]),
      });
      if (REFUSED.has(response.status)) return "refused";
      if (!response.ok) return "failed";
      const notes = response.status === 204 ? [] : await response.json();
      this.#hear();
      for (const note of notes) note?.kind === "changed" ? this.#change(note) : this.#hand(note, note.id);
      return "ok";
    } catch {
      return "failed";
    }
  }

  #address(query = "") {
    const after = this.#last && `after=${encodeURIComponent(this.#last)}`;
    const all = [query, after].filter(Boolean).join("&");
    return `${this.#prefix}/events${all && `?${all}`}`;
  }

  #hand(data, id) {
    let note;
    try {
      note = typeof data === "string" ? JSON.parse(data) : data;
    } catch {
      return; // not ours
    }
    if (!note || typeof note !== "object") return;
    id = String(id || note.id || "");
    this.#channel?.postMessage({ note, id });
    this.#receive(note, id);
  }

  /** Note that the server answered; after a long silence it does not know all that changed. */
  #hear() {
    const away_ms = Date.now() - this.#heard;
    this.#heard = Date.now();
    if (away_ms > KEPT_MS) this.#changed(null);
  }

  #change(data) {
    try {
      const { keys } = typeof data === "string" ? JSON.parse(data) : data;
      if (Array.isArray(keys)) this.#changed(keys);
    } catch {
      // not ours
    }
  }

  #changed(keys) {
    this.#channel?.postMessage({ changed: keys });
    this.#on.changed?.(keys);
  }

  #receive(note, id) {
    const before = this.#last;
    if (id) this.#remember(id);
    if (note.kind === CURSOR.kind) return;
    const once = `${id} ${note.at}`; // a server that lost its data may start its ids again
    if (id && this.#seen.has(once)) return;
    this.#seen.add(once);
    if (this.#seen.size > MAX_SEEN) this.#seen.delete(this.#seen.values().next().value);
    this.#fresh = [...this.#fresh, [before, Date.now()]].slice(-MAX_FRESH);
    this.#on.note({ ...note, id });
  }

  #remember(id = this.#last) {
    this.#last = id;
    try {
      sessionStorage.setItem(this.#store, JSON.stringify({ id, at: Date.now() }));
    } catch {
      // storage is off: the next page starts without an id
    }
  }

  #recall() {
    try {
      const { id, at } = JSON.parse(sessionStorage.getItem(this.#store)) ?? {};
      if (id && Date.now() - at < RECENT_MS) this.#last = id;
    } catch {
      // storage is off, or holds something else
    }
  }

  #pause(delay_ms, signal) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, delay_ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
      signal.addEventListener("abort", this.#wake, { once: true });
    });
  }
}
