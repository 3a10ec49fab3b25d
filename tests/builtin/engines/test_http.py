from __future__ import annotations

import contextlib
import gzip
import math
import os
import socket
import ssl
import struct
import sys
import threading
import time
import tracemalloc

import pytest

from om_plugins.builtin.engines.callable import CallableEngine
from om_plugins.builtin.engines.http import HttpEngine
from om_plugins.builtin.engines.static import StaticEngine
from om_plugins.chains.chain import EngineChain
from om_plugins.chains.options import ChainPolicy
from om_plugins.errors import (
    AttemptTimeout,
    Cancelled,
    ConfigError,
    InvalidRequest,
    Misconfigured,
    MissingExtra,
    RateLimited,
    TooLong,
    Transient,
    Unsupported,
)
from om_plugins.protocols import Engine
from om_plugins.testing import EngineContract
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import Call, EngineSpec
from tests.builtin.conftest import over_tls
from tests.patience import HANG_S, PATIENCE_S, cut_off, wait_until

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.fixture
def engine_for():
    engines = []

    def make(url, **options):
        engines.append(HttpEngine("up", url, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def in_seconds(seconds, payload=None, **options):
    return Call(payload, deadline=time.monotonic() + seconds, **options)


def request_of(connection):
    """Read one request to its end."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return data
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
         if line.startswith(b"content-length:")), 0
    )  # fmt: skip
    while len(body) < length:
        body += connection.recv(65536)
    return data


def reset(connection):
    """Close with a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# --- a good upstream ----------------------------------------------------------------------------


def test_post_sends_json_and_returns_the_json_answer(upstream, engine_for):
    engine = engine_for(f"{upstream.url}/ask?v=2")
    answer = engine.call(Call({"q": "디스크?"}))
    assert answer.payload == {"q": "디스크?"}
    sent = upstream.requests[0]
    assert (sent["method"], sent["path"]) == ("POST", "/ask?v=2")
    assert sent["headers"]["content-type"] == "application/json"


def test_engine_keeps_the_contract(upstream, engine_for):
    assert isinstance(engine_for(upstream.url), Engine)
    assert not engine_for(upstream.url).traits.idempotent
    assert engine_for(upstream.url, method="GET").traits.idempotent
    assert engine_for(upstream.url, idempotent=True).traits.idempotent


def test_get_puts_the_payload_into_the_query(upstream, engine_for):
    engine = engine_for(f"{upstream.url}/s?a=1", method="GET")
    engine.call(Call({"q": "x y&z", "tag": ["p", "q"], "n": 3, "deep": {"k": True}, "none": None}))
    sent = upstream.requests[0]
    assert sent["path"] == "/s?a=1&q=x+y%26z&tag=p&tag=q&n=3&deep=%7B%22k%22%3Atrue%7D"
    assert "idempotency-key" not in sent["headers"]
    with pytest.raises(InvalidRequest) as caught:
        engine.call(Call("text"))
    assert caught.value.sent == "no"


def test_post_sends_the_same_idempotency_key_on_every_attempt(upstream, engine_for):
    engine = engine_for(upstream.url)
    call = Call({})
    engine.call(call)
    engine.call(call)
    assert [r["headers"]["idempotency-key"] for r in upstream.requests] == [
        call.idempotency_key
    ] * 2


def test_only_allowed_headers_of_the_call_are_passed_on(upstream, engine_for):
    engine = engine_for(upstream.url, headers={"Authorization": "Bearer own"})
    headers = {
        "traceparent": "00-1-2-01",
        "cookie": "session=1",
        "authorization": "Bearer theirs",
        "x-request-id": "a\r\nX-Evil: 1",
    }
    engine.call(Call({}, headers=headers))
    sent = upstream.requests[0]["headers"]
    assert sent["traceparent"] == "00-1-2-01"
    assert sent["authorization"] == "Bearer own"
    assert not {"cookie", "x-evil", "x-request-id"} & set(sent)


@pytest.mark.parametrize(("length", "passed"), [(1_025, True), (8_192, True), (8_193, False)])
def test_a_long_token_of_the_call_is_passed_on(upstream, engine_for, length, passed):
    engine = engine_for(upstream.url, pass_headers=["authorization"])
    engine.call(Call({}, headers={"authorization": "x" * length}))
    assert ("authorization" in upstream.requests[0]["headers"]) is passed


def test_connections_are_reused(upstream, engine_for):
    engine = engine_for(upstream.url)
    for _ in range(5):
        engine.call(Call({}))
    upstream.answers(500)
    with pytest.raises(Transient):
        engine.call(Call({}))
    upstream.answers(200)
    engine.call(Call({}))
    assert upstream.connections == 1


NO_LENGTH = b"Connection: close\r\n\r\n"
EMPTY_CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
ZERO = b"Content-Length: 0\r\n\r\n"
TYPED = b"Content-Type: application/json\r\n"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "head",
    [
        b"204 No Content\r\n\r\n",
        b"204 No Content\r\nContent-Type: text/html\r\n\r\n",
        b"205 Reset Content\r\n" + ZERO,
        b"205 Reset Content\r\n" + EMPTY_CHUNKS,
        b"205 Reset Content\r\nContent-Length: 4\r\n\r\nnull",
        b"205 Reset Content\r\nContent-Type: text/plain\r\n" + ZERO,
        b"201 Created\r\n" + ZERO,
        b"201 Created\r\nContent-Type: text/html; charset=utf-8\r\n" + ZERO,
        b"202 Accepted\r\n" + ZERO,
        b"202 Accepted\r\n" + NO_LENGTH,
        b"202 Accepted\r\nContent-Type: application/xml\r\n" + EMPTY_CHUNKS,
        b"203 Non-Authoritative\r\n" + ZERO,
        b"200 OK\r\n" + ZERO,
        b"200 OK\r\n" + EMPTY_CHUNKS,
        b"200 OK\r\n" + NO_LENGTH,
        b"200 OK\r\n" + TYPED + ZERO,
        b"200 OK\r\n" + TYPED + EMPTY_CHUNKS,
        b"200 OK\r\n" + TYPED + NO_LENGTH,
        b"200 OK\r\n" + TYPED + b"Content-Length: 3\r\n\r\n \r\n",
        b"200 OK\r\nContent-Length: 2\r\n\r\n\r\n",
        b"200 OK\r\nContent-Encoding: gzip\r\n" + TYPED + ZERO,
        b"200 OK\r\nContent-Encoding: gzip\r\n" + TYPED + EMPTY_CHUNKS,
        b"200 OK\r\nContent-Encoding: br\r\n" + ZERO,
    ],
)
def test_done_without_a_body_is_an_answer(raw_upstream, engine_for, head, stream):
    def script(connection, number):
        request_of(connection)
        connection.sendall(b"HTTP/1.1 " + head)

    engine = engine_for(raw_upstream(script).url, streaming=True)
    answer = engine.call(in_seconds(HANG_S, {}, stream=stream))
    assert (answer.payload, answer.chunks) == (None, None)
    assert answer.status == int(head[:3])


def test_a_205_is_an_answer_although_its_upstream_does_not_say_where_it_ends(
    raw_upstream, engine_for
):
    def script(connection, number):
        request_of(connection)
        connection.sendall(b"HTTP/1.1 205 Reset Content\r\n\r\n")
        connection.recv(1)

    assert engine_for(raw_upstream(script).url).call(in_seconds(HANG_S, {})).payload is None


def test_connections_without_a_body_are_reused(upstream, engine_for):
    engine = engine_for(upstream.url)
    for status in (204, 205, 201, 202, 200):
        upstream.answers(status, b"")
        engine.call(Call({}))
    assert upstream.connections == 1


@pytest.mark.parametrize(
    "kind",
    [
        b"application/json;charset=utf-8", b"Application/JSON", b"text/json", b"application/x-json",
        b"application/hal+json", b"application/problem+json; a=b", b"text/x-json",
        b"text/html\r\nContent-Type: application/json",
    ],
)  # fmt: skip
def test_json_has_several_types(raw_upstream, engine_for, kind):
    def script(connection, number):
        request_of(connection)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: " + kind
        connection.sendall(head + b"\r\nContent-Length: 2\r\n\r\n[]")

    assert engine_for(raw_upstream(script).url).call(in_seconds(HANG_S, {})).payload == []


def test_json_is_read_as_others_read_it(raw_upstream, engine_for):
    texts = [
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": NaN}',
        b'{"a": "\\ud83d\\ude00\\ud83d"}',
        b"\xff\xfe1\x00",
    ]

    def script(connection, number):
        request_of(connection)
        text = texts[number]
        connection.sendall(
            HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(text) + text
        )

    engine = engine_for(raw_upstream(script).url)
    read = [engine.call(in_seconds(HANG_S, {})).payload for _ in texts]
    assert read[0] == {"a": 1}
    assert read[1]["a"] != read[1]["a"], "not a number"
    assert read[2:] == [{"a": "😀\ufffd"}, 1]


def test_an_order_that_was_taken_is_not_given_to_the_next_tier(upstream, engine_for):
    upstream.answers(201, b"", Location="/orders/7", Content_Type="text/html")
    asked = []
    chain = EngineChain("orders")
    chain.add(EngineSpec(engine_for(upstream.url), "orders", tier=1))
    chain.add(EngineSpec(CallableEngine("second", asked.append), "orders", tier=2))
    for _ in range(12):
        answer = chain.call({"pizza": 2})
        assert (answer.payload, answer.tier, answer.status) == (None, 1, 201)
        assert answer.metadata == {"location": "/orders/7"}
    assert len(upstream.requests) == 12
    assert not asked


def test_201_keeps_its_status_and_its_json(upstream, engine_for):
    upstream.answers(201, b'{"id":1}')
    answer = engine_for(upstream.url).call(Call({}))
    assert (answer.status, answer.payload, answer.metadata) == (201, {"id": 1}, None)


def test_a_text_after_created_or_accepted_is_the_answer_and_a_page_is_none(upstream, engine_for):
    engine = engine_for(upstream.url)
    for status in (201, 202):
        upstream.answers(status, "주문 7\n".encode(), Content_Type="text/plain; charset=utf-8")
        assert engine.call(Call({})).payload == "주문 7"
    for status, kind in ((200, "text/plain"), (202, "text/html")):
        upstream.answers(status, b"Please sign in", Content_Type=kind)
        with pytest.raises(Transient, match="not JSON"):
            engine.call(Call({}))


def test_gzip_answers_are_read(upstream, engine_for):
    packed = gzip.compress(b'{"a":') + gzip.compress(b"[1]}")
    upstream.answers(200, packed, Content_Encoding="gzip")
    assert engine_for(upstream.url).call(Call({})).payload == {"a": [1]}


def test_payload_that_is_not_json_is_an_invalid_request(upstream, engine_for):
    for payload in (object(), "\ud800"):
        with pytest.raises(InvalidRequest) as caught:
            engine_for(upstream.url).call(Call(payload))
        assert caught.value.sent == "no"
    assert not upstream.requests


# --- statuses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, Misconfigured), (308, Misconfigured), (400, InvalidRequest), (401, Misconfigured),
        (403, Misconfigured), (404, Misconfigured), (405, Misconfigured), (408, AttemptTimeout),
        (409, InvalidRequest), (413, TooLong), (415, Unsupported), (418, Unsupported),
        (422, InvalidRequest), (425, Transient), (429, RateLimited), (500, Transient),
        (501, Unsupported), (502, Transient), (503, Transient), (504, Transient),
    ],
)  # fmt: skip
def test_status_becomes_an_error(upstream, engine_for, status, error):
    upstream.answers(status, b'{"secret":"upstream text"}', Location=f"{upstream.url}/else")
    with pytest.raises(error) as caught:
        engine_for(upstream.url).call(Call({}))
    assert type(caught.value) is error
    assert (caught.value.status, caught.value.sent) == (status, "yes")
    assert "upstream text" not in str(caught.value)
    assert len(upstream.requests) == 1, "nothing is retried or followed here"


def test_503_with_retry_after_is_rate_limited(upstream, engine_for):
    upstream.answers(503, Retry_After="7")
    with pytest.raises(RateLimited) as caught:
        engine_for(upstream.url).call(Call({}))
    assert caught.value.retry_after == 7


# --- what is sent, and whether ------------------------------------------------------------------


def test_refused_connection_was_not_sent(refused_url, engine_for):
    with pytest.raises(Transient) as caught:
        engine_for(refused_url).call(Call({}))
    assert caught.value.sent == "no"


def test_unknown_host_was_not_sent(engine_for):
    with pytest.raises(Transient) as caught:
        engine_for("http://nothing.invalid/").call(in_seconds(HANG_S, {}))
    assert caught.value.sent == "no"


def test_connect_timeout_was_not_sent(engine_for):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:  # fill the queue: further connections get no answer
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        time.sleep(0.05)
        engine = engine_for(f"http://127.0.0.1:{port}", connect_timeout=0.2)
        with cut_off(0.2), pytest.raises(Transient) as caught:
            engine.call(Call({}))
        assert caught.value.sent == "no"
        patient = engine_for(f"http://127.0.0.1:{port}", connect_timeout=HANG_S)
        with cut_off(0.1), pytest.raises(AttemptTimeout) as timed_out:
            patient.call(in_seconds(0.1, {}))
        assert timed_out.value.sent == "no"
        for one in waiting:
            one.close()


def test_reset_while_sending_may_have_been_sent(raw_upstream, engine_for):
    def script(connection, number):
        connection.recv(100)
        reset(connection)

    with pytest.raises(Transient) as caught:
        engine_for(raw_upstream(script).url).call(in_seconds(HANG_S, {"big": "x" * 20_000_000}))
    assert caught.value.sent == "maybe"


@pytest.mark.parametrize("status", [b"100 Continue", b"103 Early Hints"])
def test_an_endless_row_of_interim_answers_is_cut_after_twenty(raw_upstream, engine_for, status):
    def script(connection, number):
        request_of(connection)
        while True:
            connection.sendall(b"HTTP/1.1 " + status + b"\r\n\r\n")

    with pytest.raises(Transient, match="more than 20 interim answers"):
        engine_for(raw_upstream(script).url).call(in_seconds(HANG_S, {}))


def test_what_an_upstream_sends_steers_no_terminal_that_shows_the_error(raw_upstream, engine_for):
    def script(connection, number):
        request_of(connection)
        connection.sendall(b"\x1b[2J forged\x07\r\n\r\n")

    with pytest.raises(Transient) as caught:
        engine_for(raw_upstream(script).url).call(in_seconds(HANG_S, {}))
    assert "forged" in str(caught.value)
    assert str(caught.value).isprintable()


def test_close_before_the_answer_was_sent_on_a_new_connection(raw_upstream, engine_for):
    def script(connection, number):
        request_of(connection)

    with pytest.raises(Transient) as caught:
        engine_for(raw_upstream(script).url).call(in_seconds(HANG_S, {}))
    assert caught.value.sent == "yes"


def test_stale_pooled_connection_may_have_been_sent(raw_upstream, engine_for):
    def script(connection, number):
        request_of(connection)
        connection.sendall(HEAD + b"Connection: keep-alive\r\nContent-Length: 2\r\n\r\n{}")
        connection.recv(1)  # the next request arrives, and is thrown away unread
        reset(connection)

    engine = engine_for(raw_upstream(script).url)
    engine.call(in_seconds(HANG_S, {}))
    with pytest.raises(Transient) as caught:
        engine.call(in_seconds(HANG_S, {}))
    assert caught.value.sent == "maybe"
    assert engine.call(in_seconds(HANG_S, {})).payload == {}, "the next one gets a new connection"


def test_connection_that_was_closed_while_idle_is_not_used(raw_upstream, engine_for):
    def script(connection, number):
        request_of(connection)
        connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")

    server = raw_upstream(script)
    engine = engine_for(server.url)
    engine.call(in_seconds(HANG_S, {}))
    wait_until(lambda: server.connections[0].fileno() == -1)
    assert engine.call(in_seconds(HANG_S, {})).payload == {}


# --- garbled answers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}), (b'{"a": "\xff"}', {"a": "�"}),
        (b'{"a": -Infinity}', {"a": -math.inf}), (b'{"a": "\\ud83d"}', {"a": "�"}),
        ('{"a": "é"}'.encode("utf-16"), {"a": "é"}), (b'{"a": "1\n2"}', {"a": "1\n2"}),
    ],
)  # fmt: skip
def test_json_is_read_as_most_readers_do(upstream, engine_for, body, value):
    upstream.answers(200, body)
    assert engine_for(upstream.url).call(Call({})).payload == value


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"\x00\xff garbage\r\n\r\n", "illegal (status|request) line"),
        (HEAD + b"Content-Length: 5\r\n\r\n{\"a\":", "broken JSON"),
        (HEAD + b"Content-Length: 2\r\n\r\n\xff\xff", "broken JSON"),
        (HEAD + b"Content-Length: 100\r\n\r\n{}", "received 2 bytes, expected 100"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}", "incomplete chunked read"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}", "illegal chunk header"),
        (HEAD + b"Content-Length: 10000\r\n\r\n" + b"[" * 10000, "broken JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>", "not JSON"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "not JSON"),
        (HEAD + b"Content-Encoding: br\r\n\r\nxx", "not asked for"),
        (HEAD + b"Content-Encoding: gzip\r\n\r\nxx", "gzip"),
        (HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"{}", mtime=0)[:-4], "early"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n", "100 headers"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000, "too long"),
    ],
)  # fmt: skip
def test_garbled_answer_is_transient(raw_upstream, engine_for, answer, said):
    def script(connection, number):
        request_of(connection)
        connection.sendall(answer)

    with pytest.raises(Transient, match=said) as caught:
        engine_for(raw_upstream(script).url).call(in_seconds(HANG_S, {}))
    assert caught.value.sent == "yes"


def test_reset_inside_the_body_is_transient(raw_upstream, engine_for):
    def script(connection, number):
        request_of(connection)
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        time.sleep(0.05)
        reset(connection)

    with pytest.raises(Transient) as caught:
        engine_for(raw_upstream(script).url).call(in_seconds(HANG_S, {}))
    assert caught.value.sent == "yes"


def endless(connection, number):
    request_of(connection)
    connection.sendall(HEAD + b"\r\n")
    while True:
        connection.sendall(b"[1]," * 16_384)


def declared_huge(connection, number):
    request_of(connection)
    connection.sendall(HEAD + b"Content-Length: 99999999999999\r\n\r\n")
    while True:
        connection.sendall(b"[1]," * 16_384)


def huge_chunk(connection, number):
    request_of(connection)
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n7fffffffff\r\n")
    while True:
        connection.sendall(b"[1]," * 16_384)


BOMB = gzip.compress(b" " * 200_000_000, 9)


def bomb(connection, number):
    request_of(connection)
    connection.sendall(HEAD + b"Content-Encoding: gzip\r\n\r\n" + BOMB)


@pytest.mark.parametrize("script", [endless, declared_huge, huge_chunk, bomb])
def test_answer_over_the_limit_is_cut_with_bounded_memory(raw_upstream, engine_for, script):
    engine = engine_for(raw_upstream(script).url, max_answer=2_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(Transient, match="larger than 2000000"):
            engine.call(in_seconds(HANG_S, {}))
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


# --- time ---------------------------------------------------------------------------------------


def dripping(start, clock=None):
    """A byte now and then, ten seconds of ``clock`` apart; without a clock 600 times as fast."""

    def script(connection, number):
        request_of(connection)
        connection.sendall(start)
        for _ in range(int(HANG_S / 0.02)):
            if clock is not None:
                clock.advance(10)
            connection.sendall(b" ")
            time.sleep(0.02)

    return script


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        HEAD + b"Content-Length: 1000\r\n\r\n",
        HEAD + b"\r\n",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 1000\r\n\r\n",
    ],
    ids=["status line", "header", "body", "body without length", "error body"],
)
def test_dripping_upstream_is_cut_at_the_deadline(raw_upstream, engine_for, start):
    clock = FakeClock()
    engine = engine_for(raw_upstream(dripping(start, clock)).url, timeout=HANG_S)
    ends = clock.monotonic() + 45
    with cut_off(), pytest.raises((AttemptTimeout, Transient)) as caught:
        engine.call(Call({}, deadline=ends, monotonic=clock.monotonic))
    assert clock.monotonic() >= ends
    if b"500" in start:
        assert caught.value.status == 500, "what is known beats what is not"
    else:
        assert isinstance(caught.value, AttemptTimeout)
        assert caught.value.sent == "yes"


def test_own_timeout_holds_without_a_deadline(raw_upstream, engine_for):
    engine = engine_for(raw_upstream(dripping(HEAD + b"\r\n")).url, timeout=0.3)
    with cut_off(0.3), pytest.raises(AttemptTimeout):
        engine.call(Call({}))


def test_upstream_that_does_not_read_is_cut_in_time(raw_upstream, engine_for):
    server = raw_upstream(lambda connection, number: server.over.wait())
    with cut_off(0.5), pytest.raises(AttemptTimeout) as caught:
        engine_for(server.url, timeout=0.5).call(in_seconds(HANG_S, {"big": "x" * 20_000_000}))
    assert caught.value.sent == "yes"


def test_call_whose_time_is_over_is_not_sent(upstream, engine_for):
    with pytest.raises(AttemptTimeout) as caught:
        engine_for(upstream.url).call(in_seconds(-1, {}))
    assert caught.value.sent == "no"
    assert not upstream.requests


@pytest.mark.parametrize("start", [b"", HEAD + b"\r\n{"], ids=["no answer", "inside the body"])
def test_cancelled_call_ends_at_once(raw_upstream, engine_for, start):
    def script(connection, number):
        request_of(connection)
        connection.sendall(start)
        server.over.wait()

    server = raw_upstream(script)
    engine = engine_for(server.url)
    call = in_seconds(HANG_S, {})
    timer = threading.Timer(0.2, call.cancel)
    timer.start()
    with cut_off(), pytest.raises(Cancelled):
        engine.call(call)
    timer.join()


def test_cancelling_afterwards_leaves_the_pooled_connection_alone(upstream, engine_for):
    engine = engine_for(upstream.url)
    call = Call({})
    engine.call(call)
    call.cancel()
    engine.call(Call({}))
    assert upstream.connections == 1


# --- health, processes, configuration -----------------------------------------------------------


def test_probe_opens_a_connection_or_asks_the_health_address(upstream, refused_url, engine_for):
    engine_for(upstream.url).probe(in_seconds(HANG_S))
    with pytest.raises(Transient):
        engine_for(refused_url).probe(in_seconds(HANG_S))
    assert not upstream.requests
    engine = engine_for(refused_url, health_url=f"{upstream.url}/health")
    engine.probe(in_seconds(HANG_S))
    assert (upstream.requests[0]["method"], upstream.requests[0]["path"]) == ("GET", "/health")
    upstream.answers(503)
    with pytest.raises(Transient):
        engine.probe(in_seconds(HANG_S))


def test_engine_may_be_used_again_after_close(upstream, engine_for):
    engine = engine_for(upstream.url)
    engine.call(Call({}))
    engine.close()
    assert engine.call(Call({})).payload == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_child_of_a_fork_makes_its_own_connections(upstream, engine_for):
    engine = engine_for(upstream.url)
    engine.call(Call({}))
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if engine.call(in_seconds(HANG_S, {"from": "child"})).payload else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert engine.call(Call({"from": "parent"})).payload == {"from": "parent"}
    assert upstream.connections == 2


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("ftp://x/", {}), ("/path", {}), ("http://", {}), ("http://x:99999/", {}),
        ("http://x/a b", {}), ("http://x/\n", {}), ("http://x", {"method": "BREW"}),
        ("http://x", {"timeout": 0}), ("http://x", {"max_answer": -1}),
        ("http://x", {"headers": {"X-Key": "a\r\nb"}}), ("http://x", {"headers": {"a b": "c"}}),
        ("http://x", {"health_url": "nowhere"}),
    ],
)  # fmt: skip
def test_wrong_argument_is_a_config_error(url, options):
    with pytest.raises(ConfigError):
        HttpEngine("up", url, **options)


def test_credentials_are_never_shown():
    engine = HttpEngine("up", "https://x/ask?key=s3cret", headers={"Authorization": "s3cret"})
    assert "s3cret" not in repr(engine)
    with pytest.raises(ConfigError) as caught:
        HttpEngine("up", "https://user:s3cret@x/")
    assert "s3cret" not in str(caught.value)


def test_missing_h11_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "h11", None)
    monkeypatch.delitem(sys.modules, "om_plugins.builtin.http.transport", raising=False)
    with pytest.raises(MissingExtra, match=r"om-plugins\[http\]"):
        HttpEngine("up", "http://x/")


# --- TLS ----------------------------------------------------------------------------------------


def test_tls_upstream_answers_when_its_certificate_is_trusted(
    raw_upstream, engine_for, certificate
):
    def script(connection, number):
        while request_of(connection):
            connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")

    url = raw_upstream(over_tls(certificate, script)).url.replace("http:", "https:")
    trusting = ssl.create_default_context(cafile=certificate[0])
    engine = engine_for(url, ssl_context=trusting)
    for _ in range(2):
        assert engine.call(in_seconds(HANG_S, {})).payload == {}
    with pytest.raises(Misconfigured, match="not trusted") as caught:
        engine_for(url).call(in_seconds(HANG_S, {}))
    assert caught.value.sent == "no"


def test_dripping_tls_upstream_is_cut_at_the_deadline(raw_upstream, engine_for, certificate):
    clock = FakeClock()
    script = over_tls(certificate, dripping(HEAD + b"Content-Length: 9999\r\n\r\n", clock))
    url = raw_upstream(script).url.replace("http:", "https:")
    trusting = ssl.create_default_context(cafile=certificate[0])
    engine = engine_for(url, ssl_context=trusting, timeout=HANG_S)
    ends = clock.monotonic() + 45
    with cut_off(), pytest.raises(AttemptTimeout):
        engine.call(Call({}, deadline=ends, monotonic=clock.monotonic))
    assert clock.monotonic() >= ends


def test_cancelled_tls_call_ends_at_once(raw_upstream, engine_for, certificate):
    def script(connection, number):
        request_of(connection)
        server.over.wait()

    server = raw_upstream(over_tls(certificate, script))
    url = server.url.replace("http:", "https:")
    engine = engine_for(url, ssl_context=ssl.create_default_context(cafile=certificate[0]))
    call = in_seconds(HANG_S, {})
    timer = threading.Timer(0.2, call.cancel)
    timer.start()
    with cut_off(), pytest.raises(Cancelled):
        engine.call(call)
    timer.join()


def test_server_that_never_ends_the_handshake_is_cut(raw_upstream, engine_for):
    server = raw_upstream(lambda connection, number: server.over.wait())
    engine = engine_for(server.url.replace("http:", "https:"), connect_timeout=0.3)
    with cut_off(0.3), pytest.raises((Transient, AttemptTimeout)) as caught:
        engine.call(in_seconds(HANG_S, {}))
    assert caught.value.sent == "no"


# --- in a chain ---------------------------------------------------------------------------------


class TestContract(EngineContract):
    @pytest.fixture
    def engine(self, upstream, engine_for):
        return engine_for(upstream.url)


def test_an_idempotent_call_on_a_stale_connection_costs_no_attempt(raw_upstream, engine_for):
    def script(connection, number):
        request_of(connection)
        connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
        if number == 0:
            connection.recv(1)
            reset(connection)

    chain = EngineChain("c")
    engine = engine_for(raw_upstream(script).url, idempotent=True)
    chain.add(EngineSpec(engine, chain="c"))
    for _ in range(2):
        assert chain.call({}).attempts == 1


def test_the_upstream_is_told_the_time_that_is_left(upstream, engine_for):
    name = "x-envoy-expected-rq-timeout-ms"
    engine_for(upstream.url, timeout=300).call(in_seconds(900, {}))
    engine_for(upstream.url, timeout=900).call(in_seconds(200, {}))
    engine_for(upstream.url, pass_deadline=False).call(in_seconds(200, {}))
    told = [request["headers"].get(name) for request in upstream.requests]
    assert 280_000 <= int(told[0]) <= 300_000
    assert 180_000 <= int(told[1]) <= 200_000
    assert told[2] is None


# --- streams ------------------------------------------------------------------------------------


def streams(kind, *pieces, gone=None):
    def script(connection, number):
        request_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\n\r\n")
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.01)
        if gone is not None:
            with contextlib.suppress(ConnectionResetError):  # what was not read is thrown away
                while connection.recv(1):
                    pass
            gone.set()

    return script


@pytest.mark.parametrize(
    ("kind", "pieces", "chunks"),
    [
        (b"text/event-stream", [b"data: on", b"e\n\nevent: x\ndata: two\n\n"], ["one", "two"]),
        (b"text/plain", ["가".encode()[:2], "가".encode()[2:] + b"!"], ["가!"]),
        (b"text/plain; charset=utf-8", [b"one", b"two", b"\xff"], ["one", "two", "\ufffd"]),
    ],
)
def test_a_stream_passes_as_it_comes(raw_upstream, engine_for, kind, pieces, chunks):
    engine = engine_for(raw_upstream(streams(kind, *pieces)).url, streaming=True)
    answer = engine.call(in_seconds(HANG_S, {}, stream=True))
    assert list(answer.chunks) == chunks


def sse_of(*pieces):
    return streams(b"text/event-stream", *pieces)


@pytest.mark.parametrize(
    "script",
    [
        streams(b"text/html", b"<title>Sign in</title>"),
        streams(b"text/html; charset=utf-8", b"data: no event\n\n"),
        streams(b"application/xhtml+xml", b"<html/>"),
        streams(b"text/xml", b"<Error/>"),
        streams(b"text/javascript", b"alert(1)"),
        streams(b"image/png", b"\x89PNG"),
        sse_of(),
        sse_of(b": a comment\n\n"),
        sse_of(b"event: ping\ndata: {}\n\n", b"event: heartbeat\ndata\n\n"),
        sse_of(b"data:\n\ndata: \n\n"),
        sse_of(b"<html>a page that lies about its type</html>"),
        sse_of(b"event: error\ndata: boom\n\n"),
        sse_of(b"event: error\n\n"),
        sse_of(b"event: Error\ndata: {}"),
        sse_of(b"event: response.failed\ndata: {}\n\n", b"data: late\n\n"),
        sse_of(b": hi\n\nevent: ping\ndata\n\nevent: stream_error\ndata: {}\n\n"),
        streams(b"text/plain"),
        streams(b"text/plain", b" \r\n", b"\t"),
    ],
)
def test_a_stream_that_is_no_answer_falls_back(raw_upstream, engine_for, script):
    chain = EngineChain("c", ChainPolicy(retries=0))
    chain.add(EngineSpec(engine_for(raw_upstream(script).url, streaming=True), "c", tier=1))
    chain.add(EngineSpec(StaticEngine("second", "second"), "c", tier=2))
    answer = chain.call({}, stream=True, timeout=HANG_S)
    assert (answer.tier, answer.payload) == (2, "second")
    error = answer.history[0].error
    assert (type(error), error.sent) == (Transient, "yes")


@pytest.mark.parametrize(
    ("data", "error", "wait_s"),
    [
        (b'{"error":{"code":429,"message":"try again in 20s"}}', RateLimited, 20),
        (b'{"code":503,"message":"overloaded","retry_after":20}', RateLimited, 20),
        (b'{"status":"500"}', Transient, None),
        (b'{"statusCode":501}', Unsupported, None),
        (b'{"error":{"status_code":413.0}}', TooLong, None),
        (b'{"code":200}', Transient, None),
        (b'{"code":"429x"}', Transient, None),
        (b"429", Transient, None),
        (b'{"error":{"error":{"code":504}}}', Transient, None),
    ],
)
def test_a_number_in_an_error_event_is_judged_as_a_status(
    raw_upstream, engine_for, data, error, wait_s
):
    script = sse_of(b"event: error\ndata: " + data + b"\n\n")
    answer = engine_for(raw_upstream(script).url, streaming=True).call(
        in_seconds(HANG_S, {}, stream=True)
    )
    with pytest.raises(error) as caught:
        list(answer.chunks)
    assert (type(caught.value), caught.value.retry_after) == (error, wait_s)
    assert "overloaded" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (201, "text/plain", b""), (202, "text/event-stream", b""), (202, "text/plain", b" \n"),
        (201, "text/event-stream", b": queued\n\n"), (202, "text/markdown", b""),
    ],
)  # fmt: skip
def test_a_stream_that_says_done_with_an_empty_hand_is_an_answer(
    upstream, engine_for, status, kind, body
):
    upstream.answers(status, body, Content_Type=kind, Location="/jobs/1")
    chain = EngineChain("c", ChainPolicy(retries=0))
    chain.add(EngineSpec(engine_for(upstream.url, streaming=True), "c", tier=1))
    chain.add(EngineSpec(StaticEngine("second", "second"), "c", tier=2))
    answer = chain.call({}, stream=True, timeout=HANG_S)
    assert (answer.tier, answer.payload, answer.status) == (1, None, status)
    assert answer.metadata["location"] == "/jobs/1"
    assert len(upstream.requests) == 1


def test_json_in_the_encoding_of_its_type_is_read(upstream, engine_for):
    body = '{"who": "Zoë"}'.encode("cp1252")
    upstream.answers(200, body, Content_Type="application/json;charset=windows-1252")
    assert engine_for(upstream.url).call(in_seconds(HANG_S, {})).payload == {"who": "Zoë"}


@pytest.mark.parametrize("kind", ["text/plain", "text/event-stream", "text/csv"])
def test_an_empty_stream_of_a_200_is_no_answer(upstream, engine_for, kind):
    upstream.answers(200, b"", Content_Type=kind)
    answer = engine_for(upstream.url, streaming=True).call(in_seconds(HANG_S, {}, stream=True))
    with pytest.raises(Transient, match="streamed no word"):
        list(answer.chunks)


def test_a_stream_of_a_created_thing_passes_as_any_other(upstream, engine_for):
    upstream.answers(202, b"event: a\ndata: one\n\ndata: two\n\n", Content_Type="text/event-stream")
    engine = engine_for(upstream.url, streaming=True)
    assert list(engine.call(in_seconds(HANG_S, {}, stream=True)).chunks) == ["one", "two"]
    upstream.answers(
        201, "fertig für Sie".encode("latin-1"), Content_Type="text/plain;charset=latin1"
    )
    assert list(engine.call(in_seconds(HANG_S, {}, stream=True)).chunks) == ["fertig für Sie"]
    assert engine.call(in_seconds(HANG_S, {})).payload == "fertig für Sie"
    upstream.answers(202, b"event: error\ndata: x\n\n", Content_Type="text/event-stream")
    with pytest.raises(Transient):
        engine.call(in_seconds(HANG_S, {}, stream=True))


def test_an_error_event_about_a_callers_own_key_concerns_that_caller(raw_upstream, engine_for):
    script = sse_of(b'event: error\ndata: {"code": 401}\n\n')
    engine = engine_for(raw_upstream(script).url, streaming=True, pass_headers=["authorization"])
    for headers, concerns in (({"authorization": "Bearer x"}, True), ({}, False)):
        answer = engine.call(in_seconds(HANG_S, {}, stream=True, headers=headers))
        with pytest.raises(Misconfigured) as caught:
            list(answer.chunks)
        assert caught.value.concerns_caller is concerns


def test_an_error_after_the_first_event_reaches_the_reader(raw_upstream, engine_for):
    script = sse_of(b"data: a\n\n", b"event: error\ndata: boom\n\n", b"data: b\n\n")
    engine = engine_for(raw_upstream(script).url, streaming=True)
    chunks = engine.call(in_seconds(HANG_S, {}, stream=True)).chunks
    assert next(chunks) == "a"
    with pytest.raises(Transient, match="an event that reports an error"):
        next(chunks)


def test_pings_before_the_first_word_win_no_time(raw_upstream, engine_for):
    clock = FakeClock()

    def script(connection, number):
        request_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while not server.over.wait(0.01):
            clock.advance(10)
            connection.sendall(b": hi\n\nevent: ping\ndata: {}\n\n")

    server = raw_upstream(script)
    engine = engine_for(server.url, streaming=True, timeout=HANG_S)
    ends = clock.monotonic() + 45
    answer = engine.call(Call({}, stream=True, deadline=ends, monotonic=clock.monotonic))
    with cut_off(), pytest.raises(AttemptTimeout):
        next(answer.chunks)
    assert clock.monotonic() >= ends


def test_events_keep_their_type_and_pings_are_left_out(raw_upstream, engine_for):
    script = sse_of(
        b"event: start\ndata:\n\n", b"event: ping\ndata: {}\n\n", b"data: a\n\n",
        b"event: keep-alive\ndata\n\n", b"event: end\ndata: b\n\n",
    )  # fmt: skip
    chain = EngineChain("c")
    chain.add(EngineSpec(engine_for(raw_upstream(script).url, streaming=True), "c"))
    answer = chain.call({}, stream=True, timeout=HANG_S)
    read = [(answer.metadata["event"], chunk) for chunk in answer]
    assert read == [("start", ""), ("message", "a"), ("end", "b")]


@pytest.mark.parametrize("kind", [b"text/markdown", b"text/csv; header=present", b"TEXT/PLAIN"])
def test_texts_that_are_no_page_are_streamed(raw_upstream, engine_for, kind):
    engine = engine_for(raw_upstream(streams(kind, b"a,b")).url, streaming=True)
    assert list(engine.call(in_seconds(HANG_S, {}, stream=True)).chunks) == ["a,b"]


def test_an_upstream_that_does_not_stream_answers_at_once(upstream, engine_for):
    engine = engine_for(upstream.url, streaming=True)
    assert engine.call(in_seconds(HANG_S, {"a": 1}, stream=True)).payload == {"a": 1}
    engine.call(in_seconds(HANG_S, {}))
    accepted = [request["headers"]["accept"] for request in upstream.requests]
    assert accepted[0].startswith("text/event-stream")
    assert accepted[1] == "application/json"


@pytest.mark.parametrize("begun", [True, False])
def test_closing_a_stream_closes_the_upstream(raw_upstream, engine_for, begun):
    gone = threading.Event()
    script = streams(b"text/event-stream", b"data: one\n\n", gone=gone)
    engine = engine_for(raw_upstream(script).url, streaming=True)
    answer = engine.call(in_seconds(HANG_S, {}, stream=True))
    if begun:
        assert next(answer.chunks) == "one"
    answer.close()
    assert gone.wait(PATIENCE_S)


def test_a_reader_that_waits_holds_the_upstream_back(raw_upstream, engine_for):
    sent = [0]

    def endless(connection, number):
        request_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65_536)
            sent[0] += 65_536

    engine = engine_for(raw_upstream(endless).url, streaming=True)
    answer = engine.call(in_seconds(HANG_S, {}, stream=True))
    next(answer.chunks)
    before = -1
    while before != sent[0]:
        before = sent[0]
        time.sleep(0.1)
    assert before < 16 * 2**20, "what the sockets hold, and no more"
    answer.close()
