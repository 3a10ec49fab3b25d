// Toasts: <om-toasts>, one custom element that needs neither a server nor a style sheet.
//
//   import { toast } from "/_om/static/toasts.js";
//   toast.success("Saved");
//   const job = toast.progress("Copying…", { percent: 20 });
//   job.complete("Copied");
import { keyboard } from "./toast_focus.js";
import { icon, make, move, scheme, sheet } from "./toast_look.js";
import { swipe } from "./toast_swipe.js";
import { word } from "./words.js";

const SECONDS = { success: 4, info: 4, warning: 4, error: 7, progress: Infinity };
const AFTER_PROGRESS = { success: 3, error: 5 };
const MUCH_TO_READ = 120;
const VISIBLE = () => (innerWidth > 480 ? 5 : 3);

/** One toast, and the handle on it that callers get. */
class Toast {
  gone = true;

  constructor(home) {
    this.home = home;
    this.title = make("strong");
    this.message = make("span");
    this.count = make("b", { class: "count" });
    this.fill = make("i");
    this.bar = make("div", { class: "bar", role: "progressbar" }, this.fill);
    this.actions = make("div", { class: "actions" });
    const text = make("div", { class: "text" }, this.title, make("div", {}, this.message, this.count));
    const close = make("button", { class: "close" }, icon("close"));
    close.onclick = () => this.dismiss();
    this.item = make("li", { tabindex: -1 }, icon("info"), text, close, this.bar, this.actions);
    swipe(this.item, close.onclick);
  }

  set(options, times) {
    const { kind, title = "", message, percent, actions = [], duration_s } = options;
    const { item, bar, options: before = {} } = this;
    if (kind !== before.kind) item.firstChild.replaceWith(icon(kind));
    item.className = kind;
    item.style.setProperty("--tone", `var(--${kind})`);
    this.title.textContent = title;
    this.title.hidden = !title;
    this.message.textContent = message;
    this.count.textContent = `×${times}`;
    this.count.hidden = times < 2;
    bar.hidden = percent == null;
    const done = Math.round(Math.min(100, Math.max(0, percent || 0)));
    this.fill.style.setProperty("inline-size", `${done}%`);
    bar.setAttribute("aria-valuenow", done);
    bar.setAttribute("aria-label", message);
    if (actions !== before.actions) {
      const buttons = actions.map((action) => make("button", {}, action.label));
      buttons.forEach((button, at) => (button.onclick = () => this.home.act(this, actions[at])));
      this.actions.replaceChildren(...buttons);
      this.actions.hidden = !buttons.length;
    }
    let seconds = (before.kind === "progress" && AFTER_PROGRESS[kind]) || SECONDS[kind];
    // a Hangul or Han character says as much as two Latin ones
    const { length } = `${title}${message}`.replace(/[\u1100-\uffff]/g, "..");
    if (length > MUCH_TO_READ) seconds = Math.max(6, seconds);
    if (actions.length) seconds = Infinity;
    this.left = 1000 * (duration_s ?? seconds) || Infinity;
    if (message !== before.message || title !== (before.title ?? "") || times > 1) this.home.say(options);
    this.options = options;
    this.times = times;
  }

  /** Change some of `message, title, percent, actions, kind, duration_s`. */
  update(changes) {
    this.home.show({ ...this.options, ...changes }, this);
  }
  /** A progress went well. */
  complete(message = this.options.message, changes) {
    const percent = this.options.percent == null ? null : 100;
    this.update({ percent, actions: [], ...changes, kind: "success", message });
  }
  /** A progress did not. */
  fail(message, changes) {
    this.update({ percent: null, actions: [], ...changes, kind: "error", message });
  }
  dismiss() {
    this.home.dismiss(this);
  }
}

export class OmToasts extends HTMLElement {
  toasts = []; // those that wait for a place too
  box = make("div", { class: "box", popover: "manual", role: "region" });
  #list = make("ol", { role: "list" });
  #more = make("button", { class: "more" });
  #polite = make("div", { class: "said", role: "status" });
  #assertive = make("div", { class: "said", role: "alert" });
  #modals = new Set(document.querySelectorAll("dialog:modal")); // the newest last
  #closed = new Set(); // keys of progress that its reader closed
  #visible = VISIBLE();
  #hover = false;
  #timer;
  #then;
  #back;

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [sheet];
    root.append(this.#polite, this.#assertive, this.box);
    this.box.append(this.#more, this.#list);
    this.box.onpointerenter = () => (this.#hover = true);
    this.box.onpointerleave = () => (this.#hover = false);
    this.#more.onclick = () => this.#change(() => (this.#visible = Infinity));
    this.#back = keyboard(this);
    new MutationObserver((records) => {
      for (const { target } of records) {
        this.#modals.delete(target);
        if (target.matches("dialog:modal")) this.#modals.add(target);
      }
      this.#place();
    }).observe(document, { subtree: true, attributeFilter: ["open"] });
  }

  disconnectedCallback() {
    // its dialog was removed, or the page's body replaced
    queueMicrotask(() => this.isConnected || this.#place());
  }

  /** Show `{kind, message, title, percent, actions, duration_s, key}`; gives the handle. */
  show(options, mine) {
    const kind = options.kind in SECONDS ? options.kind : "info";
    const { key } = options;
    const named = { ...options, kind, message: String(options.message ?? "") };
    const is = ({ options: one }) => (key ? one.key === key : alike(one, named));
    const twin = mine ?? this.toasts.find(is);
    const toast = twin ?? new Toast(this);
    if (kind !== "progress") this.#closed.delete(key);
    else if (toast.gone && (mine || this.#closed.has(key))) return toast;
    this.#change(() => {
      toast.set(named, mine || key || !twin ? 1 : twin.times + 1);
      if (toast.gone) this.toasts.push(toast);
      toast.gone = false;
    });
    return toast;
  }

  dismiss(toast) {
    const { item, options, gone } = toast;
    if (gone) return;
    toast.gone = true;
    this.toasts.splice(this.toasts.indexOf(toast), 1);
    if (options.key && options.kind === "progress") this.#closed.add(options.key);
    if (item.matches(":focus-within")) this.#back();
    item.inert = true;
    const side = parseInt(item.style.translate) || (item.matches(":dir(rtl)") ? -1 : 1);
    const away = { opacity: 0, translate: `${Math.sign(side) * 40}%` };
    const end = () => this.#change(() => toast.gone && item.remove());
    move(item, {}, away, 200).finished.then(end, end);
  }

  /** What an action's button does, unless a listener for `om-action` prevents it. */
  act(toast, action) {
    const detail = { ...action, toast };
    if (!this.dispatchEvent(new CustomEvent("om-action", { detail, bubbles: true, cancelable: true }))) return;
    if (action.run) return action.run(toast);
    if (action.action === "report") {
      const failed = () => toast.fail(word("unsent"), { actions: [action] });
      return import("./problems.js").then(({ report }) => report(detail), failed);
    }
    toast.dismiss();
    if (action.action === "refresh") location.reload();
    const to = action.action === "link" && new URL(action.value, document.baseURI);
    if (to && to.origin === location.origin) location.assign(to);
  }

  /** Tell screen readers: errors at once, the rest when they pause. */
  say({ kind, title = "", message }) {
    const line = make("p", {}, `${word(kind)}: ${title} ${message}`);
    const region = kind === "error" ? this.#assertive : this.#polite;
    setTimeout(() => region.append(line), 150); // a region that was just moved is not heard yet
    setTimeout(() => line.remove(), 7000);
  }

  /** Change the stack: fill its places, and let what stays glide to its new one. */
  #change(change) {
    const top = (item) => item.getBoundingClientRect().top;
    const before = new Map(this.toasts.map(({ item }) => [item, item.parentNode && top(item)]));
    change();
    const shown = this.toasts.slice(0, this.#visible).map(({ item }) => item);
    const fresh = shown.filter((item) => !item.parentNode || item.inert);
    for (const item of fresh) {
      item.inert = false;
      item.style.translate = item.style.opacity = ""; // it may have been swiped away
    }
    this.#list.append(...fresh);
    const rest = this.toasts.length - shown.length;
    this.#more.hidden = !rest;
    this.#more.textContent = word("more", rest);
    this.#place(fresh.length);
    for (const item of shown) {
      if (fresh.includes(item)) move(item, { opacity: 0, translate: "0 32px", scale: 0.96 }, {});
      else if (before.get(item) !== top(item)) move(item, { translate: `0 ${before.get(item) - top(item)}px` }, {});
    }
    if (fresh.length) this.box.scrollTop = this.box.scrollHeight;
  }

  /** In the top layer, and in the modal dialog that makes the rest of the page inert. */
  #place(again) {
    const { box } = this;
    const modal = [...this.#modals].findLast((one) => one.isConnected && one.matches(":modal"));
    const place = modal ?? document.body;
    const focused = this.shadowRoot.activeElement;
    if (this.parentNode !== place) place.append(this);
    if (!this.#list.firstChild) {
      this.#timer = clearInterval(this.#timer);
      this.#visible = VISIBLE();
      this.#hover = false;
      box.hidePopover();
      return;
    }
    if (!this.#timer) {
      this.#then = performance.now();
      this.#timer = setInterval(() => this.#tick(), 200);
    }
    box.setAttribute("aria-label", word("region"));
    box.style.colorScheme = scheme();
    if (again && !focused) box.hidePopover(); // to be above what opened since
    if (!box.matches(":popover-open")) box.showPopover();
    focused?.focus();
  }

  /** Time passes for what can be read now: not while hovered, focused or hidden. */
  #tick() {
    const now = performance.now();
    const passed = Math.min(now - this.#then, 1000);
    this.#then = now;
    if (this.#hover || document.hidden || this.shadowRoot.activeElement) return;
    for (const toast of this.toasts.slice(0, this.#visible)) {
      toast.left -= passed;
      if (toast.left <= 0) toast.dismiss();
    }
  }
}

function alike(one, other) {
  const text = ({ key, kind, title, message, actions }) => JSON.stringify([key, kind, title, message, actions]);
  return one.kind !== "progress" && text(one) === text(other);
}

if (!customElements.get("om-toasts")) customElements.define("om-toasts", OmToasts);

function element() {
  const here = document.querySelector("om-toasts");
  return here ?? document.body.appendChild(document.createElement("om-toasts"));
}

export const toast = { show: (options) => element().show(options) };
for (const kind in SECONDS) toast[kind] = (message, options) => element().show({ ...options, kind, message });

// before the first toast, so that its live regions are known by then
if (document.body) element();
else addEventListener("DOMContentLoaded", element);
