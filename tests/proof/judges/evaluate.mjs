// Policies in (a JSON list of texts), what Google's csp_evaluator finds in each out.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { CspEvaluator } = require("csp_evaluator/dist/evaluator.js");
const { CspParser } = require("csp_evaluator/dist/parser.js");
const { Version } = require("csp_evaluator/dist/csp.js");
const { Severity } = require("csp_evaluator/dist/finding.js");

const findings = JSON.parse(readFileSync(0, "utf8")).map((text) => {
  const evaluator = new CspEvaluator(new CspParser(text).csp, Version.CSP3);
  // without arguments: its checks for strict policies, and then all of its others
  return evaluator.evaluate()
    .map(({ severity, directive, value, description }) => ({
      severity, name: Severity[severity], directive, value: value ?? "", description,
    }));
});
console.log(JSON.stringify({ info: Severity.INFO, findings }));
