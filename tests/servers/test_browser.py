"""In a real browser: nothing breaks by default, and literal tags run when enforced."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.server, pytest.mark.browser]

APP = """
from pathlib import Path
from flask import Flask, render_template_string
from markupsafe import Markup
from om_plugins import OpenManager

static = Path(__file__).parent / "static"
static.mkdir(exist_ok=True)
(static / "page.html").write_text(
    "<!doctype html><style>p {{ color: rgb(1, 2, 3) }}</style><p id=p>static</p>"
    "<script>document.title = 'static ran'</script>"
)
app = Flask(__name__, static_folder=str(static))
app.config["OM_CSP_MODE"] = {mode!r}
app.config["OM_CSP_REPORT_SAMPLE"] = 1.0
app.config["OM_HUB_URL"] = "memory://"
app.debug = {debug!r}
app.config.update({config!r})
om = OpenManager(app)

LITERAL = '''<!doctype html><title>no</title>
<style>#p {{ color: rgb(4, 5, 6) }}</style>
<p id=p style="font-weight: 900">text</p>
<script>document.title = "literal ran"</script>'''

@app.get("/up")
def up():
    return "up"

@app.get("/literal")
def literal():
    return render_template_string(LITERAL)

@app.get("/loose")
def loose():
    script = Markup("<script>document.title = 'markup ran'</script>")
    return render_template_string(
        "<!doctype html><title>no</title>{{{{ s }}}}"
        "<button onclick='window.clicked = 1'>b</button>",
        s=script,
    )

@app.get("/watched")
def watched():
    return render_template_string(
        "<!doctype html><title>no</title>{{{{ om_head() }}}}<button onclick='a=1'>b</button>"
    )

@app.get("/hashed")
def hashed():
    return render_template_string(
        "<!doctype html><title>no</title>\\n"
        "<style>\\r\\n#p {{ color: rgb(7, 7, 7) }}\\n</style>"
        "<p id=p style='font-weight: 900' onclick='document.title = &quot;clicked ü&quot;'>a</p>"
        "{{% raw %}}<script>\\r\\n document.title = 'hash {{{{ ran }}}}';\\n</script>{{% endraw %}}"
    )

calls = []

@app.get("/shared")
@om.cached(shared=True)
def shared():
    calls.append(1)
    return render_template_string(
        "<!doctype html><title>no</title><style>#p {{ color: rgb(8, 8, 8) }}</style><p id=p>"
        + str(len(calls)) + "</p><script>document.title = 'run ' + {{{{ n }}}}</script>",
        n=len(calls),
    )

@app.get("/told")
def told():
    om.notify.success("Saved <b>it</b>")
    return render_template_string(
        "<!doctype html><title>no</title>{{{{ om_head() }}}}"
        "<script type=module>import {{ toast }} from '/_om/static/om.js';"
        "toast.progress('Going <i>on</i>', {{ percent: 20 }}); toast.error('Broken', {{"
        "actions: [{{ label: 'Report problem', action: 'report' }}] }});</script>"
    )

@app.get("/injected")
def injected():
    evil = Markup("<style>#p {{ color: rgb(9, 9, 9) }}</style><script>window.evil = 1</script>")
    return render_template_string("<!doctype html><p id=p>text</p>{{{{ evil }}}}", evil=evil)
"""

COLOR = "getComputedStyle(document.getElementById('p')).color"


@pytest.fixture
def open_page(browser, gunicorn):
    contexts = []

    def start(mode, debug=False, **config):
        url, _ = gunicorn(APP.format(mode=mode, debug=debug, config=config), "--threads", "4")
        context = browser.new_context()
        contexts.append(context)
        page = context.new_page()
        page.violations = []
        page.on(
            "console",
            lambda m: page.violations.append(m.text) if "Content Security" in m.text else None,
        )

        def go(path):
            page.goto(url + path)
            return page

        return go

    yield start
    for context in contexts:
        context.close()


def test_by_default_everything_behaves_as_before(open_page):
    go = open_page("adopt")
    assert go("/literal").title() == "literal ran"
    page = go("/loose")
    assert page.title() == "markup ran"
    page.click("button")
    assert page.evaluate("window.clicked") == 1
    page = go("/static/page.html")
    assert page.title() == "static ran"
    assert page.evaluate(COLOR) == "rgb(1, 2, 3)"


def test_enforced_literal_tags_of_templates_work_and_nothing_is_reported(open_page):
    page = open_page("enforce")("/literal")
    assert page.title() == "literal ran"
    assert page.evaluate(COLOR) == "rgb(4, 5, 6)"
    assert page.evaluate("getComputedStyle(document.getElementById('p')).fontWeight") == "900"
    assert page.violations == []


def test_enforced_what_was_injected_neither_runs_nor_styles(open_page):
    page = open_page("enforce")("/injected")
    assert page.evaluate("window.evil") is None
    assert page.evaluate(COLOR) == "rgb(0, 0, 0)"
    assert page.violations


def test_in_debug_mode_a_violation_shows_as_a_toast_with_its_mend_and_is_suggested(open_page):
    page = open_page("adopt", debug=True)("/watched")
    toast = page.locator("om-toasts [role=group], om-toasts article, om-toasts li").first
    toast.wait_for()
    text = toast.inner_text()
    assert "script-src-attr would block" in text
    assert "addEventListener" in text

    def reported():
        picture = page.request.get(page.url.replace("/watched", "/_om/overview.json")).json()
        return [one["group"] for one in picture["violations"]["suggestions"]]

    page.wait_for_timeout(500)
    for _ in range(130):  # the console looks every ten seconds
        found = reported()
        if found:
            break
        page.wait_for_timeout(100)
    assert found[0]["directive"] == "script-src-attr"
    assert found[0]["route"] == "/watched"
    assert found[0]["blocked"] == "inline"

    page.goto(page.url.replace("/watched", "/_om/"))
    card = page.locator("#violations")
    card.locator("li").first.wait_for()
    assert "script-src-attr blocked inline on /watched" in card.inner_text()
    assert "addEventListener" in card.inner_text()
    card.get_by_text("As settings").click()
    settings = card.locator("pre").inner_text()
    assert "'unsafe-hashes'" in settings
    assert "'sha256-" in settings
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # what somebody opened stays open when the card's text is renewed
    assert page.evaluate(
        """async () => {
            const { make, settle } = await import("/_om/static/console_parts.js");
            const card = document.querySelector("#violations details").parentElement;
            settle(card, [make("p", {}, "1 s ago"), make("details", {}, make("summary", {}, "s"))]);
            settle(card, [make("p", {}, "2 s ago"), make("details", {}, make("summary", {}, "s"))]);
            return card.querySelector("details").open;
        }"""
    )


def test_without_debug_mode_nothing_is_shown(open_page):
    page = open_page("enforce")("/watched")
    page.wait_for_timeout(300)
    assert "script-src-attr" not in "".join(page.locator("om-toasts").all_inner_texts())


def test_what_is_allowed_by_its_hash_runs(open_page):
    page = open_page(
        "enforce",
        OM_CSP_PRESET="hash",
        OM_CSP={"style-src-attr": ["'none'"]},
        OM_CSP_HASH_ATTRIBUTES=True,
    )("/hashed")
    assert "nonce" not in page.content()
    assert page.title() == "hash {{ ran }}"
    assert page.evaluate(COLOR) == "rgb(7, 7, 7)"
    assert page.evaluate("getComputedStyle(document.getElementById('p')).fontWeight") == "900"
    page.click("#p")
    assert page.title() == "clicked ü"
    assert page.violations == []


@pytest.mark.parametrize("preset", ["strict", "hash"])
def test_a_cached_page_has_another_nonce_each_time_and_still_works(open_page, preset):
    first = open_page("enforce", OM_CSP_PRESET=preset)("/shared")
    nonces = set()
    for _ in range(3):  # browsers that have nothing yet; one that has the page gets a 304
        context = first.context.browser.new_context()
        page = context.new_page()
        page.on("console", lambda message: first.violations.append(message.text))
        page.goto(first.url)
        assert page.title() == "run 1"
        assert page.evaluate(COLOR) == "rgb(8, 8, 8)"
        nonces.add(page.evaluate("document.querySelector('script').nonce"))
        context.close()
    assert len(nonces) == 3
    assert [one for one in first.violations if "favicon" not in one] == []
    first.reload()
    assert first.title() == "run 1"


def test_the_shipped_scripts_run_with_trusted_types_required(open_page):
    page = open_page(
        "enforce",
        debug=True,
        OM_CSP={"require-trusted-types-for": ["'script'"], "trusted-types": ["'none'"]},
    )("/told")
    toasts = page.locator("om-toasts li")
    toasts.filter(has_text="Going <i>on</i>").wait_for()
    toasts.filter(has_text="Broken").wait_for()
    page.get_by_role("button", name="Report problem").click()
    toasts.filter(has_text="report 1 was sent").wait_for()
    assert page.violations == []
    write = "(() => { try { document.body.innerHTML = '<b>' } catch { return 'stopped' } })()"
    assert page.evaluate(write) == "stopped"
