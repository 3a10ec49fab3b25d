from urllib.parse import urlsplit

import pytest

from om_plugins.csp.audit.matching import PagePart, is_allowed, matches_url, read_header
from om_plugins.csp.hashes import hash_text

PAGE = "https://site.example/a/page"
HASH = hash_text("script-src", "go()").partition(" ")[2]
STRICT = "script-src 'nonce-N' 'strict-dynamic' https: 'unsafe-inline'; style-src 'self' 'nonce-N'"


def part(kind="tag", directive="script-src-elem", **more):
    return PagePart(kind, directive, 1, "<x>", **more)


def allowed(header, one, page=PAGE):
    return all(is_allowed(policy, one, page) for policy in read_header([header]))


def test_a_header_is_read_as_browsers_do():
    assert read_header(["script-src 'self'; SCRIPT-SRC *;; img-src a b, base-uri 'none'", " "]) == [
        {"script-src": ("'self'",), "img-src": ("a", "b")},
        {"base-uri": ("'none'",)},
    ]


@pytest.mark.parametrize(
    ("header", "one", "expected"),
    [
        (STRICT, part(text="go()"), False),
        (STRICT, part(text="go()", nonce="N"), True),
        (STRICT, part(text="go()", nonce="O"), False),
        (STRICT, part(directive="style-src-elem"), False),
        (STRICT, part(directive="style-src-elem", nonce="N"), True),
        (f"script-src {HASH}", part(text="go()"), True),
        (f"script-src {HASH}", part(text="go() "), False),
        ("script-src 'unsafe-inline'", part(), True),
        ("script-src 'unsafe-inline' 'nonce-N'", part(), False),
        ("default-src 'self' 'unsafe-inline'", part(), True),
        ("default-src 'self'", part(), False),
        ("img-src 'self'", part(), True),
        # attributes and javascript: addresses
        (STRICT, part("attribute", "script-src-attr", text="go()"), False),
        (STRICT, part("attribute", "style-src-attr", text="go()"), False),
        (f"script-src {HASH}", part("attribute", "script-src-attr", text="go()"), False),
        (f"script-src 'unsafe-hashes' {HASH}", part("attribute", "script-src-attr", text="go()"),
         True),
        ("script-src-attr 'unsafe-inline'", part("attribute", "script-src-attr"), True),
        (STRICT, part("script-url", text="javascript:go()"), False),
        ("script-src 'unsafe-inline'", part("script-url", text="javascript:go()"), True),
        # text that becomes code
        (STRICT, part("code", "script-src"), False),
        ("script-src 'unsafe-eval'", part("code", "script-src"), True),
        ("default-src 'unsafe-eval'; script-src-elem 'self'", part("code", "script-src"), True),
        # what is loaded
        (STRICT, part("load", url="https://site.example/a.js"), False),
        (STRICT, part("load", url="https://cdn.example/a.js", nonce="N"), True),
        ("script-src 'sha256-A'", part("load", url="https://c/a", integrity="sha256-A"), True),
        ("script-src 'sha256-A'", part("load", url="https://c/a", integrity="sha256-B"), False),
        ("script-src 'self'", part("load", url="https://site.example/a.js"), True),
        (STRICT, part("load", "style-src-elem", url="https://site.example/a.css"), True),
        (STRICT, part("load", "style-src-elem", url="https://cdn.example/a.css"), False),
        ("object-src 'none'", part("load", "object-src", url="https://site.example/a"), False),
        ("default-src 'none'", part("load", "base-uri", url="https://site.example/"), True),
        ("base-uri 'none'", part("load", "base-uri", url="https://site.example/"), False),
        ("child-src 'none'", part("load", "frame-src", url="https://site.example/"), False),
        ("script-src 'self', script-src 'nonce-N'", part(nonce="N"), False),
    ],
)  # fmt: skip
def test_a_part_is_allowed_as_browsers_decide(header, one, expected):
    assert allowed(header, one) is expected


@pytest.mark.parametrize(
    ("source", "url", "expected"),
    [
        ("*", "https://a.example/", True),
        ("*", "data:,a", False),
        ("https:", "https://a.example/", True),
        ("http:", "https://a.example/", True),
        ("https:", "http://a.example/", False),
        ("data:", "data:,a", True),
        ("blob:", "data:,a", False),
        ("'self'", "https://site.example/b", True),
        ("'self'", "wss://site.example/b", True),
        ("'self'", "https://site.example:8443/b", False),
        ("'self'", "https://other.example/b", False),
        ("'none'", "https://site.example/b", False),
        ("a.example", "https://a.example/x", True),
        ("a.example", "http://a.example/x", False),
        ("http://a.example", "https://a.example/x", True),
        ("*.a.example", "https://b.a.example/x", True),
        ("*.a.example", "https://a.example/x", False),
        ("A.example", "https://a.example/x", True),
        ("https://a.example:8443", "https://a.example:8443/", True),
        ("https://a.example:*", "https://a.example:8443/", True),
        ("https://a.example", "https://a.example:8443/", False),
        ("http://a.example:80", "https://a.example/", True),
        ("https://a.example/js/", "https://a.example/js/x.js", True),
        ("https://a.example/js", "https://a.example/js/x.js", False),
        ("https://a.example/j%73", "https://a.example/js", True),
        ("wss://a.example", "wss://a.example/live", True),
        ("https://a.example", "https://a.example:port/", False),
    ],
)
def test_an_address_matches_a_source_as_browsers_decide(source, url, expected):
    assert matches_url(source, urlsplit(url), urlsplit(PAGE)) is expected


def test_the_page_s_own_site_may_be_plain():
    page = urlsplit("http://localhost:5000/")
    assert matches_url("'self'", urlsplit("http://localhost:5000/a"), page)
    assert matches_url("'self'", urlsplit("ws://localhost:5000/a"), page)
    assert not matches_url("'self'", urlsplit("http://localhost:5001/a"), page)
    assert matches_url("cdn.example", urlsplit("http://cdn.example/a"), page)
