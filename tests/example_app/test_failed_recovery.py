"""A recovery that fails, from two workers that had no trouble before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.browser


def test_a_failed_recovery_is_reported_and_a_problem_report_arrives(
    opened: Callable[..., Any], address: str
) -> None:
    with opened() as demo:
        demo.go(address)
        demo.run_scenario("permanent")
        failed = demo.toast("could not be repaired by itself")
        failed.wait_for()
        assert "error" in failed.get_attribute("class")
        buttons = [one.inner_text() for one in failed.locator(".actions button").all()]
        assert buttons == ["Refresh", "Report problem"]

        failed.get_by_role("button", name="Report problem").click()
        demo.toast("report 1 was sent").wait_for()
        timeline = demo.page.locator("#timeline li")
        timeline.filter(has_text="Problem report no. 1 came in").wait_for()
        timeline.filter(has_text="The assistant could not be repaired").wait_for()

        console = demo.context.new_page()
        console.on("console", lambda message: demo.said.append(message.text))
        link = demo.page.get_by_role("link", name="Operations").get_attribute("href")
        console.goto(address + link)
        console.get_by_text("could not be repaired by itself").first.wait_for()
        overview = demo.page.request.get(f"{address}/_om/overview.json").json()
        assert overview["problems"][-1]["id"] == "1"

        with demo.page.expect_navigation():
            demo.run_scenario("announce")
            demo.toast("is live.").get_by_role("button", name="Refresh").click()
        assert demo.said == []
