"""Changes of the policy have their effect in Chromium.

What ``flask om csp suggest`` prints, applied as printed, ends what was reported; and what
``@om.csp(update=…)`` adds works.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask, Response, render_template_string
from flask.cli import FlaskGroup
from markupsafe import Markup
from werkzeug.serving import make_server

from om_plugins import OpenManager
from om_plugins.csp.advisor import RISKS, suggest
from om_plugins.csp.hashes import hash_text
from om_plugins.csp.violations import groups

pytestmark = [pytest.mark.browser, pytest.mark.proof]

PAGE = """<!doctype html><title>page</title>
<button id=short onclick="go(1)">x</button>
<button id=long onclick="go(2) || go('a text that is longer than what a report has of it')">x
</button>
<a id=link href="javascript:go(3)">x</a>
<a id=far href="javascript:go(4) || go('a text that is longer than what a report has of it')">x</a>
<p style="color: red">x</p>
{{ markup }}
<object data="{{ here }}/drawing.svg" type="image/svg+xml"></object>
<script>
function go() {}
addEventListener("load", () => {
  for (const id of ["short", "long", "link", "far"]) document.getElementById(id).click();
  try { eval("1") } catch {}
  try { new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])) } catch {}
  // after all that was loaded: the policy that only reports has the last word
  setTimeout(() => fetch("/sentinel"), 300);
});
</script>
<script src="/library.js"></script>
"""
MARKUP = """<script src="{other}/foreign.js"></script>
<script src="/own.js"></script>
<link rel=stylesheet href="{other}/foreign.css">
<base href="{here}/">"""
LIBRARY = """
function insert(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  document.head.append(made);
}
insert("style", "p{margin:0}");
insert("style", "p { margin: 0; padding: 0; border: 0; content: 'a long style' }");
insert("script", "window.a=1");
insert("script", "window.b = 'a script that is longer than what a report has of it'");
"""
FILES = {
    "/library.js": (LIBRARY, "text/javascript"),
    "/own.js": ("1", "text/javascript"),
    "/foreign.js": ("1", "text/javascript"),
    "/foreign.css": ("p{}", "text/css"),
    "/ran.js": ("ran = true", "text/javascript"),
    "/drawing.svg": ("<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
}
NOTE = """
window.seen = [];
addEventListener("securitypolicyviolation", (event) => seen.push(
  [event.effectiveDirective, event.blockedURI, event.sample, event.disposition]));
"""


class Site:
    """An app on two ports, of which the second is another origin; it can be exchanged."""

    def __init__(self) -> None:
        self.app: Any = None
        self._servers = [
            make_server("127.0.0.1", 0, lambda *call: self.app(*call), threaded=True)
            for _ in range(2)
        ]
        self.here, self.other = (f"http://127.0.0.1:{one.port}" for one in self._servers)
        for one in self._servers:
            threading.Thread(target=one.serve_forever, daemon=True).start()

    def close(self) -> None:
        for one in self._servers:
            one.shutdown()
            one.server_close()

    def serve(self, preset: str, csp: Any = None) -> Flask:
        app = Flask("site")
        app.config.update(
            OM_CSP_MODE="enforce", OM_CSP_PRESET=preset, OM_CSP=csp or {}, OM_CSP_API={},
            OM_CSP_REPORT_SAMPLE=1.0, OM_CSP_REPORT_ALSO=["connect-src 'none'"],
            OM_HUB_URL="memory://", OM_PLUGINS=(),
        )  # fmt: skip
        app.extensions["om"] = OpenManager(app)
        names = {"here": self.here, "other": self.other}

        @app.get("/")
        def page() -> str:
            markup = Markup(MARKUP.format(**names))
            return render_template_string(PAGE, markup=markup, **names)

        for path, (text, content_type) in FILES.items():
            answer = Response(text, content_type=content_type)
            app.add_url_rule(path, path, lambda answer=answer: answer)
        self.app = app
        return app


@pytest.fixture(scope="module")
def site():
    found = Site()
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(browser):
    context = browser.new_context()
    context.add_init_script(NOTE)
    yield context.new_page()
    context.close()


def find_violations(page: Any, site: Site) -> set[tuple[str, str, str]]:
    """Open the page, and return what Chromium enforced, as directive, address and text."""
    page.goto(site.here + "/")
    end = time.monotonic() + 30
    while True:
        seen = page.evaluate("() => seen")
        if any(name == "connect-src" for name, *_ in seen):
            break
        assert time.monotonic() < end, seen
        time.sleep(0.02)
    return {
        (name, blocked, sample)
        for name, blocked, sample, disposition in seen
        if disposition == "enforce"
    }


def is_of_group(kind: tuple[str, str, str], group: Any) -> bool:
    name, blocked, sample = kind
    if name != group.directive:
        return False
    if group.blocked == "inline":
        return blocked == "inline" and sample == group.sample
    return blocked in (group.blocked, group.address)


def wait_for_groups(app: Flask, number: int) -> list[Any]:
    hub = app.extensions["om_plugins"].kit.hub
    end = time.monotonic() + 30
    while True:
        found = [one for one in groups(hub) if one.enforced]
        if len(found) >= number or time.monotonic() > end:
            return found
        time.sleep(0.05)


def print_settings(app: Flask, risk: str) -> Any:
    group = FlaskGroup(create_app=lambda: app)
    words = ["om", "csp", "suggest", "--settings", "--risk", risk]
    printed = CliRunner().invoke(group, words, catch_exceptions=False).output
    found: dict[str, Any] = {}
    exec(printed, found)
    return found.get("OM_CSP", {})


@pytest.mark.parametrize("preset", ["strict", "compatible", "hash"])
def test_what_was_reported_ends_at_each_risk(page: Any, site: Site, preset: str) -> None:
    app = site.serve(preset)
    before = find_violations(page, site)
    expected = 13
    reported = wait_for_groups(app, expected)
    assert len(before) >= expected
    assert len(reported) >= expected, [(one.directive, one.blocked) for one in reported]
    advice = suggest(reported)
    left = {}
    for risk in RISKS:
        site.serve(preset, print_settings(app, risk))
        left[risk] = find_violations(page, site)
        for one in advice:
            if one.change and RISKS.index(one.risk) <= RISKS.index(risk):
                assert not any(is_of_group(kind, one.group) for kind in left[risk]), one
        # without 'strict-dynamic', the scripts that the library inserts are stopped as well
        new = left[risk] - before
        assert not new or (preset == "strict" and {name for name, *_ in new} == {"script-src-elem"})
    assert left["none"] == before
    assert left["high"] == set()
    assert len(before) > len(left["low"]) > len(left["medium"]) > 0


HASH = hash_text("script-src-attr", "ran = true").partition(" ")[2]
STYLE = (
    "<p id=t>x</p><script>var made = document.createElement('style'); "
    "made.textContent = '#t{color:rgb(1, 2, 3)}'; document.head.append(made); "
    "ran = getComputedStyle(t).color == 'rgb(1, 2, 3)'</script>"
)
CLICK = "<button id=b onclick='ran = true'>x</button><script>b.click()</script>"
WRITTEN = '<script>document.write("<script src=\\"%s\\"><\\/script>")</script>'
INLINE = Markup("<script>ran = true</script>")
UPDATES = [
    ({"style-src": ["'unsafe-inline'"]}, STYLE),
    ({"style-src-elem": ["'unsafe-inline'"]}, STYLE),
    ({"default-src": ["'unsafe-inline'"]}, STYLE),
    ({"script-src-attr": ["'unsafe-inline'"]}, CLICK),
    ({"script-src-attr": [HASH]}, CLICK),
    ({"script-src": ["'unsafe-hashes'", HASH]}, CLICK),
    ({"script-src": ["'unsafe-inline'"]}, CLICK),
    ({"script-src": ["'unsafe-inline'"]}, "{{ inline }}"),
    ({"default-src": ["'unsafe-eval'"]}, "<script>eval('ran = true')</script>"),
    ({"script-src": ["OTHER"]}, WRITTEN % "OTHER/ran.js"),
    ({"script-src-elem": ["OTHER"]}, WRITTEN % "OTHER/ran.js"),
    ({"script-src": ["'self'"]}, WRITTEN % "/ran.js"),
    ({"script-src": ["data:"]}, WRITTEN % "data:text/javascript,ran=true"),
]


@pytest.mark.parametrize("preset", ["strict", "compatible", "hash"])
def test_what_a_view_adds_works_and_nothing_of_the_site_stops(
    page: Any, site: Site, preset: str
) -> None:
    app = site.serve(preset)
    om = app.extensions["om"]
    for number, (update, html) in enumerate(UPDATES):
        change = {
            name: [one.replace("OTHER", site.other) for one in update[name]] for name in update
        }
        html = (
            "<!doctype html><title>t</title><link rel=stylesheet href=/foreign.css>"
            + html.replace("OTHER", site.other)
            + "<script>own = true</script>"
        )

        def view(html: str = html) -> str:
            return render_template_string(html, inline=INLINE)

        app.add_url_rule(f"/{number}", f"view{number}", om.csp(update=change)(view))
    failed = []
    for number, (update, _) in enumerate(UPDATES):
        page.goto(f"{site.here}/{number}")  # until it is loaded
        if page.evaluate("() => [window.ran, window.own]") != [True, True]:
            failed.append((update, page.evaluate("() => seen")))
    assert failed == []


@pytest.mark.parametrize("answer", ["dismiss", "accept"])
def test_a_question_in_a_handler_is_asked_under_enforce(page: Any, site: Site, answer: str) -> None:
    app = site.serve("strict")
    form = (
        "<!doctype html><title>t</title><form method=post action=/delete>"
        "<button id=b onclick=\"return confirm('Sure?')\">Delete</button></form>"
        "<script>sent = 0; addEventListener('submit', (event) => "
        "{ sent++; event.preventDefault() })</script>"
    )
    app.add_url_rule("/ask", "ask", lambda: render_template_string(form))
    asked: list[str] = []

    def reply(dialog: Any) -> None:
        asked.append(dialog.message)
        getattr(dialog, answer)()

    page.once("dialog", reply)
    page.goto(f"{site.here}/ask")
    page.click("#b")
    assert page.evaluate("() => sent") == (1 if answer == "accept" else 0)
    assert asked == ["Sure?"]
