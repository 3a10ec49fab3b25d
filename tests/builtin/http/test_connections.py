"""Idle connections that the upstream closes, at the worst moment too: what is sent again, and what
is never sent twice."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from contextlib import closing

import pytest

from om_plugins.builtin.http import connections
from om_plugins.builtin.http.connections import ConnectionPool, PooledConnection
from om_plugins.builtin.http.network import can_read
from om_plugins.builtin.http.transport import Transport
from om_plugins.errors import Transient
from om_plugins.testing.fakes import run_in_threads
from om_plugins.types import Call
from tests.builtin.conftest import over_tls
from tests.patience import HANG_S, wait_until

KEPT = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
SILENT = KEPT.replace(b"Connection: keep-alive\r\n", b"")
TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
REPEATED = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
ONCE = ("POST", "PATCH")

needs_proof = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells what the other side has confirmed"
)


def read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0] or 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Origin:
    """Answers the first request of its first connection, then ends it in the way that is asked for.

    Later connections answer every request. ``seen`` has the method of each request that was read.
    """

    def __init__(self, raw_upstream, end, *, answer=KEPT, ends=1):
        self.seen = []
        self.idle = threading.Event()
        self._end, self._answer, self._ends = end, answer, ends
        self.server = raw_upstream(self._play)
        host, _, port = self.server.url.removeprefix("http://").partition(":")
        self.transport = Transport("http", host, int(port))

    @property
    def connections(self):
        return len(self.server.connections)

    def _read(self, connection):
        if head := read_request(connection):
            self.seen.append(head.split()[0].decode())
        return head

    def _play(self, connection, number):
        while head := self._read(connection):
            connection.sendall(self._answer[:-2] if head.startswith(b"HEAD") else self._answer)
            if number < self._ends:
                self._end(self, connection)
                return

    def ask(self, method="GET", *, body=None, **options):
        exchange = self.transport.open(
            method, "/", body=b"x" if body is None and method in ("POST", "PUT", "PATCH") else body,
            headers=[], call=Call(None, deadline=time.monotonic() + HANG_S, **options),
            where="up", limit_s=HANG_S,
        )  # fmt: skip
        return exchange.status, exchange.read(10)

    def warm_up(self, monkeypatch, *, closed=True):
        """Make one idle connection that looks open, and wait until its end has come."""
        self.ask()
        self.idle.set()
        if closed:
            idle = self.transport._pools.get()._idle
            wait_until(lambda: can_read(idle[0].sock, 0))
        monkeypatch.setattr(PooledConnection, "is_usable", lambda connection: True)


@pytest.fixture
def origin_that(raw_upstream):
    made = []

    def make(end, **options):
        made.append(Origin(raw_upstream, end, **options))
        return made[-1]

    yield make
    for one in made:
        one.transport.close()


# --- how an upstream can end an idle connection ---------------------------------------------------


def closes(origin, connection):
    connection.close()


def closes_one_direction(origin, connection):
    connection.shutdown(socket.SHUT_WR)
    origin.server.over.wait()


def resets(origin, connection):
    reset(connection)


def says_408(origin, connection):
    origin.idle.wait()  # else it would come with the answer
    connection.sendall(TIMED_OUT)
    connection.close()


def reads_and_closes(origin, connection):
    origin._read(connection)
    connection.close()


def reads_and_resets(origin, connection):
    origin._read(connection)
    reset(connection)


def closes_unread(origin, connection):
    connection.recv(1)
    connection.close()


def reads_and_says_408(origin, connection):
    origin._read(connection)
    connection.sendall(TIMED_OUT)
    connection.close()


BEFORE = (closes, closes_one_direction, resets, says_408)
AFTER = (reads_and_closes, reads_and_resets, closes_unread, reads_and_says_408)


@pytest.mark.parametrize("method", REPEATED)
@pytest.mark.parametrize("end", [*BEFORE, *AFTER])
def test_an_idempotent_request_is_sent_once_more(origin_that, monkeypatch, method, end):
    origin = origin_that(end)
    origin.warm_up(monkeypatch, closed=end in BEFORE)
    assert origin.ask(method) == (200, b"" if method == "HEAD" else b"ok")
    assert origin.connections == 2
    assert origin.seen[-1] == method


@needs_proof
@pytest.mark.parametrize("method", ONCE)
@pytest.mark.parametrize("end", [closes, says_408])
def test_any_request_is_sent_again_when_the_upstream_had_closed_before_it_came(
    origin_that, monkeypatch, method, end
):
    origin = origin_that(end)
    origin.warm_up(monkeypatch)
    assert origin.ask(method) == (200, b"ok")
    assert origin.seen == ["GET", method]


@pytest.mark.parametrize("method", ONCE)
@pytest.mark.parametrize("end", [reads_and_closes, reads_and_resets, closes_unread])
def test_what_may_have_been_processed_is_not_sent_twice(origin_that, monkeypatch, method, end):
    origin = origin_that(end)
    origin.warm_up(monkeypatch, closed=False)
    with pytest.raises(Transient) as caught:
        origin.ask(method)
    assert caught.value.sent == "maybe"
    assert (origin.seen.count(method) <= 1, origin.connections) == (True, 1)


@pytest.mark.parametrize("method", ONCE)
def test_a_408_to_a_request_that_was_read_is_its_answer(origin_that, monkeypatch, method):
    origin = origin_that(reads_and_says_408)
    origin.warm_up(monkeypatch, closed=False)
    assert origin.ask(method) == (408, b"")
    assert origin.seen == ["GET", method]


def test_a_call_says_itself_whether_it_may_be_sent_twice(origin_that, monkeypatch):
    origin = origin_that(reads_and_closes)
    origin.warm_up(monkeypatch, closed=False)
    assert origin.ask("POST", idempotent=True) == (200, b"ok")
    assert origin.seen == ["GET", "POST", "POST"]
    monkeypatch.undo()
    origin = origin_that(reads_and_closes)
    origin.warm_up(monkeypatch, closed=False)
    with pytest.raises(Transient):
        origin.ask("PUT", idempotent=False)
    assert origin.seen == ["GET", "PUT"]


def test_a_request_is_sent_again_once_only(origin_that, monkeypatch):
    origin = origin_that(closes)
    origin.warm_up(monkeypatch)
    origin.server._script = lambda connection, number: origin._read(connection)
    with pytest.raises(Transient):
        origin.ask("PUT")
    assert (origin.seen, origin.connections) == (["GET", "PUT"], 2)


@pytest.mark.parametrize("ends", [socket.socket.close, reset])
def test_an_answer_that_has_begun_is_not_asked_for_again(origin_that, monkeypatch, ends):
    def begins(origin, connection):
        origin._read(connection)
        connection.sendall(b"HTTP/1.1 2")
        ends(connection)

    origin = origin_that(begins)
    origin.warm_up(monkeypatch, closed=False)
    with pytest.raises(Transient) as caught:
        origin.ask("GET")
    assert (caught.value.sent, origin.seen, origin.connections) == ("yes", ["GET", "GET"], 1)


def test_a_fresh_connection_that_fails_is_not_tried_again(origin_that):
    origin = origin_that(closes, answer=b"")
    with pytest.raises(Transient):
        origin.ask("PUT")
    assert (origin.seen, origin.connections) == (["PUT"], 1)


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_body_that_can_be_read_once_goes_over_a_new_connection(origin_that, method):
    origin = origin_that(closes, ends=0)
    origin.ask()
    origin.ask()
    assert origin.connections == 1
    origin.transport.open(
        method, "/", body=iter([b"ab"]), headers=[("Content-Length", "2")], call=Call(None),
        where="up", limit_s=HANG_S,
    ).read(10)  # fmt: skip
    assert (origin.seen, origin.connections) == (["GET", "GET", method], 2)


@pytest.mark.parametrize("size", [1, 60_000, 1_000_000])
def test_a_put_of_any_size_survives_a_closed_connection(origin_that, monkeypatch, size):
    origin = origin_that(closes)
    origin.warm_up(monkeypatch)
    assert origin.ask("PUT", body=b"x" * size) == (200, b"ok")
    assert origin.seen == ["GET", "PUT"]


# --- upstreams that keep nothing open -------------------------------------------------------------


@pytest.mark.parametrize("end", [closes, resets])
def test_no_post_is_lost_to_an_upstream_that_closes_without_a_word(origin_that, end):
    origin = origin_that(end, answer=SILENT, ends=1000)
    for _ in range(30):
        assert origin.ask("POST") == (200, b"ok")
    assert (origin.seen, origin.connections) == (["POST"] * 30, 30)


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_no_idempotent_request_is_lost_to_it_either(origin_that, method):
    origin = origin_that(closes, answer=SILENT, ends=1000)
    for _ in range(30):
        assert origin.ask(method) == (200, b"ok")


def test_posts_share_a_connection_once_the_upstream_has_kept_one_open(origin_that, monkeypatch):
    origin = origin_that(closes, answer=SILENT, ends=0)
    origin.ask("POST")
    origin.ask("POST")
    assert origin.connections == 2
    monkeypatch.setattr(connections, "_SHOWN_S", 0.0)
    for _ in range(5):
        origin.ask("POST")
    assert origin.connections == 2


def test_posts_share_a_connection_once_another_request_has_used_one_twice(origin_that):
    origin = origin_that(closes, answer=SILENT, ends=0)
    for method in ("GET", "PUT", "POST", "PATCH", "POST"):
        origin.ask(method)
    assert origin.connections == 1


@pytest.mark.parametrize(
    "said", [b"Connection: Keep-Alive\r\n", b"keep-alive: timeout=60\r\n", b"Keep-Alive: max=9\r\n"]
)
def test_posts_share_a_connection_that_the_upstream_promises_to_keep(origin_that, said):
    origin = origin_that(closes, ends=0, answer=SILENT.replace(b"Content", said + b"Content"))
    for _ in range(3):
        origin.ask("POST")
    assert origin.connections == 1


def test_a_connection_is_closed_before_the_time_that_the_upstream_names(origin_that):
    said = b"Keep-Alive: timeout=0\r\n"
    origin = origin_that(closes, ends=0, answer=SILENT.replace(b"Content", said + b"Content"))
    for _ in range(3):
        origin.ask("GET")
    assert origin.connections == 3


def test_a_post_that_was_lost_makes_the_next_ones_careful(origin_that, monkeypatch):
    origin = origin_that(reads_and_resets, answer=SILENT, ends=1000)
    monkeypatch.setattr(connections, "_SHOWN_S", 0.0)
    origin.ask("POST")
    with pytest.raises(Transient):
        origin.ask("POST")
    monkeypatch.undo()
    for _ in range(3):
        assert origin.ask("POST") == (200, b"ok")
    assert origin.seen == ["POST"] * 5


def test_a_pool_without_connections_has_none_for_anybody():
    pool = ConnectionPool(2)
    assert pool.take() is pool.take(repeatable=False) is None


def test_a_connection_that_was_closed_soon_makes_a_pool_careful_again():
    pool = ConnectionPool(2)
    pool.learn(kept=True)
    near, far = socket.socketpair()
    far.close()
    pool.put(PooledConnection(near))
    assert pool.take(repeatable=False) is None
    near, far = socket.socketpair()
    with closing(far), closing(near):
        pool.put(PooledConnection(near))
        assert pool.take(repeatable=False) is None
        assert pool.take() is not None


def test_the_oldest_connection_shows_that_an_upstream_keeps_them():
    pool = ConnectionPool(2)
    (old, far_old), (new, far_new) = socket.socketpair(), socket.socketpair()
    with closing(old), closing(new), closing(far_old), closing(far_new):
        oldest, newest = PooledConnection(old), PooledConnection(new)
        pool.put(oldest)
        pool.put(newest)
        newest.idle_since += 1_000  # just now, however long the test takes
        assert pool.take(repeatable=False) is None
        oldest.idle_since -= 10
        assert pool.take(repeatable=False) is newest


def test_a_connection_that_cannot_tell_proves_nothing():
    near, far = socket.socketpair()  # no TCP
    with closing(near), closing(far):
        connection = PooledConnection(near)
        connection.mark()
        assert not connection.is_unprocessed()


# --- over TLS -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "before", "alert"),
    [
        ("PUT", True, True),
        ("PUT", True, False),
        ("PUT", False, True),
        ("PUT", False, False),
        # with an alert, its system still confirms what comes while it waits for ours
        pytest.param("POST", True, False, marks=needs_proof),
        ("POST", False, True),
        ("POST", False, False),
    ],
)
def test_tls_connections_that_are_closed_are_no_different(
    raw_upstream, certificate, monkeypatch, method, before, alert
):
    seen = []

    def script(connection, number):
        while head := read_request(connection):
            seen.append(head.split()[0].decode())
            if number == 0 and len(seen) == 2 and not before:
                break
            connection.sendall(KEPT)
            if number == 0 and before:
                break
        if alert:
            with contextlib.suppress(OSError):
                connection.unwrap()

    server = raw_upstream(over_tls(certificate, script))
    transport = Transport(
        "https", "127.0.0.1", int(server.url.rpartition(":")[2]),
        ssl_context=ssl.create_default_context(cafile=certificate[0]),
    )  # fmt: skip

    def ask(method):
        return transport.open(
            method, "/", body=b"x" if method != "GET" else None, headers=[], where="up",
            call=Call(None, deadline=time.monotonic() + HANG_S), limit_s=HANG_S,
        ).read(10)  # fmt: skip

    ask("GET")
    if before:
        wait_until(lambda: can_read(transport._pools.get()._idle[0].sock, 0))
    monkeypatch.setattr(PooledConnection, "is_usable", lambda connection: True)
    if before or method == "PUT":
        assert ask(method) == b"ok"
        assert seen == ["GET", *[method] * (1 if before else 2)]
    else:
        with pytest.raises(Transient) as caught:
            ask(method)
        assert (caught.value.sent, seen) == ("maybe", ["GET", "POST"])
    transport.close()


@pytest.mark.proof
def test_no_post_is_processed_twice_by_an_upstream_that_closes_at_any_moment(raw_upstream):
    seen, wrong = Counter(), []

    def script(connection, number):
        chance = random.Random(number)
        while True:
            connection.settimeout(chance.choice([0.0005, 0.001, 0.002, 0.004, 0.01]))
            try:
                body = read_request(connection)
            except TimeoutError:
                if chance.random() < 0.3:
                    reset(connection)
                return
            if not body:
                return
            seen[body] += 1
            if chance.random() < 0.02:
                return
            connection.sendall(KEPT)

    def ask(caller):
        chance = random.Random(caller)
        for number in range(800):
            time.sleep(chance.choice([0, 0.0005, 0.001, 0.002, 0.004, 0.01]))
            name = f"{caller}-{number}"
            with contextlib.suppress(Transient):
                exchange = transport.open(
                    "POST", "/" + name, body=None, headers=[], where="up", limit_s=HANG_S,
                    call=Call(None, deadline=time.monotonic() + HANG_S),
                )  # fmt: skip
                if exchange.read(10) != b"ok":
                    wrong.append(name)

    transport = Transport("http", "127.0.0.1", int(raw_upstream(script).url.rpartition(":")[2]))
    run_in_threads(4, ask)
    transport.close()
    assert set(seen.values()) == {1}
    assert not wrong
