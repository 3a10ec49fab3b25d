"""Which headers go on, and what a gateway adds."""

from __future__ import annotations

import pytest

from om_plugins.builtin.http.forwarding import (
    BadHeaderError,
    add_forwarded,
    add_via,
    check_request_headers,
    clean_response_headers,
    count_via,
    drop_hop_by_hop,
    join_headers,
    parse_keep_alive,
)


def test_headers_of_the_connection_end_here():
    headers = [
        ("Connection", "close, X-Private,x-other"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic x"),
        ("TE", "trailers"),
        ("Trailer", "X-Sum"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAM"),
        ("x-private", "1"),
        ("X-Other", "2"),
        ("Connection", "x-third"),
        ("X-Third", "3"),
        ("Accept", "a"),
        ("accept", "b"),
        ("X-Empty", ""),
    ]
    assert drop_hop_by_hop(headers) == [("Accept", "a"), ("accept", "b"), ("X-Empty", "")]


def test_a_connection_header_cannot_take_what_is_meant_for_all():
    headers = [("Connection", "host, content-length, cookie"), ("Host", "a"), ("Cookie", "b=c")]
    assert drop_hop_by_hop(headers) == [("Host", "a")]


@pytest.mark.parametrize(
    "header", [("X Y", "1"), ("", "1"), ("X\r\nY", "1"), ("X", "a\r\nY: b"), ("X", "a\0"),
               ("X", "a\nb"), ("X", "가")]
)  # fmt: skip
def test_a_request_header_that_could_end_a_line_is_refused_without_its_value(header):
    with pytest.raises(BadHeaderError) as caught:
        check_request_headers([header])
    assert "Y: b" not in str(caught.value)


def test_an_answers_headers_are_mended():
    assert clean_response_headers(
        [("X", "a\r\n  folded"), ("Y", "a\rb\0c"), ("Bad Name", "x"), ("Z", " é ")]
    ) == [("X", "a folded"), ("Y", "a b c"), ("Z", "é")]


TOLD = [
    ("Forwarded", "for=1.1.1.1"),
    ("X-Forwarded-For", "1.1.1.1"),
    ("X-Forwarded-For", "2.2.2.2"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "public.example"),
    ("X-Real-IP", "1.1.1.1"),
    ("X-Envoy-Internal", "true"),
    ("X-Original-URL", "/admin"),
    ("Accept", "*/*"),
]


def test_what_a_stranger_tells_of_the_client_is_replaced():
    assert add_forwarded(
        TOLD, client="9.9.9.9", host="here:8000", scheme="http", prefix="/app"
    ) == [
        ("Accept", "*/*"),
        ("Forwarded", 'for=9.9.9.9;host="here:8000";proto=http'),
        ("X-Forwarded-For", "9.9.9.9"),
        ("X-Forwarded-Host", "here:8000"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Prefix", "/app"),
    ]


def test_what_a_trusted_proxy_tells_is_added_to():
    found = add_forwarded(TOLD, client="9.9.9.9", host="here", scheme="http", trusted=True)
    assert ("Forwarded", "for=1.1.1.1, for=9.9.9.9;host=here;proto=http") in found
    assert ("X-Forwarded-For", "1.1.1.1, 2.2.2.2, 9.9.9.9") in found
    names = [name for name, _ in found]
    assert ("X-Forwarded-Proto", "https") in found
    assert ("X-Forwarded-Host", "public.example") in found
    assert names.count("X-Forwarded-Proto") == names.count("X-Forwarded-Host") == 1
    assert ("X-Real-IP", "1.1.1.1") in found


def test_a_proxy_whose_client_is_known_is_added_after_it_and_a_forwarded_beside_it_is_dropped():
    told = [("X-Forwarded-For", "6.6.6.6, 1.1.1.1"), ("Forwarded", "for=6.6.6.6")]
    found = add_forwarded(
        told, client="1.1.1.1", host="shop", scheme="https", peer="10.0.0.9", trusted=True
    )
    assert ("Forwarded", "for=1.1.1.1;host=shop;proto=https, for=10.0.0.9") in found
    assert ("X-Forwarded-For", "6.6.6.6, 1.1.1.1, 10.0.0.9") in found


@pytest.mark.parametrize(
    ("client", "node"),
    [("2001:db8::1", '"[2001:db8::1]"'), ("", "unknown"), ("10.0.0.1", "10.0.0.1")],
)
def test_a_node_is_written_as_rfc_7239_says(client, node):
    found = dict(add_forwarded([], client=client, host='a"b', scheme="https"))
    assert found["Forwarded"] == f'for={node};host="a\\"b";proto=https'


def test_via_names_every_station():
    headers = add_via([("Via", "1.0 fred"), ("A", "b"), ("via", "1.1 p.example")], "1.1", "om")
    assert headers == [("A", "b"), ("Via", "1.0 fred, 1.1 p.example, 1.1 om")]
    assert count_via([*headers, ("Via", "2 om (comment)"), ("Via", "")], "om") == 2


def test_repeated_headers_are_joined_in_their_order():
    headers = [("Vary", "a"), ("X-One", "1"), ("vary", "b"), ("VARY", "")]
    assert join_headers(headers) == {"vary": "a, b, ", "x-one": "1"}


@pytest.mark.parametrize(
    ("said", "idle_s"),
    [
        ("timeout=5", 4.0),
        ("timeout=5, max=100", 4.0),
        ("max=100,Timeout = 60", 59.0),
        ('timeout="20"', 19.0),
        ("timeout=1", 0.5),
        ("timeout=0", 0.0),
        ("", float("inf")),
        ("max=5", float("inf")),
        ("timeout", float("inf")),
        ("timeout=-1", float("inf")),
        ("timeout=soon", float("inf")),
        ("timeout=٥", float("inf")),
    ],
)
def test_a_connection_is_idle_for_less_than_the_upstream_says(said, idle_s):
    assert parse_keep_alive(said) == idle_s
