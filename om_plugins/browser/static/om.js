// What {{ om_head() }} brings: small now, the rest when it is used.
//
//   import { ask, query, toast } from "/_om/static/om.js";
//   toast.success("Saved");
//   query("servers", "/api/servers").subscribe(({ data }) => draw(data));
//
// <script data-om-live> (the server says that it sends notifications) connects at once;
// <script data-om-watch> (debug mode) shows what the policy stops.
export { ask, AskError } from "./ask.js";

const KINDS = ["success", "error", "warning", "info", "progress"];
const load = () => import("./toasts.js");

/** As toasts.js has it: the handle is there at once, the element as soon as it is loaded. */
export const toast = {
  show(options) {
    const shown = load().then((module) => module.toast.show(options));
    const later = (name) => (...values) => void shown.then((handle) => handle[name](...values));
    return Object.fromEntries(["update", "complete", "fail", "dismiss"].map((name) => [name, later(name)]));
  },
};
for (const kind of KINDS) toast[kind] = (message, options) => toast.show({ ...options, kind, message });

/** As query.js has it: the handle is there at once, the engine as soon as it is loaded. */
export function query(...values) {
  const made = import("./query.js").then((module) => module.query(...values));
  const later = (name) => (...more) => made.then((handle) => handle[name](...more));
  return {
    ...Object.fromEntries(["fetch", "refetch", "get", "set", "invalidate"].map((name) => [name, later(name)])),
    subscribe(callback) {
      let stop = null;
      let ended = false;
      made.then((handle) => (stop = ended ? null : handle.subscribe(callback)));
      return () => {
        ended = true;
        stop?.();
      };
    },
  };
}

if (document.querySelector("script[data-om-live]")) import("./live.js").then(({ connect }) => connect());
else if (document.querySelector("om-toasts")) load();
if (document.querySelector("script[data-om-watch]")) import("./csp_watch.js");
