import re

import pytest

from om_plugins.csp.policy import read_policy
from om_plugins.csp.sources import check_source, fold_source

WRONG = [
    ("script-src", '"self"', "write \"'self'\""),
    ("script-src", "'sha256-abc'", "one has 44 characters"),
    ("script-src", "'sha384-" + "A" * 43 + "='", "one has 64 characters"),
    ("script-src", "https//cdn.example", "write 'https://cdn.example'"),
    ("script-src", "https:/cdn.example", "write 'https://cdn.example'"),
    ("script-src", "https:cdn.example", "write 'https://cdn.example'"),
    ("script-src", "htps://cdn.example", "did you mean 'https'"),
    ("script-src", "//cdn.example", "write 'https://cdn.example'"),
    ("script-src", "/static/", "a path needs its host"),
    ("script-src", "https://cdn.example/*", "https://cdn.example/ is all below"),
    ("script-src", "https://cdn.example//a", "one '/'"),
    ("script-src", "https://cdn.example/a?b", "what follows '?'"),
    ("script-src", "https://me@cdn.example", "no user name"),
    ("script-src", "https://cdn.example:port", "a port is a number"),
    ("script-src", "*cdn.example", "'*' stands for a whole host"),
    ("script-src", "https://cdn.*", "'*' stands for a whole host"),
    ("script-src", "http://[::1]:80", "IPv6"),
    ("script-src", "https://my_cdn.example", "no host name that has a '_'"),
    ("script-src", "url-sha256-" + "A" * 43 + "=", "a hash stands in quotes"),
    ("script-src", "<script>", "must be a keyword in quotes, a scheme"),
    ("img-src", "data", "write 'data:'"),
    ("img-src", "data:image/png", "write 'data:'"),
    ("frame-ancestors", "'nonce'", "who may frame a page"),
    ("report-to", "/csp", "addresses are for report-uri"),
    ("webrtc", "'alow'", "did you mean \"'allow'\""),
    ("trusted-types", "a(b)", "a policy's name"),
    ("img-src", "'unsafe-inline'", "no effect in img-src; browsers look for it in script-src"),
    ("script-src-elem", "'unsafe-eval'", "browsers look for it in script-src"),
    ("style-src", "'wasm-unsafe-eval'", "browsers look for it in script-src"),
    ("style-src", "'strict-dynamic'", "browsers look for it in script-src"),
    ("style-src-elem", "'unsafe-hashes'", "style-src and style-src-attr"),
    ("script-src-attr", "'nonce'", "script-src-elem"),
    ("script-src-attr", "'self'", "an attribute loads nothing; write it in script-src"),
    ("connect-src", f"'sha256-{'A' * 43}='", "no effect in connect-src"),
]


def reason_of(directive, source):
    lists = directive not in ("report-to", "webrtc", "trusted-types")
    return check_source(directive, source, source_list=lists)


@pytest.mark.parametrize(("directive", "source", "way_out"), WRONG, ids=lambda one: one[:40])
def test_what_browsers_would_leave_out_is_told_with_the_way_out(directive, source, way_out):
    reason = reason_of(directive, source)
    assert way_out in reason
    for quoted, bare in re.findall(r"write (?:\"('[^']+')\"|'([^']+)')", reason):
        assert read_policy({directive: [quoted or bare]}, "what the error says to write")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://A.example", "https://a.example", True),
        ("HTTPS://a.example/X", "https://a.example/X", True),
        ("https://a.example/X", "https://a.example/x", False),
        ("'Self'", "'self'", True),
        ("'sha256-A'", "'sha256-a'", False),
        ("A.example/b", "a.example/b", True),
    ],
)
def test_sources_are_compared_as_browsers_do(one, other, same):
    assert (fold_source(one) == fold_source(other)) is same
