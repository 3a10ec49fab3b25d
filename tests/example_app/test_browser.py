"""The demo under real gunicorn in a real browser: buttons, questions, pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Open = Callable[..., Any]

pytestmark = pytest.mark.browser


def test_the_assistant_falls_back_and_comes_back(opened: Open, address: str) -> None:
    with opened() as demo:
        demo.page.goto(address)
        text, badge = demo.ask("Which process uses the most memory?")
        assert "uses the most memory" in text
        assert "tier 1" in badge
        assert "analyst" in badge
        assert "degraded" not in badge
        text, badge = demo.ask("and the second one?")
        assert "second most memory" in text

        demo.press("analyst", "Kill", "stopped")
        text, badge = demo.ask("How much disk space is left?")
        assert "left of" in text
        assert "tier 2" in badge
        assert "in-process" in badge
        assert "degraded" in badge

        demo.press("analyst", "Start", "running")
        text, badge = demo.ask("디스크 얼마나 남았어?")
        assert "남았습니다" in text
        assert "tier 1" in badge
        assert "degraded" not in badge
        assert demo.said == []


def test_garbled_and_broken_tiers_lead_to_the_next(opened: Open, address: str) -> None:
    with opened() as demo:
        demo.page.goto(address)
        demo.press("garble", "Turn on", "on")
        assert "tier 2" in demo.ask("uptime")[1]
        demo.press("analysis", "Break", "broken")
        text, badge = demo.ask("uptime")
        assert "tier 3" in badge
        assert "free -h" in text
        demo.press("analysis", "Fix", "works")
        demo.press("garble", "Turn off", "off")
        assert "tier 1" in demo.ask("uptime")[1]
        assert demo.said == []


def test_a_broken_panel_keeps_its_reading_and_shows_since_when(opened: Open, address: str) -> None:
    with opened() as demo:
        demo.page.goto(address)
        panel = demo.page.locator("[data-panel=disks]")
        panel.locator("li").first.wait_for()
        shown = panel.locator("li").first.inner_text()
        demo.press("disk", "Break", "broken")
        panel.locator(".age", has_text="Stale since").wait_for()
        assert panel.locator("li").first.inner_text().split()[0] == shown.split()[0]
        assert demo.page.locator("[data-panel=memory].stale").count() == 0
        demo.press("disk", "Fix", "works")
        panel.locator(".age", has_text="ago").wait_for()


def test_every_open_page_shows_a_new_note(opened: Open, address: str) -> None:
    with opened() as one, opened() as two:
        for demo in (one, two):
            demo.page.goto(address)
            demo.page.get_by_text("Nobody has written anything yet.").wait_for()
        for writer, text in ((one, "Back at five"), (two, "<b>No, at six</b>")):
            writer.page.locator(".note input").fill(text)
            writer.page.locator(".note button").click()
            for demo in (one, two):
                demo.page.locator("#note", has_text=text).wait_for()
        one.page.locator(".note button").click()  # an empty one takes it away
        for demo in (one, two):
            demo.page.locator("#note", has_text="Nobody has written").wait_for()
            assert demo.said == []


@pytest.mark.parametrize("path", ["/", "/?lang=ko", "/questions", "/questions?lang=ko"])
def test_no_page_violates_the_policy(path: str, opened: Open, address: str) -> None:
    with opened() as demo:
        demo.page.add_init_script(
            "addEventListener('securitypolicyviolation', e => console.log('CSP', e.blockedURI))"
        )
        demo.page.goto(address + path)
        demo.page.get_by_role("button", name="Light or dark").or_(
            demo.page.get_by_role("button", name="밝게 또는 어둡게")
        ).click()
        demo.page.reload()
        assert demo.page.evaluate("document.documentElement.dataset.theme") in ("light", "dark")
        demo.page.wait_for_timeout(1000)
        assert demo.said == []


def test_the_console_violates_nothing(opened: Open, address: str) -> None:
    with opened() as demo:
        demo.page.add_init_script(
            "addEventListener('securitypolicyviolation', e => console.log('CSP', e.blockedURI))"
        )
        demo.page.goto(address + "/_om/")
        demo.page.locator("#violations li, #violations .empty").first.wait_for()
        assert demo.said == []


def test_a_missing_page_violates_nothing_either(opened: Open, address: str) -> None:
    with opened() as demo:
        demo.page.goto(f"{address}/nothing-here")
        demo.page.get_by_text("There is nothing at this address.").wait_for()
        assert [said for said in demo.said if "404" not in said] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["en-US", "ko-KR"])
def test_nothing_is_wider_than_the_window(
    scheme: str, locale: str, opened: Open, address: str
) -> None:
    with opened(color_scheme=scheme, locale=locale) as demo:
        for path in ("/", "/questions"):
            demo.page.goto(address + path)
            if path == "/":
                demo.page.locator("[data-panel=processes] td").first.wait_for()
            for width in (360, 768, 1280, 1600):
                demo.page.set_viewport_size({"width": width, "height": 800})
                wide = demo.page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, (path, width)
        background = demo.page.evaluate("getComputedStyle(document.body).backgroundColor")
        dark = sum(int(part) for part in background[4:-1].split(",")) < 200
        assert dark == (scheme == "dark")


def test_the_page_is_usable_by_keyboard_alone(opened: Open, address: str) -> None:
    with opened() as demo:
        demo.page.goto(address)
        demo.page.keyboard.press("Tab")
        assert demo.page.evaluate("document.activeElement.className") == "skip"
        for _ in range(40):
            demo.page.keyboard.press("Tab")
            if demo.page.evaluate("document.activeElement.id") == "question":
                break
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert demo.page.evaluate(outline) == "solid"
        demo.page.keyboard.type("is everything ok?")
        demo.page.keyboard.press("Enter")
        demo.page.locator(".badge").wait_for()
        assert demo.page.locator("#conversation[aria-live=polite]").count() == 1


def test_a_question_in_the_address_is_asked(opened: Open, address: str) -> None:
    with opened() as demo:
        demo.page.goto(f"{address}/questions")
        demo.page.get_by_role("link", name="How busy is the CPU?").click()
        demo.page.locator(".badge").wait_for()
        assert "busy over" in demo.page.locator(".turn.answer .text").inner_text()
        assert "?q=" not in demo.page.url


def test_nothing_moves_while_the_page_fills(opened: Open, address: str) -> None:
    """Cumulative layout shift, as web-vitals counts it. Values up to 0.1 are good."""
    with opened() as demo:
        demo.page.add_init_script(
            "globalThis.shift = 0; new PerformanceObserver((list) => list.getEntries().forEach("
            "(entry) => { globalThis.shift += entry.value })).observe("
            "{ type: 'layout-shift', buffered: true })"
        )
        for width in (360, 1280):
            demo.page.set_viewport_size({"width": width, "height": 900})
            demo.page.goto(address)
            demo.page.wait_for_timeout(2500)
            assert demo.page.evaluate("globalThis.shift") < 0.01
