"""Refreshes: the cache serves a stale value and fetches it again in the background.

A key has one refresh at a time. Refreshes wait in a bounded queue (:class:`RefreshQueue`) in front
of the background pool, and a few run at once. The pool also serves other jobs: however long
fetchers take, one of its threads stays free for invalidations, notifications and measurements.

No caller waits for a refresh, and nothing sleeps between its attempts: an entry carries the time
before which no refresh of it begins, and the first look-up after that time begins one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .. import signals
from ..protocols import Clock, Scheduler
from .entry import CacheEntry, DependencyTracker, DependencyTracking
from .keys import Ident
from .memory import ProcessMemory
from .miss import FOLLOW_S, RANDOM, Commits, Fetcher, Misses, QueryOptions, run_fetcher
from .singleflight import FetchLeases, FetchOutcome, InFlight, PrivateValue
from .subscriptions import WatchedKeys
from .tiers import Changes, Tiers
from .values import ABSENT, decode

logger = logging.getLogger("om_plugins")

JOB_NAME = "cache-refresh"
LOOK_AGAIN_S = 0.5
COOLDOWN_S = 30.0


def draw_backoff(failures: int, retries: int, retry_delay: float) -> float:
    """Return the seconds until the next background refresh after ``failures`` in a row.

    For the first ``retries`` failures it has full jitter below ``retry_delay`` times 1, 2, 4, …;
    after that it is a cooldown.
    """
    if failures > retries:
        return COOLDOWN_S
    return RANDOM.uniform(0, min(COOLDOWN_S, retry_delay * 2.0 ** min(failures - 1, 20)))


class RefreshQueue:
    """The waiting and running refreshes of one process.

    Args:
        scheduler: the background pool.
        running: refreshes that run at once, at most.
        waiting: refreshes that wait, at most.
    """

    def __init__(self, scheduler: Scheduler, running: int, waiting: int) -> None:
        self._scheduler = scheduler
        self._most_running = running
        self._most_waiting = waiting
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Callable[[], object], Callable[[], object]]] = deque()
        self._running = 0

    def submit(self, job: Callable[[], object], dropped: Callable[[], object]) -> bool:
        """Run a job when its turn comes.

        Args:
            dropped: called instead, when the pool closes before that.

        Returns:
            False when the queue is full.
        """
        with self._lock:
            if self._running >= self._most_running:
                if len(self._waiting) >= self._most_waiting:
                    return False
                self._waiting.append((job, dropped))
                return True
            self._running += 1
        if self._scheduler.submit(partial(self._run, job), name=JOB_NAME):
            return True
        with self._lock:
            self._running -= 1
        return False

    def _run(self, job: Callable[[], object]) -> None:
        try:
            job()
        finally:
            self._submit_next()

    def _submit_next(self) -> None:
        # through the pool's queue, so that other jobs run between two refreshes
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                job, dropped = self._waiting.popleft()
            if self._scheduler.submit(partial(self._run, job), name=JOB_NAME):
                return
            dropped()


@dataclass(slots=True, eq=False)
class Refreshes:
    """Serves entries and refreshes those that are stale.

    Args:
        tiers: where entries are.
        commits: stores fetched values.
        misses: records fetches as dependencies.
        leases: which process fetches.
        tracking: the running fetchers.
        queue: the refreshes that wait or run.
        clock: time.
        context: opened around each background fetch.
        send: sends a signal.
    """

    tiers: Tiers
    commits: Commits
    misses: Misses
    leases: FetchLeases
    tracking: DependencyTracking
    queue: RefreshQueue
    clock: Clock
    context: Callable[[], AbstractContextManager[object]]
    send: Callable[..., None]

    # --- serving --------------------------------------------------------------------------------

    def serve(
        self, entry: CacheEntry, options: QueryOptions, around: DependencyTracker | None
    ) -> Any:
        """Return the value of an entry; begin a refresh when the entry is stale.

        Args:
            around: the tracker of the fetcher that made this query.
        """
        entry.visited = True
        if around is not None and around.background:
            data = self._fetch_newer(entry, options, around)
            if data is not None:
                return decode(data)
        fresh = self.commits.count_hit(entry, options.stale_time, options.key)
        if not fresh:
            self._begin_later(entry, options)
        if around is not None:
            self.record_entry(around, entry, fresh)
        return decode(entry.data)

    def record_entry(self, around: DependencyTracker, entry: CacheEntry, fresh: bool) -> None:
        """Record an entry as a dependency of the fetcher around it."""
        with self.tiers.memory.lock:
            around.add(entry.ident, entry.tags, entry.deps)
        if not fresh:
            around.add_stale(entry.retry_at)

    def _fetch_newer(
        self, entry: CacheEntry, options: QueryOptions, around: DependencyTracker
    ) -> bytes | None:
        """Fetch a stale value again for a background fetcher, for which no caller waits.

        Otherwise the value that this computes would be as old as the value that it replaces.

        Returns:
            The encoded value; ``None`` when the entry is fresh or no newer value can be had.
        """
        memory = self.tiers.memory
        now = self.clock.monotonic()
        if entry.data == ABSENT or entry.is_fresh(now, options.stale_time) or now < entry.retry_at:
            return None
        with memory.lock:
            fetch = memory.in_flight.get(options.ident)
            mine = fetch is None or not fetch.owner
            if fetch is None:
                fetch = self._begin(entry, options)
        if mine:
            try:
                fetcher = options.background() if options.background else options.fetcher
            except BaseException:
                with memory.lock:
                    memory.in_flight.end(fetch, FetchOutcome.NOTHING)
                raise
            self._run(fetch, options, fetcher)
        if fetch.outcome is None and (
            fetch.owner == threading.get_ident() or not fetch.wait(FOLLOW_S)
        ):
            return None
        if fetch.outcome is not FetchOutcome.VALUE:
            return None
        memory.count(options.ident, "misses" if mine else "coalesced")
        self.misses.record_fetch(around, fetch)
        return fetch.data

    # --- refreshing -----------------------------------------------------------------------------

    def _begin(self, entry: CacheEntry, options: QueryOptions) -> InFlight:
        """Add a fetch that no thread runs yet. The caller holds the memory's lock."""
        tags = options.tags or entry.tags
        return self.tiers.memory.in_flight.begin(
            InFlight(options.ident, tags, self.clock.time(), 0)
        )

    def _begin_later(self, entry: CacheEntry, options: QueryOptions) -> None:
        """Queue a refresh, unless it is too early or one runs already."""
        memory = self.tiers.memory
        now = self.clock.monotonic()
        with memory.lock:
            if now < entry.retry_at or memory.in_flight.get(options.ident) is not None:
                return
            fetch = self._begin(entry, options)
        accepted = False
        try:
            fetcher = options.background() if options.background else options.fetcher
            accepted = self.queue.submit(
                lambda: self._run(fetch, options, fetcher), lambda: self._drop(fetch)
            )
        except Exception:
            logger.exception("the cache could not begin the refresh of %r", options.key)
        if not accepted:
            self._drop(fetch)

    def _drop(self, fetch: InFlight) -> None:
        memory = self.tiers.memory
        with memory.lock:
            if not fetch.owner:  # else a thread that needs the value has taken the fetch over
                memory.in_flight.end(fetch, FetchOutcome.NOTHING)
            memory.counters.get(fetch.ident).dropped += 1

    def _run(self, fetch: InFlight, options: QueryOptions, fetcher: Fetcher) -> None:
        """Fetch in this thread, unless another thread has begun to."""
        memory, commits, ident = self.tiers.memory, self.commits, options.ident
        with memory.lock:
            if fetch.owner or fetch.outcome is not None:
                return
            fetch.owner = threading.get_ident()
        outcome = FetchOutcome.NOTHING
        try:
            if self.tiers.shared is not None and not self.leases.take(fetch):
                self._look_again_soon(ident)
                return
            if self._is_refreshed_elsewhere(fetch, options):
                outcome = FetchOutcome.VALUE
                return
            fetch.began = self.clock.time()
            started = self.clock.monotonic()
            with self.tracking.track(fetch, background=True) as tracker, self.context():
                value = run_fetcher(fetcher)
            fetch.cost_us = round((self.clock.monotonic() - started) * 1e6)
            fetch.negative = options.is_negative(value)
            absent = value is None and fetch.negative
            fetch.data = ABSENT if absent else self.tiers.encode(value)
            outcome = FetchOutcome.VALUE
            memory.count(ident, "refreshes")
            if commits.fits(fetch.data, options.key):
                commits.commit(fetch, options, "refreshed", tracker)
            else:
                commits.drop(ident)
            self.send(
                signals.cache_refreshed,
                key=options.key,
                duration_s=self.clock.monotonic() - started,
            )
        except PrivateValue:
            # the new value must not be stored, so the old one must go as well
            memory.in_flight.mark_private(ident, self.clock.monotonic())
            commits.drop(ident)
        except Exception as error:  # noqa: BLE001 - whatever it is, the stale value stays
            if options.negative_time is not None and isinstance(error, options.final_errors):
                # there is no value any more: this is an answer, not a failure
                until = self.clock.monotonic() + options.negative_time
                memory.count(ident, "refreshes")
                commits.drop(ident)
                memory.in_flight.remember_failure(ident, error, until, fetch.tags)
            else:
                self._record_failure(options, error)
        finally:
            self.leases.end(fetch)
            with memory.lock:
                memory.in_flight.end(fetch, outcome)

    def _is_refreshed_elsewhere(self, fetch: InFlight, options: QueryOptions) -> bool:
        """Return whether the store has another worker's fresh value, which saves the fetch."""
        if self.tiers.shared is None:
            return False
        entry = self.tiers.look(options.ident, again=True)
        if entry is None or not entry.is_fresh(self.clock.monotonic(), options.stale_time):
            return False
        fetch.data = entry.data
        fetch.deps.update(entry.deps)
        return True

    def _look_again_soon(self, ident: Ident) -> None:
        """Delay the next refresh: another worker refreshes, and will soon store its value."""
        with self.tiers.memory.lock:
            entry = self.tiers.memory.table.entries.get(ident)
            if entry is not None:
                entry.retry_at = max(entry.retry_at, self.clock.monotonic() + LOOK_AGAIN_S)

    def _record_failure(self, options: QueryOptions, error: Exception) -> None:
        now = self.clock.monotonic()
        memory = self.tiers.memory
        with memory.lock:
            memory.counters.get(options.ident).failures += 1
            entry = memory.table.entries.get(options.ident)
            if entry is not None:
                entry.failures += 1
                wait = draw_backoff(entry.failures, options.retries, options.retry_delay)
                entry.retry_at = now + max(wait, options.dedupe_time)
        logger.warning(
            "the refresh of %r failed, the stale value stays: %s: %s",
            options.key,
            type(error).__name__,
            error,
            exc_info=error,
        )
        self.send(signals.cache_refresh_failed, key=options.key, error=error)


@dataclass(slots=True)
class ProcessCache:
    """The cache of one process: its memory, and the parts that work on it.

    Attributes:
        memory: lock, entries, running fetches and counters.
        jobs: functions that stop the background jobs.
    """

    memory: ProcessMemory
    tiers: Tiers
    changes: Changes
    watched: WatchedKeys
    leases: FetchLeases
    commits: Commits
    misses: Misses
    refreshes: Refreshes
    tracking: DependencyTracking
    jobs: list[Callable[[], None]] = field(default_factory=list)

    def answer(self, options: QueryOptions) -> Any:
        """Return the value of a query that memory cannot answer with a fresh entry."""
        memory = self.memory
        around = self.tracking.current()
        with memory.lock:
            if around is not None:
                around.add(options.ident, options.tags)
            now = self.tiers.now()
            entry = memory.table.entries.get(options.ident)
            if entry is None or now >= entry.valid_until:
                entry = None
                fetch, leading = self.misses.join(options, now)
        if entry is None:
            find = self.misses.lead if leading else self.misses.follow
            entry, value = find(fetch, options, around)
            if entry is None:
                return value
        return self.refreshes.serve(entry, options, around)

    def sweep(self) -> int:
        """Free the memory of expired entries; return how many went."""
        now = self.tiers.now()
        with self.memory.lock:
            self.memory.in_flight.forget_expired(now)
            return self.memory.table.remove_where(lambda entry: now >= entry.gone_at)

    def close(self) -> None:
        """Stop the background jobs."""
        for stop in self.jobs:
            stop()
        self.jobs.clear()
