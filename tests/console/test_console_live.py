"""The console over several real workers, and in a real browser."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request

import pytest

from tests.patience import HANG_S

pytestmark = pytest.mark.server

TOKEN = "kX2v-9QmZt7Lr4Wb"
APP = """
import os
from pathlib import Path
from flask import Flask
from om_plugins import Card, Feature, FeatureSpec, OpenManager, hookimpl
from om_plugins.monitoring import worker_snapshots as exchange

exchange.TTL_S = 4.0  # while somebody watches, every worker publishes each second
app = Flask(__name__, instance_path=str(Path(__file__).parent / "instance"))
app.config.update(
    OM_CSP_MODE="enforce",
    OM_CONSOLE_AUTH="kX2v-9QmZt7Lr4Wb",
    OM_CHAINS={"assistant": {"retries": 0}},
    OM_CHAIN_DEFAULTS={"breaker_min_calls": 3},
    OM_CACHE_URL=f"file://{Path(__file__).parent}/store",
    SECRET_KEY="x" * 32,
)
class Visits(Feature):
    name = "visits"

    def build(self, kit, keys):
        return {"count": 0}

    def card(self, kit, part):
        part["count"] += 1
        row = ("<img src=x onerror=alert(1)>", 1234.5)
        return Card("Visits & more", [row, ("looks", part["count"])], ("What", "Times"))

class VisitsPlugin:
    @hookimpl
    def om_features(self):
        return [FeatureSpec(Visits())]

om = OpenManager()
om.register_plugin(VisitsPlugin(), "visits")
om.init_app(app)

@om.engine("<b>remote</b>", chain="assistant", tier=1, idempotent=True)
def remote(call):
    if (Path(__file__).parent / "away").exists():
        raise ConnectionError("<img src=x onerror=alert(1)>")
    return "far"

@om.engine("local", chain="assistant", tier=2, local=True)
def local(call):
    return "near"

@app.get("/up")
def up():
    return str(os.getpid())

@app.get("/shared")
@om.cached(shared=True)
def shared():
    return "shared"

@app.get("/data")
def data():
    return om.cache.query("data", lambda: "kept")

@app.get("/force")
def force():
    om.configure("assistant", engines={"local": {"breaker": "open"}})
    return ""

@app.get("/ask")
def ask():
    return om.chain("assistant").call({}).payload
"""


def get(url, data=None, **headers):
    request = urllib.request.Request(url, data, headers)
    with urllib.request.urlopen(request, timeout=HANG_S) as answer:
        return answer.read().decode()


def overview(url):
    return json.loads(get(url + "/_om/overview.json", Authorization=f"Bearer {TOKEN}"))


def shown_workers(url):
    return {one["pid"] for one in overview(url)["workers"]}


def wait_for(condition, times=1):
    """Until it holds so many times in a row: each look may be answered by another worker."""
    deadline = time.monotonic() + HANG_S
    held = 0
    while time.monotonic() < deadline:
        try:
            found = condition()
        except OSError:
            found = None
        held = held + 1 if found else 0
        if held == times:
            return found
        time.sleep(0.2)
    raise AssertionError("it never happened")


def test_one_worker_shows_all_and_outlives_one_that_is_killed(gunicorn):
    url, _ = gunicorn(APP, "--workers", "2", "--threads", "4")
    asked = 0
    pids = set()

    def both_answered():
        nonlocal asked
        pids.add(int(get(url + "/up")))
        asked += 1
        return len(pids) == 2

    wait_for(both_answered)

    def merged():
        told = overview(url)
        row = [one for one in told["routes"] if one["route"] == "/up"]
        whole = {one["pid"] for one in told["workers"]} == pids
        return whole and row and row[0]["requests"] >= asked and told

    told = wait_for(merged, times=8)
    assert told["requests"] >= asked
    killed = min(pids)
    os.kill(killed, signal.SIGKILL)
    workers = wait_for(lambda: shown_workers(url))  # it answers all the same
    assert killed in workers  # nobody could say good-bye for it
    workers = wait_for(lambda: killed not in (seen := shown_workers(url)) and seen, times=8)
    assert workers & pids == pids - {killed}


@pytest.fixture
def page(browser, gunicorn, tmp_path):
    """The console of a served app, signed in. No page may break its policy or log an error."""
    url, _ = gunicorn(APP, "--workers", "2", "--threads", "8")
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.said = []
    page.url_of_app = url
    page.away = tmp_path / "away"
    page.on("console", lambda m: page.said.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(url + "/_om/")
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#verdict")
    yield page
    context.close()
    # signing in begins with the 401 that shows the form
    assert [text for text in page.said if "401" not in text] == []


@pytest.mark.browser
def test_a_fallback_is_seen_live_in_light_dark_and_on_a_phone(page):
    from playwright.sync_api import expect

    for _ in range(6):
        get(page.url_of_app + "/ask")
    page.wait_for_selector("#state[data-state=live]")
    health = page.locator("#engines .badge").first
    expect(health).to_have_text("healthy")
    page.away.touch()
    for _ in range(12):
        get(page.url_of_app + "/ask")
    expect(health).to_have_text("offline")
    assert "<b>remote</b>" in page.inner_text("#engines")
    expect(page.locator("#errors")).to_contain_text("ConnectionError")
    page.get_by_role("button", name="Silence for 1 h: engine_offline").click()
    expect(page.locator("#alerts")).to_contain_text("no notifications for 60 min")
    page.get_by_role("button", name="Notify again: engine_offline").click()
    expect(page.locator("#alerts")).not_to_contain_text("no notifications for")
    get(page.url_of_app + "/force")
    expect(page.locator("#engines")).to_contain_text("forced open")
    assert page.locator("#errors img").count() == 0
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    for width in (360, 768, 1600):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
def test_shared_pages_are_shown_and_taken_back(page):
    from playwright.sync_api import expect

    site = page.url.partition("/_om")[0]
    for _ in range(8):
        get(site + "/shared")
    expect(page.locator("#pages dl")).to_contain_text("Hit rate")
    page.get_by_label("Path, URL or tag").fill("/shared")
    page.keyboard.press("Enter")
    expect(page.locator("om-toasts li").first).to_contain_text("Taken back in all workers")


@pytest.mark.browser
def test_the_cache_and_its_store_are_shown(page):
    from playwright.sync_api import expect

    for _ in range(4):
        get(page.url_of_app + "/data")
    expect(page.locator("#cache dl")).to_contain_text("Hit rate")
    expect(page.locator("#cache dl")).to_contain_text("Store hits")


@pytest.mark.browser
def test_the_card_of_a_feature_is_shown_as_text_and_kept_up_to_date(page):
    from playwright.sync_api import expect

    card = page.get_by_role("region", name="Visits & more").first
    expect(card).to_contain_text("<img src=x onerror=alert(1)>")
    expect(card).to_contain_text("1,234.5")
    assert card.locator("img").count() == 0
    assert card.locator("th").all_inner_texts() == ["What", "Times"]
    before = card.inner_text()
    page.wait_for_selector("#state[data-state=live]")
    expect(card).not_to_have_text(before)


@pytest.mark.browser
def test_a_recovery_is_begun_by_keyboard_and_followed(page):
    from playwright.sync_api import expect

    for _ in range(5):
        with pytest.raises(urllib.error.HTTPError):
            get(page.url_of_app + "/ask", b"x")
    mistakes = "clients send POST to a GET-only route; it allows GET, HEAD, OPTIONS"
    expect(page.locator("#errors")).to_contain_text(mistakes)
    button = page.locator("#engines button[data-recover]")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#recoveries")).to_contain_text("chain assistant")
    expect(page.locator("#recoveries")).to_contain_text("begun by hand")
    assert page.locator("#recoveries ol li").count() >= 1
    expect(page.locator("om-toasts li").first).to_be_visible()
    page.locator("button[data-span=hour]").click()
    page.wait_for_selector("#state[data-state=live]")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_selector("#token")
