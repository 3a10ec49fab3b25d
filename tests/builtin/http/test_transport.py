"""One exchange: where an answer ends, by one reading only, and what becomes of its connection.

Covers ``om_plugins.builtin.http.connections`` and ``om_plugins.builtin.http.network``, too: the
time limits and the cancellation of a whole request are tested with the engines, in
``tests/builtin/engines/test_http.py``.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from om_plugins.builtin.http.network import HttpAttempt, can_read, connect
from om_plugins.builtin.http.transport import Transport
from om_plugins.errors import Cancelled, InvalidRequest, Transient
from om_plugins.types import Call
from tests.patience import HANG_S, PATIENCE_S, cut_off

CHUNKED = b"Transfer-Encoding: chunked\r\n"


def read_request(connection):
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        part = connection.recv(65536)
        if not part:
            return b""
        data += part
    return data


def playing(*answers, keep_open=True):
    """Each request of any connection gets the next answer; the last one is repeated."""
    left = list(answers)

    def script(connection, number):
        script.connections = number + 1
        while read_request(connection):
            connection.sendall(left.pop(0) if len(left) > 1 else left[0])
            if not keep_open:
                return

    return script


@pytest.fixture
def transport_for():
    transports = []

    def make(url, **options):
        host, _, port = url.removeprefix("http://").partition(":")
        transports.append(Transport("http", host, int(port), **options))
        return transports[-1]

    yield make
    for transport in transports:
        transport.close()


def ask(transport, method="GET", **options):
    call = Call(None, deadline=time.monotonic() + HANG_S)
    options = {"body": None, "headers": [], "call": call, "where": "up"} | options
    return transport.open(method, "/", **{"limit_s": HANG_S} | options)


def answer(headers=b"", body=b"", status=b"200 OK", version=b"1.1"):
    return b"HTTP/" + version + b" " + status + b"\r\n" + headers + b"\r\n" + body


def is_reused(transport, script):
    """Whether another request goes over the same connection."""
    before = script.connections
    with contextlib.suppress(Transient):
        ask(transport).close()
    return script.connections == before


# --- where a body ends ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "method", "body", "length", "reused"),
    [
        (answer(b"Content-Length: 5\r\n", b"12345"), "GET", b"12345", 5, True),
        (answer(b"content-length: 5\r\nContent-Length: 5\r\n", b"12345"), "GET", b"12345", 5, True),
        (answer(b"Content-Length:  5, 5\r\n", b"12345"), "GET", b"12345", 5, True),
        (answer(b"Content-Length: 0\r\n"), "GET", b"", 0, True),
        (answer(b"Transfer-Encoding: CHUNKED\r\n", b"0\r\n\r\n"), "GET", b"", None, True),
        (answer(CHUNKED, b"0\r\n\r\n", version=b"1.0"), "GET", b"", None, False),
        (answer(CHUNKED + b"Content-Length: 5\r\n", b"0\r\n\r\n"), "GET", b"", None, False),
        (answer(CHUNKED + b"Connection: close\r\n", b"0\r\n\r\n"), "GET", b"", None, False),
        (answer(b"Content-Length: 5\r\n"), "HEAD", b"", 0, True),
        (answer(b"Content-Length: 5\r\n", status=b"304 Same"), "GET", b"", 0, True),
        (answer(CHUNKED, status=b"204 No"), "GET", b"", 0, True),
    ],
)
def test_a_body_is_delimited_as_rfc_9112_says(
    raw_upstream, transport_for, said, method, body, length, reused
):
    script = playing(said)
    transport = transport_for(raw_upstream(script).url)
    exchange = ask(transport, method)
    assert exchange.length == length
    assert exchange.read(100) == body
    assert is_reused(transport, script) is reused


def test_a_body_without_a_length_ends_with_the_connection(raw_upstream, transport_for):
    script = playing(answer(b"", b"all"), keep_open=False)
    transport = transport_for(raw_upstream(script).url)
    exchange = ask(transport)
    assert (exchange.length, exchange.read(100)) == (None, b"all")
    assert not is_reused(transport, script)


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        *(
            b"Content-Length: " + wrong + b"\r\n"
            for wrong in (b"-5", b"+5", b"0x5", b"5_0", "٥".encode(), b"", b"1" * 21)
        ),
        *(
            b"Transfer-Encoding: " + wrong + b"\r\n"
            for wrong in (b"gzip, chunked", b"xchunked", b"", b"identity")
        ),
        CHUNKED * 2,
        b"Content-Length : 5\r\n",
        b" X: y\r\nContent-Length: 5\r\n",
        b"no colon\r\n",
        b"X: y\r\n" * 101,
    ],
)
def test_a_head_that_can_be_read_in_two_ways_is_refused(raw_upstream, transport_for, headers):
    script = playing(answer(headers, b"12345"))
    transport = transport_for(raw_upstream(script).url)
    with pytest.raises(Transient, match="RemoteProtocolError") as caught:
        ask(transport)
    assert caught.value.sent == "yes"
    assert not is_reused(transport, script)


@pytest.mark.parametrize(
    "said",
    [b"HTTP/2 200 OK\r\n\r\n", b"ICY 200 OK\r\n\r\n", b"HTTP/1.1 20 OK\r\n\r\n", b"\r\n\r\n"],
)
def test_a_status_line_that_is_none_is_refused(raw_upstream, transport_for, said):
    with pytest.raises(Transient, match="RemoteProtocolError"):
        ask(transport_for(raw_upstream(playing(said)).url))


@pytest.mark.parametrize(
    "data",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;ext=1;x=\"y\"\r\nhello\r\n000\r\n\r\n",
        b"2 \r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: dropped\r\nX: y\r\n\r\n",
    ],
)  # fmt: skip
def test_chunks_are_put_together_and_trailers_dropped(raw_upstream, transport_for, data):
    script = playing(answer(CHUNKED, data))
    transport = transport_for(raw_upstream(script).url)
    for _ in range(2):
        assert ask(transport).read(100) == b"hello"
    assert is_reused(transport, script)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"5\r\nhel",
        b"5\r\nhello",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloxx0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"5_0\r\n",
        b"5" * 21 + b"\r\n",
        b"5;" + b"x" * 200_000 + b"\r\nhello\r\n",
        b"0\r\n" + b"X: y\r\n" * 20_000,
        b"0\r\nX: " + b"y" * 200_000,
        b"0\r\nX",
        b"0\r\nno colon\r\n\r\n",
    ],
)
def test_a_chunk_that_is_none_ends_the_answer(raw_upstream, transport_for, data):
    said = answer(CHUNKED, data)
    script = playing(said, keep_open=False)
    transport = transport_for(raw_upstream(script).url)
    exchange = ask(transport)
    with pytest.raises(Transient, match="the answer's body is garbled") as caught:
        exchange.read(100)
    assert (caught.value.sent, caught.value.status) == ("yes", 200)
    assert not is_reused(transport, script)


# --- connections ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        answer(b"Content-Length: 2\r\n", b"okHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"),
        answer(CHUNKED, b"2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    ],
)
def test_bytes_after_an_answer_never_become_the_next_one(raw_upstream, transport_for, said):
    script = playing(said)
    transport = transport_for(raw_upstream(script).url)
    assert ask(transport).read(100) == b"ok"
    assert not is_reused(transport, script)


def test_bytes_that_come_while_a_connection_is_idle_end_it(raw_upstream, transport_for):
    def script(connection, number):
        while read_request(connection):
            connection.sendall(answer(b"Content-Length: 2\r\n", b"ok"))
            assert idle.acquire(timeout=PATIENCE_S)
            connection.sendall(answer(b"Content-Length: 6\r\n", b"forged"))
            forged.release()

    idle, forged = threading.Semaphore(0), threading.Semaphore(0)
    transport = transport_for(raw_upstream(script).url)
    for _ in range(2):
        assert ask(transport).read(100) == b"ok"
        idle.release()
        assert forged.acquire(timeout=PATIENCE_S)


def test_no_more_connections_are_kept_than_the_pool_holds(raw_upstream, transport_for):
    said = answer(b"Content-Length: 2\r\n", b"ok")
    script = playing(said)
    transport = transport_for(raw_upstream(script).url, pool_size=1)
    first, second = ask(transport), ask(transport)
    assert first.read(100) == second.read(100) == b"ok"
    assert is_reused(transport, script)
    assert not is_reused(transport, script)


def test_an_exchange_that_is_closed_early_closes_its_connection(raw_upstream, transport_for):
    gone = threading.Event()

    def script(connection, number):
        read_request(connection)
        connection.sendall(answer(b"Content-Length: 100\r\n", b"begun"))
        if not connection.recv(1):
            gone.set()

    ask(transport_for(raw_upstream(script).url)).close()
    assert gone.wait(PATIENCE_S)


def test_an_answer_that_comes_before_the_body_is_sent_is_read(raw_upstream, transport_for):
    def script(connection, number):
        connection.recv(100)
        connection.sendall(answer(b"Content-Length: 5\r\n", b"large", status=b"413 Large"))
        connection.shutdown(socket.SHUT_RDWR)
        answered.set()
        server.over.wait(HANG_S)

    def body():
        yield b"x" * 100
        assert answered.wait(PATIENCE_S)
        for _ in range(100):
            yield b"x" * 100_000

    answered = threading.Event()
    server = raw_upstream(script)
    exchange = ask(transport_for(server.url), "POST", body=body())
    assert (exchange.status, exchange.read(100)) == (413, b"large")


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"body": b"abc"}, "Content-Length: 3"),
        ({"body": [b"abc"]}, "Transfer-Encoding: chunked"),
        ({"body": [b"abc"], "headers": [("content-length", "3")]}, "content-length: 3"),
    ],
)
def test_host_and_framing_are_all_that_is_added(raw_upstream, transport_for, options, line):
    heads = []

    def script(connection, number):
        data = b""
        while not data.endswith((b"abc", b"\r\n0\r\n\r\n")):
            data += connection.recv(65536)
        heads.append(data.partition(b"\r\n\r\n")[0].decode())
        connection.sendall(answer(b"Content-Length: 0\r\n"))

    url = raw_upstream(script).url
    ask(transport_for(url), "POST", **options).read(0)
    assert heads[0].split("\r\n") == ["POST / HTTP/1.1", f"Host: {url[7:]}", line]


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [("a.example", 80, "a.example"), ("a.example", 81, "a.example:81"), ("::1", 80, "[::1]"),
     ("fe80::1%eth0", 8080, "[fe80::1]:8080")],
)  # fmt: skip
def test_the_host_header_is_the_origin(host, port, said):
    assert Transport("http", host, port).host_header == said


@pytest.mark.parametrize("headers", [[("X", "a\r\nY: b")], [("X Y", "a")], [("X", "a\0")]])
def test_a_header_that_would_bring_a_line_of_its_own_is_not_sent(transport_for, headers):
    with pytest.raises(InvalidRequest) as caught:
        ask(transport_for("http://127.0.0.1:1"), headers=headers)
    assert caught.value.sent == "no"


# --- the network ----------------------------------------------------------------------------------


def test_an_ipv6_address_is_reached(transport_for):
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6")
    with listener:
        transport = Transport("http", "::1", listener.getsockname()[1])
        transport.reach(Call(None), "up", 2)


def test_a_call_that_is_cancelled_before_a_connection_is_made_ends_there():
    call = Call(None)
    call.cancel()
    attempt = HttpAttempt(call, "up", 5)
    with pytest.raises(Cancelled):
        connect("127.0.0.1", 1, attempt)
    attempt.detach()


def test_a_handshake_ends_when_the_call_is_cancelled(raw_upstream):
    server = raw_upstream(lambda connection, number: server.over.wait())
    port = int(server.url.rpartition(":")[2])
    call = Call(None, deadline=time.monotonic() + HANG_S)
    timer = threading.Timer(0.2, call.cancel)
    timer.start()
    with cut_off(), pytest.raises(Cancelled):
        Transport("https", "127.0.0.1", port, connect_timeout_s=HANG_S).open(
            "GET", "/", body=None, headers=[], call=call, where="up", limit_s=HANG_S
        )
    timer.join()


def test_a_socket_can_be_read_when_something_came_or_its_end(monkeypatch):
    near, far = socket.socketpair()
    with near:
        with far:
            assert not can_read(near, 0)
            far.send(b"x")
            assert can_read(near, 1)
            near.recv(1)
            monkeypatch.delattr("select.poll")
            assert not can_read(near, 0)
        assert can_read(near, 1)
