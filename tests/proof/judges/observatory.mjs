// Pages in (a JSON list of {status, headers, body, redirects}), their scores by Mozilla's HTTP
// Observatory out. Its rules run on what they are given: nothing is asked over the network.
import { readFileSync, writeFileSync, existsSync } from "node:fs";

const HOME = new URL("node_modules/@mdn/mdn-http-observatory/", import.meta.url);
const PRELOADED = new URL("conf/hsts-preload.json", HOME);
if (!existsSync(PRELOADED)) writeFileSync(PRELOADED, "{}"); // a list that its install would fetch

const from = (path) => import(new URL(path, HOME));
const { AxiosHeaders } = await import("axios");
const { Requests } = await from("src/types.js");
const { Session } = await from("src/retriever/session.js");
const { ALL_TESTS } = await from("src/constants.js");
const { getGradeForScore, getScoreModifier } = await from("src/grader/grader.js");
const { MINIMUM_SCORE_FOR_EXTRA_CREDIT } = await from("src/grader/charts.js");
const { parseHttpEquivHeaders } = await from("src/retriever/utils.js");

function judged({ address, status, headers, body, redirects }) {
  const requests = new Requests(new URL(address).hostname);
  const response = {
    status, statusText: "", verified: true, data: body, request: { headers: new AxiosHeaders() },
    headers: new AxiosHeaders(), config: { headers: new AxiosHeaders() },
    httpEquiv: parseHttpEquivHeaders(body, address),
  };
  for (const [name, value] of headers) {
    const before = response.headers.get(name);
    response.headers.set(name, before && name.toLowerCase() !== "set-cookie" ? `${before}, ${value}` : value);
  }
  const redirected = redirects.map(([url, code]) => ({ url: new URL(url), status: code }));
  requests.resources.path = body;
  requests.responses = {
    auto: response, https: response, http: response, cors: response,
    httpRedirects: redirected, httpsRedirects: redirected.slice(-1),
  };
  requests.session = new Session(new URL(address));
  let score = 100, uncurved = 100;
  const results = ALL_TESTS.map((test) => test(requests)).map((one) => {
    const modifier = one.result ? getScoreModifier(one.result) : 0;
    score += modifier;
    if (modifier < 0) uncurved += modifier;
    return { test: one.constructor.name, result: one.result, modifier };
  });
  const final = uncurved >= MINIMUM_SCORE_FOR_EXTRA_CREDIT ? score : uncurved;
  return { ...getGradeForScore(final), results };
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(judged)));
