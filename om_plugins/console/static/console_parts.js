// Small things that the console's cards are made of. Only text is ever set, never markup.

/** An element: `make("td", { class: "num" }, "5", other)`. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value != null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Put `children` in, but leave what looks the same as it is: focus and scrolling stay. */
export function settle(parent, children) {
  const wanted = children.filter((child) => child != null);
  wanted.forEach((child, at) => {
    const present = parent.childNodes[at];
    if (!present) parent.append(child);
    else if (!present.isEqualNode(child)) {
      if (mergeable(present, child)) {
        for (const name of present.getAttributeNames()) {
          const opened = name === "open" && present.nodeName === "DETAILS"; // by whoever reads it
          if (!child.hasAttribute(name) && !opened) present.removeAttribute(name);
        }
        for (const name of child.getAttributeNames()) {
          // a policy forbids the attribute, not the object model
          if (name === "style") present.style.cssText = child.style.cssText;
          else present.setAttribute(name, child.getAttribute(name));
        }
        settle(present, [...child.childNodes]);
      } else present.replaceWith(child);
    }
  });
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
}

function mergeable(present, child) {
  return present.nodeType === 1 && present.nodeName === child.nodeName && present.nodeName !== "svg";
}

export const badge = (text, level) => make("span", { class: "badge", "data-level": level }, text);
export const empty = (...said) => make("p", { class: "empty" }, ...said);

/** A table that scrolls by itself. `heads` are [text, class]; a row is a list of cells. */
export function table(label, heads, rows) {
  const cell = (content, at) => {
    const [text, extra = ""] = Array.isArray(content) ? content : [content];
    return make("td", { class: `${heads[at][1] ?? ""} ${extra}`.trim() || null }, text ?? "–");
  };
  return make(
    "div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    make(
      "table", {},
      heads.some(([text]) => text)
        ? make("thead", {}, make("tr", {}, ...heads.map(([text, kind]) => make("th", { class: kind, scope: "col" }, text))))
        : null,
      make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map(cell)))),
    ),
  );
}

/** A list; an item is { badge, text, when, more }. */
export function list(items) {
  return make("ul", { class: "list" }, ...items.map(({ mark, text, when, more }) => make(
    "li", {}, mark, make("span", {}, text), make("span", { class: "when" }, when ?? ""),
    more ? make("span", { class: "more" }, more) : null,
  )));
}

export function number(value, digits = 0, most = digits) {
  if (value == null) return "–";
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: most });
}

export const count = (amount, one, many = `${one}s`) => `${number(amount)} ${amount === 1 ? one : many}`;

/** [figure, unit] */
export function duration(ms) {
  if (ms == null) return ["–", ""];
  if (ms >= 10_000) return [number(ms / 1000, 1), "s"];
  if (ms >= 1000) return [number(ms / 1000, 2), "s"];
  return [number(ms, ms < 10 ? 1 : 0), "ms"];
}

/** [figure, unit] */
export function bytes(size) {
  if (size == null) return ["–", ""];
  const units = ["B", "KB", "MB", "GB", "TB"];
  let at = 0;
  while (size >= 1000 && at < units.length - 1) (size /= 1024), at++;
  return [number(size, at && size < 10 ? 1 : 0), units[at]];
}

export function percent(share, digits = 1) {
  if (share == null) return ["–", ""];
  const value = 100 * share;
  return [value === 100 ? "100" : number(Math.min(value, 99.999), value > 99.9 ? 2 : digits), "%"];
}

export const joined = ([figure, unit]) => (unit ? `${figure}\u00a0${unit}` : figure);

/** How long ago, in plain words. */
export function ago(at, now) {
  if (!at) return "";
  const s = Math.max(0, Math.round(now - at));
  if (s < 3) return "now";
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ago`;
  return count(Math.floor(s / 86_400), "day") + " ago";
}
