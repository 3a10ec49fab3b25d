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
from functools import partial
from typing import Any, TypeVar

from .. import signals
from ..core.fork import renew_after_fork
from ..protocols import CacheStore, Clock, Hub, Scheduler
from ..signals import Emit
from ..types import CacheChange, CacheStats, StoreStats
from . import refresh__refresh as refresh
from .entry import Entry
from .invalidation import Invalidation, tags_of
from .invalidation__changes import Changes
from .invalidation__tracking import Trackers
from .keys import Ident, Key, body_of, identify
from .memoize import Memoized, memoize
from .memory__process import Process, process_of
from .miss import Answering
from .miss__ask import Ask
from .miss__keeping import Keeping
from .refresh import Refreshing
from .refresh__line import Line
from .refresh__refresh import Fetcher
from .shared_store import TOPIC, News, Shared
from .shared_store__store_stats import CountedStore
from .singleflight__turns import Turns
from .subscriptions import Subscriptions, Watch
from .subscriptions__live import LiveKeys, Publishing
from .tiers import Levels
from .values import decode, encode
from .values__pickles import Pickles

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
        jitter: both times of each entry are shortened by a random share of up to this, so that
            what was stored together does not end together.
        refreshes: fetchers at work in the background at once. queue: those that wait, at most.
        publishing: tells browsers of changes; ``None`` where there are none to tell.
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
        publishing: Publishing | None = None,
        pickles: Pickles | None = None,
        shrink_also: Callable[[], int] = int,
    ) -> None:
        self._l1_bytes = l1_bytes
        self._shrink_also = shrink_also
        self.clock = clock
        self._now = clock.monotonic
        self._scheduler = scheduler
        self._hub = hub
        self._store = None if store is None else CountedStore(store)
        shared = (
            None
            if self._store is None
            else Shared(self._store, clock, namespace, max_value, pickles)
        )
        write = encode if pickles is None else pickles.encode
        self._levels = Levels(shared, clock, stale_time, cache_time, jitter, write)
        self._subscriptions = Subscriptions(clock, scheduler, context)
        self._live = LiveKeys(publishing, hub)
        self._changes = Changes(self._process, self._levels, self._subscriptions, self._live, clock)
        self._trackers = Trackers()
        self._turns = Turns(hub, clock, namespace)
        self._keeping = Keeping(
            self._levels, clock, max_value, self._tell, self._changes.made, self._turns
        )
        refreshing = Refreshing(
            self._levels, self._keeping, clock, context, self._tell, self._trackers, self._turns
        )
        self._answering = Answering(
            self._levels, self._keeping, refreshing, clock, self._tell, self._trackers, self._turns
        )
        self._make_line = partial(Line, scheduler, refreshes, queue)
        self._emit = emit
        self._namespace = namespace
        self._suffix = f":{namespace}" if namespace else ""
        self._listeners = signals.cache_hit.receivers if emit is not None else {}
        self._processes: dict[int, Process] = {}
        # what a hit looks at; both belong to the process that used the cache last
        self._entries: dict[Ident, Entry] = {}
        self._epoch = 0
        self._fetching = self._trackers.active
        renew_after_fork(self)

    def after_fork(self) -> None:
        """A hit in a child must not be counted in the parent's table."""
        self._entries = {}
        self._trackers.after_fork()
        self._fetching = self._trackers.active

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
                    self._process().touch(entry)
                entry.visited = True
                if self._listeners:
                    self._tell(signals.cache_hit, key=key)
                if self._fetching:
                    self._note(entry, fresh=True)
                return decode(entry.data)
        refresh.check(fetcher)
        tags = tags_of(tags)
        process = self._process()
        if live:
            self._live.add(key, ident, scope, live, tags)
        return self._answering.answer(
            process,
            Ask(
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
        process = self._process()
        ident = identify(key, scope)
        entry = self._levels.look(process, ident)
        if entry is None:
            around = self._trackers.current()
            with process.lock:
                process.groups.of(ident).misses += 1
                if around is not None:
                    around.add(ident, ())
            self._tell(signals.cache_missed, key=key)
            return default
        entry.visited = True
        fresh = self._keeping.count_kind(process, entry, None, key)
        self._note(entry, fresh)
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
        process = self._process()
        ident = identify(key, scope)
        data = self._levels.encode(value)
        if not self._keeping.fits(process, data, key):
            self.remove(key, scope=scope)
            return
        began = self.clock.time()
        entry = self._levels.make(ident, data, tags_of(tags), began, stale_time, cache_time)
        with process.lock:
            process.flights.discard(ident)
            process.failed.pop(ident, None)
            before = process.local.entries.get(ident)
            same = before is not None and before.data == data
            process.local.put(entry)
        self._levels.save(process, entry, stale_time, cache_time, lambda: True)
        if entry.stored < entry.gone_at:
            self._changes.made(process, ident, "set", entry.tags, same)
        if not same:
            self._changes.put(process, ident, began)

    def times(self, stale_time: float | None, cache_time: float | None) -> tuple[float, float]:
        """Both times in seconds, with the cache's own where one is ``None``."""
        return self._levels.times(stale_time, cache_time)

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
        return self._invalidate(prefix, tags_of(tags), scope, hard=False)

    def purge(self, prefix: Key | None = None, *, tags: Iterable[str] = (), scope: str = "") -> int:
        """Forget entries at once, here, in other workers and in the store.

        For what must not be served once more; else :meth:`invalidate` is kinder, for nobody
        waits. What was computed from them is marked stale.

        Args:
            prefix, tags, scope: as for :meth:`invalidate`.

        Returns:
            How many entries of this process were concerned.
        """
        return self._invalidate(prefix, tags_of(tags), scope, hard=True)

    def _invalidate(
        self, prefix: Key | None, tags: tuple[str, ...], scope: str, *, hard: bool
    ) -> int:
        process = self._process()
        body = body_of(prefix) if prefix is not None else (None if tags else b"")
        what = Invalidation(body, tags, scope, hard)
        at = self.clock.time()
        with process.lock:
            found = self._levels.mark(process, what, math.inf)
            if self._levels.shared is not None:
                process.memory.add(what, at)
            gone = [ident for ident in found if ident not in process.local.entries]
        self._levels.delete(process, gone)
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

        In an application, the shared HTTP cache gives half of its memory back as well.

        Returns:
            How many went. A store that workers share keeps its copies.
        """
        process = self._process()
        swept = self.sweep()
        with process.lock:
            swept += process.local.shrink(process.local.weight // 2)
        return swept + self._shrink_also()

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
        self._process()  # so that changes elsewhere are heard
        self._live.add(key, ident, scope, to, tags_of(tags))
        return lambda: self._live.remove(ident)

    def stats(self) -> CacheStats:
        """The counters of this process, exact."""
        process = self._process()
        with process.lock:
            found = process.snapshot()
            self._epoch = process.groups.epoch
        found.subscriptions = len(self._subscriptions)
        return found

    def groups(self) -> dict[str, CacheStats]:
        """The counters of this process by group of keys (see :func:`.keys.group_of`), exact.

        A process counts 200 groups; what comes later is counted as ``<others>``.
        """
        process = self._process()
        with process.lock:
            found = {name: replace(one) for name, one in process.groups.by_name().items()}
            self._epoch = process.groups.epoch
        return found

    def store_stats(self) -> StoreStats | None:
        """What this process asked of the shared store; ``None`` when there is none."""
        return None if self._store is None else self._store.stats()

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

    # --- small things ----------------------------------------------------------------------------

    def _process(self) -> Process:
        """What belongs to this process, made on first use; a forked child makes its own."""
        pid = process_of()
        process = self._processes.get(pid)
        if process is None:
            news = News(self._hub, TOPIC + self._suffix, self._changes)
            watch = Watch(self._hub, self.clock, self._namespace, news.origin)
            made = Process(self._l1_bytes, news, watch, self._make_line())
            process = self._processes.setdefault(pid, made)  # atomic: one of two threads wins
            if process is made:
                for old in [p for p in self._processes if p != pid]:
                    process.inherit(self._processes.pop(old))
                self._entries = process.local.entries
                self._epoch = process.groups.epoch
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
        process.watch.renew([*self._subscriptions.idents(), *self._live.idents()])
        process.news.hear()
        self._subscriptions.flush()

    def _note(self, entry: Entry, fresh: bool) -> None:
        """Whoever looked is perhaps a fetcher."""
        around = self._trackers.current()
        if around is not None:
            self._answering.note(self._process(), around, entry, fresh)

    def _tell(self, signal: Any, **details: Any) -> None:
        if self._emit is not None and signal.receivers:
            self._emit(signal, **details)
