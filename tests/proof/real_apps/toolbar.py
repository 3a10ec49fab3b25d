"""Flask-DebugToolbar, which writes itself into pages with templates of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, redirect, render_template_string
from flask_debugtoolbar import DebugToolbarExtension

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES = ("/",)
FILES = ("/_debug_toolbar/static/js/toolbar.js", "/_debug_toolbar/static/css/toolbar.css")
SETTINGS = {"OM_CSP_HTML_NONCES": "trusted"}
RISK = "none"

PAGE = """<!doctype html><title>Shop</title><body><p id="text">shop</p>
<script>document.getElementById("text").textContent += " opened";</script></body>"""


def build(app: Flask, add_line: Callable[[], object], *, line_first: bool) -> None:
    app.config.update(DEBUG_TB_ENABLED=True)
    if line_first:
        add_line()
    DebugToolbarExtension(app)
    if not line_first:
        add_line()

    @app.get("/")
    def shop():
        return render_template_string(PAGE)

    @app.get("/moved")
    def moved():
        return redirect("/")


def scrub(page: str) -> str:
    """The toolbar shows times, and settings of the app: with the line there are more."""
    before, _, after = page.partition('<div id="flDebug"')
    return before + after.rpartition("</body>")[1]


def visit(tab, url):
    """What a developer sees."""
    seen = {}
    tab.goto(url)
    seen["text"] = tab.locator("#text").inner_text()
    bar = tab.locator("#flDebugToolbar")
    seen["bar"] = (bar.is_visible(), bar.evaluate("e => getComputedStyle(e).position"))
    seen["panels"] = tab.locator("#flDebugPanelList > li > a").evaluate_all(
        "all => all.map((e) => e.className)"
    )
    seen["panels that can be opened"] = tab.locator("#flDebugPanelList > li > a").count()
    tab.locator("a.flDebugVersionPanel").click()
    panel = tab.locator("#flDebugVersionPanel-content")
    panel.wait_for()
    seen["versions"] = "Flask" in panel.inner_text()
    panel.locator(".flDebugClose").click()
    panel.wait_for(state="hidden")
    tab.locator("#flDebugHideToolBarButton").click()
    tab.locator("#flDebugShowToolBarButton").wait_for()
    bar.wait_for(state="hidden")
    tab.reload()
    seen["stays hidden"] = not bar.is_visible()
    tab.goto(f"{url}/moved")
    seen["redirect"] = (tab.url.removeprefix(url), tab.locator("a[href='/']").count())
    return seen
