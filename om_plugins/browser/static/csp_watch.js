// In debug mode: a toast shows what the policy blocks, or would block, and how to correct it.
import { toast } from "./toasts.js";

const HANDLER = "Take the event handler (onclick=…) out and call addEventListener in a script.";
const SCRIPT = "Write the <script> in a template, where it gets its nonce, or give it nonce=\"{{ csp_nonce() }}\".";
const FIXES = [
  [/^script-src-attr/, /./, HANDLER],
  [/^script-src/, /^javascript:/i, "Use a <button> and addEventListener in place of the javascript: address."],
  [/^script-src/, /^inline$/, SCRIPT],
  [/^script-src/, /eval$/, "Do without eval and new Function; many libraries have a build for that."],
  [/^script-src/, /./, "Give the <script> tag its nonce, or load the file from a script that has one."],
  [/^style-src-attr/, /./, "Give the element a class, or set element.style in a script."],
  [/^style-src/, /^inline$/, "Write the <style> in a template, where it gets its nonce."],
  [/^(require-)?trusted-types/, /./, "Set text with textContent, or build elements with createElement."],
  [/^base-uri/, /./, "Take <base> out and write addresses in full."],
  [/^object-src/, /./, "Use <img>, <iframe>, <video> or <audio> in place of <object> and <embed>."],
  [/./, /./, "If the page needs it, allow it in OM_CSP; 'flask om csp suggest' says how."],
];
const MAX_SHOWN = 10; // a page may break the same rule a thousand times
const shown = new Set();

/** Show the directive, what was blocked, and where. */
function tell({ effectiveDirective: directive, blockedURL, blockedURI = blockedURL, sourceFile, lineNumber, sample, disposition }) {
  const blocked = String(blockedURI || "something");
  if (/^(chrome|moz|safari-web|ms-browser)-extension/.test(blocked + String(sourceFile ?? ""))) return;
  const key = `csp ${directive} ${blocked} ${sourceFile} ${lineNumber}`;
  if (shown.has(key) || shown.size >= MAX_SHOWN) return;
  shown.add(key);
  const text = /^javascript:/i.test(sample) ? sample : blocked; // browsers report such an address as "inline"
  const fix = FIXES.find(([rule, what]) => rule.test(directive) && what.test(text))[2];
  const place = sourceFile ? ` (${String(sourceFile).split(/[?#]/)[0].replace(location.origin, "")}:${lineNumber})` : "";
  toast.warning(`${blocked}${place}${sample ? `: ${sample}` : ""}. ${fix}`, {
    title: `${directive} ${disposition === "enforce" ? "blocked" : "would block"}`,
    key,
  });
}

document.addEventListener("securitypolicyviolation", tell);
try {
  // violations from before this module was loaded
  new ReportingObserver((reports) => reports.forEach(({ body }) => tell(body)), {
    types: ["csp-violation"], buffered: true,
  }).observe();
} catch {
  // a browser without it shows only later violations
}
