"""Refreshes: a stale value is fetched anew in the background, one at a time for each key."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from .. import signals
from ..protocols import Clock
from . import refresh__refresh as refresh
from .entry import Entry
from .invalidation__tracking import Trackers
from .keys import Ident
from .memory__process import Process
from .miss__ask import Ask
from .miss__keeping import Keeping
from .refresh__refresh import Fetcher
from .singleflight import Flight, Landing, Private
from .singleflight__turns import Turns
from .tiers import Levels
from .values import ABSENT

__all__ = ["Refreshing"]

logger = logging.getLogger("om_plugins")

LOOK_AGAIN_S = 0.5


class Refreshing:
    """Refreshes entries.

    Args:
        levels: where entries are.
        keeping: keeps what was fetched.
        clock: time.
        context: opened around every background fetch.
        tell: sends a signal.
        trackers: the fetchers at work.
        turns: which process fetches.
    """

    def __init__(
        self,
        levels: Levels,
        keeping: Keeping,
        clock: Clock,
        context: Callable[[], AbstractContextManager[object]],
        tell: Callable[..., None],
        trackers: Trackers,
        turns: Turns,
    ) -> None:
        self._levels = levels
        self._keeping = keeping
        self._clock = clock
        self._now = clock.monotonic
        self._context = context
        self._tell = tell
        self._trackers = trackers
        self._turns = turns

    def begin(self, process: Process, entry: Entry, ask: Ask) -> Flight:
        """A flight that nobody flies yet. The lock is held."""
        flight = Flight(ask.ident, ask.tags, self._clock.time(), 0)
        flight.tags = ask.tags or entry.tags
        return process.flights.begin(flight)

    def later(self, process: Process, entry: Entry, ask: Ask) -> None:
        """Refresh an entry in the background, if it is time and nobody is at it."""
        now = self._now()
        with process.lock:
            if now < entry.retry_at or process.flights.get(ask.ident) is not None:
                return
            flight = self.begin(process, entry, ask)
        accepted = False
        try:
            fetcher = ask.background() if ask.background is not None else ask.fetcher
            accepted = process.line.submit(
                lambda: self.run(process, flight, ask, fetcher),
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

    def run(self, process: Process, flight: Flight, ask: Ask, fetcher: Fetcher) -> None:
        """Fly, here and now, unless somebody does already."""
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
            flight.negative = ask.is_negative(value)
            absent = value is None and flight.negative
            flight.data = ABSENT if absent else self._levels.encode(value)
            landing = Landing.VALUE
            self._keeping.count(process, ask.ident, "refreshes")
            if self._keeping.fits(process, flight.data, ask.key):
                self._keeping.keep(process, flight, ask, "refreshed", tracker)
            else:
                self._keeping.drop(process, ask.ident)
            self._tell(signals.cache_refreshed, key=ask.key, duration_s=self._now() - started)
        except Private:
            # the answer turned into one that must not be kept, so the old one must go as well
            process.mark_private(ask.ident, self._now())
            self._keeping.drop(process, ask.ident)
        except Exception as error:  # noqa: BLE001 - the stale value stays, whatever it was
            if ask.negative_time is not None and isinstance(error, ask.final):
                until = self._now() + ask.negative_time
                self._keeping.count(process, ask.ident, "refreshes")
                # there is none any more: an answer, not a failure
                self._keeping.drop(process, ask.ident)
                process.remember_failure(ask.ident, error, until, flight.tags)
            else:
                self._failed(process, ask, error)
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

    def _failed(self, process: Process, ask: Ask, error: Exception) -> None:
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
