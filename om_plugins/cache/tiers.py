"""The two tiers of a process's cache: its memory, in front of a store that workers may share."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterable

from ..protocols import Clock, Hub
from ..types import ChangeKind
from .entry import CacheEntry, Record
from .keys import Dependencies, Ident, Invalidation
from .memory import ProcessMemory
from .shared_store import DEAF_TTL_S, L1_TTL_S, InvalidationNews, SharedStore, StoreAnswer
from .subscriptions import BrowserUpdates, Subscriptions, WatchedKeys
from .values import decode, encode

__all__ = ["Changes", "Tiers"]

_STORE_LOCKS = 16


class Tiers:
    """Finds and stores the entries of one process.

    Args:
        memory: the first tier.
        shared: the second tier; ``None`` when memory is the only one.
        clock: time.
        stale_time, cache_time: for entries without times of their own, in seconds.
        jitter: the times of each entry are shortened by a random share of up to this, so that
            entries stored together do not end together.
        encode: encodes values (see :func:`.values.encode`).

    Attributes:
        deaf: this process cannot hear of invalidations in others. Memory then answers only for
            the time of one request, and each look-up asks the store.
    """

    def __init__(
        self,
        memory: ProcessMemory,
        shared: SharedStore | None,
        clock: Clock,
        stale_time: float,
        cache_time: float,
        jitter: float = 0.0,
        encode: Callable[[object], bytes] = encode,
    ) -> None:
        self.memory = memory
        self.shared = shared
        self.encode = encode
        self.deaf = False
        self._clock = clock
        self.now = clock.monotonic
        self._stale_time = stale_time
        self._cache_time = cache_time
        self._jitter = jitter
        self._store_locks = [threading.Lock() for _ in range(_STORE_LOCKS)]

    # --- making and storing ---------------------------------------------------------------------

    def make_entry(
        self,
        ident: Ident,
        data: bytes,
        tags: tuple[str, ...],
        began: float,
        stale_time: float | None,
        cache_time: float | None,
        deps: Dependencies = (),
        cost_us: int = 0,
    ) -> CacheEntry:
        """Make an entry for a value that was just fetched, without storing it."""
        now = self.now()
        return CacheEntry(
            ident,
            data,
            tags=tags,
            began=began,
            stored=now,
            stale_time=self._stale_time if stale_time is None else stale_time,
            cache_time=self._cache_time if cache_time is None else cache_time,
            valid_until=self._trusted_until(now),
            deps=deps,
            cost_us=cost_us,
            shorten=self._draw_jitter(),
        )

    def _draw_jitter(self) -> float:
        return random.uniform(0, self._jitter) if self._jitter else 0.0

    def _trusted_until(self, now: float) -> float:
        if self.shared is None:
            return math.inf
        return now + (DEAF_TTL_S if self.deaf else L1_TTL_S)

    def save(
        self,
        entry: CacheEntry,
        stale_time: float | None,
        cache_time: float | None,
        wanted: Callable[[], bool],
        fence: int = 0,
        over: StoreAnswer | None = None,
        is_held: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Write an entry to the store, unless it is no longer ``wanted`` when its turn comes.

        Args:
            over, is_held: see :meth:`.shared_store.SharedStore.save`, which also explains the
                return value.
        """
        if self.shared is None or entry.gone_at <= entry.stored:
            return True
        record = Record(
            began=entry.began,
            stored=self._clock.time(),
            stale_time=self._stale_time if stale_time is None else stale_time,
            cache_time=self._cache_time if cache_time is None else cache_time,
            tags=entry.tags,
            body=entry.data,
            fence=fence,
            deps=entry.deps,
            cost_us=entry.cost_us,
        )
        # one write of a key at a time, so that an older value cannot overtake a newer one
        with self._lock_key(entry.ident):
            return not wanted() or self.shared.save(entry.ident, record, over, is_held)

    def _lock_key(self, ident: Ident) -> threading.Lock:
        return self._store_locks[hash(ident) % _STORE_LOCKS]

    # --- finding --------------------------------------------------------------------------------

    def look(self, ident: Ident, *, again: bool = False) -> CacheEntry | None:
        """Return the entry from memory, or from the store; the latter then is in memory, too.

        Args:
            again: ask the store even when memory may still answer.
        """
        memory = self.memory
        entry = memory.table.entries.get(ident)
        now = self.now()
        if entry is not None and now < entry.valid_until and not again:
            return entry
        if self.shared is None:
            return None
        record, asked = self.shared.load(ident)
        if not asked:
            if entry is None or now >= entry.gone_at:
                return None
            # the store is unreachable: memory answers alone until the entry's own end
            with memory.lock:
                entry.valid_until = min(entry.gone_at, self._trusted_until(now))
                if self.deaf:
                    entry.doubt()
            return entry
        if record is None or not _is_readable(record.body):
            return None
        with memory.lock:
            if memory.log.is_gone(ident, record.tags, record.began):
                return None
            current = memory.table.entries.get(ident)
            if current is not None and current.began > record.began and now < current.valid_until:
                return current  # this process has stored a newer one meanwhile
            found = self._load_entry(ident, record, now)
            invalidated = memory.log.is_stale(ident, record.tags, record.began, record.deps)
            # a stored stale time of 0 means: stale for every caller, whatever time it gives
            if invalidated or not record.stale_time:
                found.mark_stale()
                if now >= found.gone_at:  # an absence is never served stale
                    return None
            if current is not None:
                found.failures, found.retry_at = current.failures, current.retry_at
            memory.table.put(found)
        return found

    def _load_entry(self, ident: Ident, record: Record, now: float) -> CacheEntry:
        age = max(0.0, self._clock.time() - record.stored)
        return CacheEntry(
            ident,
            record.body,
            tags=record.tags,
            began=record.began,
            stored=now - age,
            stale_time=record.stale_time,
            cache_time=record.cache_time,
            valid_until=self._trusted_until(now),
            deps=record.deps,
            cost_us=record.cost_us,
            shorten=self._draw_jitter(),
        )

    # --- removing -------------------------------------------------------------------------------

    def remove(self, ident: Ident) -> bool:
        """Remove an entry and discard its running fetch; return whether memory had the entry."""
        with self.memory.lock:
            self.memory.in_flight.discard(ident)
        return self.drop(ident)

    def drop(self, ident: Ident) -> bool:
        """Remove an entry from both tiers; return whether memory had it."""
        with self.memory.lock:
            entry = self.memory.table.entries.get(ident)
            if entry is not None:
                self.memory.table.remove(entry)
        self.delete([ident])
        return entry is not None

    def delete(self, idents: Iterable[Ident]) -> None:
        """Delete entries from the store. The caller does not hold the memory's lock."""
        if self.shared is not None:
            for ident in idents:
                with self._lock_key(ident):
                    self.shared.delete(ident)

    def distrust(self, ident: Ident) -> None:
        """Ask the store before memory answers again: another worker has stored a newer entry."""
        if self.shared is None:
            return  # each worker keeps its own values
        with self.memory.lock:
            entry = self.memory.table.entries.get(ident)
            if entry is not None:
                entry.distrust()

    def set_deaf(self, deaf: bool) -> None:
        """Record whether this process hears of invalidations in others."""
        self.deaf = deaf
        if deaf and self.shared is not None:
            with self.memory.lock:
                for entry in self.memory.table.entries.values():
                    entry.distrust()


def _is_readable(data: bytes) -> bool:
    try:
        decode(data)
    except Exception:  # noqa: BLE001 - bytes from a shared store may be anything
        return False
    return True


class Changes:
    """Tells of changes, and hears of them (a :class:`.shared_store.Listener`).

    No method is called with the process's lock held.

    Args:
        levels: where entries are.
        subscriptions: who is told.
        live: which keys browsers are told of.
        clock: time.
    """

    def __init__(
        self,
        tiers: Tiers,
        subscriptions: Subscriptions,
        browsers: BrowserUpdates,
        clock: Clock,
        hub: Hub | None,
        namespace: str,
        topic: str,
    ) -> None:
        self._tiers = tiers
        self._memory = tiers.memory
        self._subscriptions = subscriptions
        self._browsers = browsers
        self._clock = clock
        self.news = InvalidationNews(hub, topic, self)
        self.watched = WatchedKeys(hub, clock, namespace, self.news.origin)

    # --- made here ------------------------------------------------------------------------------

    def made(
        self,
        ident: Ident,
        kind: ChangeKind,
        tags: tuple[str, ...] = (),
        same: bool = False,
    ) -> None:
        """An entry was kept, or dropped; other workers hear of it if somebody watches the key.

        Args:
            same: its value is the one that was there.
        """
        at = self._clock.time()
        self._subscriptions.changed(ident, kind, tags)
        live = ident in self._browsers and not same
        if live or ident in self.watched:
            self.news.tell_changed(ident, kind, tags, at, same)
        if live:
            self._browsers.changed(ident, at)

    def put(self, ident: Ident, at: float) -> None:
        """An entry was put by hand: what was computed from the old one is out of date."""
        if self._tiers.shared is not None:
            self.news.put(ident)
        with self._memory.lock:
            found = self._memory.invalidate_dependents(ident, at)
            if found and self._tiers.shared is not None:
                self._memory.log.add_changed(ident, at)
        if found:
            self.news.tell_outdated(ident, at)
            self._out_of_date(found, at)

    def invalidated(self, what: Invalidation, at: float, found: list[Ident]) -> None:
        """Entries were invalidated; ``found`` are those of this process."""
        self.news.tell(what, at, self.watched.among(found))
        self._tell(what, at, found)

    def removed(self, ident: Ident, at: float) -> None:
        """An entry was removed."""
        self.news.tell_removed(ident, at)
        self._subscriptions.changed(ident, "removed")
        self._browsers.changed(ident, at)
        self._mark_dependents(ident, at)

    def cleared(self, at: float) -> None:
        """Everything was removed."""
        self.news.tell_cleared(at)
        self._subscriptions.cleared()
        self._browsers.cleared(at)

    # --- made by other workers ------------------------------------------------------------------

    def heard_change(
        self,
        ident: Ident,
        kind: ChangeKind,
        tags: tuple[str, ...],
        at: float,
        same: bool,
        heard_at: float,
    ) -> None:
        """Another worker kept an entry: the store has a newer one than this process's memory."""
        self._tiers.distrust(ident)
        self._subscriptions.changed(ident, kind, tags, heard_at)
        if not same:
            self._browsers.changed(ident, at)

    def heard_invalidation(
        self, what: Invalidation, at: float, also: list[Ident], heard_at: float
    ) -> None:
        """Another worker invalidated; ``also`` are entries that it found by their tags."""
        said_at, at = at, self._not_ahead(at)
        with self._memory.lock:
            if self._tiers.shared is not None:
                self._memory.log.add(what, at)
            found = self._memory.invalidate(what, at)
        self._tell(what, said_at, [*also, *found], heard_at)

    def heard_put(self, idents: list[Ident]) -> None:
        """Another worker put entries by hand: the store has newer ones than this memory."""
        for ident in idents:
            self._tiers.distrust(ident)

    def heard_outdated(self, ident: Ident, at: float, heard_at: float) -> None:
        """Another worker put an entry by hand, from which others were computed."""
        self._mark_dependents(ident, self._not_ahead(at), heard_at)

    def heard_removal(self, ident: Ident, at: float, heard_at: float) -> None:
        """Another worker removed an entry."""
        with self._memory.lock:
            entry = self._memory.table.entries.get(ident)
            if entry is not None and entry.began <= at:
                self._memory.table.remove(entry)
            for fetch in self._memory.in_flight:
                if fetch.ident == ident and fetch.began <= at:
                    self._memory.in_flight.detach(fetch)
        self._subscriptions.changed(ident, "removed", heard_at=heard_at)
        self._browsers.changed(ident, at)
        self._mark_dependents(ident, self._not_ahead(at), heard_at)

    def heard_clearing(self, at: float, heard_at: float) -> None:
        """Another worker removed everything."""
        self._browsers.cleared(at)
        at = self._not_ahead(at)
        self.clear(at, at)
        self._subscriptions.cleared(heard_at)

    def clear(self, at: float, until: float) -> int:
        """Forget what was fetched up to ``until``; what the store has from before ``at``, too."""
        with self._memory.lock:
            if self._tiers.shared is not None:
                self._memory.log.clear(at)
            return self._memory.clear(until)

    def _not_ahead(self, at: float) -> float:
        return min(at, self._clock.time())  # a clock that is ahead must not condemn the future

    def _mark_dependents(self, ident: Ident, at: float, heard_at: float | None = None) -> None:
        with self._memory.lock:
            found = self._memory.invalidate_dependents(ident, at)
            if self._tiers.shared is not None:
                self._memory.log.add_changed(ident, at)
        self._out_of_date(found, at, heard_at)

    def _out_of_date(self, found: list[Ident], at: float, heard_at: float | None = None) -> None:
        for ident in found:
            self._subscriptions.changed(ident, "invalidated", heard_at=heard_at)
            self._browsers.changed(ident, at)

    def listening(self, deaf: bool) -> None:
        """Whether what happens elsewhere is heard of at present."""
        self._tiers.set_deaf(deaf)

    def _tell(
        self,
        what: Invalidation,
        at: float,
        also: list[Ident],
        heard_at: float | None = None,
    ) -> None:
        def tags_of(ident: Ident) -> tuple[str, ...]:
            entry = self._memory.table.entries.get(ident)
            return () if entry is None else entry.tags

        found = frozenset(also)
        self._subscriptions.invalidated(what, tags_of, found, heard_at)
        self._browsers.invalidated(what, at, tags_of, found)
