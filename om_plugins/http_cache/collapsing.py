"""Coalescing: of all requests that miss the same address, one goes to the application.

The others wait, for a bounded time, until its response has begun. When that may be shared they send
it along as it arrives; else they go on their own, and for a minute nobody waits for this address
again. The first request's own thread alone reads the application's body, so what that body needs
of its thread or context is there.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from enum import Enum

from ..protocols import Clock
from .stored_response import StoredResponse

__all__ = ["CollapseOutcome", "CollapsedRequest", "CutOffError", "RequestCollapser"]

PASS_S = 60.0
LOST_S = 300.0
"""Nobody joins a trip that is older: whoever went has vanished, or streams without end."""
STALL_S = 30.0
_MOST_PASSES = 10_000


class CutOffError(Exception):
    """The body that was being sent along ended before its end."""


class CollapseOutcome(Enum):
    """How a trip went for those who wait."""

    UNDER_WAY = 0
    OPEN = 1
    """The response has begun and may be sent along."""
    WHOLE = 2
    """It is stored."""
    PRIVATE = 3
    """It is the first request's own."""


class CollapsedRequest:
    """One trip to the application.

    Args:
        limit: bytes that those who send along may be behind.
        began: the monotonic time at which it began.

    Attributes:
        head: the response without its body, once it is open.
        kept: the response, once it is whole.
        failed: it ended before its end.
    """

    def __init__(self, limit: int, began: float = 0.0) -> None:
        self.began = began
        self._changed = threading.Condition()
        self._limit = limit
        self._chunks: list[bytes] = []
        self._begin = 0  # number of the first chunk that is still there
        self._size = 0  # bytes in them
        self._readers: list[_Follower] = []
        self._ended = False
        self.owner = threading.get_ident()
        self.landing = CollapseOutcome.UNDER_WAY
        self.head: StoredResponse | None = None
        self.variant = ""
        self.kept: StoredResponse | None = None
        self.failed = False

    # --- for the one that went --------------------------------------------------------------------

    def open(self, head: StoredResponse, variant: str) -> None:
        """Let those who wait for ``variant`` send the body along from now on."""
        with self._changed:
            self.landing = CollapseOutcome.OPEN
            self.head = head
            self.variant = variant
            self._changed.notify_all()

    def add(self, chunk: bytes) -> None:
        """The next piece of the body; waits when somebody is too far behind."""
        if self.landing is not CollapseOutcome.OPEN:
            return
        with self._changed:
            self._chunks.append(chunk)
            self._size += len(chunk)
            self._changed.notify_all()
            self._free()
            if self._size > self._limit and self._readers:
                self._changed.wait_for(lambda: self._free() <= self._limit, STALL_S)
                for reader in [r for r in self._readers if r.at < self._end() - 1]:
                    reader.cut = True

    def end(self, kept: StoredResponse | None, *, failed: bool = False) -> None:
        """The body ended; ``kept`` when it was stored."""
        with self._changed:
            if self._ended:
                return
            self._ended = True
            self.kept = kept
            self.failed = failed
            if kept is not None:
                self.landing = CollapseOutcome.WHOLE
            elif self.landing is not CollapseOutcome.OPEN:
                self.landing = CollapseOutcome.PRIVATE
            self._changed.notify_all()

    @property
    def followed(self) -> bool:
        """Whether somebody sends the body along."""
        return bool(self._readers)

    def forget_chunks(self) -> None:
        """Too large to be stored: keep only what somebody still has to send."""
        with self._changed:
            self.landing = CollapseOutcome.OPEN if self._readers else CollapseOutcome.PRIVATE
            self._changed.notify_all()

    def _end(self) -> int:
        return self._begin + len(self._chunks)

    def _free(self) -> int:
        """Drop what everybody has sent, when the limit is crossed; returns the bytes left."""
        if self._size > self._limit:
            done = min((r.at for r in self._readers if not r.cut), default=self._end())
            while self._begin < done:
                self._size -= len(self._chunks.pop(0))
                self._begin += 1
        return self._size

    # --- for those who wait -----------------------------------------------------------------------

    def wait(self, seconds: float, *, whole: bool = False) -> CollapseOutcome:
        """Wait until the response has begun (or with ``whole`` ended), at most so long."""

        def ready() -> bool:
            return self._ended or (self.landing is not CollapseOutcome.UNDER_WAY and not whole)

        with self._changed:
            self._changed.wait_for(ready, seconds)
            return self.landing

    def follow(self) -> Iterator[bytes] | None:
        """The body as it arrives; ``None`` when its beginning is gone already.

        The iterator raises :class:`CutOffError` when the body did not end well, so that no client
        takes a part for the whole.
        """
        with self._changed:
            if self._begin:
                return None
            reader = _Follower(self)
            self._readers.append(reader)
        return reader

    def next_for(self, reader: _Follower) -> bytes | None:
        with self._changed:
            self._changed.wait_for(
                lambda: reader.cut or self._ended or reader.at < self._end(), STALL_S
            )
            if reader.cut or reader.at < self._begin:
                raise CutOffError("the response could not be followed to its end")
            if reader.at < self._end():
                chunk = self._chunks[reader.at - self._begin]
                reader.at += 1
                self._changed.notify_all()
                return chunk
            if self._ended and not self.failed:
                return None
            raise CutOffError("the response that was being sent along broke off")

    def leave(self, reader: _Follower) -> None:
        with self._changed:
            if reader in self._readers:
                self._readers.remove(reader)
                self._changed.notify_all()


class _Follower(Iterator[bytes]):
    """One that sends a body along."""

    def __init__(self, flight: CollapsedRequest) -> None:
        self._flight = flight
        self.at = 0
        self.cut = False

    def __next__(self) -> bytes:
        chunk = self._flight.next_for(self)
        if chunk is None:
            raise StopIteration
        return chunk

    def close(self) -> None:
        self._flight.leave(self)


class RequestCollapser:
    """All trips of a process, by key.

    Args:
        limit: see :class:`CollapsedRequest`.
        clock: time.
    """

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._now = clock.monotonic
        self._lock = threading.Lock()
        self._flights: dict[str, CollapsedRequest] = {}
        self._passes: OrderedDict[str, float] = OrderedDict()

    def after_fork(self) -> None:
        """In a child: no trip of the parent ends here."""
        self._lock = threading.Lock()
        self._flights = {}

    def board(self, ident: str) -> tuple[CollapsedRequest | None, bool]:
        """The trip to ``ident``, and whether the caller is the one that goes.

        Returns:
            ``None`` when its last response was private: everybody goes on their own.
        """
        with self._lock:
            until = self._passes.get(ident)
            if until is not None:
                if self._now() < until:
                    return None, True
                del self._passes[ident]
            now = self._now()
            found = self._flights.get(ident)
            if found is not None and now - found.began < LOST_S:
                if found.owner == threading.get_ident():
                    return None, True  # the application asks itself
                return found, False
            made = self._flights[ident] = CollapsedRequest(self._limit, now)
            return made, True

    def leave(self, ident: str, flight: CollapsedRequest, *, private: bool) -> None:
        """The trip is over for new requests; with ``private`` nobody waits for a while."""
        with self._lock:
            if self._flights.get(ident) is flight:
                del self._flights[ident]
            if private:
                self._pass(ident)

    def pass_by(self, ident: str) -> None:
        """Nobody waits there for a while."""
        with self._lock:
            self._pass(ident)

    def _pass(self, ident: str) -> None:
        self._passes[ident] = self._now() + PASS_S
        if len(self._passes) > _MOST_PASSES:
            self._passes.popitem(last=False)

    def forget(self, ident: str) -> None:
        """Something was stored there: it is worth waiting again."""
        with self._lock:
            self._passes.pop(ident, None)
