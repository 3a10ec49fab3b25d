// Runs the suite's client against a base URL and prints, as JSON, how each of its tests ended, as
// the suite's own result function says (a test whose dependency failed does not count).
//
//   node count.mjs SUITE BASE [ID …]
//
// SUITE is the folder of the npm package http-cache-tests, or a checkout of its repository.

import fs from 'node:fs'
import path from 'node:path'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [suite, base, ...only] = process.argv.slice(2)
const file = (...parts) => pathToFileURL(path.resolve(suite, ...parts)).href
const engine = fs.existsSync(path.join(suite, 'test-engine')) ? 'test-engine' : '.'
process.chdir(suite) // it reads its templates from the current folder
console.error = () => {} // what goes wrong in a test is in its result

const { runTests, getResults } = await import(file(engine, 'client', 'runner.mjs'))
const results = fs.existsSync(path.join(suite, engine, 'lib', 'results.mjs'))
  ? await import(file(engine, 'lib', 'results.mjs'))
  : await import(file(engine, 'lib', 'display.mjs'))
const groups = (await import(file('tests', 'index.mjs'))).default
const chosen = groups.map(group => ({
  ...group, tests: group.tests.filter(test => only.length === 0 || only.includes(test.id))
}))
if (only.length === 1) chosen.forEach(group => group.tests.forEach(test => { test.dump = true }))

if (engine === '.') {
  const fetch = createRequire(path.resolve(suite, 'cli.mjs'))('node-fetch')
  await runTests(chosen, fetch, false, base, 25)
} else {
  await runTests(chosen, false, base, 25)
}

const said = getResults()
const names = new Map(Object.entries(results.resultTypes ?? {}).map(([name, value]) => [value, name]))
const symbols = { '✅': 'pass', '⛔️': 'fail', '⚠️': 'optional_fail', Y: 'yes', N: 'no',
  '🔹': 'setup_fail', '⁉️': 'harness_fail', '⚪️': 'dependency_fail', '↻': 'retry', '-': 'untested' }
const ended = []
for (const group of chosen) {
  for (const test of group.tests) {
    if (test.browser_only) continue
    const result = results.determineTestResult(groups, test.id, said, only.length === 0)
    ended.push({
      group: group.id,
      id: test.id,
      kind: test.kind ?? 'required',
      result: names.get(result) ?? symbols[result[2]] ?? String(result[2]),
      why: said[test.id] === true || said[test.id] === undefined ? '' : said[test.id].join(': ')
    })
  }
}
fs.writeSync(1, '\n' + JSON.stringify(ended) + '\n')
process.exit(0)
