"""query(): the server's data in a page, told of changes, under the strict policy."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import pytest

import om_plugins.browser as browser_package
from tests.patience import wait_until

pytestmark = pytest.mark.browser

BEGIN = """([key, options]) => {
  window.states = [];
  window.handle = query(key, "/api/value", options);
  window.stop = handle.subscribe((state) => states.push(state));
}"""
LATEST = "() => window.states?.at(-1)"
HIDE = """(hidden) => {
  Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true});
  Object.defineProperty(
    document, 'visibilityState', {get: () => hidden ? 'hidden' : 'visible', configurable: true});
  document.dispatchEvent(new Event('visibilitychange'));
}"""
FOCUS = "() => dispatchEvent(new Event('focus'))"
NETWORK = ("Failed to load resource", "net::ERR")


def begin(page, key="value", **options):
    page.evaluate(BEGIN, [key, options])


def shows(page, n):
    wait_until(lambda: ((page.evaluate(LATEST) or {}).get("data") or {}).get("n") == n)


def rests(page):
    wait_until(lambda: not page.evaluate(LATEST)["fetching"])
    time.sleep(0.1)


def hears(page):
    """Wait until the page was told of a change, and for as long as it then spreads requests."""
    wait_until(lambda: page.evaluate("heard"))
    time.sleep(0.5)


# --- a value ------------------------------------------------------------------------------------


def test_a_value_is_fetched_once_for_all_who_show_it(open_page, backend):
    began = time.time()
    page = open_page()
    begin(page)
    shows(page, 1)
    page.evaluate("() => handle.subscribe(() => {})")
    assert page.evaluate("() => handle.fetch()") == {"n": 1}
    rests(page)
    assert backend.answers == [200]
    state = page.evaluate(LATEST)
    assert state["stale"] is state["paused"] is False
    assert state["error"] is None
    assert began - 1 < state["at"] < time.time() + 1


def test_who_asks_again_gets_a_304_and_keeps_the_value(open_page, backend):
    page = open_page()
    begin(page)
    shows(page, 1)
    assert page.evaluate("() => handle.refetch()") == {"n": 1}
    backend.value = {"n": 2}
    assert page.evaluate("() => handle.refetch()") == {"n": 2}
    assert backend.answers == [200, 304, 200]
    shows(page, 2)


def test_a_value_that_came_with_the_page_is_fresh_for_its_time(open_page, backend):
    page = open_page()
    begin(page, initial={"n": 0}, initial_at=time.time() - 10, stale_time=60)
    shows(page, 0)
    rests(page)
    assert backend.answers == []
    page.evaluate("() => stop()")
    begin(page, "other", initial={"n": 0}, initial_at=time.time() - 10, stale_time=5)
    shows(page, 1)
    assert page.evaluate("() => states[0].data") == {"n": 0}


def test_failures_are_retried_and_told_at_the_end(open_page, backend):
    page = open_page(allow=NETWORK)
    backend.failing = 2
    begin(page, retry_delay=0.02)
    shows(page, 1)
    assert backend.answers == [503, 503, 200]
    backend.failing = 9
    said = page.evaluate("() => handle.refetch().catch(({ name, status }) => `${name} ${status}`)")
    assert said == "QueryError 503"
    assert page.evaluate(LATEST)["data"] == {"n": 1}


def test_retries_says_how_often_and_its_old_name_is_refused(open_page, backend):
    page = open_page(allow=NETWORK)
    backend.failing = 2
    ask = "(options) => query('v', '/api/value', options).fetch().catch(({ message }) => message)"
    assert page.evaluate(ask, {"retries": 0}) != {"n": 1}
    assert backend.answers == [503]
    assert page.evaluate(ask, {"retry": 0}) == "query(): retry was renamed to retries"


def test_a_key_that_the_server_could_not_have_is_refused(open_page):
    page = open_page()
    said = page.evaluate("() => query({}, '/api/value').fetch().catch((error) => error.name)")
    assert said == "TypeError"


# --- when it asks again -------------------------------------------------------------------------


def test_a_page_that_is_looked_at_again_asks_for_what_is_stale_and_no_more_than_every_5_s(
    open_page, backend
):
    page = open_page(clock=True)
    begin(page, stale_time=0)
    shows(page, 1)
    begin(page, "fresh", stale_time=600)
    shows(page, 1)
    assert backend.answers == [200, 200]
    page.clock.run_for(6000)
    page.evaluate(FOCUS)
    wait_until(lambda: len(backend.answers) == 3)
    for _ in range(3):
        page.evaluate(FOCUS)
        page.evaluate(HIDE, True)
        page.evaluate(HIDE, False)
    rests(page)
    assert len(backend.answers) == 3
    page.clock.run_for(6000)
    page.evaluate(HIDE, True)
    page.evaluate(HIDE, False)
    wait_until(lambda: len(backend.answers) == 4)


def test_with_an_interval_a_page_asks_again_while_it_is_looked_at(open_page, backend):
    page = open_page(clock=True)
    begin(page, interval=2)
    shows(page, 1)
    backend.value = {"n": 2}
    page.clock.run_for(2100)
    shows(page, 2)
    page.evaluate(HIDE, True)
    asked = len(backend.answers)
    page.clock.run_for(10_000)
    time.sleep(0.2)
    assert len(backend.answers) == asked


def test_offline_it_pauses_and_goes_on_by_itself(open_page, backend):
    page = open_page(allow=NETWORK)
    begin(page)
    shows(page, 1)
    page.context.set_offline(True)
    backend.value = {"n": 2}
    page.evaluate("() => void handle.invalidate()")
    wait_until(lambda: page.evaluate(LATEST)["paused"])
    assert backend.answers == [200]
    page.context.set_offline(False)
    shows(page, 2)


# --- changes that the server tells --------------------------------------------------------------


def test_every_open_page_follows_a_change_on_the_server(open_page, backend):
    pages = [open_page("?live"), open_page("?live")]
    for page in pages:
        begin(page, "value", live=True)
        shows(page, 1)
    wait_until(lambda: backend.streams == 2)
    backend.value = {"n": 2}
    backend.tell_changed("value")
    for page in pages:
        shows(page, 2)


def test_the_tabs_of_a_browser_hear_it_through_one_stream(open_page, backend, leads):
    first = open_page("?live")
    second = open_page("?live", beside=first)
    for page in (first, second):
        begin(page, ["user", 7], live=True)
        shows(page, 1)
    leads(first)
    backend.value = {"n": 2}
    backend.tell_changed(["user", 7])
    for page in (first, second):
        shows(page, 2)
    assert backend.streams == 1


def test_another_key_or_one_that_is_not_live_is_left_alone(open_page, backend, leads):
    page = open_page("?live")
    begin(page, "value", live=True)
    begin(page, "dead")
    wait_until(lambda: backend.answers == [200, 200])
    leads(page)
    backend.tell_changed("other", ["value"], "dead", 7, None)
    hears(page)
    assert backend.answers == [200, 200]


def test_when_nothing_new_comes_it_asks_once_more(open_page, backend, leads):
    """A worker that has not heard of the change yet answers with what it had."""
    page = open_page("?live")
    begin(page, live=True)
    shows(page, 1)
    leads(page)
    backend.tell_changed("value")
    wait_until(lambda: backend.answers == [200, 304])
    backend.value = {"n": 2}
    shows(page, 2)
    assert backend.answers == [200, 304, 200]


CHANGED = "() => dispatchEvent(new CustomEvent('om-changed', { detail: { keys: ['value'] } }))"


def runs_for(page, milliseconds, backend, asked):
    """Let the page's clock run, and wait for the requests that it then made."""
    page.clock.run_for(milliseconds)
    wait_until(lambda: len(backend.answers) == asked)
    wait_until(lambda: not page.evaluate(LATEST)["fetching"])


def test_a_late_answer_of_a_worker_that_knows_less_is_not_the_last_one(open_page, backend):
    page = open_page(clock=True)
    begin(page, live=True)
    shows(page, 1)
    page.evaluate(CHANGED)
    backend.value = {"n": 2}
    runs_for(page, 300, backend, 2)
    shows(page, 2)
    page.evaluate(CHANGED)
    backend.value = {"n": 1}  # of a worker that does not know of the change yet
    runs_for(page, 300, backend, 3)
    shows(page, 1)
    backend.value = {"n": 2}
    runs_for(page, 5600, backend, 4)
    shows(page, 2)
    page.clock.run_for(60_000)
    assert backend.answers == [200, 200, 200, 200], "the first change's rest is left out"


def test_a_change_that_is_seen_at_once_is_confirmed_once(open_page, backend):
    page = open_page(clock=True)
    begin(page, live=True)
    shows(page, 1)
    page.evaluate(CHANGED)
    backend.value = {"n": 2}
    runs_for(page, 300, backend, 2)
    runs_for(page, 1600, backend, 2)
    runs_for(page, 4000, backend, 3)
    page.clock.run_for(60_000)
    assert backend.answers == [200, 200, 304]


def test_a_hidden_page_asks_when_it_is_looked_at_again(open_page, backend, leads):
    page = open_page("?live")
    begin(page, live=True)
    shows(page, 1)
    leads(page)
    page.evaluate(HIDE, True)
    backend.value = {"n": 2}
    backend.tell_changed("value")
    hears(page)
    assert backend.answers == [200]
    page.evaluate(HIDE, False)
    shows(page, 2)


def test_what_changed_before_the_stream_began_is_told_then(open_page, backend):
    backend.recent = ["value"]
    page = open_page()
    begin(page, live=True)
    shows(page, 1)
    backend.value = {"n": 2}
    page.evaluate("() => import('/_om/static/live.js').then(({ connect }) => connect())")
    shows(page, 2)


def test_without_streams_it_is_told_by_polling(open_page, backend):
    backend.streaming = False
    page = open_page("?live")
    begin(page, live=True)
    shows(page, 1)
    backend.value = {"n": 2}
    backend.recent = ["value"]
    shows(page, 2)
    assert backend.polls > 0


def test_after_a_long_silence_everything_live_is_asked_for(open_page, backend, leads):
    page = open_page("?live", clock=True)
    begin(page, live=True)
    shows(page, 1)
    leads(page)
    backend.value = {"n": 2}
    page.evaluate("() => { const now = Date.now; Date.now = () => now() + 60_000; }")
    backend.end_streams()
    wait_until(lambda: page.clock.run_for(200) or backend.streams == 1)
    wait_until(lambda: page.clock.run_for(100) or page.evaluate(LATEST)["data"] == {"n": 2})


# --- what is shipped ----------------------------------------------------------------------------


def test_what_others_wrote_is_what_its_page_says():
    static = Path(browser_package.__file__).parent / "static"
    said = (static / "vendored.md").read_text()
    found = re.findall(r"^## (\S+)$.*?SHA-256: `([0-9a-f]{64})`", said, re.MULTILINE | re.DOTALL)
    assert "query-core.js" in dict(found)
    for name, digest in found:
        assert hashlib.sha256((static / name).read_bytes()).hexdigest() == digest


def test_a_page_that_asks_for_nothing_loads_none_of_it(open_page):
    page = open_page("?live")
    loaded = page.evaluate("() => performance.getEntriesByType('resource').map((one) => one.name)")
    assert not [name for name in loaded if "query" in name]
