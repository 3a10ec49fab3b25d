"""The console's stream: the data of the first page once a second, while somebody looks at it.

A stream holds a thread of its worker, so only few are served; other browsers get 204 and poll. The
streams of notifications have a limit of their own. Together they must leave threads for requests.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..builtin.http.sse import encode_event, encode_retry
from ..protocols import Clock
from ..workers.servers import stream_limit

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

EVERY_S = 1.0
ROTATE_S = 25.0
"""The longest time of a stream. The browser connects again then, and access is checked again."""
RETRY_MS = 1000
LEAST_THREADS = 4

_MAX_SLEEP_S = 0.25
"""The longest sleep, so that a stream ends soon after its server starts to shut down."""


class Streams:
    """The streams that this process serves.

    Args:
        read: returns the data for a range of the charts.
        clock: the time.
        limit: ``OM_SSE_MAX``.
        is_ending: tells whether the process is about to end; streams end then.
    """

    def __init__(
        self,
        read: Callable[[str], dict[str, Any]],
        *,
        clock: Clock,
        limit: str | int,
        is_ending: Callable[[], bool],
    ) -> None:
        self._read = read
        self._clock = clock
        self._limit = limit
        self._is_ending = is_ending
        self._open: dict[int, set[_Stream]] = {}

    def open(self, environ: WSGIEnvironment, span: str, page: str = "") -> _Stream | None:
        """Open a stream; ``None`` when this process serves no more.

        Args:
            environ: the WSGI environ of the request.
            span: the range of the charts.
            page: names the page. The page's former stream ends: its browser closed it, but that
                shows only at the next write.
        """
        here = self._open.setdefault(os.getpid(), set())
        for before in [one for one in here if page and one.page == page]:
            before.close()
        limit = stream_limit(environ, self._limit, least_threads=LEAST_THREADS)
        if self._is_ending() or (limit is not None and len(here) >= limit):
            return None
        stream = _Stream(self._read, span, page, self._clock, self._is_ending, here)
        here.add(stream)
        return stream


class _Stream:
    """The stream of one browser. The server closes this iterable when the browser leaves."""

    def __init__(
        self,
        read: Callable[[str], dict[str, Any]],
        span: str,
        page: str,
        clock: Clock,
        is_ending: Callable[[], bool],
        others: set[_Stream],
    ) -> None:
        self.page = page
        self._closed = False
        self._read = read
        self._span = span
        self._clock = clock
        self._is_ending = is_ending
        self._others = others
        self._ends_at = clock.monotonic() + ROTATE_S
        self._next_at = clock.monotonic()
        self._begun = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while (left_s := self._next_at - self._clock.monotonic()) > 0 and not self._is_over():
            self._clock.sleep(min(left_s, _MAX_SLEEP_S))
        if self._is_over():
            self.close()
            raise StopIteration
        self._next_at = self._clock.monotonic() + EVERY_S
        head = b"" if self._begun else encode_retry(RETRY_MS)
        self._begun = True
        return head + encode_event(self._read(self._span))

    def _is_over(self) -> bool:
        return self._closed or self._clock.monotonic() >= self._ends_at or self._is_ending()

    def close(self) -> None:
        """Make room for another stream; a second call does nothing."""
        self._closed = True
        self._others.discard(self)
