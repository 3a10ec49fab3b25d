import pytest

from om_plugins.csp.audit.files import (
    examine_file,
    examine_insertions,
    find_files,
    inserts_styles,
)
from om_plugins.csp.audit.findings import AuditedPage
from om_plugins.csp.audit.matching import read_header

POLICY = read_header(["script-src 'nonce-N' 'strict-dynamic'; style-src 'self'"])


def files(html, path="/a/", policies=POLICY):
    page = AuditedPage(path, f"https://site.example{path}", html, policies, True)
    return list(find_files([page]))


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<script nonce=N src=b.js#c></script>", ("script-src-elem", "/a/b.js")),
        ("<script nonce=N src=/b.js?v=1></script>", ("script-src-elem", "/b.js?v=1")),
        ("<script nonce=N src=//site.example/b.js></script>", ("script-src-elem", "/b.js")),
        ("<script nonce=N type=module src=/b.mjs></script>", ("script-src-elem", "/b.mjs")),
        ("<link nonce=N rel=modulepreload href=/b.js>", ("script-src-elem", "/b.js")),
        ("<link rel=stylesheet href=/b.css>", ("style-src-elem", "/b.css")),
    ],
)
def test_files_of_the_site_are_found(html, expected):
    assert files(html) == [expected]


@pytest.mark.parametrize(
    "html",
    [
        "<script src=/b.js></script>",  # the policy stops it
        "<script nonce=N src=https://cdn.example/b.js></script>",
        "<script nonce=N src=http://site.example/b.js></script>",
        "<script nonce=N src='data:text/javascript,b'></script>",
        "<script nonce=N>b()</script>",
        "<script nonce=N type=application/json src=/b.json></script>",
        "<img src=/b.png><a href=/b.js>",
    ],
)
def test_what_is_of_others_or_stopped_or_no_script_is_left_alone(html):
    assert files(html) == []


def test_a_file_of_several_pages_is_looked_at_once():
    pages = [
        AuditedPage(path, f"https://site.example{path}", "<script src=/b.js></script>", [], True)
        for path in ("/", "/c")
    ]
    assert find_files(pages) == {("script-src-elem", "/b.js"): "/"}


@pytest.mark.parametrize(
    ("directive", "kind", "right"),
    [
        ("script-src-elem", "text/javascript; charset=utf-8", True),
        ("script-src-elem", "application/javascript", True),
        ("script-src-elem", "Text/X-ECMAScript", True),
        ("script-src-elem", "text/javascript1.5", True),
        ("script-src-elem", "text/html; charset=utf-8", False),
        ("script-src-elem", "text/plain", False),
        ("script-src-elem", "application/json", False),
        ("script-src-elem", "application/octet-stream", False),
        ("script-src-elem", "", False),
        ("style-src-elem", "text/css", True),
        ("style-src-elem", "text/plain", False),
    ],
)
def test_a_type_is_right_as_browsers_decide(directive, kind, right):
    found = examine_file(directive, "/b.x?v=1", "/", kind, enforced=True)
    assert (found is None) is right
    if found is not None:
        assert found.level == "fail"
        assert f"its type is {kind.partition(';')[0] or 'missing'}" in found.message
        assert "mimetypes.add_type(" in found.way_out
        assert "'.x')" in found.way_out


# --- styles that scripts insert -------------------------------------------------------------------

MAKES_STYLE = "<script nonce=N>s = document.createElement('style')</script>"


@pytest.mark.parametrize(
    ("text", "inserts"),
    [
        ('a.createElement("style")', True),
        ("a.createElement( `STYLE` )", True),
        ("a.insertAdjacentHTML('beforeend', '<style' + nonce + '>')", True),
        ("a.innerHTML = `<style>p{}`", True),
        ("a.insertAdjacentHTML('beforeend', `<style${nonce}>p{}`)", True),
        ("a.createElement('script')", False),
        ("a.style.color = 'red'; b = new CSSStyleSheet()", False),
        ("'<styled>'", False),
    ],
)
def test_a_script_that_makes_styles_is_known_by_its_usual_form(text, inserts):
    assert inserts_styles(text) is inserts


def insertions(*htmls, policies=POLICY, **more):
    pages = [
        AuditedPage(f"/{n}/", f"https://site.example/{n}/", html, policies, True, **more)
        for n, html in enumerate(htmls)
    ]
    return list(examine_insertions(pages, {"/b.js", "/c.js", "/d.js", "/e.js"}))


def test_pages_with_scripts_that_insert_styles_are_a_warning_with_the_change_of_their_paths():
    html = "<script nonce=N src=/b.js></script><script nonce=N src=/a.js></script>"
    (finding,) = insertions(html, html)
    assert (finding.level, finding.subject) == ("warn", "GET /0/, /1/")
    assert "without the nonce: /b.js." in finding.message
    assert (
        "OM_CSP_PATHS = {'/0/*': {'update': {'style-src': [\"'unsafe-inline'\"]}}, "
        "'/1/*': {'update': {'style-src': [\"'unsafe-inline'\"]}}}."
    ) in finding.way_out


def test_inline_scripts_are_named_by_their_line_and_long_lists_are_cut():
    html = "\n" + MAKES_STYLE + "".join(f"<script nonce=N src=/{x}.js></script>" for x in "bcde")
    (finding,) = insertions(html)
    assert "without the nonce: line 2, /b.js, /c.js, and 2 more." in finding.message


@pytest.mark.parametrize(
    ("url", "known"),
    [
        ("https://cdn.plot.ly/plotly-4.1.1.min.js", True),
        ("https://unpkg.com/htmx.org", True),
        ("https://unpkg.com/htmx.org@2/dist/htmx.min.js", True),
        ("https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-mml-chtml.js", True),
        ("https://cdn.jsdelivr.net/npm/vega-embed@7", True),
        ("https://cdn.jsdelivr.net/npm/vega@6", False),
        ("https://code.jquery.com/jquery.min.js", False),
        ("https://plotly.example/app.js", False),
    ],
)
def test_libraries_of_other_hosts_are_known_by_their_names(url, known):
    found = insertions(f"<script nonce=N src={url}></script>")
    assert [url in one.message for one in found] == [True] * known


@pytest.mark.parametrize(
    ("html", "policy"),
    [
        (MAKES_STYLE, "style-src 'unsafe-inline'"),
        (MAKES_STYLE, "script-src 'nonce-N'"),
        (MAKES_STYLE, "style-src-elem 'unsafe-inline'; style-src 'none'"),
        (MAKES_STYLE.replace("nonce=N", ""), "script-src 'nonce-N'; style-src 'self'"),
        ("<script src=/b.js></script>", "script-src 'nonce-N'; style-src 'self'"),
        ("<link rel=stylesheet href=/b.js>", "style-src 'self'"),
        ("<script src=https://cdn.example/b.js></script>", "style-src 'self'"),
    ],
)
def test_where_styles_are_allowed_or_the_script_is_stopped_nothing_is_said(html, policy):
    assert insertions(html, policies=read_header([policy])) == []
    assert insertions(MAKES_STYLE, own=True) == []
