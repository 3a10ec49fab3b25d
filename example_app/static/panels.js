// The panels: draw the latest readings of the server and show their age.
import { element, percent, size, uptime, write } from "./format.js";

const POINTS = 90;
const FEWEST = 15; // a line with fewer points is drawn wider
const STORED = "panel-history";

export class Panels {
  constructor(root, texts, language) {
    this.root = root;
    this.texts = texts;
    this.language = language;
    this.sort = "by_memory";
    this.cards = Object.fromEntries(
      [...root.querySelectorAll("[data-panel]")].map((card) => [card.dataset.panel, card]),
    );
    this.shown = {};
    this.history = this.#restore();
    for (const button of root.querySelectorAll("[data-sort]")) {
      button.addEventListener("click", () => {
        this.sort = button.dataset.sort;
        for (const other of root.querySelectorAll("[data-sort]")) {
          other.setAttribute("aria-pressed", String(other === button));
        }
        if (this.shown.processes) this.#processes(this.cards.processes, this.shown.processes);
      });
    }
  }

  // A panel without data keeps its old data: the worker that answered may have no reading yet.
  show(panels) {
    for (const [name, panel] of Object.entries(panels)) {
      const card = this.cards[name];
      if (!card) continue;
      if (panel.data) {
        card.dataset.at = String(panel.at);
        this.shown[name] = panel.data;
        if (name === "disks") this.#disks(card, panel.data);
        if (name === "processes") this.#processes(card, panel.data);
        if (name === "cpu") this.#cpu(card, panel.data);
        if (name === "memory") this.#memory(card, panel.data);
        if (name === "network") this.#network(card, panel.data);
      }
      card.classList.toggle("stale", panel.failing);
      card.dataset.failing = String(panel.failing);
    }
    this.#store();
    this.tick();
  }

  tick() {
    const now = Date.now() / 1000;
    for (const card of Object.values(this.cards)) {
      const age = card.querySelector("[data-age]");
      const at = Number(card.dataset.at);
      if (card.dataset.failing === "true") {
        const time = new Date(at * 1000).toLocaleTimeString(this.language);
        write(age, at ? this.texts.stale.replace("{time}", time) : this.texts.no_data);
      } else if (at) {
        const s = Math.max(Math.round(now - at), 0);
        write(age, s < 2 ? this.texts.now : this.texts.ago.replace("{s}", s));
      }
    }
  }

  #cpu(card, data) {
    const w = this.texts;
    write(card.querySelector("[data-figure]"), percent(data.percent));
    const load = data.load ? ` · ${w.load} ${data.load.map((x) => x.toFixed(2)).join(" ")}` : "";
    write(card.querySelector("[data-detail]"), `${data.cores} ${data.cores === 1 ? w.core : w.cores}${load}`);
    this.#spark(card, "cpu", data.percent, 100);
  }

  #memory(card, data) {
    const w = this.texts;
    write(card.querySelector("[data-figure]"), percent(data.percent));
    const swap = data.swap_total ? `${w.swap} ${size(data.swap_used)} / ${size(data.swap_total)}` : w.no_swap;
    write(card.querySelector("[data-detail]"), `${size(data.available)} ${w.available} / ${size(data.total)} · ${swap}`);
    this.#spark(card, "memory", data.percent, 100);
  }

  #network(card, data) {
    const w = this.texts;
    write(card.querySelector("[data-figure]"), `↓ ${size(data.received_rate)}/s\n↑ ${size(data.sent_rate)}/s`);
    write(card.querySelector("[data-detail]"), `${w.since_boot} ↓ ${size(data.received)} ↑ ${size(data.sent)}`);
    this.#spark(card, "network", data.received_rate + data.sent_rate, 1024);
  }

  #disks(card, data) {
    const list = card.querySelector("[data-rows]");
    const w = this.texts;
    while (list.children.length > data.disks.length) list.lastElementChild.remove();
    data.disks.forEach((disk, i) => {
      let row = list.children[i];
      if (!row) {
        row = element(
          "li", {},
          element("span", { class: "mount" }),
          element("span", { class: "bar", "aria-hidden": "true" }, element("i")),
          element("span", { class: "used" }),
          element("span", { class: "left" }),
        );
        list.append(row);
      }
      write(row.querySelector(".mount"), disk.mount);
      row.querySelector(".mount").title = disk.mount;
      row.querySelector(".bar i").style.inlineSize = `${Math.min(disk.percent, 100)}%`;
      row.dataset.level = level(disk.percent);
      write(row.querySelector(".used"), percent(disk.percent));
      write(row.querySelector(".left"), `${size(disk.free)} ${w.left} / ${size(disk.total)}`);
    });
  }

  #processes(card, data) {
    write(card.querySelector("[data-figure]"), `${data.count} ${this.texts.running}`);
    const body = card.querySelector("[data-rows]");
    const rows = data[this.sort];
    while (body.children.length > rows.length) body.lastElementChild.remove();
    rows.forEach((process, i) => {
      let row = body.children[i];
      if (!row) {
        row = element("tr", {}, element("th", { scope: "row" }), ...[1, 2, 3].map(() => element("td", { class: "number" })));
        body.append(row);
      }
      const [name, pid, memory, cpu] = row.children;
      write(name, process.name);
      name.title = process.name;
      write(pid, String(process.pid));
      write(memory, size(process.memory));
      write(cpu, percent(process.cpu));
    });
    const host = document.querySelector("[data-host]");
    if (host) {
      write(host, data.hostname);
      write(document.querySelector("[data-system]"), `${data.system} · `);
      const up = uptime(Date.now() / 1000 - data.boot_time, this.language);
      write(document.querySelector("[data-uptime]"), `${this.texts.up} ${up}`);
    }
  }

  // `least` is the smallest value at full height, so that a line of small values stays low.
  #spark(card, name, value, least) {
    const values = (this.history[name] ??= []);
    values.push(value);
    values.splice(0, values.length - POINTS);
    const top = Math.max(least, ...values);
    const step = 120 / (Math.max(values.length, FEWEST) - 1);
    const points = values.map((v, i) => [120 - (values.length - 1 - i) * step, 35 - (v / top) * 33]);
    const line = points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
    card.querySelector(".line").setAttribute("d", line);
    card.querySelector(".area").setAttribute("d", `${line}L120 36L${points[0][0].toFixed(1)} 36Z`);
    card.dataset.level = least === 100 ? level(value) : "fine";
  }

  #restore() {
    try {
      const stored = JSON.parse(sessionStorage.getItem(STORED) ?? "{}");
      return Date.now() - stored.at < 60_000 ? stored.history : {};
    } catch {
      return {};
    }
  }

  #store() {
    try {
      sessionStorage.setItem(STORED, JSON.stringify({ at: Date.now(), history: this.history }));
    } catch {
      // storage may be off; the lines then start again when the page loads
    }
  }
}

function level(value) {
  return value >= 90 ? "bad" : value >= 75 ? "warn" : "fine";
}
