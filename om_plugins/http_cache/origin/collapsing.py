"""Request collapsing: of all requests that miss at one address, one goes to the application.

The others wait for its response, for a bounded time (RFC 9111 section 4, RFC 9211 section 2.6). A
response that may be shared is streamed to them while it arrives, if they agree with its request in
what the application looked at. After a response that may not be shared, they go to the application
themselves, and for a minute no request waits at this address.

Only the leader's thread reads the application's body, because the body may need the thread or
context that made it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

from ...cache.responses.input_sets import FinerSets
from ...protocols import Clock
from ..stored_response import StoredResponse
from .front_request import FrontRequest

BYPASS_S = 60.0
"""How long no request waits at an address whose last response could not be shared."""
ABANDONED_S = 300.0
"""No request joins an older one: its leader has vanished, or its response never ends."""
STALL_S = 30.0
"""How long the leader waits for a slow follower, and a follower for the next chunk."""
_MOST_BYPASSED = 10_000
_MOST_LEARNED = 10_000

Known = tuple[tuple[str, ...], tuple[str, ...]]
"""The inputs that select a response of an address, and the cookies that no request may bring."""


class CutOffError(Exception):
    """A body that was streamed from another request ended before its end."""


class CollapseOutcome(Enum):
    """What became of the leader's response, for those who wait for it."""

    PENDING = 0
    """There is no response yet."""
    STREAMING = 1
    """The response has begun and may be streamed to followers."""
    STORED = 2
    """The response is complete and was stored."""
    PRIVATE = 3
    """The response belongs to the leader alone."""


class CollapsedRequest:
    """One request to the application that others may wait for.

    The leader calls :meth:`start_streaming`, :meth:`add`, :meth:`stop_storing` and :meth:`end`.
    Followers call :meth:`wait` and :meth:`stream`.

    Args:
        limit: how many bytes a follower may be behind the leader.
        began: the monotonic time at which the request began.

    Attributes:
        outcome: what is known of the response so far.
        head: the response without its body, once followers may stream it.
        selects: the digest of the inputs that selected the response.
        stored: the whole response, once it was stored.
        failed: the body ended before its end.
    """

    def __init__(self, limit: int, began: float = 0.0) -> None:
        self.began = began
        self._changed = threading.Condition()
        self._limit = limit
        self._chunks: list[bytes] = []
        self._first = 0  # number of the first chunk in the list
        self._size = 0  # bytes in the list
        self._followers: list[_Follower] = []
        self._ended = False
        self.owner = threading.get_ident()
        self.outcome = CollapseOutcome.PENDING
        self.head: StoredResponse | None = None
        self.selects = ""
        self.stored: StoredResponse | None = None
        self.failed = False

    # --- for the leader ---------------------------------------------------------------------------

    def start_streaming(self, head: StoredResponse, selects: str) -> None:
        """Let followers stream the body from now on.

        Args:
            head: the response without its body.
            selects: see :attr:`selects`; followers with another digest need another response.
        """
        with self._changed:
            self.outcome = CollapseOutcome.STREAMING
            self.head = head
            self.selects = selects
            self._changed.notify_all()

    def stop_streaming(self) -> None:
        """Cut all followers off: the rest of the body is not for them.

        Those who still wait get the whole response, if they agree with its request to the end.
        """
        with self._changed:
            for follower in self._followers:
                follower.cut = True
            self.outcome = CollapseOutcome.PENDING
            self.head = None
            self._changed.notify_all()

    def add(self, chunk: bytes) -> None:
        """Add the next chunk of the body; wait for a follower that is too far behind.

        A follower that does not catch up within :data:`STALL_S` seconds is cut off.
        """
        if self.outcome is not CollapseOutcome.STREAMING:
            return
        with self._changed:
            self._chunks.append(chunk)
            self._size += len(chunk)
            self._changed.notify_all()
            self._free()
            if self._size > self._limit and self._followers:
                self._changed.wait_for(lambda: self._free() <= self._limit, STALL_S)
                for follower in [f for f in self._followers if f.at < self._end() - 1]:
                    follower.cut = True

    def end(self, stored: StoredResponse | None, *, failed: bool = False) -> None:
        """Say that the body has ended. Only the first call counts.

        Args:
            stored: the response, when it was stored.
            failed: the body ended before its end.
        """
        with self._changed:
            if self._ended:
                return
            self._ended = True
            self.stored = stored
            self.failed = failed
            if stored is not None:
                self.outcome = CollapseOutcome.STORED
            elif self.outcome is not CollapseOutcome.STREAMING:
                self.outcome = CollapseOutcome.PRIVATE
            self._changed.notify_all()

    @property
    def followed(self) -> bool:
        """Whether a follower streams the body."""
        return bool(self._followers)

    def stop_storing(self) -> None:
        """Say that the body is too large to be stored. Only those who stream it already go on."""
        with self._changed:
            streaming, private = CollapseOutcome.STREAMING, CollapseOutcome.PRIVATE
            self.outcome = streaming if self._followers else private
            self._changed.notify_all()

    def _end(self) -> int:
        return self._first + len(self._chunks)

    def _free(self) -> int:
        """Over the limit, drop the chunks that all followers have sent; return the bytes left."""
        if self._size > self._limit:
            done = min((f.at for f in self._followers if not f.cut), default=self._end())
            while self._first < done:
                self._size -= len(self._chunks.pop(0))
                self._first += 1
        return self._size

    # --- for followers ----------------------------------------------------------------------------

    def wait(self, seconds: float, *, complete: bool = False) -> CollapseOutcome:
        """Wait for the response.

        Args:
            seconds: how long at most.
            complete: wait for its end instead of its beginning.
        """

        def is_ready() -> bool:
            begun = self.outcome is not CollapseOutcome.PENDING
            return self._ended or (begun and not complete)

        with self._changed:
            self._changed.wait_for(is_ready, seconds)
            return self.outcome

    def stream(self) -> Iterator[bytes] | None:
        """Return the body as it arrives; ``None`` when its beginning was dropped already.

        The iterator raises :class:`CutOffError` when the body did not end well, so that no client
        takes a part for the whole.
        """
        with self._changed:
            if self._first or self.outcome is CollapseOutcome.PENDING:
                return None
            follower = _Follower(self)
            self._followers.append(follower)
        return follower

    def is_selected_by(self, front: FrontRequest, response: StoredResponse) -> bool:
        """Return whether another request agrees with what the leader looked at."""
        return front.digest(response.names) == self.selects and not front.brings(response.cookies)

    def next_chunk(self, follower: _Follower) -> bytes | None:
        with self._changed:
            self._changed.wait_for(
                lambda: follower.cut or self._ended or follower.at < self._end(), STALL_S
            )
            if follower.cut or follower.at < self._first:
                raise CutOffError("the response could not be followed to its end")
            if follower.at < self._end():
                chunk = self._chunks[follower.at - self._first]
                follower.at += 1
                self._changed.notify_all()
                return chunk
            if self._ended and not self.failed:
                return None
            raise CutOffError("the response that was being sent along broke off")

    def remove(self, follower: _Follower) -> None:
        with self._changed:
            if follower in self._followers:
                self._followers.remove(follower)
                self._changed.notify_all()


class _Follower(Iterator[bytes]):
    """The body of a collapsed request, for one of those who stream it.

    Attributes:
        at: the number of the next chunk.
        cut: it was too slow and gets no more.
    """

    def __init__(self, request: CollapsedRequest) -> None:
        self._request = request
        self.at = 0
        self.cut = False

    def __next__(self) -> bytes:
        chunk = self._request.next_chunk(self)
        if chunk is None:
            raise StopIteration
        return chunk

    def close(self) -> None:
        self._request.remove(self)


class RequestCollapser:
    """The collapsed requests of a process, by key.

    Args:
        limit: see :class:`CollapsedRequest`.
        clock: time.
    """

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._now = clock.monotonic
        self._lock = threading.Lock()
        self._requests: dict[str, CollapsedRequest] = {}
        self._bypassed: OrderedDict[str, float] = OrderedDict()
        self._learned: OrderedDict[str, Known] = OrderedDict()
        self._finer: FinerSets[Known] = FinerSets()

    def after_fork(self) -> None:
        """Forget the parent's requests in a child process: they do not end there."""
        self._lock = threading.Lock()
        self._requests = {}

    def enter(self, key: str) -> tuple[CollapsedRequest | None, bool]:
        """Join the request for ``key``, or begin one.

        Returns:
            The request, and whether the caller is its leader. ``(None, True)`` when the caller
            goes to the application alone: the last response there could not be shared, or the
            application requests its own page.
        """
        with self._lock:
            until = self._bypassed.get(key)
            if until is not None:
                if self._now() < until:
                    return None, True
                del self._bypassed[key]
            now = self._now()
            found = self._requests.get(key)
            if found is not None and now - found.began < ABANDONED_S:
                if found.owner == threading.get_ident():
                    return None, True  # to wait for itself would take for ever
                return found, False
            begun = self._requests[key] = CollapsedRequest(self._limit, now)
            return begun, True

    def finish(self, key: str, request: CollapsedRequest, *, private: bool) -> None:
        """Let no further request join; with ``private``, none waits there for a minute."""
        with self._lock:
            if self._requests.get(key) is request:
                del self._requests[key]
            if private:
                self._bypass(key)

    def bypass(self, key: str) -> None:
        """Let no request wait at ``key`` for a minute."""
        with self._lock:
            self._bypass(key)

    def _bypass(self, key: str) -> None:
        self._bypassed[key] = self._now() + BYPASS_S
        if len(self._bypassed) > _MOST_BYPASSED:
            self._bypassed.popitem(last=False)

    def allow(self, key: str) -> None:
        """Let requests wait at ``key`` again, because a response was stored there."""
        with self._lock:
            self._bypassed.pop(key, None)

    def learn(self, key: str, known: Known, front: FrontRequest, stored: Known) -> None:
        """Remember what a response of an address depended on.

        Requests that differ in it do not wait for each other. What depended on the fewest inputs
        tells all requests of the address apart. What a response depended on beyond these tells
        only those requests apart that bring the same values of these.

        Args:
            key: of the address.
            known: what the response depended on.
            front: its request.
            stored: see :meth:`recall`.
        """
        with self._lock:
            coarse = known
            if key in self._learned or any(stored):
                coarse = min(self._find_coarsest(key, stored), known, key=_coarseness)
            elif not any(known):
                return
            if self._learned.get(key) != coarse:
                self._learned.pop(key, None)
                self._learned[key] = coarse
                if len(self._learned) > _MOST_LEARNED:
                    self._learned.popitem(last=False)
            if not front.brings(coarse[1]):  # who brings one waits for nobody
                finer = None if known == coarse else known
                self._finer.learn(_name_values(key, coarse, front), finer)

    def recall(self, key: str, front: FrontRequest, stored: Known) -> Known:
        """Return what the response to a request will depend on, as far as that is known.

        Args:
            key: of the address.
            front: the request.
            stored: what is known of the stored responses of the address; empty for nothing.
        """
        coarse = self._find_coarsest(key, stored)
        return self._finer.recall(_name_values(key, coarse, front)) or coarse

    def _find_coarsest(self, key: str, stored: Known) -> Known:
        learned = self._learned.get(key)
        if learned is None:
            return stored
        # an index of stored responses names no cookies
        fewer = any(stored) and len(stored[0]) < len(learned[0])
        return (stored[0], stored[1] or learned[1]) if fewer else learned


def _coarseness(known: Known) -> tuple[int, Known]:
    return sum(map(len, known)), known


def _name_values(key: str, coarse: Known, front: FrontRequest) -> tuple[str, Known, str | None]:
    return key, coarse, front.digest(coarse[0])


class CollapsePart:
    """The part of one request in collapsing: it leads, follows another one, or goes alone.

    Args:
        collapser: of the process.
        key: of the request's address.

    Attributes:
        led: the request that others may wait for; ``None`` when this one does not lead.
    """

    def __init__(self, collapser: RequestCollapser, key: str) -> None:
        self._collapser = collapser
        self._key = key
        self.led: CollapsedRequest | None = None

    def enter(self) -> CollapsedRequest | None:
        """Lead the requests at this address, if none does.

        Returns:
            The request to follow; ``None`` when this one goes to the application.
        """
        request, leads = self._collapser.enter(self._key)
        if not leads:
            return request
        self.led = request
        return None

    def follow(
        self,
        request: CollapsedRequest,
        front: FrontRequest,
        wait_s: float,
        *,
        may_stream: bool,
        fits: Callable[[Mapping[str, Any]], bool],
    ) -> tuple[StoredResponse, Iterator[bytes] | None] | None:
        """Wait for another request's response.

        Args:
            request: what :meth:`enter` returned.
            front: the request that waits.
            wait_s: how many seconds it waits at most.
            may_stream: whether it can take a body that still arrives.
            fits: whether a response with these marks may answer it.

        Returns:
            The response without its body, and the body as it arrives; or the whole response and
            ``None``. ``None`` alone when the response is not for this request.
        """
        outcome = request.wait(wait_s)
        if outcome is CollapseOutcome.STREAMING:
            head = request.head
            if may_stream and head is not None and request.is_selected_by(front, head):
                body = request.stream()
                if body is not None:
                    return head, body
            outcome = request.wait(wait_s, complete=True)
        if outcome is CollapseOutcome.PENDING:
            self._collapser.bypass(self._key)  # it takes too long to wait for
        stored = request.stored
        if outcome is not CollapseOutcome.STORED or stored is None:
            return None
        agrees = request.is_selected_by(front, stored) and fits(stored.marks)
        return (stored, None) if agrees else None

    def allow(self) -> None:
        """Let requests wait here again, because a response was stored."""
        self._collapser.allow(self._key)

    def stop_storing(self) -> None:
        """Let no further request join, because the body is too large to be stored."""
        if self.led is not None:
            self.led.stop_storing()
            self._collapser.finish(self._key, self.led, private=True)

    def end(
        self, stored: StoredResponse | None, selects: str, *, private: bool, failed: bool
    ) -> None:
        """Release those who wait. Only the first call of a request that leads counts.

        Args:
            stored: the response, when it may be shared.
            selects: the digest of the inputs that selected it.
            private: let no request wait at this address for a minute.
            failed: the body ended before its end.
        """
        led, self.led = self.led, None
        if led is not None:
            if stored is not None:
                led.selects = selects
            self._collapser.finish(self._key, led, private=private)
            led.end(stored, failed=failed)
