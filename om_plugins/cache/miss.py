"""The way of a look-up that is not a fresh hit: who fetches, and who waits."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

from .. import signals
from ..errors import CacheError
from ..protocols import Clock
from . import refresh__refresh as refresh
from .entry import Entry
from .invalidation__tracking import Tracker, Trackers
from .memory__process import Process
from .miss__ask import Ask
from .miss__keeping import Keeping
from .refresh import Refreshing
from .singleflight import Fence, Flight, Landing, Private, copy_of
from .singleflight__turns import Turns
from .tiers import Levels
from .values import ABSENT, decode

__all__ = ["Answering"]

FOLLOW_S = 30.0


class Answering:
    """Answers what memory alone cannot: :meth:`answer` goes on to ``_lead``, ``_follow`` or,
    when there is a stale value, to :mod:`.refreshing`.

    Args:
        levels: where entries are.
        keeping: keeps what was fetched.
        refreshing: fetches in the background.
        clock: time.
        tell: sends a signal.
        trackers: the fetchers at work.
        turns: which process fetches.
    """

    def __init__(
        self,
        levels: Levels,
        keeping: Keeping,
        refreshing: Refreshing,
        clock: Clock,
        tell: Callable[..., None],
        trackers: Trackers,
        turns: Turns,
    ) -> None:
        self._levels = levels
        self._keeping = keeping
        self._refreshing = refreshing
        self._clock = clock
        self._now = clock.monotonic
        self._tell = tell
        self._trackers = trackers
        self._turns = turns

    def answer(self, process: Process, ask: Ask) -> Any:
        """The value, from wherever it is to be had."""
        around = self._trackers.current()
        with process.lock:
            if around is not None:
                around.add(ask.ident, ask.tags)
            now = self._now()
            entry = process.local.entries.get(ask.ident)
            if entry is None or now >= entry.valid_until:
                entry = None
                flight, leading = self._board(process, ask, now)
        if entry is None:
            return (self._lead if leading else self._follow)(process, flight, ask, around)
        return self._serve(process, entry, ask, around)

    def _board(self, process: Process, ask: Ask, now: float) -> tuple[Flight, bool]:
        """The flight that brings the value, and whether this thread flies it. The lock is held."""
        error = process.remembered_failure(ask.ident, now)
        if error is not None:
            process.groups.of(ask.ident).negative += 1
            raise copy_of(error)
        if process.is_private(ask.ident, now):
            return process.flights.begin(self._flight(ask), alone=True), True
        flight = process.flights.get(ask.ident)
        if flight is None:
            return process.flights.begin(self._flight(ask)), True
        if not flight.owner:  # a refresh that waits in the queue: who needs it now flies it
            flight.owner = threading.get_ident()
            return flight, True
        return flight, False

    def _serve(self, process: Process, entry: Entry, ask: Ask, around: Tracker | None) -> Any:
        entry.visited = True
        if around is not None and around.background:
            data = self._renewed(process, entry, ask, around)
            if data is not None:
                return decode(data)
        fresh = self._keeping.count_kind(process, entry, ask.stale_time, ask.key)
        if not fresh:
            self._refreshing.later(process, entry, ask)
        if around is not None:
            self.note(process, around, entry, fresh)
        return decode(entry.data)

    def note(self, process: Process, around: Tracker, entry: Entry, fresh: bool) -> None:
        """A fetcher got this entry."""
        with process.lock:
            around.add(entry.ident, entry.tags, entry.deps)
        if not fresh:
            around.add_stale(entry.retry_at)

    def _renewed(self, process: Process, entry: Entry, ask: Ask, around: Tracker) -> bytes | None:
        """A stale value fetched anew for a fetcher in the background, where nobody waits.

        Else what that computes would be as old as what it is to replace. ``None`` when the value
        is fresh, or no newer one is to be had.
        """
        now = self._now()
        if entry.data == ABSENT or entry.is_fresh(now, ask.stale_time) or now < entry.retry_at:
            return None
        with process.lock:
            flight = process.flights.get(ask.ident)
            mine = flight is None or not flight.owner
            if flight is None:
                flight = self._refreshing.begin(process, entry, ask)
        if mine:
            try:
                fetcher = ask.background() if ask.background is not None else ask.fetcher
            except BaseException:
                with process.lock:
                    process.flights.end(flight, Landing.NOTHING)
                raise
            self._refreshing.run(process, flight, ask, fetcher)
        if flight.landing is None and (
            flight.owner == threading.get_ident() or not flight.wait(FOLLOW_S)
        ):
            return None
        if flight.landing is not Landing.VALUE:
            return None
        with process.lock:
            counts = process.groups.of(ask.ident)
            if mine:
                counts.misses += 1
            else:
                counts.coalesced += 1
        self._note_flight(process, around, flight)
        return flight.data

    def _note_flight(self, process: Process, around: Tracker, flight: Flight) -> None:
        with process.lock:
            around.add(flight.ident, flight.tags, tuple(flight.deps.items()))
            entry = process.local.entries.get(flight.ident)
        if flight.fence is not Fence.CLEAR:
            around.add_stale(-math.inf if entry is None else entry.retry_at)

    def _lead(self, process: Process, flight: Flight, ask: Ask, around: Tracker | None) -> Any:
        landing = Landing.NOTHING
        try:
            if self._levels.shared is not None:
                entry = self._turns.find(
                    process, flight, lambda: self._levels.look(process, ask.ident)
                )
                if entry is not None:
                    flight.data = entry.data
                    landing = Landing.VALUE
                    with process.lock:  # before its refresh begins a flight of its own
                        process.flights.end(flight, landing)
                    return self._serve(process, entry, ask, around)
            with process.lock:
                process.groups.of(ask.ident).misses += 1
            self._tell(signals.cache_missed, key=ask.key)
            with self._trackers.run(flight, background=False) as tracker:
                value = self._fetch(process, flight, ask)
            data = self._keeping.data_of(process, value, ask)
            if data is None:
                process.mark_private(ask.ident, self._now())
                return value
            flight.data = data
            flight.negative = ask.is_negative(value)
            landing = Landing.VALUE
            if self._keeping.fits(process, data, ask.key):
                self._keeping.keep(process, flight, ask, "set", tracker)
            return value
        except Private as found:
            process.mark_private(ask.ident, self._now())
            private = found
        except Exception as error:
            landing = Landing.ERROR
            flight.error = error
            seconds = ask.negative_time if isinstance(error, ask.final) else ask.dedupe_time
            if flight.fence is Fence.CLEAR and seconds:
                until = self._now() + seconds
                process.remember_failure(ask.ident, error, until, ask.tags)
            raise
        finally:
            self._turns.end(process, flight)
            with process.lock:
                process.flights.end(flight, landing)
            if around is not None:
                self._note_flight(process, around, flight)
        if private.error is not None:
            raise private.error  # out here, so that its own cause and context stay as they are
        return private.value

    def _follow(self, process: Process, flight: Flight, ask: Ask, around: Tracker | None) -> Any:
        if flight.owner == threading.get_ident():
            raise CacheError(f"the fetcher of {ask.key!r} asks for {ask.key!r} itself")
        if flight.wait(FOLLOW_S):
            if around is not None:
                self._note_flight(process, around, flight)
            if flight.landing is Landing.VALUE:
                with process.lock:
                    counts = process.groups.of(ask.ident)
                    counts.coalesced += 1
                    counts.bytes_saved += len(flight.data)
                    counts.saved_us += flight.cost_us
                return decode(flight.data)
            if flight.landing is Landing.ERROR and flight.error is not None:
                self._keeping.count(process, ask.ident, "negative")
                raise copy_of(flight.error)
        own = self._flight(ask)
        with process.lock:
            process.flights.begin(own, alone=True)
        return self._lead(process, own, ask, around)

    def _fetch(self, process: Process, flight: Flight, ask: Ask) -> Any:
        started = 0.0

        def began() -> None:
            nonlocal started
            started = self._now()
            self._keeping.count(process, ask.ident, "fetches")

        def failed(error: Exception) -> None:
            self._keeping.count(process, ask.ident, "failures")
            self._tell(signals.cache_refresh_failed, key=ask.key, error=error)

        value = refresh.fetch(
            ask.fetcher,
            self._clock,
            retry=ask.retry,
            retry_delay=ask.retry_delay,
            final=ask.final,
            began=began,
            failed=failed,
        )
        flight.cost_us = round((self._now() - started) * 1e6)
        return value

    def _flight(self, ask: Ask) -> Flight:
        return Flight(ask.ident, ask.tags, self._clock.time(), threading.get_ident())
