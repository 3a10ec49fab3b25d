"""The smart cache: stale-while-revalidate on any data.

Fresh → the value. Stale → the value now, and one refresh in the background. Missing → one fetch
for all threads that wait (RFC 5861's stale-while-revalidate, applied to data).

An entry lives in this process's memory (:mod:`.local`); with a shared store behind it
(:mod:`.shared`) memory answers for at most five seconds on its own. The way of a look-up:
:meth:`SmartCache.query` is the hit and nothing else; whatever is not a fresh hit goes to
``_answer``, and from there to ``_lead``, ``_follow`` or ``_fetch_alone``.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from .. import signals
from ..errors import CacheError
from ..protocols import CacheStore, Clock, Hub, Scheduler
from ..signals import Emit
from ..types import CacheStats
from . import refresh
from .entry import Entry, Record
from .flight import Fence, Flight, Landing, Private, copy_of
from .invalidation import Invalidation
from .keys import Ident, Key, body_of, identify
from .memoize import Memoized, memoize
from .process import Process, process_of
from .refresh import Fetcher
from .shared import L1_TTL_S, TOPIC, News, Shared
from .values import decode, encode

__all__ = ["SmartCache"]

logger = logging.getLogger("om_plugins")

F = TypeVar("F", bound=Callable[..., Any])

FOLLOW_S = 30.0
SWEEP_S = 600.0
HEAR_S = 1.0
_MOST_WARNINGS = 1000


@dataclass(slots=True)
class _Ask:
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


class SmartCache:
    """Stale-while-revalidate in front of anything that is slow.

    Nothing is started or opened here: threads, jobs and the store come with the first use in
    each process.

    Args:
        stale_time: seconds for which a value is fresh, unless a call says otherwise.
        cache_time: seconds after which a value is gone, unless a call says otherwise.
        l1_bytes: bound on the memory of this process: keys, values and overhead.
        max_value: a value whose encoding is larger is not kept.
        clock: time.
        scheduler: runs refreshes and the sweep.
        hub: tells other workers of invalidations; used only with a store.
        store: a store that workers share; ``None`` keeps everything in this process.
        emit: how signals are sent.
        namespace: keeps two caches in one store apart.
        context: opened around every background fetch, for what a fetcher of the application
            needs (under Flask the application context).
    """

    def __init__(
        self,
        *,
        stale_time: float,
        cache_time: float,
        l1_bytes: int,
        max_value: int,
        clock: Clock,
        scheduler: Scheduler,
        hub: Hub | None = None,
        store: CacheStore | None = None,
        emit: Emit | None = None,
        namespace: str = "",
        context: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._stale_time = stale_time
        self._cache_time = cache_time
        self._l1_bytes = l1_bytes
        self._max_value = max_value
        self.clock = clock
        self._now = clock.monotonic
        self._scheduler = scheduler
        self._hub = hub if store is not None else None
        self._shared = None if store is None else Shared(store, clock, namespace, max_value)
        self._emit = emit
        self._namespace = namespace
        self._context = context
        self._listeners = signals.cache_hit.receivers if emit is not None else {}
        self._processes: dict[int, Process] = {}
        # the two things that a hit touches; both belong to the process that used the cache last
        self._entries: dict[Ident, Entry] = {}
        self._count_hit: Callable[[], int] = int

    # --- look-ups -------------------------------------------------------------------------------

    def query(
        self,
        key: Key,
        fetcher: Fetcher,
        *,
        stale_time: float | None = None,
        cache_time: float | None = None,
        retry: int = 3,
        retry_delay: float = 1.0,
        dedupe_time: float = 1.0,
        tags: Iterable[str] = (),
        scope: str = "",
        background: Callable[[], Fetcher] | None = None,
    ) -> Any:
        """The value, fetched when it is missing, refreshed in the background when it is stale.

        What comes back is a new copy each time; the caller may change it. A value that cannot be
        cached (see :func:`.values.encode`) is returned as it is, uncached, with one warning.

        Args:
            key: text, or a tuple of typed atoms (see :func:`.keys.encode`).
            fetcher: called without arguments; ``async def`` works where no loop is running.
            stale_time: seconds for which the value counts as fresh for this caller.
            cache_time: seconds after which the value is gone.
            retry: further attempts. On a miss they happen at once, with sleeps of at most one
                second in all; in the background 1, 2, 4 … ``retry_delay`` apart, with full
                jitter, and after the last one a cooldown of 30 s.
            retry_delay: the first of these delays, in seconds.
            dedupe_time: seconds after a fetch within which no other begins for this key; after
                a failed one they raise a copy of its error.
            tags: what the value can be invalidated by.
            scope: keeps users apart: another scope is another entry.
            background: called in this thread when a refresh is due; returns the fetcher to run
                in the background instead of ``fetcher``.

        Raises:
            Exception: what the fetcher raised, when there is no value.
            TypeError: the key or the fetcher is of a kind that cannot be used.
        """
        ident = key if type(key) is str and not scope else identify(key, scope)
        entry = self._entries.get(ident)
        if entry is not None:
            now = self._now()
            if (
                now < entry.fresh_until
                if stale_time is None
                else now < entry.base + stale_time and now < entry.valid_until
            ):
                self._count_hit()
                entry.visited = True
                if self._listeners:
                    self._tell(signals.cache_hit, key=key)
                return decode(entry.data)
        refresh.check(fetcher)
        return self._answer(
            _Ask(
                key, ident, fetcher, background, stale_time, cache_time,
                retry, retry_delay, dedupe_time, _tags(tags),
            )
        )  # fmt: skip

    def get(self, key: Key, default: Any = None, *, scope: str = "") -> Any:
        """The value if there is one, fresh or stale, else ``default``. Nothing is fetched.

        Raises:
            TypeError: the key is of a kind that cannot be used.
        """
        process = self._process()
        ident = identify(key, scope)
        entry = self._look(process, ident)
        if entry is None:
            with process.lock:
                process.counts.misses += 1
            self._tell(signals.cache_missed, key=key)
            return default
        entry.visited = True
        self._count_kind(process, entry, None, key)
        return decode(entry.data)

    def set(
        self,
        key: Key,
        value: object,
        *,
        stale_time: float | None = None,
        cache_time: float | None = None,
        tags: Iterable[str] = (),
        scope: str = "",
    ) -> None:
        """Put a value; what is being fetched for this key at the moment is not kept.

        A value over the size limit is not stored (the old one goes all the same).

        Raises:
            CacheError: the value cannot be cached; the message names the type and the way out.
            TypeError: the key is of a kind that cannot be used.
        """
        process = self._process()
        ident = identify(key, scope)
        data = encode(value)
        if not self._fits(data, key):
            self.remove(key, scope=scope)
            return
        began = self.clock.time()
        entry = self._entry(ident, data, _tags(tags), began, stale_time, cache_time)
        with process.lock:
            process.flights.discard(ident)
            process.failed.pop(ident, None)
            process.local.put(entry)
        self._save(process, entry, stale_time, cache_time, lambda: True)

    def times(self, stale_time: float | None, cache_time: float | None) -> tuple[float, float]:
        """Both times in seconds, with the cache's own where one is ``None``."""
        return (
            self._stale_time if stale_time is None else stale_time,
            self._cache_time if cache_time is None else cache_time,
        )

    # --- taking back ----------------------------------------------------------------------------

    def invalidate(
        self, prefix: Key | None = None, *, tags: Iterable[str] = (), scope: str = ""
    ) -> int:
        """Mark entries stale: the last good value stays, and is served while a new one is fetched.

        Args:
            prefix: the beginning of text keys, or the first members of tuple keys.
            tags: entries that have any of these tags; with a prefix too: either.
            scope: only entries of this scope; without one, of all scopes. A scope alone means
                all of its entries; nothing at all means every entry.

        Returns:
            How many entries of this process were concerned.
        """
        process = self._process()
        tags = _tags(tags)
        body = body_of(prefix) if prefix is not None else (None if tags else b"")
        what = Invalidation(body, tags, scope)
        at = self.clock.time()
        with process.lock:
            count = self._mark(process, what, math.inf)
            if self._shared is not None:
                process.memory.add(what, at)
        process.news.tell(what, at)
        self._tell(signals.cache_invalidated, prefix=prefix, tags=tags, count=count)
        return count

    def remove(self, key: Key, *, scope: str = "") -> None:
        """Forget one entry at once, here and in the store.

        Raises:
            TypeError: the key is of a kind that cannot be used.
        """
        process = self._process()
        ident = identify(key, scope)
        with process.lock:
            process.flights.discard(ident)
            process.failed.pop(ident, None)
            entry = process.local.entries.get(ident)
            if entry is not None:
                process.local.remove(entry)
        if self._shared is not None:
            with process.store_lock(ident):
                self._shared.delete(ident)
        process.news.tell_removed(ident, self.clock.time())
        self._tell(signals.cache_invalidated, prefix=key, tags=(), count=int(entry is not None))

    def clear(self) -> int:
        """Forget everything, in all workers. Returns how many entries this process had."""
        process = self._process()
        at = self.clock.time()
        count = self._clear(process, at, math.inf)
        process.news.tell_cleared(at)
        self._tell(signals.cache_invalidated, prefix=None, tags=(), count=count)
        return count

    def sweep(self) -> int:
        """Give the memory of expired entries back; runs every ten minutes. Returns how many."""
        process = self._process()
        now = self._now()
        with process.lock:
            process.forget_old_marks(now)
            return process.local.remove_where(lambda entry: now >= entry.gone_at)

    def close(self) -> None:
        """Stop the background jobs of this process; the cache may be used again afterwards."""
        process = self._processes.pop(process_of(), None)
        if process is not None:
            process.stop()

    # --- telling --------------------------------------------------------------------------------

    def stats(self) -> CacheStats:
        """The counters of this process, exact."""
        process = self._process()
        with process.lock:
            return process.snapshot()

    def refusals(self) -> dict[str, int]:
        """How many values were not kept, by reason, exact."""
        process = self._process()
        with process.lock:
            return dict(process.refused)

    def refuse(self, reason: str, subject: str, advice: str) -> None:
        """Count that something was not kept, and warn the first time for this subject.

        Args:
            reason: a short word for :meth:`refusals`.
            subject: what was not kept.
            advice: why, and the way out.
        """
        process = self._process()
        with process.lock:
            process.refused[reason] += 1
            first = (reason, subject) not in process.warned
            if first and len(process.warned) < _MOST_WARNINGS:
                process.warned.add((reason, subject))
        if first:
            logger.warning("%s is not cached: %s", subject, advice)

    def memoize(
        self,
        function: F | None = None,
        *,
        stale_time: float | None = None,
        cache_time: float | None = None,
        retry: int = 0,
        dedupe_time: float = 1.0,
        tags: Iterable[str] = (),
        scope: str | Callable[[], str] = "",
    ) -> Any:
        """Cache what a function returns, by its arguments; see :func:`.memoize.memoize`."""
        decorate: Callable[[Callable[..., Any]], Memoized] = memoize(
            lambda: self,
            stale_time=stale_time,
            cache_time=cache_time,
            retry=retry,
            dedupe_time=dedupe_time,
            tags=tags,
            scope=scope,
        )
        return decorate if function is None else decorate(function)

    # --- the way of a look-up that is not a fresh hit -------------------------------------------

    def _answer(self, ask: _Ask) -> Any:
        process = self._process()
        with process.lock:
            now = self._now()
            entry = process.local.entries.get(ask.ident)
            if entry is None or now >= entry.valid_until:
                entry = None
                flight, leading = self._board(process, ask, now)
        if entry is None:
            return (self._lead if leading else self._follow)(process, flight, ask)
        return self._serve(process, entry, ask)

    def _board(self, process: Process, ask: _Ask, now: float) -> tuple[Flight, bool]:
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

    def _serve(self, process: Process, entry: Entry, ask: _Ask) -> Any:
        entry.visited = True
        if not self._count_kind(process, entry, ask.stale_time, ask.key):
            self._refresh_later(process, entry, ask)
        return decode(entry.data)

    def _lead(self, process: Process, flight: Flight, ask: _Ask) -> Any:
        landing = Landing.NOTHING
        try:
            if self._shared is not None:
                entry = self._look(process, ask.ident)
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
            data = self._encoded(value, ask)
            if data is None:
                process.mark_private(ask.ident, self._now())
                return value
            flight.data = data
            landing = Landing.VALUE
            if self._fits(data, ask.key):
                self._keep(process, flight, ask)
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
            with process.lock:
                process.flights.end(flight, landing)
        if private.error is not None:
            raise private.error  # out here, so that its own cause and context stay as they are
        return private.value

    def _follow(self, process: Process, flight: Flight, ask: _Ask) -> Any:
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

    def _fetch(self, process: Process, ask: _Ask) -> Any:
        def began() -> None:
            with process.lock:
                process.counts.fetches += 1

        def failed(error: Exception) -> None:
            with process.lock:
                process.counts.failures += 1
            self._tell(signals.cache_refresh_failed, key=ask.key, error=error)

        return refresh.fetch(
            ask.fetcher,
            self.clock,
            retry=ask.retry,
            retry_delay=ask.retry_delay,
            began=began,
            failed=failed,
        )

    # --- refresh in the background --------------------------------------------------------------

    def _refresh_later(self, process: Process, entry: Entry, ask: _Ask) -> None:
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

    def _refresh(self, process: Process, flight: Flight, ask: _Ask, fetcher: Fetcher) -> None:
        with process.lock:
            if flight.owner or flight.landing is not None:
                return
            flight.owner = threading.get_ident()
        landing = Landing.NOTHING
        try:
            if self._refreshed_elsewhere(process, flight, ask):
                landing = Landing.VALUE
                return
            flight.began = self.clock.time()
            started = self._now()
            with self._context():
                value = refresh.run(fetcher)
            flight.data = encode(value)
            landing = Landing.VALUE
            with process.lock:
                process.counts.refreshes += 1
            if self._fits(flight.data, ask.key):
                self._keep(process, flight, ask)
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
            with process.lock:
                process.flights.end(flight, landing)

    def _refreshed_elsewhere(self, process: Process, flight: Flight, ask: _Ask) -> bool:
        """Whether another worker's fresh value was found in the store, which saves the fetch."""
        if self._shared is None:
            return False
        entry = self._look(process, ask.ident, again=True)
        if entry is None or not entry.is_fresh(self._now(), ask.stale_time):
            return False
        flight.data = entry.data
        return True

    def _refresh_failed(self, process: Process, ask: _Ask, error: Exception) -> None:
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

    # --- keeping --------------------------------------------------------------------------------

    def _keep(self, process: Process, flight: Flight, ask: _Ask) -> None:
        tags = flight.tags
        entry = self._entry(
            ask.ident, flight.data, tags, flight.began, ask.stale_time, ask.cache_time
        )
        entry.retry_at = entry.stored + ask.dedupe_time

        def still_wanted() -> bool:
            return flight.fence is not Fence.DISCARD

        # the store first: who is woken by the end of this flight must find the value somewhere
        self._save(process, entry, ask.stale_time, ask.cache_time, still_wanted)
        with process.lock:
            if flight.fence is Fence.DISCARD:
                return
            if flight.fence is Fence.STALE:
                entry.mark_stale()
            if entry.stored < entry.gone_at:
                process.local.put(entry)
            process.failed.pop(ask.ident, None)

    def _entry(
        self,
        ident: Ident,
        data: bytes,
        tags: tuple[str, ...],
        began: float,
        stale_time: float | None,
        cache_time: float | None,
    ) -> Entry:
        now = self._now()
        fresh, kept = self.times(stale_time, cache_time)
        return Entry(
            ident,
            data,
            tags=tags,
            began=began,
            stored=now,
            stale_time=fresh,
            cache_time=kept,
            valid_until=math.inf if self._shared is None else now + L1_TTL_S,
        )

    def _save(
        self,
        process: Process,
        entry: Entry,
        stale_time: float | None,
        cache_time: float | None,
        wanted: Callable[[], bool],
    ) -> None:
        if self._shared is None or entry.gone_at <= entry.stored:
            return
        fresh, kept = self.times(stale_time, cache_time)
        record = Record(
            began=entry.began,
            stored=self.clock.time(),
            stale_time=fresh,
            cache_time=kept,
            tags=entry.tags,
            body=entry.data,
        )
        with process.store_lock(entry.ident):  # so that an older value cannot overtake a newer
            if wanted():
                self._shared.save(entry.ident, record)

    def _look(self, process: Process, ident: Ident, *, again: bool = False) -> Entry | None:
        """The entry in memory, or the one in the store, which then is in memory too.

        Args:
            again: ask the store even when memory may still answer.
        """
        entry = process.local.entries.get(ident)
        now = self._now()
        if entry is not None and now < entry.valid_until and not again:
            return entry
        if self._shared is None:
            return None
        record, asked = self._shared.load(ident)
        if not asked:
            if entry is None or now >= entry.gone_at:
                return None
            with process.lock:  # the store is away: memory answers alone, as long as it may
                entry.valid_until = min(entry.gone_at, now + L1_TTL_S)
            return entry
        if record is None or not _readable(record.body):
            return None
        with process.lock:
            if process.memory.is_cleared(record.began):
                return None
            current = process.local.entries.get(ident)
            if current is not None and current.began > record.began and now < current.valid_until:
                return current  # this process has stored a newer one meanwhile
            found = self._loaded(ident, record, now)
            if process.memory.is_stale(ident, record.tags, record.began):
                found.mark_stale()
            if current is not None:
                found.failures, found.retry_at = current.failures, current.retry_at
            process.local.put(found)
        return found

    def _loaded(self, ident: Ident, record: Record, now: float) -> Entry:
        age = max(0.0, self.clock.time() - record.stored)
        return Entry(
            ident,
            record.body,
            tags=record.tags,
            began=record.began,
            stored=now - age,
            stale_time=record.stale_time,
            cache_time=record.cache_time,
            valid_until=now + L1_TTL_S,
        )

    def _encoded(self, value: object, ask: _Ask) -> bytes | None:
        try:
            return encode(value)
        except CacheError as error:
            self.refuse("type", f"the value of {_shown(ask.key)}", str(error))
            return None

    def _fits(self, data: bytes, key: Key) -> bool:
        if len(data) <= self._max_value:
            return True
        self.refuse(
            "size",
            f"the value of {_shown(key)}",
            f"{len(data):,} bytes are over the limit of {self._max_value:,}; cache less, or raise "
            "OM_CACHE_MAX_VALUE",
        )
        return False

    def _drop(self, process: Process, ident: Ident) -> None:
        with process.lock:
            entry = process.local.entries.get(ident)
            if entry is not None:
                process.local.remove(entry)
        if self._shared is not None:
            with process.store_lock(ident):
                self._shared.delete(ident)

    # --- invalidation, ours and heard ------------------------------------------------------------

    def _mark(self, process: Process, what: Invalidation, at: float) -> int:
        """Mark what was fetched up to ``at``; the lock is held."""
        entries = process.local.entries
        found = {i for i in process.local.tagged(what.tags) if what.matches(i, entries[i].tags)}
        if what.prefix is not None:
            found |= {i for i, entry in entries.items() if what.matches(i, entry.tags)}
        count = 0
        for ident in found:
            if entries[ident].began <= at:
                entries[ident].mark_stale()
                count += 1
        for flight in process.flights:
            if flight.began <= at and what.matches(flight.ident, flight.tags):
                flight.fence = max(flight.fence, Fence.STALE)
        for ident in [i for i in process.failed if what.matches(i, ())]:
            del process.failed[ident]
        return count

    def _clear(self, process: Process, at: float, until: float) -> int:
        with process.lock:
            if self._shared is not None:
                process.memory.clear(at)
            process.failed.clear()
            for flight in process.flights:
                if flight.began <= until:
                    process.flights.detach(flight)
            return process.local.remove_where(lambda entry: entry.began <= until)

    def _heard_invalidation(self, what: Invalidation, at: float) -> None:
        process = self._process()
        at = min(at, self.clock.time())  # a clock that is ahead must not condemn the future
        with process.lock:
            process.memory.add(what, at)
            self._mark(process, what, at)

    def _heard_removal(self, ident: Ident, at: float) -> None:
        process = self._process()
        with process.lock:
            entry = process.local.entries.get(ident)
            if entry is not None and entry.began <= at:
                process.local.remove(entry)
            for flight in process.flights:
                if flight.ident == ident and flight.began <= at:
                    process.flights.detach(flight)

    def _heard_clearing(self, at: float) -> None:
        at = min(at, self.clock.time())
        self._clear(self._process(), at, at)

    # --- small things ----------------------------------------------------------------------------

    def _process(self) -> Process:
        """What belongs to this process, made on first use; a forked child makes its own."""
        pid = process_of()
        process = self._processes.get(pid)
        if process is None:
            topic = TOPIC + (f":{self._namespace}" if self._namespace else "")
            news = News(
                self._hub, topic,
                self._heard_invalidation, self._heard_removal, self._heard_clearing,
            )  # fmt: skip
            made = Process(self._l1_bytes, news)
            process = self._processes.setdefault(pid, made)  # atomic: one of two threads wins
            if process is made:
                for old in [p for p in self._processes if p != pid]:
                    process.inherit(self._processes.pop(old))
                self._entries = process.local.entries
                self._count_hit = process.count_hit
                self._start(process)
        return process

    def _start(self, process: Process) -> None:
        every = self._scheduler.every
        suffix = f":{self._namespace}" if self._namespace else ""
        process.jobs.append(every(SWEEP_S, self.sweep, name="cache-sweep" + suffix))
        if self._hub is not None:
            process.news.hear()
            process.jobs.append(every(HEAR_S, process.news.hear, name=TOPIC + suffix))

    def _flight(self, ask: _Ask) -> Flight:
        return Flight(ask.ident, ask.tags, self.clock.time(), threading.get_ident())

    def _count_kind(
        self, process: Process, entry: Entry, stale_time: float | None, key: Key
    ) -> bool:
        now = self._now()
        if entry.is_fresh(now, stale_time):
            self._count_hit()
            self._tell(signals.cache_hit, key=key)
            return True
        with process.lock:
            process.counts.stale += 1
        self._tell(signals.cache_stale_served, key=key, age_s=now - entry.stored)
        return False

    def _tell(self, signal: Any, **details: Any) -> None:
        if self._emit is not None and signal.receivers:
            self._emit(signal, **details)


def _tags(tags: Iterable[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise TypeError(f"tags must be a list of texts, not the text {tags!r}")
    return tuple(dict.fromkeys(tags)) if tags else ()


def _readable(data: bytes) -> bool:
    try:
        decode(data)
    except Exception:  # noqa: BLE001 - bytes from a shared store may be anything
        return False
    return True


def _shown(key: Key) -> str:
    text = repr(key)
    return text if len(text) <= 120 else text[:119] + "…"
