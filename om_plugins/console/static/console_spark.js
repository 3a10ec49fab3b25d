// A sparkline: where a series went, and what it was under the pointer.
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 32;
const shape = (name, kind) => {
  const element = document.createElementNS(SVG, name);
  element.setAttribute("class", kind);
  return element;
};

/** A tile's chart; `tell(index)` is called with the point under the pointer, -1 for none. */
export class Spark {
  constructor(svg, tell) {
    this.svg = svg;
    this.under = shape("path", "under");
    this.line = shape("path", "line");
    this.at = shape("path", "at");
    svg.append(this.under, this.line, this.at);
    this.count = 0;
    svg.addEventListener("pointermove", (event) => {
      const { left, width } = svg.getBoundingClientRect();
      const index = Math.round(((event.clientX - left) / width) * (this.count - 1));
      this.point(Math.min(Math.max(index, 0), this.count - 1), tell);
    });
    svg.addEventListener("pointerleave", () => this.point(-1, tell));
  }

  point(index, tell) {
    const x = index * this.step;
    this.at.setAttribute("d", index < 0 ? "" : `M${x} 0V${HEIGHT}`);
    tell(index);
  }

  /** Draw `values`, null where nothing is known, from `low` (or the least) to `high` at least. */
  draw(values, { low = 0, high = 0 } = {}) {
    this.count = values.length;
    this.step = 100 / Math.max(1, values.length - 1);
    const known = values.filter((value) => value != null);
    const top = Math.max(high, low + 1e-9, ...known);
    const bottom = Math.min(low, ...known);
    const y = (value) => (HEIGHT - 2 - ((value - bottom) / (top - bottom)) * (HEIGHT - 6)).toFixed(2);
    let line = "";
    let area = "";
    let begun = -1;
    values.forEach((value, at) => {
      if (value == null) return;
      const x = (at * this.step).toFixed(2);
      if (begun < 0) {
        line += `M${x} ${y(value)}`;
        area += `M${x} ${HEIGHT}L${x} ${y(value)}`;
        begun = at;
      } else {
        line += `L${x} ${y(value)}`;
        area += `L${x} ${y(value)}`;
      }
      if (values[at + 1] == null) {
        if (begun === at) line += `h0.6`;
        area += `L${x} ${HEIGHT}Z`;
        begun = -1;
      }
    });
    this.line.setAttribute("d", line);
    this.under.setAttribute("d", area);
  }
}
