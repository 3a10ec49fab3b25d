"""The application's body on its way to the client, copied for the cache while it passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Protocol

__all__ = ["BodyTee", "ResumedBody", "TeeTarget", "close_body", "is_file"]


class TeeTarget(Protocol):
    """What receives the copy of a body."""

    @property
    def followed(self) -> bool:
        """Whether others stream this body, so that it must be read to its end."""

    def receive(self, chunk: bytes) -> None:
        """Take the next chunk, before the client gets it."""

    def complete(self, body: bytes) -> None:
        """Take the whole body."""

    def overflow(self) -> None:
        """Note that the body grew over the limit and is not copied any more."""

    def end_unstored(self) -> None:
        """Note that a body over the limit has ended well."""

    def abort(self, reason: str) -> None:
        """Note that the body did not end well: ``broken``, or ``unfinished`` by its client."""


class BodyTee:
    """Passes a body on and copies it.

    Args:
        body: the application's.
        target: what receives the copy.
        length: the body's declared length in bytes; ``None`` when it has none.
        limit: a larger body is not copied to its end, in bytes.
    """

    def __init__(
        self, body: Iterable[bytes], target: TeeTarget, length: int | None, limit: int
    ) -> None:
        self._body = body
        self._target = target
        self._length = length
        self._limit = limit
        self._chunks: list[bytes] | None = []
        self._size = 0
        self._done = False
        if self._length == 0:
            self._complete()

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._body:
                self._take(chunk)
                yield chunk
        except Exception:
            self._abort("broken")
            raise
        self._end()

    def close(self) -> None:
        """Close the body. The server calls it, whether it sent the whole body or not."""
        try:
            if not self._done and self._target.followed:
                for chunk in self._body:  # this client left; those who follow it have not
                    self._take(chunk)
                self._end()
        finally:
            self._abort("unfinished")
            close_body(self._body)

    def _take(self, chunk: bytes) -> None:
        self._target.receive(chunk)
        if self._chunks is None or self._done:
            return
        self._size += len(chunk)
        self._chunks.append(chunk)
        if self._size > self._limit:
            self._chunks = None
            self._target.overflow()
        elif self._length is not None and self._size >= self._length:
            # before the last chunk leaves: the client may ask again as soon as it has it
            self._complete()

    def _end(self) -> None:
        if self._done:
            return
        if self._chunks is None:
            self._done = True
            self._target.end_unstored()
        elif self._length is not None and self._size != self._length:
            self._abort("broken")
        else:
            self._complete()

    def _complete(self) -> None:
        self._done = True
        chunks = self._chunks or []
        if self._length is not None and self._size != self._length:
            self._target.abort("broken")
            return
        self._target.complete(chunks[0] if len(chunks) == 1 else b"".join(chunks))

    def _abort(self, reason: str) -> None:
        if not self._done:
            self._done = True
            self._target.abort(reason)


class ResumedBody:
    """A body whose first chunks were read already."""

    def __init__(self, body: Iterable[bytes], first: list[bytes], rest: Iterator[bytes]) -> None:
        self._body = body
        self._chunks = chain(first, rest)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        close_body(self._body)


def close_body(body: object) -> None:
    """Call the body's ``close``, if it has one."""
    close = getattr(body, "close", None)
    if close is not None:
        close()


def is_file(wrapper: object, body: object) -> bool:
    """Whether the server's file wrapper made this body.

    The wrapper is a class, or a function as in uWSGI, which returns the file itself.
    """
    if isinstance(wrapper, type):
        return isinstance(body, wrapper)
    return wrapper is not None and hasattr(body, "read")
