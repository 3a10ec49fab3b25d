// The six tiles at the top: a figure, a word about it, and where it went.
import { bytes, count, duration, joined, make, number, percent, settle } from "./console_parts.js";
import { Spark } from "./console_spark.js";

const rate = (value) => [number(value, value && value < 10 ? 1 : 0), "/s"];
const load = (value) => (value == null ? ["–", ""] : [number(value, value < 10 ? 1 : 0), "%"]);

/** id: the series, how a value is said, the figure now, what stands below it, the chart's bounds. */
const TILES = {
  rate: {
    series: "requests_per_s", say: rate, now: (p) => p.requests_per_s,
    detail: (p) => `${count(p.requests, "request")} since the start`,
  },
  time: {
    series: "p95_ms", say: duration, now: (p) => p.p95_ms,
    detail: (p) => `p50 ${joined(duration(p.p50_ms))}, p99 ${joined(duration(p.p99_ms))}${course(p.trends.response_time)}`,
  },
  success: {
    series: "success_rate", say: percent, now: (p) => p.success_rate, bounds: { low: 0.9, high: 1 },
    detail: (p) => (p.success_rate == null ? "No request in the last minute" : `of the last minute${course(p.trends.error_rate)}`),
  },
  flight: {
    series: "in_flight", say: (value) => [number(value), ""], now: (p) => p.in_flight, bounds: { high: 4 },
    detail: (p) => `in ${count(p.workers.length, "worker")}, with this page's own`,
  },
  cpu: {
    series: "cpu_percent", say: load, now: (p) => p.cpu_percent, bounds: { high: 20 },
    detail: (p) => (p.cpu_percent == null ? "Not measured yet" : "of one core, all workers"),
  },
  memory: {
    series: "rss_bytes", say: bytes, now: (p) => p.rss_bytes,
    detail: (p) => `all workers${p.memory ? `; the machine is ${joined(percent(p.memory, 0))} full` : ""}${course(p.trends.memory)}`,
  },
};

/** A trend in words, where it says something. */
function course(trend) {
  if (!trend || trend.verdict === "no data" || trend.verdict === "stable") return "";
  const at = trend.crosses_min?.[1];
  return `; ${trend.verdict}${at == null ? "" : `, over the limit in ${count(Math.round(at), "minute")}`}`;
}

export class Tiles {
  constructor() {
    this.tiles = Object.entries(TILES).map(([id, tile]) => {
      const section = document.getElementById(`tile-${id}`);
      const found = { ...tile, section, at: -1 };
      found.spark = new Spark(section.querySelector(".spark"), (index) => {
        found.at = index;
        if (this.picture) this.fill(found);
      });
      return found;
    });
  }

  show(picture) {
    this.picture = picture;
    for (const tile of this.tiles) {
      tile.spark.draw(picture.series[tile.series], tile.bounds);
      this.fill(tile);
    }
  }

  fill({ section, series, say, now, detail, at }) {
    const { picture } = this;
    const points = picture.series[series];
    const past = at >= 0 && at < points.length;
    const [figure, unit] = say(past ? points[at] : now(picture));
    const when = new Date((picture.series.end - (points.length - at) * picture.series.step_s) * 1000);
    settle(section.querySelector("[data-figure]"), [
      document.createTextNode(figure), unit ? make("small", {}, unit) : null,
    ]);
    const said = past ? `at ${when.toLocaleTimeString([], { hour12: false })}` : detail(picture);
    const place = section.querySelector("[data-detail]");
    if (place.textContent !== said) place.textContent = said;
  }
}
