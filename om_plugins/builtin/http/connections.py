"""Connections that carry one HTTP/1.1 exchange after another, and the pool of the idle ones.

A connection is used again only when both sides are done, no byte is left over, and nothing has
arrived while it was idle. Needs the extra ``http``.
"""

from __future__ import annotations

import socket
import ssl
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator

import h11

from .network import READ_BYTES, HttpAttempt, can_read

_MAX_HEAD_BYTES = 65_536
_MAX_HEADERS = 100
_MAX_INTERIM = 20


class PooledConnection:
    """A socket and the state of the HTTP messages on it."""

    __slots__ = ("http", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)

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
            except ConnectionError:
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
            event = self.receive(attempt)
            if isinstance(event, h11.Response):
                if len(event.headers) > _MAX_HEADERS:
                    raise h11.RemoteProtocolError(f"more than {_MAX_HEADERS} headers")
                return event
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                raise h11.RemoteProtocolError("switches to a protocol that nobody asked for")
        raise h11.RemoteProtocolError(f"more than {_MAX_INTERIM} interim answers")

    def receive(self, attempt: HttpAttempt) -> object:
        """The next event of the answer."""
        while (event := self.http.next_event()) is h11.NEED_DATA:
            data = attempt.receive(self.sock)
            if not data and self._awaits_first_byte():
                raise ConnectionResetError("the connection was closed without an answer")
            self.http.receive_data(data)
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

    def _awaits_first_byte(self) -> bool:
        return self.http.their_state is h11.SEND_RESPONSE and not self.http.trailing_data[0]


class ConnectionPool:
    """The idle connections of one process. The newest is used first, so the others can expire.

    It needs no lock, because the operations of a deque are atomic.

    Args:
        size: the most idle connections.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._idle: deque[PooledConnection] = deque()
        weakref.finalize(self, _close_all, self._idle)  # for engines that are not closed

    def take(self) -> PooledConnection | None:
        """An idle connection that the upstream has not closed, or ``None``."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took it
                break
            if connection.is_usable():
                return connection
            connection.close()
        return None

    def put(self, connection: PooledConnection) -> None:
        """Keep an idle connection, or close it if the pool is full."""
        if len(self._idle) < self._size:
            self._idle.append(connection)
        else:
            connection.close()

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
