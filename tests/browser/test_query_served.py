"""query() against an application as it is served: two workers, the strict policy, two browsers."""

from __future__ import annotations

import urllib.request

import pytest

from tests.patience import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.server]

SOURCE = """
from flask import Flask, jsonify, render_template_string, request
from om_plugins import OpenManager

app = Flask(__name__, instance_path={folder!r})
app.config.from_mapping(
    SECRET_KEY="k",
    OM_CSP_MODE="enforce",
    OM_CSP={{
        "script-src": ["'nonce'", "'strict-dynamic'"], "connect-src": ["'self'"],
        "require-trusted-types-for": ["'script'"], "trusted-types": ["'none'"],
    }},
    OM_CACHE_URL="file://{folder}/cache",
    OM_SSE_MAX=4,
)
om = OpenManager(app)
PAGE = '''<!doctype html><html lang="en"><head><title>A page</title>{{{{ om_head(queries=True) }}}}
</head><body><p id="shown"></p><script type="module">
window.violations = [];
addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
const {{ query }} = await import("/_om/static/om.js");
query("board", "/api/board", {{ live: true }})
  .subscribe(({{ data }}) => (document.getElementById("shown").textContent = data?.text ?? ""));
</script></body></html>'''

@app.get("/up")
def up():
    return "up"

@app.get("/")
def page():
    return render_template_string(PAGE)

def board():
    return om.cache.query("board", lambda: {{"text": "nothing yet"}}, live=True)

@app.get("/api/board")
def read():
    answer = jsonify(board())
    answer.add_etag()
    return answer.make_conditional(request)

@app.post("/api/board")
def write():
    board()
    om.cache.set("board", {{"text": request.get_data(as_text=True)}})
    return "", 204
"""


def test_a_value_that_changes_on_the_server_changes_in_every_open_page(gunicorn, browser, tmp_path):
    url, _ = gunicorn(SOURCE.format(folder=str(tmp_path)), "--threads", "8", "--workers", "2")
    contexts = [browser.new_context() for _ in range(2)]
    said = []
    try:
        pages = [context.new_page() for context in contexts]
        for page in pages:
            page.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(url)
            wait_until(lambda page=page: page.inner_text("#shown") == "nothing yet")
        for text in ("first", "<b>second</b>"):
            request = urllib.request.Request(url + "/api/board", text.encode(), method="POST")
            urllib.request.urlopen(request).close()
            for page in pages:
                wait_until(lambda page=page, text=text: page.inner_text("#shown") == text)
        assert [page.evaluate("violations") for page in pages] == [[], []]
    finally:
        for context in contexts:
            context.close()
    assert [text for text in said if "favicon" not in text and "404" not in text] == []
