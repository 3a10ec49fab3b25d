// The console's cards: each makes { about, content } of a picture.
import { ago, badge, bytes, count, duration, empty, joined, list, make, number, percent, table } from "./console_parts.js";

const HEALTH = { healthy: "good", degraded: "warn", offline: "bad" };
const KINDS = { success: "good", info: "info", progress: "info", warning: "warn", error: "bad" };
const PLUGINS = { active: "good", disabled: null, failed: "bad", quarantined: "bad" };
const LEVELS = { ok: "good", warn: "warn", fail: "bad" };
const FOUND = { ok: "fine", warn: "look", fail: "broken" };
const GROUP_HEADS = [["Keys", "name"], ["Hits", "num"], ["Fresh", "num wide"], ["Stale", "num wide"], ["Missed", "num"], ["Failed", "num wide"], ["Entries", "num"], ["Size", "num"], ["Saved", "num wide"], ["Time saved", "num wide"]];
const code = (text) => make("code", {}, text);
const recover = (subject) => make(
  "button", { type: "button", class: "small", "data-recover": subject, "aria-label": `Recover ${place(subject)} now` }, "Recover now",
);

/** A button that stops the notifications of a rule for an hour, or starts them again. */
function silence(rule, until, at) {
  const button = (seconds, words) => make(
    "button", { type: "button", class: "small", "data-silence": rule, "data-seconds": seconds, "aria-label": `${words}: ${rule}` }, words,
  );
  if (!until) return button(3600, "Silence for 1 h");
  return make("span", {}, `no notifications for ${Math.max(1, Math.round((until - at) / 60))} min `, button(0, "Notify again"));
}

/** `chain:assistant` and `route:/ask` as people say it. */
function place(subject) {
  const [kind, ...rest] = subject.split(":");
  return kind === "chain" ? `chain ${rest.join(":")}` : rest.join(":");
}

/** What decides beside its health whether an engine is asked. */
function asked({ forced, ejected }) {
  return [
    forced === "open" ? badge("forced open", "bad") : forced ? badge("held closed", "warn") : null,
    ejected ? badge("asked last", "warn") : null,
  ];
}

/** The table of a feature that the page has no renderer for; everything in it is set as text. */
export function plain({ title, columns, rows, empty: words }) {
  if (!rows.length) return [empty(words)];
  const width = Math.max(columns.length, ...rows.map((row) => row.length));
  const heads = Array.from({ length: width }, (_, at) => [
    columns[at] ?? "", rows.every((row) => typeof row[at] === "number") ? "num" : at ? null : "name",
  ]);
  const cell = (value = "") => (typeof value === "number" ? number(value, 0, 3) : String(value));
  return [make("div", { class: "long" }, table(title, heads, rows.map((row) => heads.map((_, at) => cell(row[at])))))];
}

export const cards = {
  engines({ engines, at }) {
    if (!engines.length) {
      return { about: "", content: [empty("No engine yet: add one with ", code('om.engine("local", chain="assistant")'), ".")] };
    }
    const chains = grouped(engines);
    const heads = [["Engine", "name"], ["Tier", "num"], ["Health"], ["Failed", "num"], ["Slow", "num wide"], ["Calls", "num wide"], ["Since", "tight wide"], ["Probed", "tight wide"], ["Newest failure", "wide"]];
    const content = [...chains].flatMap(([chain, members]) => [
      make("header", { class: "chain" }, make("h3", {}, `Chain ${chain}`), recover(`chain:${chain}`)),
      table(`Engines of ${chain}`, heads, members.map((one) => [
        one.engine, number(one.tier), make("span", { class: "badges" }, badge(one.state, HEALTH[one.state]), ...asked(one)),
        one.samples ? joined(percent(one.failure_rate, 0)) : "–",
        one.samples ? joined(percent(one.slow_rate, 0)) : "–",
        number(one.samples), [ago(one.since, at), "muted"], [ago(one.probed_at, at) || "–", "muted"], [one.last_error || "–", "muted"],
      ])),
    ]);
    return { about: `${count(engines.length, "engine")} in ${count(chains.size, "chain")}`, content };
  },

  routes({ routes }) {
    if (!routes.length) return { content: [empty("No request yet. What people ask for shows up here.")] };
    const heads = [["Method"], ["Route", "name"], ["Status"], ["Recent", "num"], ["All", "num wide"], ["p50", "num wide"], ["p95", "num"], ["p99", "num wide"], ["Sent", "num wide"]];
    const level = { "4xx": "warn", "5xx": "bad" };
    const rows = routes.map((row) => [
      code(row.method), code(row.route), badge(row.status, level[row.status]), number(row.recent), number(row.requests),
      joined(duration(row.p50_ms)), joined(duration(row.p95_ms)), joined(duration(row.p99_ms)), joined(bytes(row.size_bytes)),
    ]);
    return { content: [make("div", { class: "long" }, table("Routes", heads, rows))] };
  },

  errors({ patterns = [], wrong_methods = [], at }) {
    // a client's mistake: there is nothing here that could recover
    const mistakes = wrong_methods.length
      ? [
          make("h3", {}, "Wrong methods"),
          table("Wrong methods", [["What", "name"], ["Times", "num"], ["Last", "tight wide"]], wrong_methods.map((one) => [
            make("span", {}, one.example, make("br"), code(place(one.subject))), number(one.count), [ago(one.last_at, at), "muted"],
          ])),
        ]
      : [];
    if (!patterns.length) return { content: [empty("No error in the last five minutes."), ...mistakes] };
    const heads = [["What", "name"], ["Times", "num"], ["Last", "tight wide"], ["", "action"]];
    const rows = patterns.map((one) => [
      make("span", {}, one.example, make("br"), code(place(one.subject))),
      one.count >= 3 ? badge(number(one.count), one.count >= 5 ? "bad" : "warn") : number(one.count),
      [ago(one.last_at, at), "muted"], recover(one.subject),
    ]);
    return { content: [table("Errors by kind", heads, rows), ...mistakes] };
  },

  recoveries({ recoveries = [], at }) {
    if (!recoveries.length) return { content: [empty("None yet. After five errors of one kind a recovery begins by itself.")] };
    return {
      content: [list(recoveries.map((one) => ({
        mark: badge(one.succeeded ? "recovered" : "failed", one.succeeded ? "good" : "bad"),
        text: `${place(one.subject)}, in ${joined(duration(1000 * one.duration_s))}`,
        when: ago(one.started_at, at),
        more: make("span", {},
          one.fingerprint ? "after errors of the kind " : "begun by hand", one.fingerprint ? code(one.fingerprint) : null,
          one.steps.length ? make("ol", { class: "steps" }, ...one.steps.map((step) => make("li", {}, step))) : ", no step was done"),
      })))],
    };
  },

  workers({ workers, at, hub }) {
    const heads = [["Process", "name"], ["Requests", "num"], ["In flight", "num"], ["Memory", "num"], ["Last report", "tight wide"]];
    const rows = [...workers].sort((a, b) => a.pid - b.pid).map((one) => [
      number(one.pid).replaceAll(",", ""), number(one.requests), number(one.in_flight),
      one.rss_bytes ? joined(bytes(one.rss_bytes)) : "–", [ago(one.at, at), "muted"],
    ]);
    return {
      about: hub === "alone" ? "the hub is out of reach: only this worker is seen" : count(workers.length, "process", "processes"),
      content: [table("Workers", heads, rows)],
    };
  },

  alerts({ alerts, at, silences = {} }) {
    const past = alerts.history.filter(({ state }) => state === "resolved").reverse().slice(0, 20);
    const content = [];
    if (alerts.active.length) {
      content.push(list(alerts.active.map((one) => ({
        mark: badge(one.state, one.state === "pending" ? "info" : one.kind === "error" ? "bad" : "warn"),
        text: one.message,
        when: ago(one.fired_at || one.since, at),
        more: make("span", {}, one.subject ? `${one.subject} · ` : null, silence(one.name, silences[one.name], at)),
      }))));
    } else content.push(empty("No alert is firing."));
    if (past.length) {
      content.push(make("h3", {}, "Over"), make("div", { class: "long" }, list(past.map((one) => ({
        mark: badge("over", null), text: one.message, when: ago(one.resolved_at, at),
        more: `lasted ${joined(duration(1000 * Math.max(0, one.resolved_at - one.fired_at)))}`,
      })))));
    }
    return { about: alerts.active.length ? `${alerts.active.length} now` : "", content };
  },

  notices({ notifications = [], deliveries = [], at }) {
    const undelivered = deliveries.map((one) => {
      const dropped = Object.entries(one.dropped).map(([reason, times]) => `${number(times)} ${reason}`);
      const soon = one.retry_at ? Math.max(0, Math.round(one.retry_at - at)) : 0;
      return {
        mark: badge(one.error ? "waits" : "dropped", one.error ? "bad" : "warn"),
        text: one.error ? `${one.notifier}: ${one.error}` : one.notifier,
        when: one.since ? ago(one.since, at) : "",
        more: [
          one.waiting && `${number(one.waiting)} wait`, one.error && `next attempt in ${number(soon)} s`,
          dropped.length && `dropped: ${dropped.join(", ")}`,
        ].filter(Boolean).join(" · "),
      };
    });
    const failing = undelivered.length ? [make("h3", {}, "Not delivered"), list(undelivered)] : [];
    if (!notifications.length) return { content: [...failing, empty("No notification yet.")] };
    return {
      about: "the newest, each once",
      content: [...failing, make("div", { class: "long" }, list(notifications.map((one) => ({
        mark: badge(one.kind, KINDS[one.kind]),
        text: one.title ? `${one.title}: ${one.message}` : one.message,
        when: ago(one.at, at),
        more: `to ${one.to}${one.progress == null ? "" : `, ${number(one.progress)} % done`}`,
      }))))],
    };
  },

  cache({ cache, cache_groups = [], cache_store: store }) {
    const total = cache.hits + cache.misses;
    if (!total) return { content: [empty("Nothing was looked up yet: put ", code("@om.cached()"), " on a view.")] };
    const part = (kind, amount) => bar(kind, amount / total);
    const pairs = {
      "Hit rate": joined(percent(cache.hit_rate)), Fresh: number(cache.fresh), Stale: number(cache.stale),
      Coalesced: number(cache.coalesced), Missed: number(cache.misses), Refreshed: number(cache.refreshes),
      Failed: number(cache.failures), Negative: number(cache.negative), Dropped: number(cache.dropped),
      Evicted: number(cache.evictions), Entries: number(cache.entries), Size: joined(bytes(cache.size_bytes)),
      "Bytes saved": joined(bytes(cache.bytes_saved)), "Time saved": joined(duration(cache.saved_us / 1000)),
      ...(cache.subscriptions && { Subscriptions: number(cache.subscriptions) }),
      ...(store && {
        "Store read": joined(bytes(store.read_bytes)), "Store hits": `${number(store.hits)} of ${number(store.hits + store.misses)}`,
        "Store written": joined(bytes(store.written_bytes)), "Store deletes": number(store.deletes), "Store failed": number(store.failures),
      }),
    };
    return {
      content: [
        make("div", { class: "share", role: "img", "aria-label": `${pairs["Hit rate"]} of look-ups were hits` },
          part("fresh", cache.fresh + cache.coalesced + cache.negative), part("stale", cache.stale), part("missed", cache.misses)),
        make("dl", { class: "pairs" }, ...Object.entries(pairs).map(([name, value]) => (
          make("div", {}, make("dt", {}, name), make("dd", {}, value))))),
        ...(cache_groups.length ? [make("div", { class: "long" }, table("Groups of keys", GROUP_HEADS, cache_groups.map((one) => [
          code(one.name), one.hit_rate === null ? "–" : joined(percent(one.hit_rate)), number(one.fresh), number(one.stale),
          number(one.misses), number(one.failures), number(one.entries), joined(bytes(one.size_bytes)),
          joined(bytes(one.bytes_saved)), joined(duration(one.saved_us / 1000)),
        ])))] : []),
      ],
    };
  },

  pages({ pages }) {
    const good = pages.hits + pages.stale + pages.coalesced;
    const total = good + pages.misses;
    if (!total) return { content: [empty("No page was shared yet: put ", code("@om.cached(shared=True)"), " on a view, or set ", code("OM_HTTP_CACHE"), ".")] };
    const part = (kind, amount) => bar(kind, amount / total);
    const pairs = {
      "Hit rate": joined(percent(pages.hit_rate)), Hits: number(pages.hits), Stale: number(pages.stale),
      Coalesced: number(pages.coalesced), Missed: number(pages.misses), Validated: number(pages.validated),
      Refreshed: number(pages.refreshes), Failed: number(pages.failures), Dropped: number(pages.dropped),
      Stored: number(pages.stored), Evicted: number(pages.evictions), Entries: number(pages.entries),
      Size: joined(bytes(pages.size_bytes)), Saved: joined(bytes(pages.bytes_saved)),
      "Time saved": joined(duration(1000 * pages.fetch_s_saved)),
    };
    return {
      content: [
        make("div", { class: "share", role: "img", "aria-label": `${pairs["Hit rate"]} of requests were hits` },
          part("fresh", pages.hits + pages.coalesced), part("stale", pages.stale), part("missed", pages.misses)),
        make("dl", { class: "pairs" }, ...Object.entries(pairs).map(([name, value]) => (
          make("div", {}, make("dt", {}, name), make("dd", {}, value))))),
      ],
    };
  },

  problems({ problems = [], at }) {
    if (!problems.length) return { content: [empty("Nobody reported a problem.")] };
    return {
      about: "the newest",
      content: [make("div", { class: "long" }, list(problems.map((one) => ({
        mark: badge(`#${one.id}`, "info"), text: one.message, when: ago(one.at, at),
        more: [one.route, one.fingerprint, ...Object.entries(one.details).map(([name, value]) => `${name}: ${value}`)]
          .filter(Boolean).join(" · "),
      }))))],
    };
  },

  violations({ violations: { mode, suggestions, settings } = { suggestions: [] }, at }) {
    if (!suggestions.length) return { content: [empty("No browser reported anything. Mode ", code("learn"), " asks all of them.")] };
    const content = [make("div", { class: "long", tabindex: 0, role: "region", "aria-label": "Policy violations" }, list(suggestions.map(({ group, fix, change, risk, cost }) => {
      const changes = Object.entries(change).map(([directive, sources]) => `${directive} ${sources.join(" ")}`);
      return {
        mark: badge(`${number(group.count)} ×`, group.enforced ? "bad" : "warn"),
        text: make("span", {}, code(group.directive), ` blocked ${group.blocked || "something"} on `, code(group.route || "a page")),
        when: ago(group.last_at, at),
        more: make("span", {},
          [group.source ? `${group.source}:${group.line}` : group.line && `line ${group.line}`, group.sample].filter(Boolean).join(" · "), make("br"), fix,
          ...changes.flatMap((one) => [make("br"), "Or allow ", code(one), ` – risk: ${risk}. ${cost}`])),
      };
    })))];
    if (Object.keys(settings).length) {
      content.push(make("details", {}, make("summary", {}, "As settings, with changes of medium risk at most"), make("pre", { tabindex: 0 }, `OM_CSP = ${JSON.stringify(settings, null, 4)}`)));
    }
    return { about: `mode ${mode}; allow only what you know`, content };
  },

  findings({ findings }) {
    const open = findings.filter(({ level }) => level !== "ok");
    const items = (all) => list(all.map(({ level, subject, message, way_out }) => ({
      mark: badge(FOUND[level], LEVELS[level]), text: make("span", {}, code(subject), ` ${message}`), more: way_out,
    })));
    return {
      about: open.length ? count(open.length, "thing to look at", "things to look at") : "nothing to repair",
      content: [make("div", { class: "long", tabindex: 0, role: "region", "aria-label": "Set-up" }, items(findings))],
    };
  },

  plugins({ plugins }) {
    const broken = plugins.filter(({ state }) => PLUGINS[state] === "bad").length;
    return {
      about: `${count(plugins.filter(({ state }) => state === "active").length, "active", "active")}${broken ? `, ${broken} not used` : ""}`,
      content: [make("div", { class: "long", tabindex: 0, role: "region", "aria-label": "Plugins" }, list(plugins.map((one) => ({
        mark: badge(one.state, PLUGINS[one.state]), text: one.name, when: one.version, more: one.about,
      }))))],
    };
  },
};

/** One part of a bar; its width is set through the object model, which every policy allows. */
function bar(kind, share) {
  const part = make("i", { class: kind });
  part.style.setProperty("inline-size", `${(100 * share).toFixed(2)}%`);
  return part;
}

function grouped(engines) {
  const chains = new Map();
  for (const one of engines) chains.set(one.chain, [...(chains.get(one.chain) ?? []), one]);
  return chains;
}
