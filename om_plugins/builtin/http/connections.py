"""Connections that carry one HTTP/1.1 exchange after another, and the pool of the idle ones.

A connection is used again only when both sides are done, no byte is left over, and nothing has
arrived while it was idle. It is closed a little before the time that the upstream's ``Keep-Alive``
names. Needs the extra ``http``.
"""

from __future__ import annotations

import socket
import ssl
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator

import h11

from ...errors import Misconfigured, Transient
from .heads import find_head_end, repair_head
from .network import READ_BYTES, HttpAttempt, can_read, count_acked
from .outbound_proxy import OutboundProxy

_MAX_HEAD_BYTES = 65_536
_MAX_HEADERS = 100
_MAX_INTERIM = 20
_SHOWN_S = 0.2  # an upstream that keeps an idle connection this long keeps its connections
_SHORT_S = 1.0  # one that closes an idle connection sooner than this does not


class PooledConnection:
    """A socket and the state of the HTTP messages on it.

    Attributes:
        idle_since: when it was put into the pool (``time.monotonic``).
        keep_s: how many seconds the upstream keeps it open while it is idle, as far as is known.
        is_promised: the upstream has said that it keeps the connection open.
    """

    __slots__ = (
        "_acked", "_head", "_heard", "_was_reset", "http", "idle_since", "is_promised", "keep_s",
        "sock",
    )  # fmt: skip

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self.idle_since = 0.0
        self.keep_s = float("inf")
        self.is_promised = False
        self._head = b""
        self._acked: int | None = None
        self._heard = self._was_reset = False

    def is_usable(self) -> bool:
        """Whether the upstream has neither closed the idle connection nor sent anything."""
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return False
        return not can_read(self.sock, 0)

    def send(
        self, request: h11.Request, body: bytes | Iterable[bytes] | None, attempt: HttpAttempt
    ) -> None:
        """Write the request, or as much as the upstream accepts: it may answer and close early."""
        for data in self._messages(request, body, attempt):
            try:
                attempt.send(self.sock, data)
            except ConnectionError as error:  # EPIPE comes after a FIN
                self._was_reset = not isinstance(error, BrokenPipeError)
                return
        attempt.finish_request()

    def _messages(
        self, request: h11.Request, body: bytes | Iterable[bytes] | None, attempt: HttpAttempt
    ) -> Iterator[bytes]:
        head = self.http.send(request)
        if body is None or isinstance(body, bytes):
            data = self.http.send(h11.Data(data=body)) if body else b""
            data += self.http.send(h11.EndOfMessage())
            if len(data) <= READ_BYTES:  # head and body in one packet
                yield head + data
                return
            yield head
            yield data
            return
        yield head
        for piece in _time_pieces(body, attempt):
            yield self.http.send(h11.Data(data=piece))
        yield self.http.send(h11.EndOfMessage())

    def receive_head(self, attempt: HttpAttempt) -> h11.Response:
        """The head of the answer, after any interim ones (RFC 9110 section 15.2)."""
        for _ in range(_MAX_INTERIM + 1):
            data, end = self._read_head(attempt)
            head = data[:end]
            repaired = repair_head(head)
            if data[9:10] == b"1":  # interim: what came behind it is the next head
                self._head = data[end:]
                data = repaired
            elif repaired is not head:
                data = repaired + data[end:]
            self.http.receive_data(data)
            event = self.http.next_event()
            if isinstance(event, h11.Response):
                if len(event.headers) > _MAX_HEADERS:
                    raise h11.RemoteProtocolError(f"more than {_MAX_HEADERS} headers")
                return event
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                raise h11.RemoteProtocolError("switches to a protocol that nobody asked for")
        raise h11.RemoteProtocolError(f"more than {_MAX_INTERIM} interim answers")

    def _read_head(self, attempt: HttpAttempt) -> tuple[bytes, int]:
        """What has come, and where the head at its start ends, behind its empty line."""
        data = self._head
        self._head = b""
        try:
            while not (end := find_head_end(data)):
                if len(data) > _MAX_HEAD_BYTES:
                    raise h11.RemoteProtocolError("the head is too long")
                part = attempt.receive(self.sock)
                self._heard = True
                if not part and not data:
                    raise ConnectionResetError("the connection was closed without an answer")
                if not part:
                    raise h11.RemoteProtocolError("the connection was closed within the head")
                data += part
        except ValueError as error:
            raise h11.RemoteProtocolError(str(error)) from None
        return data, end

    def receive(self, attempt: HttpAttempt) -> object:
        """The next event of the answer."""
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(attempt.receive(self.sock))
        return event

    def renew(self) -> bool:
        """Prepare the next request. False when the connection cannot be used for another one."""
        if self.http.trailing_data[0] or self.http.their_state is not h11.DONE:
            return False
        if self.http.our_state is not h11.DONE:
            return False
        self.http.start_next_cycle()
        return True

    def close(self) -> None:
        self.sock.close()

    def mark(self) -> None:
        """Note how much the upstream's system has confirmed, before a request is written."""
        self._acked = count_acked(self.sock)
        self._heard = False

    def is_unprocessed(self) -> bool:
        """Whether an upstream that has closed had received nothing since :meth:`mark`.

        The packet that closes a connection in good order (FIN), like each packet with data, also
        confirms all that had arrived before. When it confirms nothing of the request, the upstream
        had given the connection up before the request came (RFC 9112 section 9.6). A reset confirms
        nothing, even when the request was read, so it proves nothing.
        """
        if self._acked is None or not self._heard or self._was_reset:
            return False
        return count_acked(self.sock) == self._acked


def open_tunnel(
    sock: socket.socket, proxy: OutboundProxy, host: str, port: int, attempt: HttpAttempt
) -> None:
    """Ask a proxy for a tunnel to an origin (``CONNECT``, RFC 9110 section 9.3.6).

    Raises:
        Misconfigured: the proxy wants other credentials, or refuses this origin.
        Transient: it cannot reach the origin.
        h11.RemoteProtocolError, OSError: its answer is garbled, or there is none.
    """
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    connection = PooledConnection(sock)
    headers = [("Host", authority), *proxy.headers]
    connection.send(h11.Request(method="CONNECT", target=authority, headers=headers), None, attempt)
    response = connection.receive_head(attempt)
    status = response.status_code
    if not 200 <= status < 300:
        kind = Misconfigured if status in (401, 403, 407) else Transient
        raise kind(f"{attempt.where}: the proxy answered {status} to CONNECT", sent="no")
    if connection.http.trailing_data[0]:  # they would pass for the origin's
        raise h11.RemoteProtocolError("the proxy sent more than its answer to CONNECT")


class ConnectionPool:
    """The idle connections of one process. The newest is used first, so the others can expire.

    An upstream may close a connection at the moment in which a request is written to it. A request
    that must not be sent twice therefore gets an idle connection only from an upstream that has
    shown, or said, that it keeps connections open.

    It needs no lock, because the operations of a deque are atomic.

    Args:
        size: the most idle connections.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._idle: deque[PooledConnection] = deque()
        self._keeps = False
        weakref.finalize(self, _close_all, self._idle)  # for engines that are not closed

    def take(self, *, repeatable: bool = True) -> PooledConnection | None:
        """An idle connection that the upstream has not closed, or ``None``.

        Args:
            repeatable: the request may be sent again when the connection turns out to be closed.
        """
        if not repeatable and not self._keeps:
            self._look_at_oldest()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took it
                break
            if not self._is_open(connection):
                connection.close()
            elif repeatable or self._keeps or connection.is_promised:
                return connection
            else:
                self._idle.append(connection)
                break
        return None

    def put(self, connection: PooledConnection) -> None:
        """Keep an idle connection, or close it if the pool is full."""
        if len(self._idle) < self._size:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()

    def _is_open(self, connection: PooledConnection) -> bool:
        """Whether a connection can be used. Learns from it whether the upstream keeps them."""
        idle_s = time.monotonic() - connection.idle_since
        if idle_s >= connection.keep_s:
            return False
        if connection.is_usable():
            self._keeps = self._keeps or idle_s >= _SHOWN_S
            return True
        if idle_s < _SHORT_S:
            self._keeps = False
        return False

    def _look_at_oldest(self) -> None:
        try:
            oldest = self._idle.popleft()
        except IndexError:
            return
        if self._is_open(oldest):
            self._idle.appendleft(oldest)
        else:
            oldest.close()

    def learn(self, *, kept: bool) -> None:
        """Note whether the upstream had kept an idle connection open for the next request."""
        self._keeps = kept

    def close(self) -> None:
        """Close the idle connections; the pool may be used again."""
        _close_all(self._idle)


def _close_all(connections: deque[PooledConnection]) -> None:
    while connections:
        connections.pop().close()


def _time_pieces(body: Iterable[bytes], attempt: HttpAttempt) -> Iterator[bytes]:
    """The pieces of a body. The time to produce them does not count for the attempt."""
    pieces = iter(body)
    while True:
        began = time.monotonic()
        piece = next(pieces, None)
        attempt.extend(time.monotonic() - began)
        if piece is None:
            return
        yield piece
