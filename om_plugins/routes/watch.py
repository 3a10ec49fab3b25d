"""Notice that a client left while its stream has nothing to send.

A server learns it by writing, and a stream that waits for its upstream writes nothing. So the
sockets of waiting streams are looked at by one thread of a process, which begins with the first
and ends after the last. It reads nothing: the kernel says that the other side hung up. Where a
server does not put its socket into the environ, or the system cannot tell, the next chunk shows it.
"""

from __future__ import annotations

import logging
import select
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..policies.forks import renew_after_fork
from ..worker_pool import begin_thread

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["ClientWatch"]

logger = logging.getLogger("om_plugins")

_EVERY_MS = 250
_LINGER = 40
"""Looks at nothing before the thread ends."""
_SOCKETS = ("gunicorn.socket", "werkzeug.socket")


class ClientWatch:
    """Watches the clients of one application's streams."""

    def __init__(self) -> None:
        self._began()
        renew_after_fork(self)

    def _began(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, Callable[[], None]] = {}
        self._running = False

    def after_fork(self) -> None:
        self._began()

    def watch(self, environ: WSGIEnvironment, left: Callable[[], None]) -> Callable[[], None]:
        """Have ``left`` called once, in another thread, when the client of a request hangs up.

        Returns:
            A function that ends it; to be called before the server closes the socket.
        """
        number = _descriptor(environ)
        if number is None:
            return _nothing
        with self._lock:
            self._watched[number] = left
            begin, self._running = not self._running, True
        if begin and begin_thread(self._look, "om-client-watch", logger) is None:
            self._running = False

        def stop() -> None:
            with self._lock:
                if self._watched.get(number) is left:
                    del self._watched[number]

        return stop

    def _look(self) -> None:
        gone_by = select.POLLRDHUP | select.POLLHUP | select.POLLERR
        idle = 0
        while True:
            with self._lock:
                numbers = list(self._watched)
                idle = 0 if numbers else idle + 1
                if idle > _LINGER:
                    self._running = False
                    return
            poll = select.poll()
            for number in numbers:
                poll.register(number, select.POLLRDHUP)
            found = poll.poll(_EVERY_MS)
            for number, events in found:
                with self._lock:
                    left = self._watched.pop(number, None)
                if left is not None and events & gone_by:
                    _call(left)


def _call(left: Callable[[], None]) -> None:
    try:
        left()
    except Exception:
        logger.exception("giving up the stream of a client that left failed")


def _descriptor(environ: WSGIEnvironment) -> int | None:
    """The number of the client's socket; ``None`` when there is no way to look at it."""
    if not hasattr(select, "POLLRDHUP"):
        return None
    for name in _SOCKETS:
        found: Any = environ.get(name)
        if found is not None:
            try:
                number = found.fileno()
            except (AttributeError, OSError, ValueError):
                continue
            if isinstance(number, int) and number >= 0:
                return number
    return None


def _nothing() -> None:
    """There is nothing to end."""
