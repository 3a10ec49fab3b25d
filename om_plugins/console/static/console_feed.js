// Where the console's pictures come from: a stream, or every 2 s where none can be served.
//
// Nothing is asked for while the page is hidden.
const POLL_MS = 2000;
const LOST_MS = 6000;
const STREAM_AGAIN_MS = 10_000;
const PAGE = Math.random().toString(36).slice(2);

/**
 * Calls `show(picture)` and `tell(state)`: live, polling, paused, lost or away (signed out).
 * `from` is what to ask for; where it is not the overview, there is no stream of it.
 */
export class Feed {
  constructor(base, { show, tell, from = "overview.json" }) {
    this.base = base;
    this.from = from;
    this.show = show;
    this.tell = tell;
    this.span = "minutes";
    this.noStreamUntil = from === "overview.json" ? 0 : Infinity;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.pause() : this.begin()));
  }

  begin() {
    this.stop();
    if (performance.now() < this.noStreamUntil) return this.poll();
    const stream = (this.stream = new EventSource(`${this.base}console/stream?span=${this.span}&page=${PAGE}`));
    this.expect();
    stream.onmessage = (event) => {
      this.got(JSON.parse(event.data), "live");
    };
    stream.onerror = () => {
      if (stream !== this.stream || stream.readyState !== EventSource.CLOSED) return;
      this.noStreamUntil = performance.now() + STREAM_AGAIN_MS;
      this.poll();
    };
    return undefined;
  }

  stop() {
    this.stream?.close();
    this.stream = null;
    this.asking?.abort();
    this.asking = null;
    clearTimeout(this.timer);
    clearTimeout(this.watch);
  }

  pause() {
    this.stop();
    this.tell("paused");
  }

  /** Change how far back the charts go. */
  look(span) {
    this.span = span;
    this.begin();
  }

  got(picture, state) {
    this.tell(state);
    this.show(picture);
    this.expect();
  }

  expect() {
    clearTimeout(this.watch);
    this.watch = setTimeout(() => this.tell("lost"), LOST_MS);
  }

  async poll() {
    this.stop();
    this.expect();
    const asking = (this.asking = new AbortController());
    try {
      const answer = await fetch(`${this.base}${this.from}?span=${this.span}`, { signal: asking.signal });
      if ([401, 403, 404].includes(answer.status)) {
        this.stop();
        return this.tell("away");
      }
      if (answer.ok) this.got(await answer.json(), "polling");
    } catch {
      // the watch tells of it, and the next try comes
    }
    if (asking === this.asking) {
      this.timer = setTimeout(() => (performance.now() < this.noStreamUntil ? this.poll() : this.begin()), POLL_MS);
    }
    return undefined;
  }
}
