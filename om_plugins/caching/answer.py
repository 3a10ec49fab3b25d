"""The way of a look-up that is not a fresh hit: who fetches, who waits, what is kept."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from .. import signals
from ..errors import CacheError
from ..protocols import Clock
from ..types import ChangeKind
from . import refresh
from .entry import Entry
from .flight import Fence, Flight, Landing, Private, copy_of
from .groups import count_saved
from .keys import Ident, Key
from .levels import Levels
from .process import Process
from .refresh import Fetcher
from .tracking import Tracker, Trackers
from .turns import Turns
from .values import ABSENT, decode

__all__ = ["Answering", "Ask"]

logger = logging.getLogger("om_plugins")

FOLLOW_S = 30.0
LOOK_AGAIN_S = 0.5


@dataclass(slots=True)
class Ask:
    """What one query asked for."""

    key: Key
    ident: Ident
    fetcher: Fetcher
    background: Callable[[], Fetcher] | None
    stale_time: float | None
    cache_time: float | None
    retry: int
    retry_delay: float
    dedupe_time: float
    tags: tuple[str, ...]
    negative_time: float | None = None
    negative_errors: tuple[type[Exception], ...] = ()

    @property
    def final(self) -> tuple[type[Exception], ...]:
        """Errors that are an answer: there is none."""
        return () if self.negative_time is None else self.negative_errors

    def times(self, data: bytes) -> tuple[float | None, float | None]:
        """How long a fetched value is fresh, and kept."""
        if data == ABSENT:
            return self.negative_time, self.negative_time
        return self.stale_time, self.cache_time


class Answering:
    """Answers what memory alone cannot: :meth:`answer` goes on to ``_lead``, ``_follow`` or,
    when there is a stale value, ``_refresh_later``.

    Args:
        levels: where entries are.
        clock: time.
        context: opened around every background fetch.
        max_value: a value whose encoding is larger is not kept.
        tell: sends a signal.
        changed: told of what was kept or dropped: the process, the ident, the kind, the tags,
            and whether the value is the one that was there.
        trackers: the fetchers at work.
        turns: which process fetches.
    """

    def __init__(
        self,
        levels: Levels,
        clock: Clock,
        context: Callable[[], AbstractContextManager[object]],
        max_value: int,
        tell: Callable[..., None],
        changed: Callable[[Process, Ident, ChangeKind, tuple[str, ...], bool], None],
        trackers: Trackers,
        turns: Turns,
    ) -> None:
        self._turns = turns
        self._levels = levels
        self._clock = clock
        self._now = clock.monotonic
        self._context = context
        self._max_value = max_value
        self._tell = tell
        self._changed = changed
        self._trackers = trackers

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
        fresh = self.count_kind(process, entry, ask.stale_time, ask.key)
        if not fresh:
            self._refresh_later(process, entry, ask)
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
                flight = self._begin_refresh(process, entry, ask)
        if mine:
            try:
                fetcher = ask.background() if ask.background is not None else ask.fetcher
            except BaseException:
                with process.lock:
                    process.flights.end(flight, Landing.NOTHING)
                raise
            self._refresh(process, flight, ask, fetcher)
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
            data = self._data_of(process, value, ask)
            if data is None:
                process.mark_private(ask.ident, self._now())
                return value
            flight.data = data
            landing = Landing.VALUE
            if self.fits(process, data, ask.key):
                self._keep(process, flight, ask, "set", tracker)
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
                return decode(flight.data)
            if flight.landing is Landing.ERROR and flight.error is not None:
                self._count(process, ask.ident, "negative")
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
            self._count(process, ask.ident, "fetches")

        def failed(error: Exception) -> None:
            self._count(process, ask.ident, "failures")
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

    def _begin_refresh(self, process: Process, entry: Entry, ask: Ask) -> Flight:
        """A flight that nobody flies yet. The lock is held."""
        flight = self._flight(ask)
        flight.owner = 0
        flight.tags = ask.tags or entry.tags
        return process.flights.begin(flight)

    def _refresh_later(self, process: Process, entry: Entry, ask: Ask) -> None:
        now = self._now()
        with process.lock:
            if now < entry.retry_at or process.flights.get(ask.ident) is not None:
                return
            flight = self._begin_refresh(process, entry, ask)
        accepted = False
        try:
            fetcher = ask.background() if ask.background is not None else ask.fetcher
            accepted = process.line.submit(
                lambda: self._refresh(process, flight, ask, fetcher),
                lambda: self._dropped(process, flight),
            )
        except Exception:
            logger.exception("the refresh of %r could not be begun", ask.key)
        if not accepted:
            self._dropped(process, flight)

    def _dropped(self, process: Process, flight: Flight) -> None:
        with process.lock:
            if not flight.owner:  # else somebody who needs the value took it over meanwhile
                process.flights.end(flight, Landing.NOTHING)
            process.groups.of(flight.ident).dropped += 1

    def _refresh(self, process: Process, flight: Flight, ask: Ask, fetcher: Fetcher) -> None:
        with process.lock:
            if flight.owner or flight.landing is not None:
                return
            flight.owner = threading.get_ident()
        landing = Landing.NOTHING
        try:
            if self._levels.shared is not None and not self._turns.begin(flight):
                self._look_again(process, ask.ident)
                return
            if self._refreshed_elsewhere(process, flight, ask):
                landing = Landing.VALUE
                return
            flight.began = self._clock.time()
            started = self._now()
            with self._trackers.run(flight, background=True) as tracker, self._context():
                value = refresh.run(fetcher)
            flight.cost_us = round((self._now() - started) * 1e6)
            absent = value is None and ask.negative_time is not None
            flight.data = ABSENT if absent else self._levels.encode(value)
            landing = Landing.VALUE
            self._count(process, ask.ident, "refreshes")
            if self.fits(process, flight.data, ask.key):
                self._keep(process, flight, ask, "refreshed", tracker)
            else:
                self._drop(process, ask.ident)
            self._tell(signals.cache_refreshed, key=ask.key, duration_s=self._now() - started)
        except Private:
            # the answer turned into one that must not be kept, so the old one must go as well
            process.mark_private(ask.ident, self._now())
            self._drop(process, ask.ident)
        except Exception as error:  # noqa: BLE001 - the stale value stays, whatever it was
            if ask.negative_time is not None and isinstance(error, ask.final):
                until = self._now() + ask.negative_time
                self._count(process, ask.ident, "refreshes")
                self._drop(process, ask.ident)  # there is none any more: an answer, not a failure
                process.remember_failure(ask.ident, error, until, flight.tags)
            else:
                self._refresh_failed(process, ask, error)
        finally:
            self._turns.end(process, flight)
            with process.lock:
                process.flights.end(flight, landing)

    def _refreshed_elsewhere(self, process: Process, flight: Flight, ask: Ask) -> bool:
        """Whether another worker's fresh value was found in the store, which saves the fetch."""
        if self._levels.shared is None:
            return False
        entry = self._levels.look(process, ask.ident, again=True)
        if entry is None or not entry.is_fresh(self._now(), ask.stale_time):
            return False
        flight.data = entry.data
        flight.deps.update(entry.deps)
        return True

    def _look_again(self, process: Process, ident: Ident) -> None:
        """Another worker refreshes just now: its value is in the store soon."""
        with process.lock:
            entry = process.local.entries.get(ident)
            if entry is not None:
                entry.retry_at = max(entry.retry_at, self._now() + LOOK_AGAIN_S)

    def _refresh_failed(self, process: Process, ask: Ask, error: Exception) -> None:
        now = self._now()
        with process.lock:
            process.groups.of(ask.ident).failures += 1
            entry = process.local.entries.get(ask.ident)
            if entry is not None:
                entry.failures += 1
                wait = refresh.backoff(entry.failures, ask.retry, ask.retry_delay)
                entry.retry_at = now + max(wait, ask.dedupe_time)
        logger.warning(
            "the refresh of %r failed, the stale value stays: %s: %s",
            ask.key,
            type(error).__name__,
            error,
            exc_info=error,
        )
        self._tell(signals.cache_refresh_failed, key=ask.key, error=error)

    def _drop(self, process: Process, ident: Ident) -> None:
        self._levels.drop(process, ident)
        self._changed(process, ident, "removed", (), False)

    def _keep(
        self, process: Process, flight: Flight, ask: Ask, kind: ChangeKind, tracker: Tracker
    ) -> None:
        tags = flight.tags
        if self._levels.shared is not None:
            self._turns.confirm(flight, self._levels.shared.load)
        fence = 0 if flight.lease is None else flight.lease.token
        stale_time, cache_time = ask.times(flight.data)
        entry = self._levels.make(
            ask.ident, flight.data, tags, flight.began, stale_time, cache_time,
            tracker.deps, flight.cost_us,
        )  # fmt: skip
        entry.retry_at = entry.stored + ask.dedupe_time
        if tracker.stale:  # what was computed from a stale value is no fresher than that
            flight.fence = max(flight.fence, Fence.STALE)
            stale_time = 0.0

        def still_wanted() -> bool:
            return flight.fence is not Fence.DISCARD

        # the store first: who is woken by the end of this flight must find the value somewhere
        self._levels.save(process, entry, stale_time, cache_time, still_wanted, fence)
        with process.lock:
            if flight.fence is Fence.DISCARD:
                return
            if flight.fence is Fence.STALE:
                entry.mark_stale()
                if tracker.stale:
                    entry.retry_at = max(entry.stored + ask.dedupe_time, tracker.retry_at)
            kept = entry.stored < entry.gone_at
            before = process.local.entries.get(ask.ident)
            same = before is not None and before.data == entry.data
            if kept:
                process.local.put(entry)
            process.failed.pop(ask.ident, None)
        if kept:
            self._changed(process, ask.ident, kind, tags, same)

    def _data_of(self, process: Process, value: object, ask: Ask) -> bytes | None:
        if value is None and ask.negative_time is not None:
            return ABSENT
        return self._encoded(process, value, ask)

    def _encoded(self, process: Process, value: object, ask: Ask) -> bytes | None:
        try:
            return self._levels.encode(value)
        except CacheError as error:
            process.refuse("type", f"the value of {_shown(ask.key)}", str(error))
            return None

    def fits(self, process: Process, data: bytes, key: Key) -> bool:
        """Whether a value may be kept; counts and warns when it may not."""
        if len(data) <= self._max_value:
            return True
        process.refuse(
            "size",
            f"the value of {_shown(key)}",
            f"{len(data):,} bytes are over the limit of {self._max_value:,}; cache less, or raise "
            "OM_CACHE_MAX_VALUE",
        )
        return False

    def _flight(self, ask: Ask) -> Flight:
        return Flight(ask.ident, ask.tags, self._clock.time(), threading.get_ident())

    def count_kind(
        self, process: Process, entry: Entry, stale_time: float | None, key: Key
    ) -> bool:
        """Count and tell a hit as fresh or stale; returns whether it is fresh."""
        now = self._now()
        if entry.data == ABSENT:
            self._count(process, entry.ident, "negative")
            self._tell(signals.cache_hit, key=key)
            return True
        if entry.is_fresh(now, stale_time):
            process.count_fresh(entry)
            self._tell(signals.cache_hit, key=key)
            return True
        with process.lock:
            counts = process.groups.of(entry.ident)
            counts.stale += 1
            count_saved(counts, entry)
        self._tell(signals.cache_stale_served, key=key, age_s=now - entry.stored)
        return False

    @staticmethod
    def _count(process: Process, ident: Ident, name: str) -> None:
        with process.lock:
            counts = process.groups.of(ident)
            setattr(counts, name, getattr(counts, name) + 1)


def _shown(key: Key) -> str:
    text = repr(key)
    return text if len(text) <= 120 else text[:119] + "…"
