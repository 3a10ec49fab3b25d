// How toasts look and move: an adopted style sheet (which every policy allows), icons, motion.
import { word } from "./words.js";

const DRAWN = {
  success: "m7.8 12.4 2.8 2.8 5.6-5.9", error: "m9 9 6 6m0-6-6 6", warning: "M12 7v6m0 3.6v.1",
  info: "M12 11.2V17m0-9.6v.1", progress: "M12 2.5a9.5 9.5 0 0 1 9.5 9.5", close: "m7 7 10 10m0-10L7 17",
};

export const sheet = new CSSStyleSheet();
sheet.replaceSync(`
:host { display: contents }
.said { position: fixed; inset: 0 auto auto 0; inline-size: 1px; block-size: 1px; overflow: hidden; clip-path: inset(50%) }
.box:popover-open {
  all: initial; color-scheme: inherit; position: fixed; inset-block: auto 0; inset-inline: auto 0;
  box-sizing: border-box; inline-size: min(424px, 100%); max-block-size: 100dvh; padding: 24px;
  display: flex; flex-direction: column; gap: 10px; overflow: hidden auto; pointer-events: none;
  scrollbar-width: none; overscroll-behavior: contain;
  --text: light-dark(#17202c, #eef2f7); --solid: var(--om-toast-surface, light-dark(#fff, #1c2430));
  --line: light-dark(#0a18301f, #ffffff24); --shade: light-dark(#0a183038, #000a);
  --success: light-dark(#14743f, #5ad394); --error: light-dark(#b9231b, #ff8b82);
  --warning: light-dark(#8a5300, #f3b655); --info: light-dark(#2456c9, #8ab0ff); --progress: var(--info);
  color: var(--text); font: medium/1.45 var(--om-toast-font, system-ui, sans-serif);
}
ol { display: contents; list-style: none; font-size: .9em }
li {
  pointer-events: auto; touch-action: pan-y pinch-zoom; flex: none; display: grid; grid-template-columns: 24px 1fr auto; gap: 10px 12px;
  padding-block: 13px; padding-inline: 14px 10px; border: 1px solid var(--line); border-radius: 14px;
  background: color-mix(in srgb, var(--solid) 82%, transparent);
  backdrop-filter: blur(16px) saturate(1.8);
  box-shadow: 0 1px 3px var(--line), 0 10px 28px -6px var(--shade);
}
li:lang(ko) { word-break: keep-all }
svg { display: block; inline-size: 24px; block-size: 24px; fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round }
circle { fill: currentColor; fill-opacity: .15; stroke: none }
li > svg { color: var(--tone) }
.progress > svg { animation: turn 1s linear infinite }
.text { align-self: center; min-inline-size: 0; max-block-size: 40vh; overflow: auto; overflow-wrap: anywhere; white-space: pre-line }
.text > * { display: block; unicode-bidi: plaintext; text-align: left }
.text:dir(rtl) > * { text-align: right }
strong { font-weight: 650 }
.count { margin-inline: 8px; padding: 1px 8px; border-radius: 9px; font-size: .85em; color: var(--tone); background: color-mix(in srgb, var(--tone) 14%, transparent) }
[hidden] { display: none !important }
.bar, .actions { grid-column: 2 / -1 }
.bar { block-size: 5px; margin-inline-end: 8px; border-radius: 3px; overflow: hidden; background: color-mix(in srgb, var(--tone) 20%, transparent) }
i { display: block; block-size: 100%; border-radius: inherit; background: var(--tone); transition: inline-size .4s }
.actions { display: flex; flex-wrap: wrap; gap: 8px }
button { all: unset; box-sizing: border-box; cursor: pointer; border-radius: 8px }
:focus-visible { outline: 2px solid var(--tone, currentColor); outline-offset: 2px }
.actions button, .more { padding: 4px 12px; font-size: .94em; font-weight: 600; border: 1px solid light-dark(#0a183026, #ffffff2e) }
.actions button:first-child { color: var(--tone); border-color: transparent; background: color-mix(in srgb, var(--tone) 14%, transparent) }
.actions button:hover, .close:hover { background: color-mix(in srgb, currentColor 13%, transparent) }
.close { inline-size: 28px; block-size: 28px; margin-block: -2px; padding: 5px; opacity: .7 }
.close:is(:hover, :focus-visible) { opacity: 1 }
.close svg { inline-size: 18px; block-size: 18px }
.more { pointer-events: auto; align-self: center; flex: none; border-radius: 99px; font-size: .8em; unicode-bidi: plaintext; background: var(--solid) }
@keyframes turn { to { rotate: 1turn } }
@media (max-width: 480px) { .box:popover-open { inline-size: 100%; padding: 12px 12px max(12px, env(safe-area-inset-bottom)) } }
@media (prefers-reduced-motion: reduce) { .progress > svg { animation: none } i { transition: none } }
@media (prefers-reduced-transparency: reduce), (prefers-contrast: more) { li { background: var(--solid); backdrop-filter: none } }
@media (forced-colors: active) { li { background: Canvas } .bar, .count, .actions button:first-child { border: 1px solid } i { background: Highlight; forced-color-adjust: none } }
@media print { .box:popover-open { display: none } }`);

/** An element (SVG's too) with attributes and children; text stays text. */
export function make(name, attributes = {}, ...children) {
  const space = /^(svg|circle|path)$/.test(name) ? "2000/svg" : "1999/xhtml";
  const element = document.createElementNS(`http://www.w3.org/${space}`, name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  element.append(...children);
  return element;
}

/** The icon of a kind of toast, or "close". */
export function icon(kind) {
  const disc = kind === "close" ? [] : [make("circle", { cx: 12, cy: 12, r: 11 })];
  const about = { viewBox: "0 0 24 24", role: "img", "aria-label": word(kind) };
  return make("svg", about, ...disc, make("path", { d: DRAWN[kind] }));
}

/** Animate; for people who asked for reduced motion, the opacity alone. */
export function move(element, from, to, duration = 320) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const frames = [from, to].map((frame) => (still ? { opacity: frame.opacity ?? 1 } : frame));
  return element.animate(frames, { duration, easing: "cubic-bezier(.2, .9, .3, 1)" });
}

/** The page's scheme for light-dark(): its color-scheme, or else what its background looks like. */
export function scheme() {
  if (getComputedStyle(document.documentElement).colorScheme !== "normal") return "";
  for (const element of [document.body, document.documentElement]) {
    const [r, g, b, alpha = 1] = getComputedStyle(element).backgroundColor.match(/[\d.]+/g) ?? [];
    if (b && +alpha) return r * 0.3 + g * 0.6 + b * 0.1 < 128 ? "dark" : "light";
  }
  return "light";
}
