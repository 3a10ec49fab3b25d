"""The browser module and the endpoints understand each other, in a real browser."""

from __future__ import annotations

import pytest

from tests.patience import wait_until

pytestmark = [pytest.mark.server, pytest.mark.browser]

APP = """
from pathlib import Path
from flask import Flask, redirect, render_template_string, request
from om_plugins import OpenManager
from om_plugins.types import Action

app = Flask(__name__, instance_path=str(Path(__file__).parent / "instance"))
app.config.update(
    OM_CSP_MODE="enforce",
    OM_CSP={"require-trusted-types-for": ["'script'"]},
    OM_SSE_MAX=4,
    OM_NOTIFY_AUDIENCE=lambda request: ["operators"] if "operator" in request.cookies else [],
)
om = OpenManager(app)

@app.get("/up")
def up():
    return render_template_string(
        "<!doctype html><title>t</title>{{ om_head() }}"
        "<form method=post action=save><button>save</button></form>"
    )

@app.get("/favicon.ico")
def icon():
    return "", 204

@app.post("/save")
def save():
    om.notify.success("Saved <b>it</b>", actions=[Action("Report", "report", "f1")], duration=30)
    return redirect("up")

@app.post("/work")
def work():
    progress = om.notify.progress("Working")
    progress.update(50, "Half done")
    progress.complete("All done")
    return ""
"""


@pytest.fixture
def open_page(gunicorn, browser):
    url, _ = gunicorn(APP, "--workers", "2", "--threads", "6", "-k", "gthread")
    made = []

    def open_(**cookies):
        context = browser.new_context(locale="en-GB")
        made.append(context)
        context.add_cookies([{"name": k, "value": v, "url": url} for k, v in cookies.items()])
        page = context.new_page()
        page.errors = []
        page.on("console", lambda m: m.type == "error" and page.errors.append(m.text))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        with page.expect_request("**/_om/events*"):
            page.goto(url + "/up")
        wait_until(lambda: page.evaluate("sessionStorage.length"))  # until its stream is ready
        return page

    yield open_
    for context in made:
        context.close()


def test_a_notification_is_shown_on_the_next_page_and_its_report_arrives(open_page):
    page, other, operator = open_page(), open_page(), open_page(operator="1")
    page.click("button")
    page.wait_for_url("**/up")
    item = page.locator("om-toasts li")
    item.wait_for()
    assert "Saved <b>it</b>" in item.inner_text()
    item.get_by_role("button", name="Report").click()
    page.get_by_text("report 1 was sent").wait_for()
    told = operator.locator("om-toasts li")
    told.wait_for()
    assert "Problem report 1: Saved <b>it</b> (/up)" in told.inner_text()
    assert other.locator("om-toasts li").count() == 0
    assert page.errors == []


def test_a_progress_is_one_toast(open_page):
    page = open_page()
    page.evaluate("fetch('work', {method: 'POST'})")
    page.get_by_text("All done", exact=True).wait_for()
    assert page.locator("om-toasts li").count() == 1
    assert page.errors == []
