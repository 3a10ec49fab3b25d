"""Toasts in real browsers, from two real workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.patience import HANG_S, wait_until

Open = Callable[..., Any]

pytestmark = pytest.mark.browser

NOTES = """
globalThis.notes = [];
addEventListener("om-notification", (event) => notes.push(event.detail));
addEventListener("securitypolicyviolation", (event) => console.log("CSP", event.blockedURI));
"""


def ask(address: str, path: str, method: str = "GET") -> Any:
    """Request from a new connection, so that any worker may answer."""
    connection = HTTPConnection(address.removeprefix("http://"), timeout=HANG_S)
    try:
        connection.request(method, path, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200, (path, answer.status)
        return json.loads(answer.read())
    finally:
        connection.close()


@pytest.fixture
def demo(opened: Open, address: str) -> Iterator[Any]:
    with opened() as demo:
        demo.page.add_init_script(NOTES)
        demo.go(address)
        yield demo
        assert demo.said == []


@pytest.fixture
def visitor(opened: Open, address: str) -> Iterator[Any]:
    with opened() as visitor:
        visitor.page.add_init_script(NOTES)
        visitor.go(f"{address}/questions")
        yield visitor
        assert visitor.said == []


def notes(demo: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = demo.page.evaluate("notes")
    return found


def test_the_asking_browser_gets_a_toast_of_a_fallback_and_all_browsers_one_of_a_new_version(
    demo: Any, visitor: Any
) -> None:
    demo.press("analyst", "Kill", "stopped")
    assert "tier 2" in demo.ask("uptime")[1]
    toast = demo.toast("The assistant has a stand-in")
    toast.wait_for()
    assert "warning" in toast.get_attribute("class")
    assert "web server did" in toast.inner_text()
    demo.press("analyst", "Start", "running")

    demo.run_scenario("announce")
    for one in (demo, visitor):
        live = one.toast("is live.")
        live.wait_for()
        assert live.get_by_role("button", name="Refresh").count() == 1
    assert [note["title"] for note in notes(visitor)] == ["New version"]


def test_five_failures_start_a_recovery_whose_progress_the_browser_shows(
    demo: Any, visitor: Any
) -> None:
    demo.run_scenario("transient")
    pattern = demo.note("keeps having the same trouble")
    assert [action["label"] for action in pattern["actions"]] == ["Report problem"]
    done = demo.toast("The assistant was repaired.")
    done.wait_for()
    assert done.get_by_role("progressbar").get_attribute("aria-valuenow") == "100"
    assert "success" in done.get_attribute("class")
    demo.page.locator("[data-fault=analyst] [data-state]", has_text="running").wait_for()
    assert "tier 1" in demo.ask("uptime")[1]

    progress = [note for note in notes(demo) if note["kind"] == "progress"]
    assert {note["title"] for note in progress} == {"The assistant is being repaired"}
    shares = [note["progress"] for note in progress]
    assert shares == sorted(shares)
    assert [note["message"] for note in progress][:4] == [
        "Renewing saved answers",
        "Freeing memory",
        "Starting the analyst",
        "Checking the network",
    ]
    # other visitors get no toast of it
    assert [note for note in notes(visitor) if note["title"] != "New version"] == []
    assert visitor.toast("assistant").count() == 0

    # during the cooldown the same errors start no recovery, but the button does
    demo.run_scenario("transient")
    cooldown = demo.toast("There was a recovery for this kind of trouble.")
    cooldown.get_by_role("button", name="Repair now").click()
    demo.note("The assistant was repaired.", times=2)
    demo.page.locator("[data-fault=analyst] [data-state]", has_text="running").wait_for()
    # the worker that was not repaired in asks the analyst again as soon as it hears of it
    wait_until(lambda: "tier 1" in demo.ask("uptime")[1])


def test_every_page_reports_a_lost_connection(opened: Open, address: str) -> None:
    with opened() as demo:
        for path in ("/", "/questions"):
            demo.go(address + path)
            demo.context.set_offline(True)
            lost = demo.page.locator("om-toasts li.warning")
            lost.wait_for()
            demo.context.set_offline(False)
            demo.page.locator("om-toasts li.success").wait_for()


def test_the_timeline_has_the_events_of_both_workers(demo: Any, address: str) -> None:
    for _ in range(100):
        ask(address, "/announce", "POST")
        events = ask(address, "/api/status")["timeline"]
        if len({event["worker"] for event in events}) == 2:
            break
    else:
        raise AssertionError(events)
    assert [event["at"] for event in events] == sorted(
        (event["at"] for event in events), reverse=True
    )
    for worker in {event["worker"] for event in events}:
        demo.page.locator("#timeline .worker", has_text=str(worker)).first.wait_for()


def test_toasts_have_the_chosen_language(opened: Open, address: str) -> None:
    with opened() as demo:
        demo.page.add_init_script(NOTES)
        demo.go(f"{address}/?lang=ko")
        demo.page.locator("[data-fault=analyst] button").click()
        demo.page.locator("[data-fault=analyst] [data-state].bad").wait_for()
        demo.ask("메모리 얼마나 남았어?")
        demo.toast("도우미가 대신 답했습니다").wait_for()
        demo.page.wait_for_function("() => notes.length >= 1")
        assert not [note for note in notes(demo) if "assistant" in note["message"]]
        ask(address, "/faults/start", "POST")
        assert demo.said == []
