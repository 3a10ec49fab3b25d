import pytest

from om_plugins.csp.audit.matching import read_header
from om_plugins.csp.audit.page import find_stopped

NOTHING = ["default-src 'none'; base-uri 'none'; form-action 'none'"]
STRICT = ["script-src 'nonce-N' 'strict-dynamic'; style-src 'self' 'nonce-N'; object-src 'none'"]


def stopped(html, headers=NOTHING):
    return [
        (one.kind, one.directive)
        for one in find_stopped(html, "https://site.example/a/", read_header(headers))
    ]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<script>go()</script>", ("tag", "script-src-elem")),
        ("<SCRIPT TYPE=module>go()</SCRIPT>", ("tag", "script-src-elem")),
        ("<script type=importmap>{}</script>", ("tag", "script-src-elem")),
        ("<script src=/a.js></script>", ("load", "script-src-elem")),
        ("<style>p{}</style>", ("tag", "style-src-elem")),
        ("<p style='color:red'>", ("attribute", "style-src-attr")),
        ("<p onclick='go()'>", ("attribute", "script-src-attr")),
        ("<svg onload=go()>", ("attribute", "script-src-attr")),
        ("<a href=' javascript:go()'>", ("script-url", "script-src-elem")),
        ("<form action='javascript:go()'>", ("script-url", "script-src-elem")),
        ("<button formaction=/delete>", ("load", "form-action")),
        ("<form action=/save>", ("load", "form-action")),
        ("<base href=/>", ("load", "base-uri")),
        ("<object data=a.svg></object>", ("load", "object-src")),
        ("<embed src=a.pdf>", ("load", "object-src")),
        ("<iframe src=https://a.example></iframe>", ("load", "frame-src")),
        ("<img src=a.png>", ("load", "img-src")),
        ("<img srcset='a.png 1x'>", ("load", "img-src")),
        ("<video poster=a.png>", ("load", "img-src")),
        ("<video src=a.mp4>", ("load", "media-src")),
        ("<link rel=stylesheet href=a.css>", ("load", "style-src-elem")),
        ("<link rel=icon href=a.png>", ("load", "img-src")),
        ("<link rel=manifest href=a.json>", ("load", "manifest-src")),
        ("<link rel=modulepreload href=a.js>", ("load", "script-src-elem")),
        ("<link rel=preload as=font href=a.woff>", ("load", "font-src")),
        ("<iframe srcdoc='<b onclick=go()>'></iframe>", ("attribute", "script-src-attr")),
        (
            "<iframe sandbox='allow-scripts' srcdoc='<script>a</script>'></iframe>",
            ("tag", "script-src-elem"),
        ),
        (
            "<iframe sandbox srcdoc='<script>a</script><style>p{}</style>'></iframe>",
            ("tag", "style-src-elem"),
        ),
        ("<p>a<style>p{color:red}", ("tag", "style-src-elem")),
    ],
)
def test_each_kind_of_part_is_found(html, expected):
    assert stopped(html) == [expected]


@pytest.mark.parametrize(
    "html",
    [
        "<script type='application/json'>{}</script>",
        "<script type='text/template'><b onclick=a></script>",
        "<!-- <script>go()</script> -->",
        "<textarea><script>go()</script></textarea><title><b onclick=a></title>",
        "<noscript><img src=a.png></noscript>",
        "<a href=https://a.example onfoo=a>",
        "<link rel=canonical href=/a><link rel=prefetch href=/a>",
        "<p onclick='' style=''><img src=''>",
        "<p>a<script>go()",
        "<button hx-confirm='Sure?' hx-delete=/x>",
    ],
)
def test_what_no_policy_stops_is_left_alone(html):
    assert stopped(html) == []


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<script nonce=N>go()</script><script>go()</script>", [("tag", "script-src-elem")]),
        ("<script nonce=N>eval('a')</script>", [("code", "script-src")]),
        ("<script>eval('a')</script>", [("tag", "script-src-elem")]),
        ("<div x-data='{}' x-show=a>", [("code", "script-src")]),
        ("<div hx-on:click='go()'>", [("code", "script-src")]),
        ("<div v-if=a v-for='b in c'>", [("code", "script-src")]),
        ("<script nonce=N>fetch('https://api.example/a')</script>", []),
        ("<iframe src='data:text/html,%3Cscript>a%3C/script>'></iframe>",
         [("tag", "script-src-elem")]),
        ("<iframe src='data:text/html;charset=utf-8;base64,PHN0eWxlPmE8L3N0eWxlPg=='></iframe>",
         [("tag", "style-src-elem")]),
        ("<iframe src='data:text/html;base64,a'></iframe><iframe src='data:a,<b>'></iframe>", []),
        ("<script nonce=N>document.write('<script src=/a.js><\\/script>')</script>",
         [("load", "script-src-elem")]),
        ("<script nonce=N>a || document.writeln(\"<script>b<\\/script>\")</script>",
         [("tag", "script-src-elem")]),
        ("<script nonce=N>document.write('<p>'); a = '<script '</script>", []),
        ("<script nonce=N>a.innerHTML = '<b onclick=\"go()\">'</script>",
         [("attribute", "script-src-attr")]),
        ("<link rel=stylesheet href=/a.css><link rel=stylesheet href=//b.example/a.css>",
         [("load", "style-src-elem")]),
    ],
)  # fmt: skip
def test_what_the_policy_allows_is_not_stopped(html, expected):
    assert stopped(html, STRICT) == expected


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<script nonce=N>fetch('https://api.example/a')</script>", "connect-src"),
        ('<script nonce=N>new WebSocket("wss://api.example/a")</script>', "connect-src"),
        ("<script nonce=N>x.open('GET', 'https://api.example/a')</script>", "connect-src"),
        ("<script nonce=N>new Worker('/w.js')</script>", "worker-src"),
        ("<style nonce=N>@import url(a.css);</style>", "style-src-elem"),
        ("<style nonce=N>@font-face{font-family:a;src:url('a.woff')}</style>", "font-src"),
        ("<style nonce=N>p{background:url(a.png)}</style>", "img-src"),
        ("<p style='background:url(a.png)'>", "img-src"),
    ],
)
def test_addresses_in_scripts_and_styles_are_found(html, expected):
    headers = [
        "default-src 'none'; script-src 'nonce-N'; style-src 'nonce-N'; "
        "style-src-attr 'unsafe-inline'"
    ]
    assert stopped(html, headers) == [("load", expected)]


def test_a_base_changes_addresses_only_where_it_is_allowed():
    html = "<base href=https://cdn.example/><script src=a.js></script>"
    allowed = ["script-src https://cdn.example"]
    assert stopped(html, allowed) == []
    assert stopped(html, [*allowed, "base-uri 'none'"]) == [
        ("load", "base-uri"),
        ("load", "script-src-elem"),
    ]


def test_a_part_says_where_it_is_and_keeps_no_nonce():
    html = "<p>\n<script async nonce='O'>\n  go('" + "x" * 99 + "')</script>"
    (part,) = find_stopped(html, "https://site.example/", read_header(STRICT))
    assert (part.line, part.nonce) == (2, "O")
    assert part.shown == "<script async>go('" + "x" * 26 + "…"


def test_a_handler_that_decides_is_known_and_so_is_the_debug_toolbar():
    html = (
        "<button onclick=\"return confirm('Sure?')\"><script src=/_debug_toolbar/a.js></script>"
        "<script>var DEBUG_TOOLBAR_STATIC_PATH = ''</script>"
    )
    handler, *scripts = find_stopped(html, "https://site.example/", read_header(STRICT))
    assert handler.guards
    assert [one.tool for one in scripts] == ["Flask-DebugToolbar"] * 2


def test_a_script_of_the_site_may_be_written_where_its_files_are_allowed():
    html = "<script nonce=N>document.write('<script src=/a.js><\\/script>')</script>"
    assert stopped(html, ["script-src 'self' 'nonce-N'"]) == []


def test_what_is_in_a_frame_is_named_by_the_line_of_the_frame():
    html = "<p>\n<iframe srcdoc='\n\n<script>a</script>'></iframe>"
    (part,) = find_stopped(html, "https://site.example/", read_header(STRICT))
    assert (part.line, part.framed) == (2, True)


def test_a_style_that_ends_with_the_page_is_known_by_its_hash():
    allowed = "style-src 'sha256-HpZEoiQ8I7RFnKbWYHLdM9qp0gnuFh3vLVp4kDXb5YY='"
    (part,) = find_stopped("<style>p{}", "https://site.example/", read_header(STRICT))
    assert part.text == "p{}"
    assert stopped("<style>p{}x", [allowed]) == [("tag", "style-src-elem")]
