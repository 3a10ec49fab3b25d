"""The application's body on its way to the client, recorded while it passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from .rfc9111 import CacheVerdict, ResponseFacts

if TYPE_CHECKING:
    from .origin_fetch import OriginFetch

__all__ = ["BodyTee", "ResumedBody", "close_body", "is_file"]


class BodyTee:
    """The application's body on its way to the client, and into the cache."""

    def __init__(
        self, trip: OriginFetch, body: Iterable[bytes], facts: ResponseFacts, verdict: CacheVerdict
    ) -> None:
        self._trip = trip
        self._body = body
        self._facts = facts
        self._verdict = verdict
        self._chunks: list[bytes] | None = []
        self._size = 0
        self._done = False
        length = facts.one("content-length")
        self._length = int(length) if length is not None and length.isdigit() else None
        if facts.status in (204, 205):
            self._length = 0
        if self._length == 0:
            self._finish()

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._body:
                self._take(chunk)
                yield chunk
        except Exception:
            self._broke_off("broken")
            raise
        self._ended()

    def close(self) -> None:
        """The server is done with the body, wholly sent or not."""
        flight = self._trip.flight
        try:
            if not self._done and flight is not None and flight.followed:
                for chunk in self._body:  # this client left; those who send along have not
                    self._take(chunk)
                self._ended()
        finally:
            self._broke_off("unfinished")
            close_body(self._body)

    def _take(self, chunk: bytes) -> None:
        trip = self._trip
        if trip.flight is not None:
            trip.flight.add(chunk)
        if self._chunks is None or self._done:
            return
        self._size += len(chunk)
        self._chunks.append(chunk)
        if self._size > trip.layer.max_body:
            self._chunks = None
            trip.too_large()
        elif self._length is not None and self._size >= self._length:
            # before the last piece leaves: the client may ask again as soon as it has it
            self._finish()

    def _ended(self) -> None:
        if self._done:
            return
        if self._chunks is None:
            self._done = True
            self._trip.over(private=True)
        elif self._length is not None and self._size != self._length:
            self._broke_off("broken")
        else:
            self._finish()

    def _finish(self) -> None:
        self._done = True
        chunks = self._chunks or []
        if self._length is not None and self._size != self._length:
            self._trip.broke_off("broken")
            return
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._trip.finish(body, self._facts, self._verdict)

    def _broke_off(self, reason: str) -> None:
        if not self._done:
            self._done = True
            self._trip.broke_off(reason)


class ResumedBody:
    """An iterable whose first pieces were taken already."""

    def __init__(self, body: Iterable[bytes], first: list[bytes], rest: Iterator[bytes]) -> None:
        self._body = body
        self._pieces = chain(first, rest)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        close_body(self._body)


def close_body(body: object) -> None:
    """Call its ``close``, if it has one."""
    close = getattr(body, "close", None)
    if close is not None:
        close()


def is_file(wrapper: object, body: object) -> bool:
    """Whether the server's file wrapper made this body: a class, or a function as in uWSGI, which
    returns the file itself."""
    if isinstance(wrapper, type):
        return isinstance(body, wrapper)
    return wrapper is not None and hasattr(body, "read")
