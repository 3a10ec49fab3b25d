"""The smart cache: stale-while-revalidate on any data.

A fresh value is returned at once. A stale value is returned at once too, and one refresh runs in
the background. A missing value is fetched once for all threads that wait for it. (RFC 5861's
stale-while-revalidate, applied to data.)

Entries are in this process's memory. With a shared store behind it, memory answers for at most
five seconds without asking the store. :meth:`SmartCache.query` itself handles only a fresh hit;
:meth:`ProcessCache.answer` handles every other look-up. :class:`Memoized` is a function whose
answers are cached by its arguments.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .. import signals
from ..core.fork import renew_after_fork
from ..protocols import CacheStore, Clock, Hub, Scheduler
from ..signals import Emit
from ..types import CacheChange, CacheStats, StoreStats
from ..workers.invalidation_bus import InvalidationBus, Message, PagesPurged
from .entry import CacheEntry, DependencyTracker, DependencyTracking
from .keys import (
    Ident,
    Invalidation,
    Key,
    UnsupportedKey,
    encode_body,
    identify,
    normalize_tags,
)
from .keys import (
    encode as encode_key,
)
from .memory import ProcessMemory
from .miss import Commits, Fetcher, Misses, QueryOptions, check_fetcher
from .refresh import Refreshes, RefreshQueue
from .shared_store import CountedStore, SharedStore
from .singleflight import FetchLeases
from .subscriptions import BrowserAnnouncements, BrowserAnnouncer, Subscriptions, WatchedKeys
from .tiers import Changes, Tiers
from .values import PickleEncoder, decode, encode

__all__ = ["Memoized", "ProcessCache", "SmartCache", "memoize"]

F = TypeVar("F", bound=Callable[..., Any])

SWEEP_S = 600.0
EXCHANGE_S = 1.0
_NO_DEFAULT = inspect.Parameter.empty


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


class CacheInternals:
    """What a :class:`SmartCache` shares with the parts of the application, but not with users.

    It makes one :class:`ProcessCache` in each process, and connects it with the background jobs
    and with the invalidation bus. The arguments are those of :class:`SmartCache`.

    Attributes:
        bus: the invalidation bus.
        store: the shared store, which counts its calls; ``None`` without one.
        subscriptions, browsers, tracking: what outlives a fork.
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
        hub: Hub | None,
        store: CacheStore | None,
        send: Callable[..., None],
        namespace: str,
        context: Callable[[], AbstractContextManager[object]],
        jitter: float,
        refreshes: int,
        queue: int,
        announcer: BrowserAnnouncer | None,
        pickles: PickleEncoder | None,
        shrink_also: Callable[[], int],
        use: Callable[[ProcessMemory | None], None],
    ) -> None:
        self._times = (stale_time, cache_time)
        self._l1_bytes = l1_bytes
        self._max_value = max_value
        self._clock = clock
        self._scheduler = scheduler
        self._hub = hub
        self.bus = InvalidationBus(hub, scheduler, namespace)
        self.bus.subscribe(self)
        self._send = send
        self._namespace = namespace
        self._suffix = f":{namespace}" if namespace else ""
        self._context = context
        self._jitter = jitter
        self._queue_limits = (refreshes, queue)
        self._shrink_also = shrink_also
        self._use = use
        self._encode = encode if pickles is None else pickles.encode
        self.store = None if store is None else CountedStore(store)
        self._shared = (
            None
            if self.store is None
            else SharedStore(self.store, clock, namespace, max_value, pickles)
        )
        self.subscriptions = Subscriptions(clock, scheduler, context)
        self.browsers = BrowserAnnouncements(announcer, hub)
        self.tracking = DependencyTracking()
        self._processes: dict[int, ProcessCache] = {}
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Keep a hit in the child from being counted in the parent's table."""
        self.tracking.after_fork()
        self._use(None)

    def here(self) -> ProcessCache:
        """Return the cache of this process, made on first use; a forked child makes its own."""
        pid = os.getpid()
        here = self._processes.get(pid)
        if here is None:
            made = self._make_process_cache()
            here = self._processes.setdefault(pid, made)  # atomic: one of two threads wins
            if here is made:
                for old in [p for p in self._processes if p != pid]:
                    here.memory.inherit(self._processes.pop(old).memory)
                self._use(here.memory)
                self._start(here)
        return here

    def _make_process_cache(self) -> ProcessCache:
        clock, hub, send, tracking = self._clock, self._hub, self._send, self.tracking
        memory = ProcessMemory(self._l1_bytes)
        tiers = Tiers(memory, self._shared, clock, *self._times, self._jitter, self._encode)
        watched = WatchedKeys(hub, clock, self._namespace, self.bus.origin)
        changes = Changes(tiers, self.subscriptions, self.browsers, watched, clock, self.bus, self)
        leases = FetchLeases(hub, clock, self._namespace, memory.in_flight)
        commits = Commits(tiers, leases, clock, self._max_value, send, changes.record)
        misses = Misses(tiers, commits, leases, tracking, clock, send)
        queue = RefreshQueue(self._scheduler, *self._queue_limits)
        refreshes = Refreshes(
            tiers, commits, misses, leases, tracking, queue, clock, self._context, send
        )
        return ProcessCache(
            memory, tiers, changes, watched, leases, commits, misses, refreshes, tracking
        )

    def _start(self, here: ProcessCache) -> None:
        every = self._scheduler.every
        here.jobs.append(every(SWEEP_S, self.sweep, name="cache-sweep" + self._suffix))
        if self._hub is not None:
            self._exchange()
            name = "cache-exchange" + self._suffix
            here.jobs.append(every(EXCHANGE_S, self._exchange, name=name))
        self.bus.start()

    def _exchange(self) -> None:
        """Write into the hub what others must know of this process; runs each second."""
        here = self.here()
        here.leases.renew()
        here.watched.exchange([*self.subscriptions.idents(), *self.browsers.idents()])
        here.changes.publish_replaced()
        self.subscriptions.retry()

    def receive(self, message: Message, published_at: float | None) -> None:
        """Apply a message of the invalidation bus."""
        if not isinstance(message, PagesPurged):
            self.here().changes.receive(message, published_at)

    def set_deaf(self, deaf: bool) -> None:
        """Record whether this process cannot hear of invalidations in other workers."""
        self.here().tiers.set_deaf(deaf)

    def sweep(self) -> int:
        """Free the memory of expired entries; runs every ten minutes. Return how many went."""
        return self.here().sweep()

    def shrink(self) -> int:
        """Free memory: remove expired entries, then the least used until half is left.

        In an application, the shared HTTP cache gives half of its memory back as well.

        Returns:
            How many entries went. A store that workers share keeps its copies.
        """
        here = self.here()
        count = here.sweep()
        with here.memory.lock:
            count += here.memory.table.shrink(here.memory.table.weight // 2)
        return count + self._shrink_also()

    def refuse(self, reason: str, subject: str, advice: str) -> None:
        """Count a value that is not stored; see :meth:`.memory.ProcessMemory.refuse`."""
        self.here().memory.refuse(reason, subject, advice)

    def close(self) -> None:
        """Stop the background jobs of this process."""
        here = self._processes.pop(os.getpid(), None)
        if here is not None:
            here.close()
        self.bus.close()


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
        hub: connects the workers, also when each keeps its own values; ``None`` for a process
            without others.
        store: a store that workers share; ``None`` keeps everything in this process.
        emit: how signals are sent.
        namespace: keeps two caches in one store apart.
        context: opened around every background fetch and every subscription's callback, for
            what code of the application needs (under Flask the application context).
        jitter: both times of each entry are shortened by a random share of up to this, so that
            what was stored together does not end together.
        refreshes: fetchers at work in the background at once. queue: those that wait, at most.
        announcer: tells browsers of changes; ``None`` where there are no browsers.
        pickles: writes values of types that nothing else can write; ``None`` refuses them.
        shrink_also: shrinks what else lies in this process's memory; gives how many entries went.
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
        jitter: float = 0.0,
        refreshes: int = 3,
        queue: int = 256,
        announcer: BrowserAnnouncer | None = None,
        pickles: PickleEncoder | None = None,
        shrink_also: Callable[[], int] = int,
    ) -> None:
        self.clock = clock
        self._now = clock.monotonic
        self._times = (stale_time, cache_time)
        self._emit = emit
        self._listeners = signals.cache_hit.receivers if emit is not None else {}
        # a hit looks at these; they belong to the process that used the cache last
        self._entries: dict[Ident, CacheEntry] = {}
        self._epoch = 0
        self._fetching: set[DependencyTracker] = set()
        self.internals = CacheInternals(
            stale_time=stale_time,
            cache_time=cache_time,
            l1_bytes=l1_bytes,
            max_value=max_value,
            clock=clock,
            scheduler=scheduler,
            hub=hub,
            store=store,
            send=self._send,
            namespace=namespace,
            context=context,
            jitter=jitter,
            refreshes=refreshes,
            queue=queue,
            announcer=announcer,
            pickles=pickles,
            shrink_also=shrink_also,
            use=self._use,
        )
        self._here = self.internals.here
        self._fetching = self.internals.tracking.active

    def _use(self, memory: ProcessMemory | None) -> None:
        """Let hits look at the memory of this process; at none before it has one."""
        self._entries = {} if memory is None else memory.table.entries
        self._epoch = 0 if memory is None else memory.counters.epoch
        self._fetching = self.internals.tracking.active

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
        negative_time: float | None = None,
        negative_errors: tuple[type[Exception], ...] = (LookupError,),
        negative: Callable[[Any], bool] | None = None,
        live: bool | str | Iterable[str] = False,
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
            negative_time: seconds for which "there is none" is kept: the answer ``None``, and
                errors of the kinds in ``negative_errors``, which are not retried then. It takes
                the place of a value that was there, and is never served stale. ``None``: such an
                answer is a value, such an error a failure, like any other.
            negative_errors: errors that mean "there is none", such as ``KeyError``. They are
                remembered in this process only.
            negative: tells which other values say that there is none. They are kept for
                ``negative_time`` and come back as they are.
            live: browsers are told when the value changes: True for every open page, else an
                address such as ``"user:7"``, or several. See :meth:`publish`.
            background: called in this thread when a refresh is due; returns the fetcher to run
                in the background instead of ``fetcher``.

        Raises:
            Exception: what the fetcher raised, when there is no value.
            TypeError: the key or the fetcher is of a kind that cannot be used.
            ValueError: ``live`` is no address, or means everyone although there is a scope.
        """
        ident = key if type(key) is str and not scope else identify(key, scope)
        entry = self._entries.get(ident)
        if entry is not None:
            now = self._now()
            if (
                now < entry.fresh_until
                if stale_time is None
                else now < entry.base + stale_time * entry.share and now < entry.valid_until
            ):
                entry.hit()
                if entry.epoch != self._epoch:
                    self._here().memory.touch(entry)
                entry.visited = True
                if self._listeners:
                    self._send(signals.cache_hit, key=key)
                if self._fetching:
                    self._record_entry(entry, fresh=True)
                return decode(entry.data)
        check_fetcher(fetcher)
        tags = normalize_tags(tags)
        here = self._here()
        if live:
            self.internals.browsers.add(key, ident, scope, live, tags)
        return here.answer(
            QueryOptions(
                key, ident, fetcher, background, stale_time, cache_time,
                retry, retry_delay, dedupe_time, tags, negative_time, negative_errors,
                negative,
            )
        )  # fmt: skip

    def get(self, key: Key, default: Any = None, *, scope: str = "") -> Any:
        """The value if there is one, fresh or stale, else ``default``. Nothing is fetched.

        Raises:
            TypeError: the key is of a kind that cannot be used.
        """
        here = self._here()
        ident = identify(key, scope)
        entry = here.tiers.look(ident)
        if entry is None:
            around = self.internals.tracking.current()
            with here.memory.lock:
                here.memory.counters.get(ident).misses += 1
                if around is not None:
                    around.add(ident, ())
            self._send(signals.cache_missed, key=key)
            return default
        entry.visited = True
        fresh = here.commits.count_hit(entry, None, key)
        self._record_entry(entry, fresh)
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

        What was computed from the value before is stale now, if this process knows of it.

        A value over the size limit is not stored (the old one goes all the same).

        Raises:
            CacheError: the value cannot be cached; the message names the type and the way out.
            TypeError: the key is of a kind that cannot be used.
        """
        here = self._here()
        memory, tiers = here.memory, here.tiers
        ident = identify(key, scope)
        data = tiers.encode(value)
        if not here.commits.fits(data, key):
            self.remove(key, scope=scope)
            return
        began = self.clock.time()
        named = normalize_tags(tags)
        entry = tiers.make_entry(ident, data, named, began, stale_time, cache_time)
        with memory.lock:
            memory.in_flight.discard(ident)
            before = memory.table.entries.get(ident)
            same = before is not None and before.data == data
            memory.table.put(entry)
        tiers.save(entry, stale_time, cache_time, lambda: True)
        if entry.stored < entry.gone_at:
            here.changes.record(ident, "set", entry.tags, same)
        if not same:
            here.changes.replace(ident, began)

    def times(self, stale_time: float | None, cache_time: float | None) -> tuple[float, float]:
        """Both times in seconds, with the cache's own where one is ``None``."""
        default_stale_time, default_cache_time = self._times
        return (
            default_stale_time if stale_time is None else stale_time,
            default_cache_time if cache_time is None else cache_time,
        )

    # --- taking back ----------------------------------------------------------------------------

    def invalidate(
        self, prefix: Key | None = None, *, tags: Iterable[str] = (), scope: str = ""
    ) -> int:
        """Mark entries stale: the last good value stays, and is served while a new one is fetched.

        So is what was computed from them, in their fetchers, by looking them up in this cache.

        Args:
            prefix: the beginning of text keys, or the first members of tuple keys.
            tags: entries that have any of these tags; with a prefix too: either.
            scope: only entries of this scope; without one, of all scopes. A scope alone means
                all of its entries; nothing at all means every entry.

        Returns:
            How many entries of this process were concerned.
        """
        return self._invalidate(prefix, normalize_tags(tags), scope, hard=False)

    def purge(self, prefix: Key | None = None, *, tags: Iterable[str] = (), scope: str = "") -> int:
        """Forget entries at once, here, in other workers and in the store.

        For what must not be served once more; else :meth:`invalidate` is kinder, for nobody
        waits. What was computed from them is marked stale.

        Args:
            prefix, tags, scope: as for :meth:`invalidate`.

        Returns:
            How many entries of this process were concerned.
        """
        return self._invalidate(prefix, normalize_tags(tags), scope, hard=True)

    def _invalidate(
        self, prefix: Key | None, tags: tuple[str, ...], scope: str, *, hard: bool
    ) -> int:
        here = self._here()
        memory = here.memory
        body = encode_body(prefix) if prefix is not None else (None if tags else b"")
        what = Invalidation(body, tags, scope, hard)
        at = self.clock.time()
        with memory.lock:
            found = memory.invalidate(what, math.inf)
            if here.tiers.shared is not None:
                memory.log.add(what, at)
            gone = [ident for ident in found if ident not in memory.table.entries]
        here.tiers.delete(gone)
        here.changes.invalidate(what, at, found)
        self._send(signals.cache_invalidated, prefix=prefix, tags=tags, count=len(found))
        return len(found)

    def remove(self, key: Key, *, scope: str = "") -> None:
        """Forget one entry at once, here and in the store.

        Raises:
            TypeError: the key is of a kind that cannot be used.
        """
        here = self._here()
        ident = identify(key, scope)
        had = here.tiers.remove(ident)
        here.changes.remove(ident, self.clock.time())
        self._send(signals.cache_invalidated, prefix=key, tags=(), count=int(had))

    def clear(self) -> int:
        """Forget everything, in all workers. Returns how many entries this process had."""
        here = self._here()
        count = here.changes.clear(self.clock.time())
        self._send(signals.cache_invalidated, prefix=None, tags=(), count=count)
        return count

    def sweep(self) -> int:
        """Free the memory of expired entries; runs every ten minutes. Return how many went."""
        return self.internals.sweep()

    def shrink(self) -> int:
        """Free memory; see :meth:`CacheInternals.shrink`."""
        return self.internals.shrink()

    def close(self) -> None:
        """Stop the background jobs of this process; the cache may be used again afterwards."""
        self.internals.close()

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
        self._here()  # hears what was published so far, which is history for the subscriber
        return self.internals.subscriptions.add(key, ident, scope, callback)

    def publish(
        self,
        key: Key,
        *,
        to: bool | str | Iterable[str] = True,
        scope: str = "",
        tags: Iterable[str] = (),
    ) -> Callable[[], None]:
        """Tell browsers when the value of a key changes, as ``live=`` of :meth:`query` does.

        They are told the key and nothing else, and ask the application again. No other key is
        ever named to a browser.

        Args:
            key: text, or a tuple of ``str``, numbers, ``bool`` and ``None``.
            to: True for every open page, else addresses such as ``"user:7"`` and ``"operators"``.
            scope: the scope of the entry.
            tags: the tags of the entry, for a process that does not have it.

        Returns:
            A function that ends it.

        Raises:
            TypeError: a browser cannot have such a key.
            ValueError: ``to`` is no address, or means everyone although there is a scope.
        """
        ident = identify(key, scope)
        self._here()  # so that this process hears of changes in others
        self.internals.browsers.add(key, ident, scope, to, normalize_tags(tags))
        return lambda: self.internals.browsers.remove(ident)

    def stats(self) -> CacheStats:
        """The counters of this process, exact."""
        memory = self._here().memory
        with memory.lock:
            found = memory.read_stats()
            self._epoch = memory.counters.epoch
        found.subscriptions = len(self.internals.subscriptions)
        return found

    def groups(self) -> dict[str, CacheStats]:
        """The counters of this process by group of keys (see :func:`.keys.group_of`), exact.

        A process counts 200 groups; what comes later is counted as ``<others>``.
        """
        memory = self._here().memory
        with memory.lock:
            found = memory.read_groups()
            self._epoch = memory.counters.epoch
        return found

    def store_stats(self) -> StoreStats | None:
        """What this process asked of the shared store; ``None`` when there is none."""
        store = self.internals.store
        return None if store is None else store.stats()

    def refusals(self) -> dict[str, int]:
        """How many values were not kept, by reason, exact."""
        memory = self._here().memory
        with memory.lock:
            return dict(memory.refused)

    def refuse(self, reason: str, subject: str, advice: str) -> None:
        """Count that something was not kept; see :meth:`.memory.ProcessMemory.refuse`."""
        self.internals.refuse(reason, subject, advice)

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
        negative_time: float | None = None,
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
            negative_time=negative_time,
        )
        return decorate if function is None else decorate(function)

    # --- helpers --------------------------------------------------------------------------------

    def _record_entry(self, entry: CacheEntry, fresh: bool) -> None:
        """Record a look-up, which a fetcher may have made."""
        around = self.internals.tracking.current()
        if around is not None:
            self._here().refreshes.record_entry(around, entry, fresh)

    def _send(self, signal: Any, **details: Any) -> None:
        if self._emit is not None and signal.receivers:
            self._emit(signal, **details)


def memoize(
    get_cache: Callable[[], SmartCache | None],
    *,
    stale_time: float | None = None,
    cache_time: float | None = None,
    retry: int = 0,
    dedupe_time: float = 1.0,
    tags: Iterable[str] = (),
    scope: str | Callable[[], str] = "",
    negative_time: float | None = None,
) -> Callable[[Callable[..., Any]], Memoized]:
    """Cache what a function returns, by its arguments.

    Arguments are compared after defaults and keywords are put in their places: ``f(1)``,
    ``f(x=1)`` and ``f(1, y=DEFAULT)`` are one entry. An argument that no key can hold (see
    :func:`.keys.encode`) makes the call go straight through, with one warning; an object, such as
    a method's ``self``, can name itself with a ``__cache_key__()`` method.

    Args:
        get_cache: gives the cache at call time; with ``None`` the function is simply called.
        stale_time, cache_time, dedupe_time, tags, negative_time: as for
            :meth:`SmartCache.query`.
        retry: further attempts when the function raises; none by default, since an exception may
            well be its answer.
        scope: text, or a function called at each call, that keeps users apart.

    Returns:
        A decorator. The function it makes has ``cache_key(*args, **kwargs)`` and
        ``invalidate(*args, **kwargs)``; without arguments the latter means all calls.

    Raises:
        TypeError: at decoration, for a generator function or an ``async def``.
    """
    options = {
        "stale_time": stale_time,
        "cache_time": cache_time,
        "retry": retry,
        "dedupe_time": dedupe_time,
        "tags": tuple(tags),
        "negative_time": negative_time,
    }

    def decorate(function: Callable[..., Any]) -> Memoized:
        return Memoized(function, get_cache, options, scope)

    return decorate


class Memoized:
    """A memoized function, or method; made by :func:`memoize`."""

    def __init__(
        self,
        function: Callable[..., Any],
        get_cache: Callable[[], SmartCache | None],
        options: dict[str, Any],
        scope: str | Callable[[], str],
        bound: tuple[Any, ...] = (),
    ) -> None:
        name = getattr(function, "__qualname__", type(function).__name__)
        if inspect.iscoroutinefunction(function):
            raise TypeError(
                f"{name} is async and cannot be memoized: inside it, use "
                "await asyncio.to_thread(cache.query, key, fetcher)"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{name} is a generator function and cannot be memoized: return a list")
        functools.update_wrapper(self, function)
        self._function = function
        self._get_cache = get_cache
        self._options = options
        self._scope = scope
        self._bound = bound
        self._signature = inspect.signature(function)
        self._name = f"{getattr(function, '__module__', '')}.{name}"
        self._prefix = ("memoize", self._name)
        parameters = list(self._signature.parameters.values())
        simple = all(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
        # with plain parameters only, positional arguments are in their places already
        self._defaults = tuple(p.default for p in parameters) if simple else None

    def __get__(self, instance: object, owner: type | None = None) -> Memoized:
        if instance is None:
            return self
        bound = (instance,)
        return Memoized(self._function, self._get_cache, self._options, self._scope, bound)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args = self._bound + args
        cache = self._get_cache()
        if cache is None:
            return self._function(*args, **kwargs)
        key = (*self._prefix, *self._normal(args, kwargs))
        scope = self._scope if isinstance(self._scope, str) else self._scope()
        try:
            encode_key(key)
        except UnsupportedKey as error:
            cache.refuse("key", f"{self._name}()", str(error))
            return self._function(*args, **kwargs)
        return cache.query(
            key, lambda: self._function(*args, **kwargs), scope=scope, **self._options
        )

    def cache_key(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The key under which the answer for these arguments is kept.

        Raises:
            TypeError: an argument cannot be part of a key, or the call does not fit the function.
        """
        key = (*self._prefix, *self._normal(self._bound + args, kwargs))
        encode_key(key)
        return key

    def invalidate(self, *args: Any, **kwargs: Any) -> int:
        """Mark the answer for these arguments stale, in all scopes; without any, all answers.

        Returns:
            How many entries of this process were concerned.
        """
        cache = self._get_cache()
        if cache is None:
            return 0
        if not args and not kwargs:
            return cache.invalidate((*self._prefix, *self._bound))
        return cache.invalidate(self.cache_key(*args, **kwargs))

    def _normal(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        defaults = self._defaults
        if defaults is not None and not kwargs and len(args) <= len(defaults):
            rest = defaults[len(args) :]
            if not any(default is _NO_DEFAULT for default in rest):
                return args + rest
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = []
        for name, parameter in self._signature.parameters.items():
            value = bound.arguments[name]
            if parameter.kind is parameter.VAR_KEYWORD:
                value = tuple(sorted(value.items()))
            values.append(value)
        return tuple(values)
