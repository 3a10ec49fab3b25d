import pytest

from om_plugins.csp.policy import read_policy
from om_plugins.csp.presets import (
    API,
    DATA,
    FRAME_ANCESTORS,
    OTHER,
    PAGE,
    STRICT,
    by_hash,
    compatible,
    content_kind,
)


def test_shipped_policies_pass_their_own_check():
    assert read_policy(dict(STRICT), "x") == dict(STRICT)
    assert read_policy(dict(API), "x") == dict(API)


def test_hashes_come_second_so_that_the_site_itself_stays_first():
    assert by_hash(["https://cdn.example"])["script-src"] == (
        "'self'",
        "'hashes'",
        "'nonce'",
        "https://cdn.example",
        "'report-sample'",
    )
    assert by_hash()["style-src"] == ("'self'", "'hashes'", "'nonce'", "'report-sample'")
    others = {name: sources for name, sources in by_hash().items() if "-src" not in name}
    assert others.items() <= compatible().items()


def test_no_shipped_policy_lets_another_site_frame_a_page():
    for policy in (STRICT, API, compatible(), by_hash()):
        assert policy["frame-ancestors"] == FRAME_ANCESTORS["SAMEORIGIN"]


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("text/html; charset=utf-8", PAGE),
        (" Application/XHTML+XML ", PAGE),
        ("image/svg+xml", DATA),
        ("text/xml", DATA),
        ("application/xml;charset=utf-8", DATA),
        ("application/json", DATA),
        ("application/problem+json", DATA),
        ("text/css", DATA),
        ("image/png", DATA),
        ("text/plain", OTHER),
        ("application/pdf", OTHER),
        ("", OTHER),
    ],
)
def test_the_kind_of_a_response_follows_from_its_content_type(content_type, kind):
    assert content_kind(content_type) == kind
