"""Malformed heads: each line is repaired as RFC 9112 says, or the whole answer is refused.

No header after such a line is lost, and none appears that the upstream did not send.
"""

from __future__ import annotations

import io
import socket
import threading
import time

import pytest

from om_plugins.builtin.engines.http import HttpEngine
from om_plugins.builtin.engines.proxy import ProxyEngine
from om_plugins.builtin.engines.proxy_app import ProxyApp
from om_plugins.builtin.http.heads import find_head_end, repair_head
from om_plugins.builtin.http.transport import Transport
from om_plugins.errors import Transient
from om_plugins.types import Call
from tests.patience import HANG_S

BEFORE = [("Content-Type", "application/json")]
AFTER = [
    ("Cache-Control", "private, no-store"),
    ("Set-Cookie", "sid=1; HttpOnly"),
    ("Set-Cookie", "other=2"),
    ("Content-Security-Policy", "default-src 'self'"),
]
LENGTH = [("Content-Length", "2")]

REPAIRED = [
    (b"X-A : 1\r\n", [("X-A", "1")]),
    (b"X-A\t: 1\r\n", [("X-A", "1")]),
    (b"X-A \t \t: 1\r\n", [("X-A", "1")]),
    (b"X-A :1\r\n", [("X-A", "1")]),
    (b"X-A :\r\n", [("X-A", "")]),
    (b"Set-Cookie : a=1\r\nSet-Cookie\t: b=2\r\n", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]),
    (b"X-A : 1\r\n : 2\r\n", [("X-A", "1 : 2")]),
    (b"X-A: a\rb\r\n", [("X-A", "a b")]),
    (b"X-A: a\rSet-Cookie: evil=1\r\n", [("X-A", "a Set-Cookie: evil=1")]),
    (b"X-A: a\r\rX-B: b\r\n", [("X-A", "a  X-B: b")]),
    (b"X-A: a\r\r\n", [("X-A", "a")]),
    (b"X-A: \ra\r\n", [("X-A", "a")]),
    (b"X-A: a\r b\n", [("X-A", "a  b")]),
    (b"X-A: a\0b\r\n", [("X-A", "a b")]),
    (b"X-A: a\x01b\r\n", [("X-A", "a b")]),
    (b"X-A: a\x0bb\r\n", [("X-A", "a b")]),
    (b"X-A: a\x0cb\r\n", [("X-A", "a b")]),
    (b"X-A: a\x1bb\r\n", [("X-A", "a b")]),
    (b"X-A: a\x7fb\r\n", [("X-A", "a b")]),
    (b"X-A: a\r\n b\r\n", [("X-A", "a b")]),
    (b"X-A: a\r\n\tb\r\n  c\r\n", [("X-A", "a b c")]),
    (b"X-A: a\r\n b\rc\r\n", [("X-A", "a b c")]),
    (b"X-A:\r\n a\r\n", [("X-A", "a")]),
    (b"X-A: 1\n", [("X-A", "1")]),
    (b"X-A: 1\nX-B: 2\n", [("X-A", "1"), ("X-B", "2")]),
    (b"X-A: \t 1 \t \r\n", [("X-A", "1")]),
    (b"X-A:1\r\n", [("X-A", "1")]),
    (b"X-A: caf\xe9\r\n", [("X-A", "caf\xe9")]),
    (b"X-A: caf\xc3\xa9\r\n", [("X-A", "caf\xc3\xa9")]),
    (b"X-A: a : b\r\n", [("X-A", "a : b")]),
    (b"X-A: \"a:b\" : c\r\n", [("X-A", '"a:b" : c')]),
    (b"X-A: HTTP/1.1 200 OK\r\n", [("X-A", "HTTP/1.1 200 OK")]),
    (b"!#$%&'*+.^_`|~: 1\r\n", [("!#$%&'*+.^_`|~", "1")]),
]  # fmt: skip
"""Lines, and the headers that they become."""

REFUSED = [
    b"X Powered By: 1\r\n",
    b"X Powered By : 1\r\n",
    b"garbage\r\n",
    b"garbage\n",
    b"two words\r\n",
    b"X-\xe9: 1\r\n",
    "X-\u00e9: 1\r\n".encode(),
    b"\xff\xfe: 1\r\n",
    b": 1\r\n",
    b":\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 302 Found\r\n",
    b"Status 302: \r\n",
    b"Status 302:\r\n",
    b"X-A;: 1\r\n",
    b"X(A): 1\r\n",
    b"X@A: 1\r\n",
    b"X/A: 1\r\n",
    b"\"X-A\": 1\r\n",
    b"X-A=1\r\n",
    b"X-\0A: 1\r\n",
    b"X-\x01A: 1\r\n",
    b"X-A\x0b: 1\r\n",
    b"X-\rA: 1\r\n",
    b"\rX-A: 1\r\n",
    b"\r\r\n",
    b"X-A\r: 1\r\n",
    b"\x00\r\n",
    b"<html>\r\n",
    b"Set-Cookie a=1\r\n",
    b"Content-Length : 2\r\n",
    b"Content-Length\t: 5\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Content-Length: 2\r\r\n",
    b"Content-Length: 2\0\r\n",
    b"Content-Length: \x0b2\r\n",
    b"Transfer-Encoding: chunked\r\r\n",
    b"Transfer-Encoding: \0chunked\r\n",
    b"Transfer-Encoding: \x01chunked\r\n",
    b"Content\x00-Length: 2\r\n",
]  # fmt: skip


def lines_of(headers):
    return b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers)


def head_with(bad, *, first=False):
    before, after = ((), [*BEFORE, *AFTER]) if first else (BEFORE, AFTER)
    return b"HTTP/1.1 200 OK\r\n" + lines_of(before) + bad + lines_of([*after, *LENGTH]) + b"\r\n"


@pytest.fixture(scope="module")
def origin():
    """``origin(head)`` is the URL of a server whose answer has this head, and the body ``{}``."""
    listener = socket.create_server(("127.0.0.1", 0))
    said = {}

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(HANG_S)
                data = b""
                while not data.endswith((b"\r\n\r\n", b"\r\n\r\n{}")):
                    data += connection.recv(65536)
                connection.sendall(said["head"] + b"{}")

    thread = threading.Thread(target=serve)
    thread.start()

    def use(head):
        said["head"] = head
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield use
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def ask(url):
    """The headers that the transport reads."""
    transport = Transport("http", "127.0.0.1", int(url.rpartition(":")[2]))
    exchange = transport.open(
        "GET", "/", body=None, headers=[], call=Call(None, deadline=time.monotonic() + HANG_S),
        where="up", limit_s=HANG_S,
    )  # fmt: skip
    assert exchange.read(100) == b"{}"
    transport.close()
    return exchange.header_items


def pass_on(url):
    """Status and headers that a client of the proxy gets."""
    got = {}

    def start_response(status, headers, exc_info=None):
        got["status"], got["headers"] = status, headers

    engine = ProxyEngine("up", url, timeout=HANG_S)
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/p", "SERVER_NAME": "x", "SERVER_PORT": "80",
        "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), "REMOTE_ADDR": "192.0.2.1",
    }  # fmt: skip
    body = b"".join(ProxyApp(engine)(environ, start_response))
    engine.close()
    return int(got["status"][:3]), got["headers"], body


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("bad", "headers"), REPAIRED)
def test_a_line_that_rfc_9112_repairs_costs_no_header(origin, bad, headers, first):
    url = origin(head_with(bad, first=first))
    before, after = ([], [*BEFORE, *AFTER]) if first else (BEFORE, AFTER)
    assert ask(url) == [*before, *headers, *after, *LENGTH]
    status, passed, body = pass_on(url)
    assert (status, body) == (200, b"{}")
    assert passed == [*before, *headers, *after, *LENGTH]


@pytest.mark.parametrize("bad", REFUSED)
def test_any_other_malformed_line_refuses_the_answer(origin, bad):
    url = origin(head_with(bad))
    with pytest.raises(Transient, match="RemoteProtocolError"):
        ask(url)
    status, passed, body = pass_on(url)
    assert status == 502
    assert not {"Set-Cookie", "X-A"} & {name for name, _ in passed}
    assert b"{}" not in body


@pytest.mark.parametrize(
    "bad", [*REFUSED, b" folded\r\n", b"\tfolded\r\n", b" X-A: 1\r\n", b" \r\n"]
)
def test_a_malformed_line_right_behind_the_status_line_refuses_the_answer(origin, bad):
    with pytest.raises(Transient, match="RemoteProtocolError"):
        ask(origin(head_with(bad, first=True)))


@pytest.mark.parametrize(("bad", "headers"), REPAIRED)
def test_other_engines_read_the_answer_behind_a_repaired_head(origin, bad, headers):
    engine = HttpEngine("up", origin(head_with(bad)), timeout=HANG_S)
    assert engine.call(Call({})).payload == {}
    engine.close()


@pytest.mark.parametrize("bad", REFUSED)
def test_other_engines_refuse_what_the_proxy_refuses(origin, bad):
    engine = HttpEngine("up", origin(head_with(bad)), timeout=HANG_S)
    with pytest.raises(Transient, match="RemoteProtocolError"):
        engine.call(Call({}))
    engine.close()


@pytest.mark.parametrize(
    "status",
    [
        b"HTTP/1.1  200 OK", b" HTTP/1.1 200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.1 200\rOK",
        b"HTTP/1.1 2000 OK", b"HTTP/1.1 -20 OK", b"HTTP/11 200 OK", b"http/1.1 200 OK",
        b"HTTPS/1.1 200 OK", b"HTTP/1.1 200 O\0K", b"HTTP/1.1 OK", b"HTTP/1.1", b"SSH-2.0-x",
        b"\x16\x03\x01", b"220 ready", b"+OK", b"<html>", b"{",
    ],
)  # fmt: skip
def test_what_is_no_status_line_is_refused_at_once(origin, status):
    with pytest.raises(Transient, match="illegal status line"):
        ask(origin(status + b"\r\n" + lines_of(LENGTH) + b"\r\n"))


def test_interim_answers_are_repaired_and_skipped(origin):
    interim = b"HTTP/1.1 103 Early Hints\r\nLink : </a.css>\r\nX: a\rb\r\n\r\n"
    assert ask(origin(interim * 2 + head_with(b"X-A : 1\r\n"))) == [
        *BEFORE, ("X-A", "1"), *AFTER, *LENGTH,
    ]  # fmt: skip


def test_a_head_may_come_byte_by_byte(raw_upstream):
    head = head_with(b"X-A : a\rb\r\n c\r\n")

    def script(connection, number):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.recv(65536)
        for at in range(len(head)):
            connection.sendall(head[at : at + 1])
        connection.sendall(b"{}")

    assert ask(raw_upstream(script).url) == [*BEFORE, ("X-A", "a b c"), *AFTER, *LENGTH]


@pytest.mark.parametrize("cut", [1, 5, 9, 17, 40, 100])
def test_a_head_that_breaks_off_is_refused(raw_upstream, cut):
    def script(connection, number):
        connection.recv(65536)
        connection.sendall(head_with(b"")[:cut])

    with pytest.raises(Transient, match="closed within the head"):
        ask(raw_upstream(script).url)


def test_a_head_without_end_is_refused(raw_upstream):
    def script(connection, number):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000)

    with pytest.raises(Transient, match="too long"):
        ask(raw_upstream(script).url)


def test_a_head_in_good_order_is_the_same_object():
    head = head_with(b"")
    assert repair_head(head) is head
    assert find_head_end(head + b"{}") == len(head)
