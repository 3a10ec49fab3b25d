import pytest

from om_plugins.csp.audit.files import examine_file, find_files
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
