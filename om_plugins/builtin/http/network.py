"""Connections of TCP and TLS with a time limit for the whole attempt, which can be cancelled.

The timeout of a socket limits one ``recv``: an upstream that sends one byte now and then would
hold the caller for ever. Here the timeout is set to the remaining time of the attempt before *each*
read and write, of heads and bodies alike. A cancelled call shuts its socket down.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable

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

READ_BYTES = 65_536
"""The most that one read of a socket returns."""

WATCH_S = 0.5
"""How often a wait is interrupted to see whether the client of this process is still there."""

_WRITE_BYTES = 65_536
_TCP_INFO_BYTES = 128  # struct tcp_info up to tcpi_bytes_acked


class HttpAttempt:
    """The time limit, the progress and the cancellation of one request.

    Args:
        call: its deadline and its cancellation count.
        where: engine and address, for messages.
        limit_s: seconds that the attempt may take, whatever the call allows.
        connect_timeout_s: seconds for a new connection.

    Attributes:
        sent: whether the request may have reached the upstream, as far as is known now.
    """

    __slots__ = (
        "_call", "_ends", "_gone", "_limit_s", "_lock", "_remove", "_renew", "_reused", "_sock",
        "connect_timeout_s", "sent", "where",
    )  # fmt: skip

    def __init__(
        self, call: Call, where: str, limit_s: float, connect_timeout_s: float = 3.0
    ) -> None:
        self._call = call
        self._limit_s = limit_s
        self._ends = time.monotonic() + limit_s
        self._renew = False
        self._gone = caller_gone.get()
        self._sock: socket.socket | None = None
        self._lock = threading.Lock()
        self._reused = True
        self.connect_timeout_s = connect_timeout_s
        self.sent: Sent = "no"
        self.where = where
        self._remove = call.on_cancel(self._cancel)

    # --- time ---

    def remaining(self) -> float:
        """Seconds that the next wait may take.

        Raises:
            Cancelled: the call was cancelled.
            TimeoutError: no time is left.
        """
        if self._call.cancelled:
            raise Cancelled(f"{self.where}: the call was cancelled")
        left = min(self._call.remaining(), self._ends - time.monotonic())
        if left <= 0:
            raise TimeoutError("the attempt's time is over")
        return left

    def allow_only_silence(self, silence_s: float) -> None:
        """From now on limit each silence of the upstream, and no longer the whole attempt."""
        self._renew = True
        self._limit_s = silence_s
        self.resume()

    def resume(self) -> None:
        """Restart the limit of silence: the time that a reader took is not the upstream's."""
        if self._renew:
            self._ends = time.monotonic() + self._limit_s

    def extend(self, seconds: float) -> None:
        """Add the time that the caller's own body took, which is not the upstream's fault."""
        self._ends += seconds

    # --- the socket ---

    def receive(self, sock: socket.socket) -> bytes:
        """Read what has come, at most :data:`READ_BYTES`; ``b""`` when the upstream closed."""
        if self._gone is not None:
            self._watch(sock, self._gone)
        sock.settimeout(_to_timeout(self.remaining()))
        data = sock.recv(READ_BYTES)
        if data:
            self.sent = "yes"
            self.resume()
        else:
            self.remaining()  # a cancelled call ends in the same way: its socket is shut down
        return data

    def send(self, sock: socket.socket, data: bytes) -> None:
        """Write all of ``data``. Not ``sendall``, whose time limit is for each record of TLS."""
        view = memoryview(data)
        while view:
            sock.settimeout(_to_timeout(self.remaining()))
            view = view[sock.send(view[:_WRITE_BYTES]) :]
            self.sent = "maybe"

    def finish_request(self) -> None:
        """Note that all of the request is written.

        A pooled connection may have been dropped by the upstream before it read a byte of this
        request, so there only the first byte of the answer proves that it arrived.
        """
        if not self._reused:
            self.sent = "yes"

    def attach(self, sock: socket.socket, *, new: bool = False) -> None:
        """Shut this socket down when the call is cancelled."""
        with self._lock:
            self._sock = sock
            self._reused = self._reused and not new
        if self._call.cancelled:
            self._cancel()

    def detach(self) -> None:
        """Give the socket up. Must come before it goes to the pool."""
        self._remove()
        with self._lock:
            self._sock = None

    def map_error(self, error: BaseException) -> Exception:
        """The error of a chain for an exception from the network."""
        if isinstance(error, EngineError | Cancelled | CallerDeadline):
            return error
        if self._call.cancelled:
            return Cancelled(f"{self.where}: the call was cancelled")
        if isinstance(error, TimeoutError):
            sent: Sent = "no" if self.sent == "no" else "yes"
            return AttemptTimeout(f"{self.where}: no complete answer in time", sent=sent)
        if isinstance(error, ssl.SSLCertVerificationError):
            return Misconfigured(f"{self.where}: its certificate is not trusted", sent="no")
        text = make_printable(f"{type(error).__name__}: {error}")
        return Transient(f"{self.where}: {text}"[:300], sent=self.sent)

    def _watch(self, sock: socket.socket, gone: Callable[[], bool]) -> None:
        """Wait until there is something to read; cancel the call when its client has left."""
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return
        while not can_read(sock, min(self.remaining(), WATCH_S)):
            if gone() is True:
                self._call.cancel()

    def _cancel(self) -> None:
        # An OSError means that it is closed or not connected: no thread waits for it.
        with self._lock, contextlib.suppress(OSError):
            if self._sock is not None:
                # Not SSLSocket.shutdown: it removes the TLS object while another thread reads.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)


def connect(host: str, port: int, attempt: HttpAttempt) -> socket.socket:
    """Open a TCP connection: all addresses of the name within one time limit.

    Args:
        host: a name or an IP address, IPv6 without brackets.

    Raises:
        Transient: the connection could not be made; nothing was sent.
        TimeoutError, Cancelled: see :meth:`HttpAttempt.remaining`.
    """
    until = time.monotonic() + min(attempt.connect_timeout_s, attempt.remaining())
    try:
        addresses = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise Transient(f"{attempt.where}: {host!r} has no address ({error})", sent="no") from None
    last: Exception = OSError("no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        left = min(until - time.monotonic(), attempt.remaining())
        if left <= 0:
            break
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A dead first address must leave time for the next one.
            sock.settimeout(left / (len(addresses) - number))
            attempt.attach(sock, new=True)
            sock.connect(address)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            last = error
        else:
            return sock
    attempt.remaining()  # first check the call's own time: its end is not the upstream's fault
    raise Transient(f"{attempt.where}: cannot connect: {last}", sent="no") from None


def start_tls(
    sock: socket.socket, context: ssl.SSLContext, host: str, attempt: HttpAttempt
) -> ssl.SSLSocket:
    """TLS over a connection, which is closed when it fails.

    Args:
        context: verifies the upstream's certificate and name.

    Raises:
        ssl.SSLError: TLS failed.
        OSError, Cancelled: see :meth:`HttpAttempt.map_error`.
    """
    name = host.partition("%")[0].rstrip(".")  # certificates have no zone and no final dot
    # The time limit holds for the whole handshake.
    sock.settimeout(min(attempt.connect_timeout_s, attempt.remaining()))
    secure = sock
    try:
        secure = context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
        attempt.attach(secure)  # a cancelled call ends the handshake, too
        secure.do_handshake()
    except BaseException:
        secure.close()
        raise
    return secure


def can_read(sock: socket.socket, timeout_s: float) -> bool:
    """Whether bytes, or the end, have come within ``timeout_s`` seconds."""
    if hasattr(select, "poll"):  # select() takes no file number above 1023
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))
    return bool(select.select([sock], [], [], timeout_s)[0])


def count_acked(sock: socket.socket) -> int | None:
    """How many bytes of ours the other side's system has confirmed; ``None`` where the system does
    not say (Linux does, since 4.1)."""
    if sys.platform != "linux":
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return None
    if len(info) < _TCP_INFO_BYTES:
        return None
    return int.from_bytes(info[-8:], sys.byteorder)  # tcpi_bytes_acked


def make_printable(text: str) -> str:
    """The first 300 characters, without what could steer a terminal that shows a log: an
    upstream's own bytes may stand in the text of an error."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:300])


def _to_timeout(seconds: float) -> float | None:
    return None if seconds == float("inf") else seconds
