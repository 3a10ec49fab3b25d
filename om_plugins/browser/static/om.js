// The module that {{ om_head() }} adds to a page. It is small and loads the rest at first use.
//
//   import { ask, query, toast } from "/_om/static/om.js";
//   toast.success("Saved");
//   query("servers", "/api/servers").subscribe(({ data }) => draw(data));
//
// With <script data-om-live> (the server sends notifications) it connects at once; with
// <script data-om-watch> (debug mode) it shows what the policy blocks.
export { ask, AskError } from "./ask.js";

const KINDS = ["success", "error", "warning", "info", "progress"];
const QUERIES = ["fetch", "refetch", "get", "set", "invalidate", "forget"];
const load = () => import("./toasts.js");

/** The same as in toasts.js: returns the handle at once and loads the element meanwhile. */
export const toast = {
  show(options) {
    const shown = load().then((module) => module.toast.show(options));
    const later = (name) => (...values) => void shown.then((handle) => handle[name](...values));
    return Object.fromEntries(["update", "complete", "fail", "dismiss"].map((name) => [name, later(name)]));
  },
};
for (const kind of KINDS) toast[kind] = (message, options) => toast.show({ ...options, kind, message });

/** The same as in query.js: returns the handle at once and loads the core meanwhile. */
export function query(...values) {
  const made = import("./query.js").then((module) => module.query(...values));
  const later = (name) => (...more) => made.then((handle) => handle[name](...more));
  return {
    ...Object.fromEntries(QUERIES.map((name) => [name, later(name)])),
    subscribe(callback) {
      let stop = null;
      let ended = false;
      made.then((handle) => {
        if (ended) return;
        stop = handle.subscribe(callback);
        if (ended) stop(); // the first call of the callback ended it
      });
      return () => {
        ended = true;
        stop?.();
      };
    },
  };
}

/** Remove all values, in all tabs of this browser: for when somebody signs in or out. */
query.forget = () => import("./query.js").then((module) => module.query.forget());

if (document.querySelector("script[data-om-live]")) import("./live.js").then(({ connect }) => connect());
else if (document.querySelector("om-toasts")) load();
if (document.querySelector("script[data-om-watch]")) import("./csp_watch.js");
