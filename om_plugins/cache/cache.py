"""The smart cache: stale-while-revalidate on any data.

A fresh value is returned at once. A stale value is returned at once too, and one refresh runs in
the background. A missing value is fetched once for all threads that wait for it. (RFC 5861's
stale-while-revalidate, applied to data.)

Entries are in this process's memory. With a shared store behind it, memory answers for at most
five seconds without asking the store. :meth:`SmartCache.query` itself handles only a fresh hit;
:meth:`ProcessCache.answer` handles every other look-up.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from .. import signals
from ..core.fork import renew_after_fork
from ..core.inputs import InputRules
from ..core.moved import with_old_names
from ..protocols import CacheStore, Clock, Hub, Scheduler
from ..settings.callbacks import explain_callback
from ..signals import Emit
from ..types import CacheChange, CacheStats, StoreStats
from ..workers.invalidation_bus import InvalidationBus, Message, PagesPurged
from .entry import CacheEntry, DependencyTracker, DependencyTracking
from .keys import (
    ALL_SCOPES,
    DefaultTimes,
    Ident,
    Invalidation,
    Key,
    Scope,
    UnsupportedKey,
    check_options,
    encode_body,
    encode_scope,
    identify,
    normalize_tags,
    refuse_lifetime,
)
from .memoize.identity import FunctionOwners
from .memory import ProcessMemory
from .miss import Commits, Fetcher, Misses, ObserveFetch, QueryOptions, check_fetcher
from .refresh import ProcessCache, Refreshes, RefreshQueue
from .responses.kept import KeptResponses
from .shared_store import CountedStore, SharedStore
from .singleflight import FetchLeases
from .subscriptions import BrowserAnnouncements, BrowserAnnouncer, Subscriptions, WatchedKeys
from .tiers import Changes, Tiers
from .values import PickleEncoder, decode, encode

SWEEP_S = 600.0
EXCHANGE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """What a :class:`SmartCache` is made of.

    Args:
        stale_time: seconds for which a value is fresh, unless a call says otherwise.
        cache_time: seconds after which a value is gone, unless a call says otherwise.
        l1_bytes: bound on the memory of this process: keys, values and overhead.
        max_value: a value whose encoding is larger is not stored.
        clock: time.
        scheduler: runs refreshes and the sweep.
        hub: connects the workers, also when each keeps its own values; ``None`` for a process
            without others.
        store: a store that workers share; ``None`` keeps everything in this process.
        emit: sends signals.
        namespace: keeps two caches in one store apart.
        context: opened around each background fetch and each subscription's callback, for the
            code of the application (under Flask it is the application context).
        jitter: both times of each entry are shortened by a random share of up to this, so that
            entries stored together do not end together.
        refreshes: background fetches that run at once, at most.
        queue: background fetches that wait, at most.
        announcer: tells browsers of changes; ``None`` where there are no browsers.
        pickles: encodes values of other types as pickles; ``None`` refuses such values.
        shrink_also: frees other caches of this process; returns how many entries went.
        inputs: how the inputs of requests are compared, for caches of responses.
        observe: see :class:`.miss.Misses`.
    """

    stale_time: float
    cache_time: float
    l1_bytes: int
    max_value: int
    clock: Clock
    scheduler: Scheduler
    hub: Hub | None = None
    store: CacheStore | None = None
    emit: Emit | None = None
    namespace: str = ""
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    jitter: float = 0.0
    refreshes: int = 3
    queue: int = 256
    announcer: BrowserAnnouncer | None = None
    pickles: PickleEncoder | None = None
    shrink_also: Callable[[], int] = int
    inputs: InputRules = field(default_factory=InputRules)
    observe: ObserveFetch | None = None


class CacheInternals:
    """What a :class:`SmartCache` shares with the parts of the application, but not with users.

    It makes one :class:`ProcessCache` in each process, and connects it with the background jobs
    and with the invalidation bus.

    Args:
        options: of the cache.
        send: sends a signal.
        use: called with the memory of this process, or with ``None`` before it has one.

    Attributes:
        clock: time.
        bus: the invalidation bus.
        store: the shared store, which counts its calls; ``None`` without one.
        inputs: how the inputs of requests are compared.
        responses: the responses of views.
        subscriptions, browsers, tracking: what outlives a fork.
        functions: the memoized functions whose keys do not say everything.
    """

    def __init__(
        self,
        options: CacheOptions,
        send: Callable[..., None],
        use: Callable[[ProcessMemory | None], None],
    ) -> None:
        self._options = options
        self._send = send
        self._use = use
        self.clock = clock = options.clock
        self.inputs = options.inputs
        self.responses: KeptResponses
        self.bus = InvalidationBus(options.hub, options.scheduler, options.namespace)
        self.bus.subscribe(self)
        self._suffix = f":{options.namespace}" if options.namespace else ""
        pickles = options.pickles
        self._encode = encode if pickles is None else pickles.encode
        self.store = None if options.store is None else CountedStore(options.store)
        self._shared = (
            None
            if self.store is None
            else SharedStore(self.store, clock, options.namespace, options.max_value, pickles)
        )
        self.subscriptions = Subscriptions(clock, options.scheduler, options.context)
        self.browsers = BrowserAnnouncements(options.announcer, options.hub)
        self.tracking = DependencyTracking()
        self.functions = FunctionOwners()
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
        options, clock, send, tracking = self._options, self.clock, self._send, self.tracking
        hub, namespace = options.hub, options.namespace
        memory = ProcessMemory(options.l1_bytes)
        tiers = Tiers(
            memory, self._shared, clock, DefaultTimes(options.stale_time, options.cache_time),
            options.jitter, self._encode,
        )  # fmt: skip
        watched = WatchedKeys(hub, clock, namespace, self.bus.origin)
        changes = Changes(tiers, self.subscriptions, self.browsers, watched, clock, self.bus, self)
        leases = FetchLeases(hub, clock, namespace, memory.in_flight)
        commits = Commits(tiers, leases, clock, options.max_value, send, changes.record)
        misses = Misses(tiers, commits, leases, tracking, clock, send, options.observe)
        queue = RefreshQueue(options.scheduler, options.refreshes, options.queue)
        refreshes = Refreshes(
            tiers, commits, misses, leases, tracking, queue, clock, options.context, send
        )
        return ProcessCache(
            memory, tiers, changes, watched, leases, commits, misses, refreshes, tracking
        )

    def _start(self, here: ProcessCache) -> None:
        every = self._options.scheduler.every
        here.jobs.append(every(SWEEP_S, self.sweep, name="cache-sweep" + self._suffix))
        if self._options.hub is not None:
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
        return count + self._options.shrink_also()

    def refuse(self, reason: str, subject: str, advice: str) -> None:
        """Count a value that is not stored; see :meth:`.memory.ProcessMemory.refuse`."""
        self.here().memory.refuse(reason, subject, advice)

    def get_times(self, stale_time: float | None, cache_time: float | None) -> tuple[float, float]:
        """Return both times in seconds, with the cache's own where one is ``None``."""
        times = DefaultTimes(self._options.stale_time, self._options.cache_time)
        return times.fill(stale_time, cache_time)

    def close(self) -> None:
        """Stop the background jobs of this process."""
        here = self._processes.pop(os.getpid(), None)
        if here is not None:
            here.close()
        self.bus.close()


@with_old_names
class SmartCache:
    """Stale-while-revalidate in front of anything that is slow.

    Making one starts and opens nothing. Threads, jobs and the store begin with the first use in
    each process.

    Args:
        options: what the cache is made of.
    """

    def __init__(self, options: CacheOptions) -> None:
        self._clock = options.clock
        self._now = options.clock.monotonic
        self._emit = options.emit
        self._listeners = {} if options.emit is None else signals.cache_hit.receivers
        # a hit looks at these; they belong to the process that used the cache last
        self._entries: dict[Ident, CacheEntry] = {}
        self._epoch = 0
        self._fetching: set[DependencyTracker] = set()
        self.internals = CacheInternals(options, self._send, self._use)
        self.internals.responses = KeptResponses(self.internals.here, options.inputs.variants)
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
        timeout: None = None,
        ttl: None = None,
        retry: None = None,
        *,
        stale_time: float | None = None,
        cache_time: float | None = None,
        retries: int = 3,
        retry_delay: float = 1.0,
        dedupe_time: float = 1.0,
        tags: Iterable[str] = (),
        scope: Scope = "",
        negative_time: float | None = None,
        negative_errors: tuple[type[Exception], ...] = (LookupError,),
        negative: Callable[[Any], bool] | None = None,
        live: bool | str | Iterable[str] = False,
        background: Callable[[], Fetcher] | None = None,
    ) -> Any:
        """Return the value; fetch a missing one, and refresh a stale one in the background.

        Each call returns a new copy, which the caller may change. A value that cannot be cached
        (see :func:`.values.encode`) is returned uncached, with one warning.

        Args:
            key: text, or a tuple of typed atoms (see :func:`.keys.encode`).
            fetcher: called without arguments; ``async def`` works where no event loop runs.
            timeout, ttl: what other caches have in place of both times; any value is an error.
            retry: the old name of ``retries``; any value is an error.
            stale_time: seconds for which the value is fresh for this caller.
            cache_time: seconds after which the value is gone; by default ``OM_CACHE_TIME``, and at
                least ``stale_time``.
            retries: further attempts. On a miss they follow at once, with pauses of at most one
                second in all. In the background they are 1, 2, 4 … times ``retry_delay`` apart,
                with full jitter, and a cooldown of 30 s follows the last one.
            retry_delay: the first of these delays, in seconds.
            dedupe_time: seconds after a fetch within which no other fetch of this key begins;
                after a failed fetch, callers get a copy of its error in this time.
            tags: an invalidation of any of these tags concerns the value.
            scope: keeps users apart: each scope has an entry of its own. It is text, or another
                atom of a key (see :func:`.keys.encode_scope`); "" and ``None`` are no scope.
            negative_time: seconds for which "there is no value" is stored: the value ``None``, and
                errors of the types in ``negative_errors``, which are not retried then. It replaces
                a value that was there, and is never served stale. With ``None`` such a value is a
                value like any other, and such an error a failure like any other.
            negative_errors: errors that mean "there is no value", such as ``KeyError``. Only this
                process remembers them.
            negative: returns ``True`` when another value means "there is no value". The cache
                stores such a value for ``negative_time``, and returns it unchanged.
            live: browsers hear when the value changes: True for every open page, else an address
                such as ``"user:7"``, or several. See :meth:`publish`.
            background: called in this thread when a refresh is due; returns the fetcher to run
                in the background instead of ``fetcher``.

        Raises:
            Exception: the fetcher's error, when there is no value.
            TypeError: the key, the fetcher or another argument has a type that cannot be used.
            ValueError: a time is negative, or ``stale_time`` is longer than ``cache_time``;
                ``live`` is not an address, or is True for an entry with
                a scope.
        """
        ident = key if type(key) is str and scope == "" else identify(key, scope)
        entry = self._entries.get(ident)
        if entry is not None:
            now = self._now()
            try:
                fresh = (
                    now < entry.fresh_until
                    if stale_time is None
                    else now < entry.base + stale_time * entry.share and now < entry.valid_until
                )
            except TypeError:
                check_options(stale_time=stale_time)
                raise
            if fresh:
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
        for name, function, arguments in (("negative", negative, 1), ("background", background, 0)):
            if function is not None and (problem := explain_callback(function, arguments)):
                raise TypeError(f"{name}={function!r} cannot be called: {problem}")
        check_options(
            stale_time=stale_time, cache_time=cache_time, negative_time=negative_time,
            retries=retries, retry_delay=retry_delay, dedupe_time=dedupe_time,
        )  # fmt: skip
        # before the star, so that a hit pays nothing for their defaults
        refuse_lifetime("query()", timeout=timeout, ttl=ttl, retry=retry)
        tags = normalize_tags(tags)
        here = self._here()
        if live:
            self.internals.browsers.add(key, ident, encode_scope(scope), live, tags)
        return here.answer(
            QueryOptions(
                key, ident, fetcher, background, stale_time, cache_time,
                retries, retry_delay, dedupe_time, tags, negative_time, negative_errors,
                negative,
            )
        )  # fmt: skip

    def get(self, key: Key, default: Any = None, *, scope: Scope = "") -> Any:
        """Return the value, fresh or stale, else ``default``; fetch nothing.

        Raises:
            TypeError: the key has a type that cannot be used.
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
        timeout: None = None,
        ttl: None = None,
        *,
        stale_time: float | None = None,
        cache_time: float | None = None,
        tags: Iterable[str] = (),
        scope: Scope = "",
    ) -> None:
        """Store a value; the value of a fetch that runs at this moment is discarded.

        Values that were computed from the value before become stale, if this process has them. A
        value over the size limit is not stored, but the old value goes all the same.

        Raises:
            CacheError: the value cannot be cached; the message names its type and what to do.
            TypeError: the key, a time or the tags have a type that cannot be used.
            ValueError: a time is negative.
        """
        refuse_lifetime("set()", timeout=timeout, ttl=ttl)
        check_options(stale_time=stale_time, cache_time=cache_time)
        named = normalize_tags(tags)
        here = self._here()
        memory, tiers = here.memory, here.tiers
        ident = identify(key, scope)
        data = tiers.encode(value)
        if not here.commits.fits(data, key):
            self.remove(key, scope=scope)
            return
        began = self._clock.time()
        fresh_s, kept_s = tiers.times.fill(stale_time, cache_time)
        entry = tiers.make_entry(ident, data, named, began, fresh_s, kept_s)
        with memory.lock:
            memory.in_flight.discard(ident)
            before = memory.table.entries.get(ident)
            same = before is not None and before.data == data
            memory.table.put(entry)
        tiers.save(entry, fresh_s, kept_s, lambda: True)
        if entry.stored < entry.gone_at:
            here.changes.record(ident, "set", entry.tags, same)
        if not same:
            here.changes.replace(ident, began)

    # --- taking back ----------------------------------------------------------------------------

    def invalidate(
        self, prefix: Key | None = None, *, tags: Iterable[str] = (), scope: Scope = ALL_SCOPES
    ) -> int:
        """Mark entries stale: the cache serves the last good value while it fetches a new one.

        It also marks the entries whose fetchers looked these entries up in this cache.

        Args:
            prefix: the beginning of text keys, or the first members of tuple keys.
            tags: entries with any of these tags. With a prefix as well, an entry that matches
                either of the two is concerned.
            scope: only entries of this scope; by default those of all scopes. A scope alone means
                all of its entries; no argument at all means every entry.

        Returns:
            The number of entries concerned in this process.

        Raises:
            TypeError: a type cannot be used in a key, or the scope is ``None`` or "".
        """
        return self._invalidate(prefix, normalize_tags(tags), scope, hard=False)

    def purge(
        self, prefix: Key | None = None, *, tags: Iterable[str] = (), scope: Scope = ALL_SCOPES
    ) -> int:
        """Remove entries at once, here, in other workers and in the store.

        Use it for values that must not be served again. In other cases prefer :meth:`invalidate`,
        after which no caller waits. Entries that were computed from them are marked stale.

        Args:
            prefix, tags, scope: as for :meth:`invalidate`.

        Returns:
            The number of entries concerned in this process.

        Raises:
            TypeError: as for :meth:`invalidate`.
        """
        return self._invalidate(prefix, normalize_tags(tags), scope, hard=True)

    def _invalidate(
        self, prefix: Key | None, tags: tuple[str, ...], scope: Scope, *, hard: bool
    ) -> int:
        named = "" if scope is ALL_SCOPES else encode_scope(scope)
        if not named and scope is not ALL_SCOPES:
            # a user id that is not there must not mean the entries of everybody
            raise UnsupportedKey(
                f"scope={scope!r} names nobody: leave the argument out to mean the entries of all "
                "scopes"
            )
        here = self._here()
        memory = here.memory
        body = encode_body(prefix) if prefix is not None else (None if tags else b"")
        what = Invalidation(body, tags, named, hard)
        at = self._clock.time()
        with memory.lock:
            found = memory.invalidate(what, math.inf)
            if here.tiers.shared is not None:
                memory.log.add(what, at)
            gone = [ident for ident in found if ident not in memory.table.entries]
        here.tiers.delete(gone)
        here.changes.invalidate(what, at, found)
        self._send(signals.cache_invalidated, prefix=prefix, tags=tags, count=len(found))
        return len(found)

    def remove(self, key: Key, *, scope: Scope = "") -> None:
        """Remove one entry at once, here, in other workers and in the store.

        Raises:
            TypeError: the key has a type that cannot be used.
        """
        here = self._here()
        ident = identify(key, scope)
        had = here.tiers.remove(ident)
        here.changes.remove(ident, self._clock.time())
        self._send(signals.cache_invalidated, prefix=key, tags=(), count=int(had))

    def clear(self) -> int:
        """Remove all entries, in all workers; return how many this process had."""
        here = self._here()
        count = here.changes.clear(self._clock.time())
        self._send(signals.cache_invalidated, prefix=None, tags=(), count=count)
        return count

    def shrink(self) -> int:
        """Free memory; see :meth:`CacheInternals.shrink`."""
        return self.internals.shrink()

    # --- telling --------------------------------------------------------------------------------

    def subscribe(
        self, key: Key, callback: Callable[[CacheChange], object], *, scope: Scope = ""
    ) -> Callable[[], None]:
        """Call ``callback`` after every change of one key, in this worker or another.

        A background job calls it, never twice at once. Changes that accumulate while it runs lead
        to one call per kind, the last change last. An error of the callback is logged. The end of
        a value by age or eviction is not a change. The cache holds the callback until it is
        unsubscribed.

        Args:
            key: one key exactly; a prefix is not expanded.
            callback: gets a :class:`~om_plugins.types.CacheChange`; its result is ignored.
            scope: the scope of the entry.

        Returns:
            A function that ends the subscription; it does not stop a running call.

        Raises:
            TypeError: the key has a type that cannot be used, or the callback is not callable.
        """
        problem = explain_callback(callback, 1)
        if problem:
            raise TypeError(
                f"the callback must be callable with the change, not {callback!r}: {problem}"
            )
        ident = identify(key, scope)
        self._here()  # hears what was published so far, which is history for the subscriber
        return self.internals.subscriptions.add(key, ident, scope, callback)

    def publish(
        self,
        key: Key,
        *,
        to: bool | str | Iterable[str] = True,
        scope: Scope = "",
        tags: Iterable[str] = (),
    ) -> Callable[[], None]:
        """Tell browsers when the value of a key changes, as ``live=`` of :meth:`query` does.

        Browsers hear the key, not its value, and ask the application again. No other key is ever
        named to a browser.

        Args:
            key: text, or a tuple of ``str``, numbers, ``bool`` and ``None``.
            to: True for every open page, else addresses such as ``"user:7"`` and ``"operators"``.
            scope: the scope of the entry.
            tags: the tags of the entry, for a process that does not have the entry.

        Returns:
            A function that ends it.

        Raises:
            TypeError: a browser cannot have such a key.
            ValueError: ``to`` is not an address, or is True for an entry with a scope.
        """
        ident = identify(key, scope)
        self._here()  # so that this process hears of changes in others
        self.internals.browsers.add(key, ident, encode_scope(scope), to, normalize_tags(tags))
        return lambda: self.internals.browsers.remove(ident)

    def stats(self) -> CacheStats:
        """Return the exact counters of this process."""
        memory = self._here().memory
        with memory.lock:
            found = memory.read_stats()
            self._epoch = memory.counters.epoch
        found.subscriptions = len(self.internals.subscriptions)
        return found

    def groups(self) -> dict[str, CacheStats]:
        """Return the exact counters of this process by group (see :func:`.keys.find_group`).

        A process counts 200 groups; all later ones are counted as ``<others>``.
        """
        memory = self._here().memory
        with memory.lock:
            found = memory.read_groups()
            self._epoch = memory.counters.epoch
        return found

    def store_stats(self) -> StoreStats | None:
        """Return the counters of this process's calls to the shared store; ``None`` without one."""
        store = self.internals.store
        return None if store is None else store.stats()

    def refusals(self) -> dict[str, int]:
        """Return the exact numbers of values that were not stored, by reason."""
        memory = self._here().memory
        with memory.lock:
            return dict(memory.refused)

    # --- helpers --------------------------------------------------------------------------------

    def _record_entry(self, entry: CacheEntry, fresh: bool) -> None:
        """Record a look-up, which a fetcher may have made."""
        around = self.internals.tracking.current()
        if around is not None:
            self._here().refreshes.record_entry(around, entry, fresh)

    def _send(self, signal: Any, **details: Any) -> None:
        if self._emit is not None and signal.receivers:
            self._emit(signal, **details)
