"""A fetch whose value is known only later: the response of a view, once the answer is whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from ... import signals
from ..entry import DependencyTracker
from ..miss import FOLLOW_S, QueryOptions
from ..singleflight import FetchOutcome, InFlight

if TYPE_CHECKING:
    from ..refresh import ProcessCache

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class DeferredFetch:
    """One running fetch, for which others wait until :meth:`commit` or :meth:`give_up`.

    Args:
        cache: of this process.
        fetch: is registered already.
        options: of the query that missed.
        waited: it waited for another fetch, which led to nothing for its caller.
    """

    cache: ProcessCache
    fetch: InFlight
    options: QueryOptions
    waited: bool = False
    _tracker: DependencyTracker | None = field(init=False, default=None)

    @classmethod
    def begin(cls, cache: ProcessCache, options: QueryOptions) -> DeferredFetch:
        """Begin a fetch inside of another one, whose dependencies it shares; nobody waits for it.

        It learns of invalidations from now on.
        """
        with cache.memory.lock:
            fetch = cache.memory.in_flight.begin(cache.misses.make_fetch(options), alone=True)
        deferred = cls(cache, fetch, options)
        deferred._tracker = cache.tracking.current()
        return deferred

    def part_from_followers(self) -> None:
        """Go on alone: those who wait for this fetch make their own at once.

        They waited as long as this one for another process. The lease and what is known of
        invalidations since the beginning stay with this fetch.
        """
        cache, old = self.cache, self.fetch
        own = cache.misses.make_fetch(self.options)
        with cache.memory.lock:
            own.began, own.fence = old.began, old.fence
            own.lease, old.lease = old.lease, None
            self.fetch = cache.memory.in_flight.begin(own, alone=True)
            cache.memory.in_flight.end(old, FetchOutcome.NOTHING)
        self.waited = True

    def run(self, function: Callable[[], T]) -> T:
        """Call what makes the value; the values that it asks for are its dependencies."""
        cache, fetch = self.cache, self.fetch
        cache.memory.count(self.options.ident, "fetches")
        started = cache.misses.clock.monotonic()
        with cache.tracking.track(fetch, background=False) as self._tracker:
            made = function()
        fetch.cost_us = round((cache.misses.clock.monotonic() - started) * 1e6)
        return made

    def commit(self, value: object, options: QueryOptions) -> bool:
        """Store the value, unless it was invalidated meanwhile, and give it to those who wait.

        Args:
            value: what was made.
            options: with the key that it is stored under. It may be another one than that of the
                query that missed.

        Returns:
            Whether the value could be encoded and is small enough.
        """
        cache, fetch = self.cache, self.fetch
        data = cache.commits.encode(value, options)
        if data is None:
            self.give_up()
            return False
        fetch.data = data
        fetch.negative = options.is_negative(value)
        fits = False
        try:
            fits = cache.commits.fits(data, options.key)
            if self._tracker is not None and fits:
                cache.commits.commit(fetch, options, "set", self._tracker)
        finally:
            with cache.memory.lock:
                cache.memory.in_flight.private.pop(self.options.ident, None)
            self._end(FetchOutcome.VALUE)
        return fits

    def give_up(self) -> None:
        """Store nothing: the value is for its caller only. Nobody waits for the key for a while."""
        cache = self.cache
        if self.fetch.outcome is None:
            if not self.fetch.alone:
                now = cache.misses.clock.monotonic()
                cache.memory.in_flight.mark_private(self.options.ident, now)
            self._end(FetchOutcome.NOTHING)

    def _end(self, outcome: FetchOutcome) -> None:
        self.cache.leases.end(self.fetch)
        with self.cache.memory.lock:
            self.cache.memory.in_flight.end(self.fetch, outcome)


def begin_fetch(
    cache: ProcessCache, options: QueryOptions, *, alone: bool = False
) -> tuple[bytes, DeferredFetch | None]:
    """Begin to fetch a missing value, or wait for another fetch of it.

    Args:
        cache: of this process.
        options: of the query that missed.
        alone: wait for nobody.

    Returns:
        The encoded value of another fetch and ``None``; or b"" and the fetch that the caller has
        to end.
    """
    memory, misses = cache.memory, cache.misses
    with memory.lock:
        if alone:
            fetch, leads = misses.make_fetch(options), True
            memory.in_flight.begin(fetch, alone=True)
        else:
            fetch, leads = misses.join(options, cache.tiers.now())
    if not leads:
        waited = fetch.owner != threading.get_ident() and fetch.wait(FOLLOW_S)
        if waited and fetch.outcome is FetchOutcome.VALUE:
            misses.count_coalesced(options.ident, fetch)
            return fetch.data, None
        data, own = begin_fetch(cache, options, alone=True)
        if own is not None:
            own.waited = waited
        return data, own
    deferred = DeferredFetch(cache, fetch, options)
    if cache.tiers.shared is not None and not alone:
        entry = cache.leases.find(fetch, lambda: cache.tiers.look(options.ident))
        if entry is not None:
            fetch.data = entry.data
            deferred._end(FetchOutcome.VALUE)
            return entry.data, None
        if fetch.waited:
            deferred.part_from_followers()
    memory.count(options.ident, "misses")
    misses.send(signals.cache_missed, key=options.key)
    return b"", deferred
