"""The two tiers of a process's cache: its memory, in front of a store that workers may share.

:class:`Changes` keeps both tiers right when something changes here or in another worker.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from ..protocols import Clock
from ..types import ChangeKind
from ..workers.invalidation_bus import (
    DEAF_TTL_S,
    L1_TTL_S,
    LONGEST_BYTES,
    MOST_IDENTS,
    DependentsOutdated,
    EntriesCleared,
    EntriesInvalidated,
    EntriesReplaced,
    EntryChanged,
    EntryRemoved,
    InvalidationBus,
    Message,
    Receiver,
)
from .entry import CacheEntry, Record, read_ident, write_ident
from .keys import DefaultTimes, Dependencies, Ident, Invalidation
from .memory import ProcessMemory
from .shared_store import SharedStore, StoreAnswer
from .subscriptions import BrowserAnnouncements, Subscriptions, WatchedKeys
from .values import decode, encode

_STORE_LOCKS = 16
_MOST_REPLACED = 10_000


class Tiers:
    """Finds and stores the entries of one process.

    Args:
        memory: the first tier.
        shared: the second tier; ``None`` when memory is the only one.
        clock: time.
        times: for entries without times of their own.
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
        times: DefaultTimes,
        jitter: float = 0.0,
        encode: Callable[[object], bytes] = encode,
    ) -> None:
        self.memory = memory
        self.shared = shared
        self.encode = encode
        self.deaf = False
        self._clock = clock
        self.now = clock.monotonic
        self.times = times
        self._jitter = jitter
        self._store_locks = [threading.Lock() for _ in range(_STORE_LOCKS)]

    # --- making and storing ---------------------------------------------------------------------

    def make_entry(
        self,
        ident: Ident,
        data: bytes,
        tags: tuple[str, ...],
        began: float,
        stale_time: float,
        cache_time: float,
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
            stale_time=stale_time,
            cache_time=cache_time,
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
        stale_time: float,
        cache_time: float,
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
            stale_time=stale_time,
            cache_time=cache_time,
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


@dataclass(slots=True, eq=False)
class Changes:
    """Publishes the changes of this process on the invalidation bus, and applies those of others.

    Subscribers and browsers hear of both. No method is called with the memory's lock held.

    Args:
        tiers: where entries are.
        subscriptions: callbacks that hear of changes.
        browsers: browsers that hear of changes.
        watched: the keys that other workers watch.
        clock: time.
        bus: carries changes between workers.
        sender: the cache, as the bus knows it.
    """

    tiers: Tiers
    subscriptions: Subscriptions
    browsers: BrowserAnnouncements
    watched: WatchedKeys
    clock: Clock
    bus: InvalidationBus
    sender: Receiver
    _replaced: dict[Ident, None] = field(init=False, default_factory=dict)

    # --- changes of this process ----------------------------------------------------------------

    def record(
        self, ident: Ident, kind: ChangeKind, tags: tuple[str, ...] = (), same: bool = False
    ) -> None:
        """Report that an entry was stored or dropped; other workers hear of it if they watch it.

        Args:
            same: the value equals the one before.
        """
        at = self.clock.time()
        self.subscriptions.record(ident, kind, tags)
        is_live = ident in self.browsers and not same
        if is_live or ident in self.watched:
            name = write_ident(ident)
            self._publish(EntryChanged(at=at, ident=name, kind=kind, tags=list(tags), same=same))
        if is_live:
            self.browsers.announce(ident, at)

    def replace(self, ident: Ident, at: float) -> None:
        """Report that a caller set an entry: what was computed from the old one is out of date."""
        shared = self.tiers.shared is not None
        if shared and len(self._replaced) < _MOST_REPLACED:
            self._replaced[ident] = None
        with self.tiers.memory.lock:
            found = self.tiers.memory.invalidate_dependents(ident, at)
            if found and shared:
                self.tiers.memory.log.add_outdated(ident, at)
        if found:
            self._publish(DependentsOutdated(at=at, ident=write_ident(ident)))
            self._report_outdated(found, at)

    def publish_replaced(self) -> None:
        """Publish which entries callers have set since the last time, in few messages."""
        replaced, self._replaced = self._replaced, {}
        while replaced:
            idents: list[bytes] = []
            size = 0
            while replaced and len(idents) < MOST_IDENTS and size < LONGEST_BYTES:
                idents.append(write_ident(replaced.popitem()[0]))
                size += len(idents[-1])
            self._publish(EntriesReplaced(at=self.clock.time(), idents=idents))

    def invalidate(self, what: Invalidation, at: float, found: list[Ident]) -> None:
        """Report an invalidation that concerned the entries ``found`` in this process."""
        self._publish(
            EntriesInvalidated(
                at=at,
                prefix=what.prefix,
                tags=list(what.tags),
                scope=what.scope,
                hard=what.hard,
                found=[write_ident(ident) for ident in self.watched.select(found)],
            )
        )
        self._report_invalidated(what, at, found)

    def remove(self, ident: Ident, at: float) -> None:
        """Report that an entry was removed."""
        self._publish(EntryRemoved(at=at, ident=write_ident(ident)))
        self.subscriptions.record(ident, "removed")
        self.browsers.announce(ident, at)
        self._invalidate_dependents(ident, at)

    def clear(self, at: float) -> int:
        """Remove everything and report it; return how many entries this process had."""
        count = self._clear(at, math.inf)
        self._publish(EntriesCleared(at=at))
        self.subscriptions.record_clearing()
        self.browsers.announce_all(at)
        return count

    def _publish(self, message: Message) -> None:
        self.bus.publish(message, self.sender)

    # --- changes of other workers ---------------------------------------------------------------

    def receive(self, message: Message, published_at: float | None) -> None:
        """Apply a message of the bus; see :class:`.invalidation_bus.Receiver`."""
        at = message.at
        until = min(at, self.clock.time())  # a fast clock elsewhere must not affect later entries
        match message:
            case EntriesInvalidated():
                self._receive_invalidation(message, until, published_at)
            case EntryChanged(tags=tags):
                for ident in _read_idents([message.ident]):
                    self.tiers.distrust(ident)  # the store has a newer value than this memory
                    self.subscriptions.record(ident, message.kind, tuple(tags), published_at)
                    if not message.same:
                        self.browsers.announce(ident, at)
            case EntriesReplaced(idents=idents):
                for ident in _read_idents(idents):
                    self.tiers.distrust(ident)
            case EntryRemoved():
                for ident in _read_idents([message.ident]):
                    self._remove(ident, at)
                    self.subscriptions.record(ident, "removed", published_at=published_at)
                    self.browsers.announce(ident, at)
                    self._invalidate_dependents(ident, until, published_at)
            case DependentsOutdated():
                for ident in _read_idents([message.ident]):
                    self._invalidate_dependents(ident, until, published_at)
            case EntriesCleared():
                self.browsers.announce_all(at)
                self._clear(until, until)
                self.subscriptions.record_clearing(published_at)

    def _receive_invalidation(
        self, message: EntriesInvalidated, until: float, published_at: float | None
    ) -> None:
        what = Invalidation(message.prefix, tuple(message.tags), message.scope, message.hard)
        with self.tiers.memory.lock:
            if self.tiers.shared is not None:
                self.tiers.memory.log.add(what, until)
            found = self.tiers.memory.invalidate(what, until)
        idents = [*_read_idents(message.found), *found]
        self._report_invalidated(what, message.at, idents, published_at)

    def _remove(self, ident: Ident, until: float) -> None:
        memory = self.tiers.memory
        with memory.lock:
            entry = memory.table.entries.get(ident)
            if entry is not None and entry.began <= until:
                memory.table.remove(entry)
            for fetch in memory.in_flight:
                if fetch.ident == ident and fetch.began <= until:
                    memory.in_flight.detach(fetch)

    # --- both -----------------------------------------------------------------------------------

    def _clear(self, at: float, until: float) -> int:
        """Remove what was fetched up to ``until``, and ignore the store's records up to ``at``."""
        with self.tiers.memory.lock:
            if self.tiers.shared is not None:
                self.tiers.memory.log.clear(at)
            return self.tiers.memory.clear(until)

    def _invalidate_dependents(
        self, ident: Ident, at: float, published_at: float | None = None
    ) -> None:
        with self.tiers.memory.lock:
            found = self.tiers.memory.invalidate_dependents(ident, at)
            if self.tiers.shared is not None:
                self.tiers.memory.log.add_outdated(ident, at)
        self._report_outdated(found, at, published_at)

    def _report_outdated(
        self, found: list[Ident], at: float, published_at: float | None = None
    ) -> None:
        for ident in found:
            self.subscriptions.record(ident, "invalidated", published_at=published_at)
            self.browsers.announce(ident, at)

    def _report_invalidated(
        self,
        what: Invalidation,
        at: float,
        idents: list[Ident],
        published_at: float | None = None,
    ) -> None:
        def get_tags(ident: Ident) -> tuple[str, ...]:
            entry = self.tiers.memory.table.entries.get(ident)
            return () if entry is None else entry.tags

        found = frozenset(idents)
        self.subscriptions.record_invalidation(what, get_tags, found, published_at)
        self.browsers.announce_invalidation(what, at, get_tags, found)


def _read_idents(names: Iterable[bytes]) -> list[Ident]:
    """Read the idents of a message, and leave out bytes that are none."""
    idents = []
    for name in names:
        with suppress(ValueError):
            idents.append(read_ident(name))
    return idents
