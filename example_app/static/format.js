// Formats numbers, and helpers that write them into the page.

export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value.toFixed(unit === 0 ? 0 : 1)}\u00a0${units[unit]}`;
}

export function percent(value) {
  return `${value.toFixed(1)}\u00a0%`;
}

export function uptime(seconds, language) {
  const units = language === "ko" ? ["일", "시간", "분"] : ["d", "h", "min"];
  const amounts = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  const first = Math.max(amounts.findIndex((amount) => amount > 0), 0);
  const gap = language === "ko" ? "" : "\u00a0";
  return amounts
    .map((amount, i) => `${amount}${gap}${units[i]}`)
    .slice(amounts.some((amount) => amount > 0) ? first : 2, first + 2 || 3)
    .join(" ");
}

export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") node.className = value;
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// Writes changed text only: an unchanged text node keeps its selection and needs no layout.
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
