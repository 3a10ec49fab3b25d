"""Flask-Caching: fragments of a template with scripts in them, whole views, and functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, render_template_string, request
from flask_caching import Cache

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES = ("/fragments", "/fragments", "/whole", "/whole", "/unless")
FILES = ()
SETTINGS = {"OM_CSP_HTML_NONCES": ["/fragments", "/whole"]}
RISK = "none"

FRAGMENTS = """<!doctype html><title>Fragments</title>
{% cache 300, "head" %}<style>#menu { color: rgb(1, 2, 3) }</style>
<script>window.ran = ["head"];</script>{% endcache %}
<p id="menu">menu</p><p id="made">{{ made() }}</p>
{% cache 300, "side" %}<p id="kept">{{ made() }}</p>
<script>window.ran.push("side");</script>{% endcache %}
<script>window.ran.push("page");</script>"""
WHOLE = """<!doctype html><title>Whole</title><p id="made">{{ made() }}</p>
<script>window.ran = ["whole"];</script><script type="module">window.ran.push("module");</script>"""


def build(app: Flask, add_line: Callable[[], object], *, line_first: bool) -> None:
    app.config.update(CACHE_TYPE="SimpleCache")
    if line_first:
        add_line()
    cache = Cache(app)
    if not line_first:
        add_line()
    counts: dict[str, int] = {}

    def made():
        counts[request.path] = counts.get(request.path, 0) + 1
        return counts[request.path]

    @app.get("/fragments")
    def fragments():
        return render_template_string(FRAGMENTS, made=made)

    @app.get("/whole")
    @cache.cached(300)
    def whole():
        return render_template_string(WHOLE, made=made)

    @cache.memoize(300)
    def squared(number):
        return number * number

    @app.get("/unless")
    @cache.cached(300, unless=lambda: True)
    def unless():
        return render_template_string(
            "<p>{{ squared(7) }} {{ made() }}", squared=squared, made=made
        )


def visit(tab, url):
    """What two visits of each page show: the second finds what the first left in the cache."""
    seen = {}
    for path in ("/fragments", "/whole"):
        for visit in (1, 2, 3):
            tab.goto(url + path)
            seen[f"{path} {visit}"] = (
                tab.evaluate("window.ran"),
                tab.locator("#made").inner_text(),
                tab.locator("#kept").all_inner_texts(),
                tab.locator("p").first.evaluate("e => getComputedStyle(e).color"),
            )
    tab.goto(f"{url}/unless")
    seen["memoized"] = tab.locator("p").inner_text()
    return seen
