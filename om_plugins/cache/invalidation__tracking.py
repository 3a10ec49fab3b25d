"""What a value is computed from: the look-ups that its fetcher makes, noted while it runs.

Invalidating an entry then invalidates what was computed from it, too. A value that was computed
from a stale one is stale itself; in the background, where nobody waits, a stale value is fetched
anew first.

Noted is what happens in the fetcher's own context (:mod:`contextvars`): tasks that it starts are
followed, threads are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .entry import Deps
from .invalidation import ANY
from .keys import Ident
from .singleflight import Flight

__all__ = ["MOST_DEPS", "Tracker", "Trackers"]

MOST_DEPS = 200
"""Beyond that, any invalidation at all concerns the value."""

_current: ContextVar[Tracker | None] = ContextVar("om_plugins_fetch", default=None)


class Tracker:
    """One fetcher at work.

    Attributes:
        owner: the cache; look-ups in another one are that one's.
        background: nobody waits for this fetcher.
        stale: a value that it got was stale.
        retry_at: before this monotonic time no better one is to be had.
    """

    __slots__ = ("_flight", "_outer", "background", "owner", "retry_at", "stale")

    def __init__(
        self, owner: Trackers, flight: Flight, background: bool, outer: Tracker | None
    ) -> None:
        self.owner = owner
        self.background = background
        self.stale = False
        self.retry_at = -math.inf
        self._flight = flight
        self._outer = outer

    @property
    def deps(self) -> Deps:
        """What was looked up so far, and what that was computed from."""
        return tuple(self._flight.deps.items())

    def add(self, ident: Ident, tags: tuple[str, ...], deps: Deps = ()) -> None:
        """Note a look-up. The process's lock is held."""
        found = self._flight.deps
        for one, tagged in ((ident, tags), *deps):
            if ANY in found:
                return
            if one != self._flight.ident:
                found[one] = tuple(dict.fromkeys((*found.get(one, ()), *tagged)))
            if len(found) > MOST_DEPS:
                found.clear()
                found[ANY] = ()

    def add_stale(self, retry_at: float) -> None:
        """What was looked up is stale."""
        self.stale = True
        self.retry_at = max(self.retry_at, retry_at)


class Trackers:
    """The fetchers of one cache that are at work.

    Attributes:
        active: false while none is, which is all that a fresh hit looks at.
    """

    __slots__ = ("active",)

    def __init__(self) -> None:
        self.active: set[Tracker] = set()

    def after_fork(self) -> None:
        """The parent's other threads do not fetch here."""
        self.active = {one for one in (_current.get(),) if one is not None}

    def current(self) -> Tracker | None:
        """The innermost fetcher of this cache around the code that runs."""
        tracker = _current.get() if self.active else None
        while tracker is not None and tracker.owner is not self:
            tracker = tracker._outer
        return tracker

    @contextmanager
    def run(self, flight: Flight, *, background: bool) -> Iterator[Tracker]:
        """Note what is looked up in the block for ``flight``.

        A fetcher that a background fetcher runs is in the background as well.
        """
        outer = self.current()
        behind = background or (outer is not None and outer.background)
        tracker = Tracker(self, flight, behind, _current.get())
        token = _current.set(tracker)
        self.active.add(tracker)
        try:
            yield tracker
        finally:
            self.active.discard(tracker)
            _current.reset(token)
