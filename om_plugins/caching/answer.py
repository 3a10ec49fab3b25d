"""The way of a look-up that is not a fresh hit: who fetches, who waits, what is kept."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from .. import signals
from ..errors import CacheError
from ..protocols import Clock, Scheduler
from ..types import ChangeKind
from . import refresh
from .entry import Entry
from .flight import Fence, Flight, Landing, Private, copy_of
from .keys import Ident, Key
from .levels import Levels
from .process import Process
from .refresh import Fetcher
from .turns import Turns
from .values import decode, encode

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


class Answering:
    """Answers what memory alone cannot: :meth:`answer` goes on to ``_lead``, ``_follow`` or,
    when there is a stale value, ``_refresh_later``.

    Args:
        levels: where entries are.
        clock: time.
        scheduler: runs refreshes.
        context: opened around every background fetch.
        max_value: a value whose encoding is larger is not kept.
        tell: sends a signal.
        changed: told of what was kept or dropped: the process, the ident, the kind, the tags.
        turns: which process fetches.
    """

    def __init__(
        self,
        levels: Levels,
        clock: Clock,
        scheduler: Scheduler,
        context: Callable[[], AbstractContextManager[object]],
        max_value: int,
        tell: Callable[..., None],
        changed: Callable[[Process, Ident, ChangeKind, tuple[str, ...]], None],
        turns: Turns,
    ) -> None:
        self._turns = turns
        self._levels = levels
        self._clock = clock
        self._now = clock.monotonic
        self._scheduler = scheduler
        self._context = context
        self._max_value = max_value
        self._tell = tell
        self._changed = changed

    def answer(self, process: Process, ask: Ask) -> Any:
        """The value, from wherever it is to be had."""
        with process.lock:
            now = self._now()
            entry = process.local.entries.get(ask.ident)
            if entry is None or now >= entry.valid_until:
                entry = None
                flight, leading = self._board(process, ask, now)
        if entry is None:
            return (self._lead if leading else self._follow)(process, flight, ask)
        return self._serve(process, entry, ask)

    def _board(self, process: Process, ask: Ask, now: float) -> tuple[Flight, bool]:
        """The flight that brings the value, and whether this thread flies it. The lock is held."""
        error = process.remembered_failure(ask.ident, now)
        if error is not None:
            process.counts.negative += 1
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

    def _serve(self, process: Process, entry: Entry, ask: Ask) -> Any:
        entry.visited = True
        if not self.count_kind(process, entry, ask.stale_time, ask.key):
            self._refresh_later(process, entry, ask)
        return decode(entry.data)

    def _lead(self, process: Process, flight: Flight, ask: Ask) -> Any:
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
                    return self._serve(process, entry, ask)
            with process.lock:
                process.counts.misses += 1
            self._tell(signals.cache_missed, key=ask.key)
            value = self._fetch(process, ask)
            data = self._encoded(process, value, ask)
            if data is None:
                process.mark_private(ask.ident, self._now())
                return value
            flight.data = data
            landing = Landing.VALUE
            if self.fits(process, data, ask.key):
                self._keep(process, flight, ask, "set")
            return value
        except Private as found:
            process.mark_private(ask.ident, self._now())
            private = found
        except Exception as error:
            landing = Landing.ERROR
            flight.error = error
            if flight.fence is Fence.CLEAR and ask.dedupe_time > 0:
                process.remember_failure(ask.ident, error, self._now() + ask.dedupe_time)
            raise
        finally:
            self._turns.end(process, flight)
            with process.lock:
                process.flights.end(flight, landing)
        if private.error is not None:
            raise private.error  # out here, so that its own cause and context stay as they are
        return private.value

    def _follow(self, process: Process, flight: Flight, ask: Ask) -> Any:
        if flight.owner == threading.get_ident():
            raise CacheError(f"the fetcher of {ask.key!r} asks for {ask.key!r} itself")
        if flight.wait(FOLLOW_S):
            if flight.landing is Landing.VALUE:
                with process.lock:
                    process.counts.coalesced += 1
                return decode(flight.data)
            if flight.landing is Landing.ERROR and flight.error is not None:
                with process.lock:
                    process.counts.negative += 1
                raise copy_of(flight.error)
        own = self._flight(ask)
        with process.lock:
            process.flights.begin(own, alone=True)
        return self._lead(process, own, ask)

    def _fetch(self, process: Process, ask: Ask) -> Any:
        def began() -> None:
            with process.lock:
                process.counts.fetches += 1

        def failed(error: Exception) -> None:
            with process.lock:
                process.counts.failures += 1
            self._tell(signals.cache_refresh_failed, key=ask.key, error=error)

        return refresh.fetch(
            ask.fetcher,
            self._clock,
            retry=ask.retry,
            retry_delay=ask.retry_delay,
            began=began,
            failed=failed,
        )

    def _refresh_later(self, process: Process, entry: Entry, ask: Ask) -> None:
        now = self._now()
        with process.lock:
            if now < entry.retry_at or process.flights.get(ask.ident) is not None:
                return
            flight = self._flight(ask)
            flight.owner = 0
            flight.tags = ask.tags or entry.tags
            process.flights.begin(flight)
        accepted = False
        try:
            fetcher = ask.background() if ask.background is not None else ask.fetcher
            accepted = self._scheduler.submit(
                lambda: self._refresh(process, flight, ask, fetcher), name="cache-refresh"
            )
        except Exception:
            logger.exception("the refresh of %r could not be begun", ask.key)
        if not accepted:
            with process.lock:
                if not flight.owner:  # else somebody who needs the value took it over meanwhile
                    process.flights.end(flight, Landing.NOTHING)
                process.counts.dropped += 1

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
            with self._context():
                value = refresh.run(fetcher)
            flight.data = encode(value)
            landing = Landing.VALUE
            with process.lock:
                process.counts.refreshes += 1
            if self.fits(process, flight.data, ask.key):
                self._keep(process, flight, ask, "refreshed")
            else:
                self._drop(process, ask.ident)
            self._tell(signals.cache_refreshed, key=ask.key, duration_s=self._now() - started)
        except Private:
            # the answer turned into one that must not be kept, so the old one must go as well
            process.mark_private(ask.ident, self._now())
            self._drop(process, ask.ident)
        except Exception as error:  # noqa: BLE001 - the stale value stays, whatever it was
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
            process.counts.failures += 1
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
        self._changed(process, ident, "removed", ())

    def _keep(self, process: Process, flight: Flight, ask: Ask, kind: ChangeKind) -> None:
        tags = flight.tags
        if self._levels.shared is not None:
            self._turns.confirm(flight, self._levels.shared.load)
        fence = 0 if flight.lease is None else flight.lease.token
        entry = self._levels.make(
            ask.ident, flight.data, tags, flight.began, ask.stale_time, ask.cache_time
        )
        entry.retry_at = entry.stored + ask.dedupe_time

        def still_wanted() -> bool:
            return flight.fence is not Fence.DISCARD

        # the store first: who is woken by the end of this flight must find the value somewhere
        self._levels.save(process, entry, ask.stale_time, ask.cache_time, still_wanted, fence)
        with process.lock:
            if flight.fence is Fence.DISCARD:
                return
            if flight.fence is Fence.STALE:
                entry.mark_stale()
            kept = entry.stored < entry.gone_at
            if kept:
                process.local.put(entry)
            process.failed.pop(ask.ident, None)
        if kept:
            self._changed(process, ask.ident, kind, tags)

    def _encoded(self, process: Process, value: object, ask: Ask) -> bytes | None:
        try:
            return encode(value)
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
        if entry.is_fresh(now, stale_time):
            process.count_hit()
            self._tell(signals.cache_hit, key=key)
            return True
        with process.lock:
            process.counts.stale += 1
        self._tell(signals.cache_stale_served, key=key, age_s=now - entry.stored)
        return False


def _shown(key: Key) -> str:
    text = repr(key)
    return text if len(text) <= 120 else text[:119] + "…"
