"""Addresses and headers in settings are checked at the start, and errors show no password."""

from __future__ import annotations

import pytest

from om_plugins.builtin.address import check_headers, parse_url
from om_plugins.builtin.engines.http import HttpEngine
from om_plugins.builtin.webhook import WebhookConfig
from om_plugins.errors import ConfigError

pytest.importorskip("h11")


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("http://a.example", ("http", "a.example", 80), "/"),
        ("https://a.example?x=1", ("https", "a.example", 443), "/?x=1"),
        ("https://A.example:8443/p#part", ("https", "a.example", 8443), "/p"),
        ("http://[::1]:81/p", ("http", "::1", 81), "/p"),
        ("HTTP://a.example/%20", ("http", "a.example", 80), "/%20"),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_a_url_has_an_origin_and_a_target(url, origin, target, hidden):
    assert parse_url("url", url, hidden=hidden) == (origin, target)


def test_the_url_of_a_webhook_may_hold_what_browsers_encode():
    assert parse_url("url", "https://b\u00fccher.example/a b?c=\u00e9%20", hidden=True) == (
        ("https", "xn--bcher-kva.example", 443),
        "/a%20b?c=%C3%A9%20",
    )


WRONG_URLS = [
    "",
    "s3cret",
    "ftp://a.example/s3cret",
    "http:/s3cret",
    "http:///s3cret",
    "http://a.example:99999/s3cret",
    "http://a.example:s3cret",
    "http://a.example:0/s3cret",
    "http://[::1/s3cret",
    "http://me:s3cret@a.example/",
    "http://me:s3cret/x@a.example/",
    "http://s3cret@a.example/",
    "http://:@a.example/s3cret",
    "http://\u00fc" + "x" * 70 + "/s3cret",
    "http://a b/s3cret",
]


@pytest.mark.parametrize("url", WRONG_URLS)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError) as caught:
        parse_url("url", url, hidden=True)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigError):
        parse_url("url", url)


HEADERS = [
    ({"X": "s3cret\n"}, "one line of ASCII text"),
    ({"X": "s3cret\r\nY: z"}, "one line of ASCII text"),
    ({"Authorization": "Bearer s3cret…"}, "one line of ASCII text"),
    ({"X": "\u00fcs3cret"}, "one line of ASCII text"),
    ({"X": "s3cret\x00"}, "one line of ASCII text"),
    ({"X": 5}, "one line of ASCII text"),
    ({"X": None}, "one line of ASCII text"),
    ({"X Y": "s3cret"}, "is not a header name"),
    ({"X:": "s3cret"}, "is not a header name"),
    ({"": "s3cret"}, "is not a header name"),
    ({"Content-Length": "3"}, "leave it out"),
    ({"transfer-encoding": "chunked"}, "leave it out"),
]


@pytest.mark.parametrize(("headers", "said"), HEADERS)
@pytest.mark.parametrize(
    "make",
    [
        lambda headers: check_headers("headers", headers),
        lambda headers: HttpEngine("e", "http://a.example", headers=headers),
        lambda headers: WebhookConfig(url="http://a.example", headers=headers),
    ],
)
def test_headers_that_cannot_be_sent_are_refused_at_the_start(make, headers, said):
    with pytest.raises(ConfigError, match=said) as caught:
        make(headers)
    assert "s3cret" not in str(caught.value)
