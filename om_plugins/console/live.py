"""The console's stream: the picture of all workers once a second, while somebody watches.

A stream holds a thread of its worker, so few are served: the rest get 204 and poll. The streams of
notifications have their own places, and together they must leave threads to everybody else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..core.sse import encode_event, encode_retry
from ..protocols import Clock
from ..workers.servers import stream_limit

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["Streams"]

EVERY_S = 1.0
ROTATE_S = 25.0
"""A browser connects again then, and is asked again who it is."""
RETRY_MS = 1000
LEAST_THREADS = 4

_TURN_S = 0.25
"""The longest sleep, so that a stream soon sees that its server shuts down."""


class Streams:
    """The streams that this process serves.

    Args:
        take: makes the picture for a range of the charts.
        clock: time.
        limit: ``OM_SSE_MAX``.
        ending: whether the process is about to end, which ends streams.
    """

    def __init__(
        self,
        take: Callable[[str], dict[str, Any]],
        *,
        clock: Clock,
        limit: str | int,
        ending: Callable[[], bool],
    ) -> None:
        self._take = take
        self._clock = clock
        self._limit = limit
        self._ending = ending
        self._open: dict[int, set[_Stream]] = {}

    def open(self, environ: WSGIEnvironment, span: str, page: str = "") -> _Stream | None:
        """A stream, or ``None`` where there is no place for one.

        Args:
            page: a page that asks again, for another range say, gives up the stream it had: that
                its browser has closed it shows only at the next write.
        """
        here = self._open.setdefault(os.getpid(), set())
        for before in [one for one in here if page and one.page == page]:
            before.close()
        limit = stream_limit(environ, self._limit, least_threads=LEAST_THREADS)
        if self._ending() or (limit is not None and len(here) >= limit):
            return None
        stream = _Stream(self._take, span, page, self._clock, self._ending, here)
        here.add(stream)
        return stream


class _Stream:
    """One browser's stream: an iterable that the server closes when the browser goes away."""

    def __init__(
        self,
        take: Callable[[str], dict[str, Any]],
        span: str,
        page: str,
        clock: Clock,
        ending: Callable[[], bool],
        others: set[_Stream],
    ) -> None:
        self.page = page
        self._closed = False
        self._take = take
        self._span = span
        self._clock = clock
        self._ending = ending
        self._others = others
        self._ends_at = clock.monotonic() + ROTATE_S
        self._next_at = clock.monotonic()
        self._begun = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while (left_s := self._next_at - self._clock.monotonic()) > 0 and not self._over():
            self._clock.sleep(min(left_s, _TURN_S))
        if self._over():
            self.close()
            raise StopIteration
        self._next_at = self._clock.monotonic() + EVERY_S
        head = b"" if self._begun else encode_retry(RETRY_MS)
        self._begun = True
        return head + encode_event(self._take(self._span))

    def _over(self) -> bool:
        return self._closed or self._clock.monotonic() >= self._ends_at or self._ending()

    def close(self) -> None:
        """Make room for another stream. Safe to call twice."""
        self._closed = True
        self._others.discard(self)
