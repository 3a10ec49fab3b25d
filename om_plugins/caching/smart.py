"""The smart cache: stale-while-revalidate on any data.

Fresh → the value. Stale → the value now, and one refresh in the background. Missing → one fetch
for all threads that wait (RFC 5861's stale-while-revalidate, applied to data).

An entry lives in this process's memory (:mod:`.local`); with a shared store behind it
(:mod:`.shared`) memory answers for at most five seconds on its own. :meth:`SmartCache.query` is the
fresh hit and nothing else; every other look-up goes on in :mod:`.answer`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

from .. import signals
from ..protocols import CacheStore, Clock, Hub, Scheduler
from ..signals import Emit
from ..types import CacheChange, CacheStats
from . import refresh
from .answer import Answering, Ask
from .changes import Changes
from .entry import Entry
from .invalidation import Invalidation, tags_of
from .keys import Ident, Key, body_of, identify
from .levels import Levels
from .memoize import Memoized, memoize
from .process import Process, process_of
from .refresh import Fetcher
from .shared import TOPIC, News, Shared
from .subscriptions import Subscriptions, Watch
from .turns import Turns
from .values import decode, encode

__all__ = ["SmartCache"]

F = TypeVar("F", bound=Callable[..., Any])

SWEEP_S = 600.0
HEAR_S = 1.0


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
        hub: tells other workers of invalidations and removals, also when each keeps its own
            values; ``None`` for a process that is alone.
        store: a store that workers share; ``None`` keeps everything in this process.
        emit: how signals are sent.
        namespace: keeps two caches in one store apart.
        context: opened around every background fetch and every subscription's callback, for
            what code of the application needs (under Flask the application context).
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
        self._l1_bytes = l1_bytes
        self.clock = clock
        self._now = clock.monotonic
        self._scheduler = scheduler
        self._hub = hub
        shared = None if store is None else Shared(store, clock, namespace, max_value)
        self._levels = Levels(shared, clock, stale_time, cache_time)
        self._subscriptions = Subscriptions(clock, scheduler, context)
        self._changes = Changes(self._process, self._levels, self._subscriptions, clock)
        self._turns = Turns(hub, clock, namespace)
        self._answering = Answering(
            self._levels,
            clock,
            scheduler,
            context,
            max_value,
            self._tell,
            self._changes.made,
            self._turns,
        )
        self._emit = emit
        self._namespace = namespace
        self._suffix = f":{namespace}" if namespace else ""
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
        return self._answering.answer(
            self._process(),
            Ask(
                key, ident, fetcher, background, stale_time, cache_time,
                retry, retry_delay, dedupe_time, tags_of(tags),
            )
        )  # fmt: skip

    def get(self, key: Key, default: Any = None, *, scope: str = "") -> Any:
        """The value if there is one, fresh or stale, else ``default``. Nothing is fetched.

        Raises:
            TypeError: the key is of a kind that cannot be used.
        """
        process = self._process()
        ident = identify(key, scope)
        entry = self._levels.look(process, ident)
        if entry is None:
            with process.lock:
                process.counts.misses += 1
            self._tell(signals.cache_missed, key=key)
            return default
        entry.visited = True
        self._answering.count_kind(process, entry, None, key)
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
        if not self._answering.fits(process, data, key):
            self.remove(key, scope=scope)
            return
        began = self.clock.time()
        entry = self._levels.make(ident, data, tags_of(tags), began, stale_time, cache_time)
        with process.lock:
            process.flights.discard(ident)
            process.failed.pop(ident, None)
            process.local.put(entry)
        self._levels.save(process, entry, stale_time, cache_time, lambda: True)
        if entry.stored < entry.gone_at:
            self._changes.made(process, ident, "set", entry.tags)

    def times(self, stale_time: float | None, cache_time: float | None) -> tuple[float, float]:
        """Both times in seconds, with the cache's own where one is ``None``."""
        return self._levels.times(stale_time, cache_time)

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
        tags = tags_of(tags)
        body = body_of(prefix) if prefix is not None else (None if tags else b"")
        what = Invalidation(body, tags, scope)
        at = self.clock.time()
        with process.lock:
            found = self._levels.mark(process, what, math.inf)
            if self._levels.shared is not None:
                process.memory.add(what, at)
        self._changes.invalidated(process, what, at, found)
        self._tell(signals.cache_invalidated, prefix=prefix, tags=tags, count=len(found))
        return len(found)

    def remove(self, key: Key, *, scope: str = "") -> None:
        """Forget one entry at once, here and in the store.

        Raises:
            TypeError: the key is of a kind that cannot be used.
        """
        process = self._process()
        ident = identify(key, scope)
        had = self._levels.remove(process, ident)
        self._changes.removed(process, ident, self.clock.time())
        self._tell(signals.cache_invalidated, prefix=key, tags=(), count=int(had))

    def clear(self) -> int:
        """Forget everything, in all workers. Returns how many entries this process had."""
        process = self._process()
        at = self.clock.time()
        count = self._levels.clear(process, at, math.inf)
        self._changes.cleared(process, at)
        self._tell(signals.cache_invalidated, prefix=None, tags=(), count=count)
        return count

    def sweep(self) -> int:
        """Give the memory of expired entries back; runs every ten minutes. Returns how many."""
        process = self._process()
        now = self._now()
        with process.lock:
            process.forget_old_marks(now)
            return process.local.remove_where(lambda entry: now >= entry.gone_at)

    def shrink(self) -> int:
        """Memory is short: expired entries go, then the least used until half is left.

        Returns:
            How many went. A store that workers share keeps its copies.
        """
        process = self._process()
        swept = self.sweep()
        with process.lock:
            return swept + process.local.shrink(process.local.weight // 2)

    def close(self) -> None:
        """Stop the background jobs of this process; the cache may be used again afterwards."""
        process = self._processes.pop(process_of(), None)
        if process is not None:
            process.stop()

    # --- telling --------------------------------------------------------------------------------

    def subscribe(
        self, key: Key, callback: Callable[[CacheChange], object], *, scope: str = ""
    ) -> Callable[[], None]:
        """Have ``callback`` told of every change of one key, in this worker or another.

        Called in a background job, never twice at once. What piles up while it runs is told once
        per kind, the last change last. One that raises is logged. A value that ends by age, or is
        pushed out, is no change. The cache holds the callback until it is unsubscribed.

        Args:
            key: one key exactly; a prefix is not expanded.
            callback: gets a :class:`~om_plugins.types.CacheChange`; what it returns is not used.
            scope: the scope of the entry.

        Returns:
            A function that ends the subscription, once; a call under way ends by itself.

        Raises:
            TypeError: the key is of a kind that cannot be used, or the callback is not callable.
        """
        if not callable(callback):
            raise TypeError(f"the callback must be callable, not {callback!r}")
        ident = identify(key, scope)
        self._process()  # what was published so far is history, and heard before
        return self._subscriptions.add(key, ident, scope, callback)

    def stats(self) -> CacheStats:
        """The counters of this process, exact."""
        process = self._process()
        with process.lock:
            return replace(process.snapshot(), subscriptions=len(self._subscriptions))

    def refusals(self) -> dict[str, int]:
        """How many values were not kept, by reason, exact."""
        process = self._process()
        with process.lock:
            return dict(process.refused)

    def refuse(self, reason: str, subject: str, advice: str) -> None:
        """Count that something was not kept; see :meth:`.process.Process.refuse`."""
        self._process().refuse(reason, subject, advice)

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

    # --- small things ----------------------------------------------------------------------------

    def _process(self) -> Process:
        """What belongs to this process, made on first use; a forked child makes its own."""
        pid = process_of()
        process = self._processes.get(pid)
        if process is None:
            news = News(self._hub, TOPIC + self._suffix, self._changes)
            watch = Watch(self._hub, self.clock, self._namespace, news.origin)
            made = Process(self._l1_bytes, news, watch)
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
        process.jobs.append(every(SWEEP_S, self.sweep, name="cache-sweep" + self._suffix))
        if self._hub is not None:
            self._hear()
            process.jobs.append(every(HEAR_S, self._hear, name=TOPIC + self._suffix))

    def _hear(self) -> None:
        process = self._process()
        self._turns.renew(process)
        process.watch.renew(self._subscriptions.idents())
        process.news.hear()
        self._subscriptions.flush()

    def _tell(self, signal: Any, **details: Any) -> None:
        if self._emit is not None and signal.receivers:
            self._emit(signal, **details)
