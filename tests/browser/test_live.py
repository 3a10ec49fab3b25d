"""Notifications from a server to the browser's tabs, and the word about a lost connection."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from tests.patience import HANG_S, wait_until

pytestmark = pytest.mark.browser

TEXTS = """() => [...document.querySelectorAll('om-toasts')].flatMap((home) =>
  [...home.shadowRoot.querySelectorAll('li:not([inert]) .text span')]
    .map((one) => one.textContent))"""
HIDE = """(hidden) => {
  Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true});
  document.dispatchEvent(new Event('visibilitychange'));
}"""
CURSOR = "() => JSON.parse(sessionStorage.getItem('om-last /_om'))?.id"
# When a page polls from now on, by its own clock.
POLLS = """() => {
  const ask = fetch;
  window.began = Date.now();
  window.polls = [];
  window.fetch = (...request) => {
    polls.push(Date.now());
    return ask(...request);
  };
}"""
# When the page opens a stream, on its own clock.
OPENED = """() => {
  window.opened = [];
  const Stream = EventSource;
  window.EventSource = class extends Stream {
    constructor(...address) {
      super(...address);
      opened.push(Date.now());
    }
  };
}"""
# Whether a click of a button makes the page ask, before anything else can make it.
ASKS_AT_ONCE = """async (label) => {
  const ask = fetch;
  const asked = [];
  window.fetch = (...request) => {
    asked.push(String(request[0]));
    return ask(...request);
  };
  const { shadowRoot } = document.querySelector('om-toasts');
  [...shadowRoot.querySelectorAll('button')].find((one) => one.textContent === label).click();
  for (let turn = 0; turn < 20; turn++) await null;
  window.fetch = ask;
  return asked.some((one) => one.endsWith('/health'));
}"""
NETWORK = ("Failed to load resource", "net::ERR", "EventSource")


def texts(page):
    return page.evaluate(TEXTS)


def shows(page, *expected):
    wait_until(lambda: texts(page) == list(expected))


def test_page_that_is_not_live_asks_nothing(open_page, backend):
    open_page()
    time.sleep(0.3)
    assert backend.asked == []


def test_notification_arrives_as_a_toast_with_its_actions(open_page, backend, leads):
    page = open_page("?live")
    leads(page)
    backend.send(
        "error",
        "<img src=x onerror=alert(1)>",
        title="Broken",
        actions=[
            {"label": "Refresh", "action": "refresh", "value": ""},
            {"label": "Evil", "action": "eval", "value": "alert(1)"},
        ],
    )
    shows(page, "<img src=x onerror=alert(1)>")
    assert page.locator("om-toasts li").get_attribute("class") == "error"
    assert page.locator("om-toasts .actions button").all_inner_texts() == ["Refresh"]


def test_progress_with_a_key_is_one_toast_to_its_end(open_page, backend, leads):
    page = open_page("?live")
    leads(page)
    for percent in (20, 70):
        backend.send("progress", "Recovering…", key="r", progress=percent)
    wait_until(lambda: page.locator("om-toasts [aria-valuenow='70']").count())
    backend.send("success", "Recovered", key="r", progress=100)
    shows(page, "Recovered")


def test_two_tabs_share_one_stream_and_the_next_leads_when_the_first_closes(
    open_page, backend, leads
):
    first = open_page("?live")
    leads(first)
    second = open_page("?live", beside=first)
    backend.send("info", "one")
    shows(first, "one")
    shows(second, "one")
    assert backend.streams == 1
    first.close()
    backend.send("info", "two")
    shows(second, "one", "two")
    assert backend.asked[-1] == "n1"  # goes on where the first one ended
    leads(second)


def test_stream_that_ends_is_opened_again_and_nothing_is_lost_or_doubled(open_page, backend, leads):
    page = open_page("?live")
    leads(page)
    backend.send("info", "one")
    shows(page, "one")
    backend.end_streams()
    backend.send("info", "two")
    shows(page, "one", "two")


def test_notification_that_is_sent_again_is_shown_once(open_page, backend, leads):
    backend.forgetful = True
    page = open_page("?live")
    leads(page)
    backend.send("info", "one")
    shows(page, "one")
    backend.end_streams()
    backend.send("info", "two")
    shows(page, "one", "two")
    assert page.locator("om-toasts .count:visible").count() == 0


def test_stream_on_a_dead_line_is_given_up_for_a_new_one(open_page, backend, leads):
    page = open_page("?live", clock=True)
    leads(page)
    page.clock.run_for(89_000)
    assert len(backend.asked) == 1
    page.clock.run_for(3000)
    wait_until(lambda: len(backend.asked) == 2)


def test_next_page_of_a_tab_gets_what_came_in_between(open_page, backend, leads):
    backend.send("info", "before all")
    page = open_page("?live")
    leads(page)
    page.goto("about:blank")
    backend.send("success", "Saved")
    page.go_back()
    shows(page, "Saved")


def moves_until(page, happened):
    """Move a page's time on until something happens."""
    wait_until(lambda: happened() or page.clock.run_for(200), patience_s=HANG_S)


def test_server_without_a_stream_to_give_is_polled(open_page, backend):
    backend.streaming = False
    page = open_page("?live", clock=True)
    wait_until(lambda: page.evaluate(CURSOR) == "n0")  # the first answer is read
    page.evaluate(POLLS)
    backend.send("info", "one")
    moves_until(page, lambda: texts(page) == ["one"])
    for polls in range(2, 7):
        with page.expect_event("requestfinished", lambda request: "poll=1" in request.url):
            moves_until(page, lambda polls=polls: page.evaluate("polls.length") == polls)
    first, *times = page.evaluate("polls")
    pauses = [after - before for before, after in pairwise([first, *times])]
    assert first - page.evaluate("began") == 1000  # soon, since the page is new
    assert pauses[0] == 3000
    assert pauses[-3:] == [15_000] * 3
    assert backend.streams == 0


def test_stream_is_tried_again_when_the_server_may_have_one(open_page, backend, leads):
    backend.streaming = False
    page = open_page("?live", clock=True)
    wait_until(lambda: page.evaluate(CURSOR))
    began = page.evaluate("Date.now()")
    page.evaluate(OPENED)
    backend.streaming = True
    moves_until(page, lambda: backend.streams == 1)
    assert page.evaluate("opened")[-1] - began < 60_000
    leads(page)


def test_hidden_tab_gives_the_stream_up_and_catches_up_later(open_page, backend, leads):
    page = open_page("?live", clock=True)
    leads(page)
    backend.send("info", "one")
    shows(page, "one")
    page.evaluate(HIDE, True)
    page.clock.run_for(31_000)
    wait_until(lambda: backend.streams == 0)
    backend.send("info", "two")
    page.evaluate(HIDE, False)
    shows(page, "one", "two")


def test_hidden_tab_does_not_repeat_what_another_tab_has_shown(open_page, backend, leads):
    first = open_page("?live")
    leads(first)
    second = open_page("?live", beside=first)
    second.evaluate(HIDE, True)
    backend.send("info", "one")
    shows(first, "one")
    first.evaluate(HIDE, True)
    backend.send("info", "two")
    wait_until(lambda: second.evaluate(CURSOR) == "n2")
    second.evaluate(HIDE, False)
    shows(second, "two")


def test_lost_connection_shows_a_toast_and_a_restored_one_replaces_it(open_page, backend, leads):
    page = open_page("?live", allow=NETWORK)
    leads(page)
    page.context.set_offline(True)
    shows(page, "The connection was lost. Trying again…")
    page.context.set_offline(False)
    shows(page, "The connection is back.")
    backend.send("info", "one")
    wait_until(lambda: "one" in texts(page))


def test_server_that_goes_down_is_noticed_by_its_failing_answers(open_page, backend, leads):
    page = open_page("?live&lang=ko", allow=NETWORK, clock=True)
    leads(page)
    backend.down = True
    moves_until(page, lambda: texts(page) == ["연결이 끊어졌습니다. 다시 연결하는 중…"])
    # The browser opens the stream again by its own clock, and each failure makes the page ask.
    wait_until(lambda: page.evaluate(ASKS_AT_ONCE, "지금 연결"), "the button makes the page ask")
    backend.down = False
    moves_until(page, lambda: texts(page) == ["다시 연결되었습니다."])
    leads(page)


def test_one_failed_request_of_a_living_server_says_nothing(open_page, backend, leads):
    page = open_page("?live")
    leads(page)
    with page.expect_response("**/_om/health"):
        page.evaluate("dispatchEvent(new Event('om-unreachable'))")
    assert texts(page) == []


def report_of(backend, open_page, leads, **options):
    page = open_page("?live", **options)
    leads(page)
    actions = [{"label": "Report problem", "action": "report", "value": "chain:assistant"}]
    backend.send("error", "It broke", title="Assistant", actions=actions)
    page.get_by_role("button", name="Report problem").click()
    return page


def test_report_is_sent_and_its_number_shown(open_page, backend, leads):
    page = report_of(backend, open_page, leads)
    shows(page, "Thank you: report 12 was sent.")
    assert backend.reports == [
        {
            "message": "Assistant: It broke",
            "reference": "chain:assistant",
            "url": "/page",
            "language": "en",
        }
    ]


def test_report_that_fails_says_so_and_can_be_sent_again(open_page, backend, leads):
    backend.refuse_reports = True
    page = report_of(backend, open_page, leads, allow=NETWORK)
    shows(page, "The report could not be sent.")
    backend.refuse_reports = False
    page.get_by_role("button", name="Try again").click()
    shows(page, "Thank you: report 12 was sent.")
    assert backend.reports[0]["message"] == "Assistant: It broke"


def test_report_works_on_a_page_that_is_not_live(open_page, backend):
    page = open_page()
    page.evaluate("""() => {
      toast.error("It broke", { actions: [{ label: "Report", action: "report", value: "x" }] });
    }""")
    page.get_by_role("button", name="Report").click()
    shows(page, "Thank you: report 12 was sent.")


def test_page_may_show_notifications_itself_in_its_own_words(open_page, backend, leads):
    page = open_page("?live")
    leads(page)
    page.evaluate("""async () => {
      const { setWords } = await import("/_om/static/words.js");
      setWords({ close: "Fermer" });
      toast.info("own words");
      addEventListener("om-notification", (event) => {
        event.preventDefault();
        document.title = event.detail.message;
      });
    }""")
    backend.send("info", "one")
    wait_until(lambda: page.title() == "one")
    assert texts(page) == ["own words"]
    assert page.get_by_role("button", name="Fermer").count() == 1
