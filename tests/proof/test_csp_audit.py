"""What the doctor says that a policy stops on a page is what Chromium stops."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from om_plugins.csp.audit.files import examine_file
from om_plugins.csp.audit.matching import read_header
from om_plugins.csp.audit.page import find_stopped
from om_plugins.csp.hashes import hash_text

pytestmark = [pytest.mark.browser, pytest.mark.proof]

PAGE = """<!doctype html><title>page</title>
<script>let one</script>
<script nonce=N>let two</script>
<script nonce=O>let three</script>
<script type=module>let four</script>
<script type=application/json>{}</script>
<script src=/js/five.js></script>
<script src=OTHER/js/six.js></script>
<script src=OTHER/js/seven.js nonce=N></script>
<script src=OTHER/other/eight.js></script>
<script src="data:text/javascript,9"></script>
<style>p{color:red}</style>
<style nonce=N>i{color:red}</style>
<style nonce=N>b{background:url(OTHER/img/css.png)}</style>
<link rel=stylesheet href=/css/one.css>
<link rel=stylesheet href=OTHER/css/two.css>
<link rel=stylesheet href=OTHER/css/three.css nonce=N>
<p style="color:blue">x</p>
<b>x</b>
<img src=/img/one.png><img src=OTHER/img/two.png><img src="data:image/gif,x">
<img src=/img/handler.png onerror="let ten" onload="let ten">
<svg onload="let eleven"></svg>
<iframe src=/frame></iframe><iframe src=OTHER/frame></iframe>
<object data=HERE/object.svg type=image/svg+xml></object>
<embed src=OTHER/object.svg type=image/svg+xml>
<textarea><script>let no</script></textarea>
<!-- <script>let no</script> -->
<script nonce=N>fetch("OTHER/connect").catch(() => 0)</script>
<iframe srcdoc="<style>u{color:red}</style>"></iframe>
<base href=OTHER/>
<img src=img/after.png><video src=OTHER/media.mp4></video>
"""
HASH = hash_text("script-src", "let one").partition(" ")[2]
HANDLER = hash_text("script-src-attr", "let eleven").partition(" ")[2]
HEADERS = [
    "script-src 'nonce-N' 'strict-dynamic' https: 'unsafe-inline'; style-src 'self' 'nonce-N'; "
    "style-src-attr 'unsafe-inline'; object-src 'none'; base-uri 'none'; frame-ancestors 'self'",
    "script-src 'self' 'nonce-N' OTHER/js/; style-src 'self' 'nonce-N'; object-src 'none'; "
    "base-uri 'self'",
    f"script-src 'self' {HASH} 'unsafe-hashes' {HANDLER}; style-src 'unsafe-inline'",
    "default-src 'none'; base-uri 'none'",
    "default-src 'self' 'unsafe-inline' data:; connect-src OTHER; base-uri OTHER",
    "default-src 'self'; script-src 'nonce-N'; img-src * data:; child-src OTHER; "
    "style-src-attr 'unsafe-inline'; style-src-elem OTHER 'nonce-N'",
    "img-src http:; media-src 'none'; frame-src 'self'; object-src OTHER",
    "script-src-elem 'nonce-N' data:; script-src-attr 'unsafe-inline'; script-src 'none'",
]
NOTE = """
window.seen = [];
addEventListener("securitypolicyviolation", (event) => seen.push(
  [event.effectiveDirective, event.blockedURI, event.sample, event.disposition]));
"""


TYPES = [
    "text/javascript", "application/javascript; charset=utf-8", "text/ecmascript", "text/jscript",
    "application/x-javascript", "text/javascript1.5", "text/javascript1.6", "text/html",
    "text/plain", "application/json", "application/octet-stream", "image/png", "",
    "TEXT/JavaScript",
]  # fmt: skip


def answer(request: Request) -> Response:
    if request.path == "/types":
        tags = [f"<script src=/type?{number}></script>" for number in range(len(TYPES))]
        html = f"<!doctype html><script>ran = []</script>{''.join(tags)}"
        return Response(html, content_type="text/html")
    if request.path == "/type":
        number = int(request.query_string)
        response = Response(f"ran.push({number})", content_type=TYPES[number])
        response.headers["X-Content-Type-Options"] = "nosniff"
        if not TYPES[number]:
            del response.headers["Content-Type"]
        return response
    if request.path == "/page":
        other = request.args["other"]
        here = request.host_url.rstrip("/")  # <object> loads when <base> further below counts
        page = PAGE.replace("OTHER", other).replace("HERE", here)
        response = Response(page, content_type="text/html")
        header = HEADERS[int(request.args["header"])].replace("OTHER", other)
        response.headers["Content-Security-Policy"] = header
        response.headers["Content-Security-Policy-Report-Only"] = "connect-src 'none'"
        return response
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    kind = next((kinds[end] for end in kinds if request.path.endswith(end)), "text/plain")
    text = "<svg xmlns='http://www.w3.org/2000/svg'/>" if kind == "image/svg+xml" else ""
    return Response(text, content_type=kind, headers={"Access-Control-Allow-Origin": "*"})


@pytest.fixture(scope="module")
def origins():
    servers = [
        make_server("127.0.0.1", 0, Request.application(answer), threaded=True) for _ in range(2)
    ]
    for one in servers:
        threading.Thread(target=one.serve_forever, daemon=True).start()
    yield [f"http://127.0.0.1:{one.port}" for one in servers]
    for one in servers:
        one.shutdown()
        one.server_close()


@pytest.fixture(scope="module")
def tab(browser):
    context = browser.new_context()
    context.add_init_script(NOTE)
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("number", range(len(HEADERS)))
def test_what_is_found_is_what_chromium_stops(tab: Any, origins: list[str], number: int) -> None:
    here, other = origins
    url = f"{here}/page?header={number}&other={other}"
    response = tab.goto(url)
    tab.evaluate("() => { fetch('/sentinel').catch(() => 0) }")
    header = read_header([response.headers["content-security-policy"]])
    parts = find_stopped(response.text(), url, header)
    found = {(one.directive, _as_chromium(one.directive, one.url)) for one in parts}
    end = time.monotonic() + 20
    while True:  # Chromium loads the contents of <object> after the layout
        seen = [one for frame in tab.frames for one in frame.evaluate("() => window.seen ?? []")]
        stopped = {
            (name, _as_chromium(name, blocked))
            for name, blocked, _, disposition in seen
            if disposition == "enforce" and not blocked.endswith("/sentinel")
        }
        at_the_end = any(blocked.endswith("/sentinel") for _, blocked, *_ in seen)
        if (at_the_end and found <= stopped) or time.monotonic() > end:
            break
        time.sleep(0.02)
    assert at_the_end
    assert (found - stopped, stopped - found) == (set(), set())
    inline = [one for one in parts if not one.url]
    assert len(inline) == sum(
        blocked == "inline" and disposition == "enforce" for _, blocked, _, disposition in seen
    )


def test_a_type_is_refused_where_chromium_refuses_it(tab: Any, origins: list[str]) -> None:
    tab.goto(f"{origins[0]}/types")  # until it is loaded
    expected = [
        number
        for number, kind in enumerate(TYPES)
        if examine_file("script-src-elem", "/type", "/types", kind, enforced=True) is None
    ]
    assert tab.evaluate("() => ran") == expected


def _as_chromium(directive: str, url: str) -> str:
    """Return an address as Chromium reports it: of pages in frames, only the origin."""
    if directive in ("frame-src", "object-src"):
        url = "/".join(url.split("/")[:3])
    return "inline" if not url else "data" if url.startswith("data:") else url
