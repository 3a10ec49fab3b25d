"""The engines' page in a real browser, before two real workers that share a hub."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest

from tests.patience import HANG_S, PATIENCE_S

pytestmark = [pytest.mark.server, pytest.mark.browser]

TOKEN = "kX2v-9QmZt7Lr4Wb"
APP = """
import os
from pathlib import Path
from flask import Flask
from om_plugins import OpenManager

app = Flask(__name__, instance_path=str(Path(__file__).parent / "instance"))
app.debug = DEBUG
app.config.update(
    OM_CSP_MODE="enforce", OM_CONSOLE_AUTH="kX2v-9QmZt7Lr4Wb", SECRET_KEY="x" * 32,
    OM_CHAINS={"assistant": {"retries": 0}},
)
om = OpenManager(app)

@om.engine("<b>model</b>", chain="assistant", tier=1, idempotent=True)
def model(call):
    return "far"

@om.engine("local", chain="assistant", tier=2, local=True)
def local(call):
    return "near"

@app.get("/up")
def up():
    return "up"

@app.get("/ask")
def ask():
    chain = om.chain("assistant")
    return {"pid": os.getpid(), "engine": chain.call({}).engine, "timeout": chain.policy.timeout}
"""


class Opened:
    """The page, and what the workers behind it do."""

    def __init__(self, page, url):
        self.page = page
        self.url = url

    def ask(self):
        with urllib.request.urlopen(self.url + "/ask", timeout=HANG_S) as answer:
            return json.loads(answer.read())

    def all_workers(self, holds):
        """Whether soon every worker does as it should: both were seen, ten times in a row."""
        deadline = time.monotonic() + PATIENCE_S
        seen = []
        while time.monotonic() < deadline:
            said = self.ask()
            seen = [*seen, said["pid"]] if holds(said) else []
            if len(seen) >= 10 and len(set(seen)) == 2:
                return True
            time.sleep(0.01)
        return False


@pytest.fixture
def opened(browser, gunicorn, request):
    """The engines' page, signed in. It may not break its policy or log an error."""
    debug = getattr(request, "param", False)
    workers = 1 if debug else 2
    source = APP.replace("DEBUG", str(debug))
    url, _ = gunicorn(source, "--workers", str(workers), "--threads", "4")
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    said = []
    page.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(url + "/_om/engines")
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#state[data-state=live]")
    yield Opened(page, url)
    context.close()
    # signing in begins with a 401; a refused form is a 422
    assert [text for text in said if "401" not in text and "422" not in text] == []


def test_a_breaker_forced_open_keeps_calls_away_in_every_worker(opened):
    from playwright.sync_api import expect

    page = opened.page
    assert opened.ask()["engine"] == "<b>model</b>"
    model = page.locator("article.engine").first
    expect(model.locator("h3")).to_have_text("<b>model</b>")
    button = model.get_by_role("button", name="Force open")
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "true")
    assert opened.all_workers(lambda said: said["engine"] == "local")
    expect(model).to_contain_text("breaker forced open")
    expect(page.locator("om-toasts li").first).to_contain_text("breaker forced open")
    expect(button).to_be_focused()
    off = model.get_by_role("button", name="Switch <b>model</b> off")
    off.click()
    expect(model.get_by_role("button", name="Switch <b>model</b> on")).to_be_focused()
    page.get_by_role("button", name="Take everything back").click()
    expect(button).to_have_attribute("aria-pressed", "false")
    expect(off).to_be_visible()
    assert opened.all_workers(lambda said: said["engine"] == "<b>model</b>")


def test_a_timeout_is_changed_and_what_cannot_work_is_told_beside_the_field(opened):
    from playwright.sync_api import expect

    page = opened.page
    page.locator("summary", has_text="Settings in force").click()
    field = page.get_by_role("textbox", name="Timeout of a call")
    field.fill("-3")
    page.keyboard.press("Enter")
    expect(page.locator("#c0-settings-timeout-why")).to_have_text(
        "Must be a number of seconds from 0.001 to 3600."
    )
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    for _ in range(2):  # a board that comes in leaves what somebody types
        with page.expect_event("requestfinished", lambda one: "engines.json" in one.url):
            pass
    expect(field).to_have_value("-3")
    assert opened.ask()["timeout"] == 10
    field.fill("3")
    page.keyboard.press("Enter")
    expect(page.locator("#c0")).to_contain_text("otherwise 10")
    assert page.locator("[aria-invalid]").count() == 0
    assert opened.all_workers(lambda said: said["timeout"] == 3)
    page.get_by_role("button", name="Take Timeout of a call back").click()
    expect(field).to_have_value("10")
    assert opened.all_workers(lambda said: said["timeout"] == 10)
    page.locator("summary", has_text="Change all chains at once").click()
    page.locator("#every-settings-timeout").fill("4")
    page.keyboard.press("Enter")
    expect(page.locator("#c0")).to_contain_text("for every chain, until")
    assert opened.all_workers(lambda said: said["timeout"] == 4)
    assert page.get_by_text("Chaos").count() == 0


def test_it_fits_every_width_in_light_and_dark(opened):
    page = opened.page
    for summary in page.locator("summary").all():
        summary.click()
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    for width in (360, 640, 768, 1000, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input:not([type=hidden]), select, button')]"
        ".filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim())).length"
    )
    assert unnamed == 0


def test_without_scripts_the_forms_do_the_same(opened, browser):
    from playwright.sync_api import expect

    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(opened.url + "/_om/engines")
    page.fill("#token", TOKEN)
    page.get_by_role("button", name="Sign in").click()
    page.locator("article.engine").first.get_by_role("button", name="Force open").click()
    expect(page.get_by_text("Done: it holds in every worker")).to_be_visible()
    assert opened.all_workers(lambda said: said["engine"] == "local")
    page.locator("summary", has_text="Settings in force").click()
    page.get_by_role("textbox", name="Timeout of a call").fill("soon")
    page.keyboard.press("Enter")
    expect(page.locator("#c0-settings-timeout-why")).to_contain_text("Must be a number of seconds")
    expect(page.get_by_role("textbox", name="Timeout of a call")).to_have_value("soon")
    context.close()


@pytest.mark.parametrize("opened", [True], indirect=True)
def test_chaos_begins_and_stops_in_debug_mode(opened):
    from playwright.sync_api import expect

    page = opened.page
    model = page.locator("article.engine").first
    model.locator("summary", has_text="Chaos").click()
    model.get_by_label("Calls hit").fill("1")
    model.get_by_label("Raise").select_option("Transient")
    model.get_by_role("button", name="Begin").click()
    expect(model).to_contain_text("chaos, no call yet")
    assert opened.ask()["engine"] == "local"
    expect(model).to_contain_text("chaos, 1 of 1 calls hit")
    model.get_by_role("button", name="Stop").click()
    expect(model).not_to_contain_text("chaos, ")
    assert opened.ask()["engine"] == "<b>model</b>"
