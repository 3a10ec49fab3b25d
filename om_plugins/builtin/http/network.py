"""Connections in which every wait ends with the call's deadline.

urllib3's read timeout bounds one ``recv``: an upstream that drips a byte now and then holds the
caller for ever. Here the socket's timeout is set to what is left of the attempt before *each*
read and write, of headers and body alike, and a cancelled call shuts its socket down.

Needs the extra ``http``; import this module inside the function that uses it.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.wait import wait_for_read

from ...core.call import caller_gone
from ...errors import (
    AttemptTimeout,
    CallerDeadline,
    Cancelled,
    EngineError,
    Misconfigured,
    Sent,
    Transient,
)
from ...types import Call

_READ = 65_536
_WRITE = 16_384
_MAX_INTERIM = 20


class Attempt:
    """One request under way: how long it may still take, how far it came, how to stop it.

    Attributes:
        sent: whether the request may have reached the upstream, as far as is known now.
        raw: the answer as ``http.client`` sees it, once its head is being read.
        target: what the request line names; ``None``: what urllib3 was given.
    """

    __slots__ = (
        "_call", "_ends", "_gone", "_limit_s", "_lock", "_remove", "_renew", "_reused", "_sock",
        "connect_timeout", "raw", "sent", "target", "where",
    )  # fmt: skip

    def __init__(
        self, call: Call, where: str, limit_s: float, connect_timeout: float = 3.0
    ) -> None:
        self._call = call
        self._limit_s = limit_s
        self._ends = time.monotonic() + limit_s
        self._renew = False
        self._gone = caller_gone.get()
        self._sock: socket.socket | None = None
        self._lock = threading.Lock()
        self._reused = True
        self.connect_timeout = connect_timeout
        self.raw: http.client.HTTPResponse | None = None
        self.sent: Sent = "no"
        self.target: str | None = None
        self.where = where
        self._remove = call.on_cancel(self._cancel)

    def left(self) -> float:
        """Seconds that the next wait may take.

        Raises:
            Cancelled: nobody waits any more.
            TimeoutError: nothing is left.
        """
        if self._call.cancelled:
            raise Cancelled(f"{self.where}: the call was cancelled")
        left = min(self._call.remaining(), self._ends - time.monotonic())
        if left <= 0:
            raise TimeoutError("the attempt's time is over")
        return left

    def allow_only_silence(self, silence_s: float) -> None:
        """From here on this bounds each silence, and no limit of the engine the whole attempt."""
        self._renew = True
        self._limit_s = silence_s
        self.resumed()

    def resumed(self) -> None:
        """The reader wants more: what it took its time for was not the upstream's silence."""
        if self._renew:
            self._ends = time.monotonic() + self._limit_s

    def extend(self, seconds: float) -> None:
        """So long the caller's own body was waited for, which is not the upstream's doing."""
        self._ends += seconds

    def before_read(self, sock: socket.socket) -> None:
        if self._gone is not None:
            self._watch(sock, self._gone)
        sock.settimeout(_finite(self.left()))

    def after_read(self, size: int) -> None:
        if size:
            self.sent = "yes"
            self.resumed()

    def _watch(self, sock: socket.socket, gone: Callable[[], bool]) -> None:
        """Wait until there is something to read, and look now and then for the one who asked."""
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return
        while not wait_for_read(sock, min(self.left(), WATCH_S)):
            if gone():
                self._call.cancel()

    def before_write(self, sock: socket.socket) -> None:
        if sock is not self._sock:
            self.attach(sock)
        sock.settimeout(_finite(self.left()))
        self.sent = "maybe"

    def written(self) -> None:
        """All of the request is out.

        A pooled connection may have been dropped by the upstream before it read a byte of this
        request, so there only the first byte of the answer proves that it arrived.
        """
        if not self._reused:
            self.sent = "yes"

    def attach(self, sock: socket.socket, *, new: bool = False) -> None:
        """Have a cancelled call shut this socket down."""
        with self._lock:
            self._sock = sock
            self._reused = self._reused and not new
        if self._call.cancelled:
            self._cancel()

    def detach(self) -> None:
        """The socket is not this attempt's any more. Must come before it goes to the pool."""
        self._remove()
        with self._lock:
            self._sock = None

    def _cancel(self) -> None:
        # An OSError says that it is closed or not connected: nobody waits on it.
        with self._lock, contextlib.suppress(OSError):
            if self._sock is not None:
                # Not SSLSocket.shutdown: that takes the TLS object from under the reader.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def error(self, error: BaseException) -> Exception:
        """What an exception from the network means to a chain."""
        inner = error.args[-1] if error.args else None
        if isinstance(error, urllib3.exceptions.ProtocolError) and isinstance(inner, Exception):
            error = inner
        if isinstance(error, EngineError | Cancelled | CallerDeadline):
            return error
        if self._call.cancelled:
            return Cancelled(f"{self.where}: the call was cancelled")
        if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError):
            sent: Sent = "no" if self.sent == "no" else "yes"
            return AttemptTimeout(f"{self.where}: no complete answer in time", sent=sent)
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return Misconfigured(f"{self.where}: its certificate is not trusted", sent="no")
        # what the upstream sent may stand in it, and must steer no terminal that shows a log
        text = "".join(c if c.isprintable() else "\ufffd" for c in str(error)[:300])
        return Transient(f"{self.where}: {type(error).__name__}: {text}"[:300], sent=self.sent)


def connect(host: str, port: int, attempt: Attempt) -> socket.socket:
    """Open a TCP connection, all addresses of the name within one time limit.

    Raises:
        Transient: it could not be made; nothing was sent.
        AttemptTimeout: the call's own time ran out first.
    """
    until = time.monotonic() + min(attempt.connect_timeout, attempt.left())
    try:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise Transient(f"{attempt.where}: {host!r} has no address ({error})", sent="no") from None
    last: Exception = OSError("no address")
    for number, (family, kind, protocol, _, address) in enumerate(found):
        left = min(until - time.monotonic(), attempt.left())
        if left <= 0:
            break
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A dead first address must leave time for the next one.
            sock.settimeout(left / (len(found) - number))
            attempt.attach(sock, new=True)
            sock.connect(address)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            last = error
        else:
            sock.settimeout(max(until - time.monotonic(), 0.001))  # bounds the TLS handshake
            return sock
    attempt.left()  # the call's own time first: it is not the upstream's fault
    raise Transient(f"{attempt.where}: cannot connect: {last}", sent="no") from None


WATCH_S = 0.5
"""How often a wait is interrupted to see whether the one who asked is still there."""

current_attempt: ContextVar[Attempt] = ContextVar("om_plugins.http_attempt")
"""Which attempt urllib3 is at work for: its connections are made deep inside the pool."""


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return connect(self.host, self.port, current_attempt.get())

    def connect(self) -> None:
        super().connect()
        current_attempt.get().attach(self.sock, new=True)

    def request(self, method: str, url: str, *args: Any, **options: Any) -> None:
        attempt = current_attempt.get()
        super().request(method, attempt.target or url, *args, **options)
        attempt.written()

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        attempt = current_attempt.get()
        view = memoryview(data)
        for start in range(0, len(view), _WRITE):
            attempt.before_write(self.sock)
            super().send(view[start : start + _WRITE])

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3 itself
        attempt = current_attempt.get()

        def response(sock: socket.socket, **options: Any) -> http.client.HTTPResponse:
            # All that http.client asks of a socket here is makefile().
            raw = _Response(_Readable(sock, attempt), **options)  # type: ignore[arg-type]
            attempt.raw = raw
            return raw

        self.response_class = response  # type: ignore[assignment]  # it is only ever called
        return super().getresponse()


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class DeadlineHTTPPool(HTTPConnectionPool):
    ConnectionCls = _Connection


class DeadlineHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Response(http.client.HTTPResponse):
    """Skips every interim answer (RFC 9110 section 15.2); ``http.client`` knows only 100."""

    _heads = 0

    def begin(self) -> None:
        super().begin()
        while 100 <= self.status < 200 and self.status != 101:
            self.headers = self.msg = None  # type: ignore[assignment]  # as before the first one
            super().begin()

    def _read_status(self) -> tuple[str, int, str]:
        """The one step of ``begin`` that each answer passes, also those it skips itself."""
        self._heads += 1
        if self._heads > _MAX_INTERIM + 1:
            raise http.client.HTTPException(f"more than {_MAX_INTERIM} interim answers")
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        return found


class _Readable:
    """What ``http.client`` takes for a socket: its file sets the deadline before each read."""

    def __init__(self, sock: socket.socket, attempt: Attempt) -> None:
        self._sock = sock
        self._attempt = attempt

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(DeadlineReader(self._sock, self._attempt), _READ)


class DeadlineReader(io.RawIOBase):
    """Sets the deadline before each read. Once ``ended``, it says that nothing has come."""

    def __init__(self, sock: socket.socket, attempt: Attempt) -> None:
        self._sock = sock
        self._attempt = attempt
        self._file = sock.makefile("rb", buffering=0)  # keeps the socket open until closed
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.ended:
            return None
        self._attempt.before_read(self._sock)
        size = self._file.readinto(buffer) or 0
        self._attempt.after_read(size)
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def _finite(seconds: float) -> float | None:
    return None if seconds == float("inf") else seconds
