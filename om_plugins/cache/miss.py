"""Cache misses: which thread fetches a missing value, how it is fetched, and what is stored.

In the foreground a caller waits, so the pauses between all attempts of a fetch take at most one
second together.
"""

from __future__ import annotations

import inspect
import math
import random
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from .. import signals
from ..errors import CacheError
from ..protocols import Clock
from ..settings.callbacks import is_permitted
from ..types import ChangeKind
from .entry import CacheEntry, DependencyTracker, DependencyTracking
from .keys import Ident, Key, split
from .shared_store import StoreAnswer
from .singleflight import (
    Fence,
    FetchLeases,
    FetchOutcome,
    InFlight,
    PrivateValue,
    copy_error,
)
from .tiers import Tiers
from .values import ABSENT, decode

Fetcher: TypeAlias = Callable[[], Any]
ObserveFetch: TypeAlias = Callable[[Fetcher], tuple[Any, str]]

FOLLOW_S = 30.0
"""How long a thread waits for another thread's fetch before it fetches on its own."""
FOREGROUND_SLEEP_S = 1.0
_TRIES = 3
"""Attempts to write one value to the store; each further one follows another process's write."""
RANDOM = random.SystemRandom()  # background threads leave the common source alone


@dataclass(slots=True)
class QueryOptions:
    """The arguments of one query; see :meth:`.cache.SmartCache.query`."""

    key: Key
    ident: Ident
    fetcher: Fetcher
    background: Callable[[], Fetcher] | None
    stale_time: float | None
    cache_time: float | None
    retries: int
    retry_delay: float
    dedupe_time: float
    tags: tuple[str, ...]
    negative_time: float | None = None
    negative_errors: tuple[type[Exception], ...] = ()
    negative: Callable[[Any], bool] | None = None

    @property
    def final_errors(self) -> tuple[type[Exception], ...]:
        """The errors that mean "there is no value"."""
        return () if self.negative_time is None else self.negative_errors

    def is_negative(self, value: object) -> bool:
        """Return whether a fetched value means "there is no value"."""
        if self.negative_time is None:
            return False
        return value is None or (
            self.negative is not None
            and is_permitted(self.negative(value), f"negative= of {_shorten(self.key)}")
        )

    def get_times(self, negative: bool) -> tuple[float | None, float | None]:
        """Return the stale time and the cache time of a fetched value."""
        if negative:
            return self.negative_time, self.negative_time
        return self.stale_time, self.cache_time


@dataclass(slots=True, eq=False)
class Commits:
    """Stores fetched values, unless they were invalidated meanwhile, and counts look-ups.

    Args:
        tiers: where entries are stored.
        leases: which process fetches.
        clock: time.
        max_value: a value whose encoding is larger is not stored.
        send: sends a signal.
        changed: called after an entry was stored or removed, with its ident, the kind of change,
            its tags, and whether the value equals the one before.
    """

    tiers: Tiers
    leases: FetchLeases
    clock: Clock
    max_value: int
    send: Callable[..., None]
    changed: Callable[[Ident, ChangeKind, tuple[str, ...], bool], None]

    def drop(self, ident: Ident) -> None:
        """Remove an entry whose new value must not be stored."""
        self.tiers.drop(ident)
        self.changed(ident, "removed", (), False)

    def commit(
        self, fetch: InFlight, options: QueryOptions, kind: ChangeKind, tracker: DependencyTracker
    ) -> None:
        """Store the value of a fetch, unless the entry was set or removed meanwhile.

        Args:
            options: with the key that the value is stored under.
            tracker: the dependencies of the value.
        """
        memory = self.tiers.memory
        tags = fetch.tags
        seen = self._confirm(fetch, options.ident)
        fence = 0 if fetch.lease is None else fetch.lease.token
        stale_time, cache_time = self.tiers.times.fill(*options.get_times(fetch.negative))
        entry = self.tiers.make_entry(
            options.ident, fetch.data, tags, fetch.began, stale_time, cache_time,
            tracker.deps, fetch.cost_us,
        )  # fmt: skip
        entry.retry_at = entry.stored + options.dedupe_time
        if tracker.stale:  # a value computed from a stale value is as stale as that
            fetch.fence = max(fetch.fence, Fence.STALE)
            stale_time = 0.0

        def is_wanted() -> bool:
            return fetch.fence is not Fence.DISCARD

        # the store first: a thread that the end of this fetch wakes must find the value somewhere
        for _ in range(_TRIES):
            if self.tiers.save(
                entry, stale_time, cache_time, is_wanted, fence, seen,
                lambda: self.leases.is_held(fetch),
            ):  # fmt: skip
                break
            seen = self._confirm(
                fetch, options.ident
            )  # another process wrote meanwhile: is its value newer?
        else:  # an unreadable record may be in the way: the store must not keep it
            fetch.fence = Fence.DISCARD
            self.tiers.drop(options.ident)
        with memory.lock:
            if fetch.fence is Fence.DISCARD:
                return
            if fetch.fence is Fence.STALE:
                entry.mark_stale()
                if tracker.stale:
                    entry.retry_at = max(entry.stored + options.dedupe_time, tracker.retry_at)
            kept = entry.stored < entry.gone_at
            before = memory.table.entries.get(options.ident)
            same = before is not None and before.data == entry.data
            if kept:
                memory.table.put(entry)
            memory.in_flight.failures.pop(options.ident, None)
        if kept:
            self.changed(options.ident, kind, tags, same)

    def _confirm(self, fetch: InFlight, ident: Ident) -> StoreAnswer | None:
        shared = self.tiers.shared
        return None if shared is None else self.leases.confirm(fetch, lambda: shared.look(ident))

    def encode(self, value: object, options: QueryOptions) -> bytes | None:
        """Encode a value; count, warn and return ``None`` when it cannot be encoded."""
        if value is None and options.negative_time is not None:
            return ABSENT
        try:
            return self.tiers.encode(value)
        except CacheError as error:
            self.tiers.memory.refuse("type", f"the value of {_shorten(options.key)}", str(error))
            return None

    def fits(self, data: bytes, key: Key) -> bool:
        """Return whether a value is small enough to store; count and warn when it is not."""
        if len(data) <= self.max_value:
            return True
        self.tiers.memory.refuse(
            "size",
            f"the value of {_shorten(key)}",
            f"{len(data):,} bytes are over the limit of {self.max_value:,}; cache less, or raise "
            "OM_CACHE_MAX_VALUE",
        )
        return False

    def count_hit(self, entry: CacheEntry, stale_time: float | None, key: Key) -> bool:
        """Count a hit as fresh or stale and send its signal; return whether it is fresh."""
        memory = self.tiers.memory
        now = self.clock.monotonic()
        if entry.data == ABSENT:
            memory.count(entry.ident, "negative")
            self.send(signals.cache_hit, key=key)
            return True
        if entry.is_fresh(now, stale_time):
            memory.count_fresh(entry)
            self.send(signals.cache_hit, key=key)
            return True
        memory.count_stale(entry)
        self.send(signals.cache_stale_served, key=key, age_s=now - entry.stored)
        return False


class MissResult(NamedTuple):
    """What a miss led to: an entry that another process stored, else the fetched value."""

    entry: CacheEntry | None
    value: Any


@dataclass(slots=True, eq=False)
class Misses:
    """Fetches missing values: one thread runs the fetcher, the others wait for it.

    Args:
        tiers: where entries are.
        commits: stores fetched values.
        leases: which process fetches.
        tracking: the running fetchers.
        clock: time.
        send: sends a signal.
        observe: runs a fetcher, and returns its value and what it looked at of the current request;
            "" for nothing. ``None`` where there are no requests.
    """

    tiers: Tiers
    commits: Commits
    leases: FetchLeases
    tracking: DependencyTracking
    clock: Clock
    send: Callable[..., None]
    observe: ObserveFetch | None = None

    def join(self, options: QueryOptions, now: float) -> tuple[InFlight, bool]:
        """Return the fetch of a missing value, and whether this thread is the one that fetches.

        The caller holds the memory's lock.

        Raises:
            Exception: a fetch failed a moment ago, and this is its error.
        """
        in_flight = self.tiers.memory.in_flight
        error = in_flight.find_failure(options.ident, now)
        if error is not None:
            self.tiers.memory.counters.get(options.ident).negative += 1
            raise copy_error(error)
        if in_flight.is_private(options.ident, now):
            return in_flight.begin(self.make_fetch(options), alone=True), True
        fetch = in_flight.get(options.ident)
        if fetch is None:
            return in_flight.begin(self.make_fetch(options)), True
        if not fetch.owner:  # a refresh that waits in the queue: this thread needs it now
            fetch.owner = threading.get_ident()
            return fetch, True
        return fetch, False

    def make_fetch(self, options: QueryOptions) -> InFlight:
        """Make a fetch that this thread runs."""
        return InFlight(options.ident, options.tags, self.clock.time(), threading.get_ident())

    def lead(
        self, fetch: InFlight, options: QueryOptions, around: DependencyTracker | None
    ) -> MissResult:
        """Fetch the value in this thread.

        Args:
            around: the tracker of the fetcher that made this query.

        Raises:
            Exception: the fetcher's error.
        """
        memory = self.tiers.memory
        outcome = FetchOutcome.NOTHING
        try:
            if self.tiers.shared is not None:
                entry = self.leases.find(fetch, lambda: self.tiers.look(options.ident))
                if entry is not None:
                    fetch.data = entry.data
                    outcome = FetchOutcome.VALUE
                    return MissResult(entry, None)
            memory.count(options.ident, "misses")
            self.send(signals.cache_missed, key=options.key)
            with self.tracking.track(fetch, background=False) as tracker:
                value = self._fetch(fetch, options)
            data = self.commits.encode(value, options)
            if data is None:
                memory.in_flight.mark_private(options.ident, self.clock.monotonic())
                return MissResult(None, value)
            fetch.data = data
            fetch.negative = options.is_negative(value)
            outcome = FetchOutcome.VALUE
            if self.commits.fits(data, options.key):
                self.commits.commit(fetch, options, "set", tracker)
            return MissResult(None, value)
        except PrivateValue as found:
            memory.in_flight.mark_private(options.ident, self.clock.monotonic())
            private = found
        except Exception as error:
            outcome = FetchOutcome.ERROR
            fetch.error = error
            is_final = isinstance(error, options.final_errors)
            seconds = options.negative_time if is_final else options.dedupe_time
            if fetch.fence is Fence.CLEAR and seconds:
                until = self.clock.monotonic() + seconds
                memory.in_flight.remember_failure(options.ident, error, until, options.tags)
            raise
        finally:
            self.leases.end(fetch)
            with memory.lock:
                memory.in_flight.end(fetch, outcome)
            if around is not None:
                self.record_fetch(around, fetch)
        if private.error is not None:
            raise private.error  # outside the handler, so that its cause and context stay
        return MissResult(None, private.value)

    def follow(
        self, fetch: InFlight, options: QueryOptions, around: DependencyTracker | None
    ) -> MissResult:
        """Wait for another thread's fetch; fetch in this thread when there is nothing to share.

        Raises:
            CacheError: this thread's own fetcher asks for the key that it fetches.
            Exception: the fetcher's error.
        """
        memory = self.tiers.memory
        if fetch.owner == threading.get_ident():
            raise CacheError(f"the fetcher of {options.key!r} asks for {options.key!r} itself")
        if fetch.wait(FOLLOW_S):
            if around is not None:
                self.record_fetch(around, fetch)
            if fetch.outcome is FetchOutcome.VALUE:
                self.count_coalesced(options.ident, fetch)
                return MissResult(None, decode(fetch.data))
            if fetch.outcome is FetchOutcome.ERROR and fetch.error is not None:
                memory.count(options.ident, "negative")
                raise copy_error(fetch.error)
        own = self.make_fetch(options)
        with memory.lock:
            memory.in_flight.begin(own, alone=True)
        return self.lead(own, options, around)

    def count_coalesced(self, ident: Ident, fetch: InFlight) -> None:
        """Count that a caller got the value of another caller's fetch."""
        memory = self.tiers.memory
        with memory.lock:
            counts = memory.counters.get(ident)
            counts.coalesced += 1
            counts.bytes_saved += len(fetch.data)
            counts.saved_us += fetch.cost_us

    def record_fetch(self, around: DependencyTracker, fetch: InFlight) -> None:
        """Record the value of a fetch as a dependency of the fetcher around it."""
        with self.tiers.memory.lock:
            around.add(fetch.ident, fetch.tags, tuple(fetch.deps.items()))
            entry = self.tiers.memory.table.entries.get(fetch.ident)
        if fetch.fence is not Fence.CLEAR:
            around.add_stale(-math.inf if entry is None else entry.retry_at)

    def _fetch(self, fetch: InFlight, options: QueryOptions) -> Any:
        """Run the fetcher, again when it raises an ``Exception``.

        Raises:
            Exception: the error of the last attempt. An error that means "there is no value" is
                raised at once.
        """
        count, ident = self.tiers.memory.count, options.ident
        pauses = _draw_pauses(options.retries, options.retry_delay)
        while True:
            count(ident, "fetches")
            started = self.clock.monotonic()
            try:
                value = self._run_observed(options)
                fetch.cost_us = round((self.clock.monotonic() - started) * 1e6)
                return value
            except PrivateValue:
                raise
            except Exception as error:
                count(ident, "failures")
                self.send(signals.cache_refresh_failed, key=options.key, error=error)
                if not pauses or isinstance(error, (FetcherTypeError, *options.final_errors)):
                    raise
            self.clock.sleep(pauses.pop(0))

    def _run_observed(self, options: QueryOptions) -> Any:
        """Run the fetcher; its value is the caller's own when it looked at the current request.

        Raises:
            PrivateValue: the fetcher looked at the request, and no scope says whose value it is.
        """
        if self.observe is None or split(options.ident)[0]:
            return run_fetcher(options.fetcher)
        value, looked = self.observe(lambda: run_fetcher(options.fetcher))
        if looked:
            self.tiers.memory.refuse(
                "request",
                f"the value of {_shorten(options.key)}",
                f"its function looks at {looked}, which is not in the key; give it what it needs "
                "as an argument, or say whose value it is with scope=",
            )
            raise PrivateValue(value)
        return value


# --- running a fetcher --------------------------------------------------------------------------


class FetcherTypeError(TypeError):
    """The cache cannot run a fetcher of this kind."""


def check_fetcher(fetcher: Fetcher) -> None:
    """Refuse a fetcher that can never run, before anything else happens.

    Raises:
        TypeError: ``fetcher`` is not callable, or is a generator function.
    """
    if not callable(fetcher):
        raise FetcherTypeError(f"the fetcher must be callable, not {type(fetcher).__name__}")
    if inspect.isgeneratorfunction(fetcher) or inspect.isasyncgenfunction(fetcher):
        raise FetcherTypeError(
            f"the fetcher {_describe(fetcher)} is a generator function: return a list"
        )


def run_fetcher(fetcher: Fetcher) -> Any:
    """Call a fetcher once, and run a coroutine that it returns to its end.

    Raises:
        TypeError: the fetcher returned a generator, or it is async and a loop runs in this thread.
    """
    value = fetcher()
    if inspect.isawaitable(value):
        return _run_async(value, fetcher)
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise FetcherTypeError(
            f"the fetcher {_describe(fetcher)} returned a generator, which can be read only once: "
            "return a list"
        )
    return value


def _draw_pauses(retries: int, retry_delay: float) -> list[float]:
    """Return the pauses between the attempts of a foreground fetch, in seconds.

    Each has full jitter below ``retry_delay`` times 1, 2, 4, …; all are scaled down so that they
    never exceed one second together.
    """
    caps = [retry_delay * 2.0**n for n in range(min(retries, 20))]
    scale = min(1.0, FOREGROUND_SLEEP_S / total) if (total := sum(caps)) > 0 else 0.0
    return [RANDOM.uniform(0, cap * scale) for cap in caps]


def _run_async(awaitable: Awaitable[Any], fetcher: Fetcher) -> Any:
    import asyncio

    async def finish() -> Any:
        return await awaitable

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(finish())
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()  # a coroutine that is never awaited warns
    raise FetcherTypeError(
        f"the fetcher {_describe(fetcher)} is async and an event loop is running in this thread: "
        "call the cache through asyncio.to_thread(...)"
    )


def _describe(fetcher: object) -> str:
    return str(getattr(fetcher, "__qualname__", None) or type(fetcher).__name__)


def _shorten(key: Key) -> str:
    text = repr(key)
    return text if len(text) <= 120 else text[:119] + "…"
