"""Charts of Plotly: a page that is all ``to_html()``, and parts of it in templates."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import plotly.io
from flask import Flask, render_template_string
from plotly.offline import get_plotlyjs

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES = ("/", "/part")
FILES = ("/plotly.js",)
SETTINGS = {"OM_CSP_HTML_NONCES": ["/", "/part"]}
RISK = "medium"  # its script writes <style> elements

FIGURE = {"data": [{"y": [1, 2, 3], "type": "bar"}], "layout": {"title": {"text": "Sales"}}}
PART = """<!doctype html><title>Part</title><script src="/plotly.js"></script>
<p id="text">{{ user }}</p>{{ chart|safe }}
<script>document.getElementById("text").textContent += " saw it";</script>"""


def build(app: Flask, add_line: Callable[[], object], *, line_first: bool) -> None:
    if line_first:
        add_line()

    @app.get("/")
    def page():
        return plotly.io.to_html(FIGURE, post_script="window.ran = 1")

    @app.get("/part")
    def part():
        chart = plotly.io.to_html(FIGURE, include_plotlyjs=False, full_html=False)
        return render_template_string(PART, chart=chart, user="<script>user</script>")

    @app.get("/plotly.js")
    def script():
        return get_plotlyjs(), {"Content-Type": "text/javascript"}

    if not line_first:
        add_line()


def scrub(page: str) -> str:
    """Each chart has a random id."""
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "", page)


def visit(tab, url):
    """What a reader of the charts sees."""
    seen = {}
    for path in PAGES:
        tab.goto(url + path)
        title = tab.locator(".gtitle")
        title.wait_for()
        bar = tab.locator(".modebar-group").first
        seen[path] = (
            title.text_content(),
            tab.locator(".bars .point").count(),
            tab.locator("svg.main-svg").first.evaluate("e => getComputedStyle(e).position"),
            bar.evaluate("e => getComputedStyle(e).display"),
            tab.locator("#text").all_inner_texts(),
            tab.evaluate("window.ran"),
        )
    return seen
