"""The memory of one process: its entries, its running fetches, its counters, and their lock.

:class:`MemoryTable` is bounded and evicts by SIEVE (Zhang et al., NSDI '24): a hit sets a bit of
its entry, takes no lock and moves nothing. On an eviction a hand walks from the oldest entry to
the newest, clears bits, and evicts the first entry without one.

:class:`ProcessMemory` is the state of one process around the table. A process makes it on first
use, and a forked child makes its own: in the child the parent's locks may be held by threads that
do not exist, and the parent's fetches never end.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from ..types import CacheStats
from .entry import CacheEntry
from .keys import ANY, Ident, Invalidation, find_group
from .shared_store import InvalidationLog
from .singleflight import Fence, InFlightTable

logger = logging.getLogger("om_plugins")

MOST_GROUPS = 200
OTHERS = "<others>"
"""The group that counts all entries beyond that many groups."""
_MOST_WARNINGS = 1000

_K = TypeVar("_K")


class MemoryTable:
    """A table of entries. The caller holds the lock for every method; ``entries.get`` needs none.

    Args:
        limit_bytes: bound on the weight of all entries: key, value and overhead.
        groups: the counters.

    Attributes:
        entries: the entries by ident.
        weight: the sum that the limit bounds.
        size_bytes: the encoded values alone.
        evictions: entries evicted so far.
    """

    __slots__ = (
        "_dependents",
        "_hand",
        "_newest",
        "_oldest",
        "_tagged",
        "entries",
        "evictions",
        "groups",
        "limit_bytes",
        "size_bytes",
        "weight",
    )

    def __init__(self, limit_bytes: int, groups: GroupCounters | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.groups = GroupCounters() if groups is None else groups
        self.entries: dict[Ident, CacheEntry] = {}
        self.weight = 0
        self.size_bytes = 0
        self.evictions = 0
        self._oldest: CacheEntry | None = None
        self._newest: CacheEntry | None = None
        self._hand: CacheEntry | None = None
        self._tagged: dict[str, set[Ident]] = {}
        self._dependents: dict[Ident, set[Ident]] = {}

    def put(self, entry: CacheEntry) -> bool:
        """Add or replace an entry; return False when the entry alone exceeds the limit."""
        before = self.entries.get(entry.ident)
        if before is not None:
            entry.visited = before.visited
            self.remove(before)
        if entry.weight > self.limit_bytes:
            return False
        while self.weight + entry.weight > self.limit_bytes:
            self._evict()
        self.groups.enter(entry)
        self.entries[entry.ident] = entry
        self.weight += entry.weight
        self.size_bytes += len(entry.data)
        for tag in _collect_tags(entry):
            self._tagged.setdefault(tag, set()).add(entry.ident)
        for ident, _ in entry.deps:
            self._dependents.setdefault(ident, set()).add(entry.ident)
        entry.older = self._newest
        if self._newest is None:
            self._oldest = entry
        else:
            self._newest.newer = entry
        self._newest = entry
        return True

    def remove(self, entry: CacheEntry) -> None:
        """Remove an entry that is in the table."""
        del self.entries[entry.ident]
        self.groups.leave(entry)
        self.weight -= entry.weight
        self.size_bytes -= len(entry.data)
        for tag in _collect_tags(entry):
            _remove_from_index(self._tagged, tag, entry.ident)
        for ident, _ in entry.deps:
            _remove_from_index(self._dependents, ident, entry.ident)
        older, newer = entry.older, entry.newer
        if self._hand is entry:
            self._hand = newer
        if older is None:
            self._oldest = newer
        else:
            older.newer = newer
        if newer is None:
            self._newest = older
        else:
            newer.older = older
        entry.older = entry.newer = None

    def find_tagged(self, tags: Iterable[str]) -> set[Ident]:
        """Return the idents of the entries with any of ``tags``, or computed from such an entry."""
        found: set[Ident] = set()
        for tag in tags:
            found |= self._tagged.get(tag, set())
        return found

    def find_dependents(self, ident: Ident) -> set[Ident]:
        """Return the idents of all entries that were computed from this one."""
        return self._dependents.get(ident, set()) | self._dependents.get(ANY, set())

    def remove_where(self, condition: Callable[[CacheEntry], bool]) -> int:
        """Remove the entries for which ``condition`` holds; return how many."""
        found = [entry for entry in self if condition(entry)]
        for entry in found:
            self.remove(entry)
        return len(found)

    def shrink(self, limit_bytes: int) -> int:
        """Evict entries until the table weighs no more than this; return how many went."""
        before = self.evictions
        while self.weight > limit_bytes:
            self._evict()
        return self.evictions - before

    def __iter__(self) -> Iterator[CacheEntry]:
        entry = self._oldest
        while entry is not None:
            yield entry
            entry = entry.newer

    def _evict(self) -> None:
        hand = self._hand or self._oldest
        while hand is not None and hand.visited:
            hand.visited = False
            hand = hand.newer or self._oldest
        if hand is not None:  # the weight of an empty table is 0, so there is one
            self._hand = hand
            self.remove(hand)  # moves the hand to the next
            self.evictions += 1
            if hand.counts is not None:
                hand.counts.evictions += 1


def _collect_tags(entry: CacheEntry) -> set[str]:
    return {*entry.tags, *(tag for _, tags in entry.deps for tag in tags)}


def _remove_from_index(index: dict[_K, set[Ident]], key: _K, ident: Ident) -> None:
    idents = index.get(key)
    if idents is not None:
        idents.discard(ident)
        if not idents:
            del index[key]


class GroupCounters:
    """The counters of one process by group of keys, exact under threads.

    A fresh hit calls a C counter of its entry and nothing else. The hits of entries are added to
    the counters of their groups when a caller reads these. So that reading need not visit every
    entry, an entry is noted at its first hit of each *epoch*, the time between two readings. A hit
    counts first and compares the epochs after that, so the running reading sees it or it is noted
    for the next one; it is never lost. The caller holds the lock for every method.

    Attributes:
        epoch: changes with every reading.
    """

    __slots__ = ("_by_name", "_touched", "epoch")

    def __init__(self) -> None:
        self.epoch = 0
        self._by_name: dict[str, CacheStats] = {}
        self._touched: set[CacheEntry] = set()

    def get(self, ident: Ident) -> CacheStats:
        """Return the counters of an ident's group."""
        name = find_group(ident)
        found = self._by_name.get(name)
        if found is None:
            if len(self._by_name) >= MOST_GROUPS:
                name = OTHERS
            found = self._by_name.setdefault(name, CacheStats())
        return found

    def enter(self, entry: CacheEntry) -> None:
        """Count an entry that enters the table, and its hits from now on."""
        entry.counts = counts = self.get(entry.ident)
        entry.hit = itertools.count().__next__
        entry.hits_read = 0
        entry.epoch = -1
        counts.entries += 1
        counts.size_bytes += len(entry.data)

    def leave(self, entry: CacheEntry) -> None:
        """Count an entry that leaves the table. A concurrent hit finds another epoch and calls
        :meth:`touch`."""
        entry.epoch = -1
        self._touched.discard(entry)
        self._read(entry)
        if entry.counts is not None:
            entry.counts.entries -= 1
            entry.counts.size_bytes -= len(entry.data)

    def touch(self, entry: CacheEntry, *, kept: bool) -> None:
        """Note an entry whose hit found another epoch.

        Args:
            kept: whether the entry is still in the table.
        """
        if kept:
            entry.epoch = self.epoch
            self._touched.add(entry)
        else:
            self._read(entry)

    def read_all(self) -> dict[str, CacheStats]:
        """Return the counters of all groups with all hits so far; the result is not a copy."""
        self.epoch += 1
        for entry in self._touched:
            self._read(entry)
        self._touched.clear()
        return self._by_name

    def _read(self, entry: CacheEntry) -> None:
        # a counter can only be read by counting, so the count of the reading is subtracted
        seen = entry.hit()
        hits = seen - entry.hits_read
        entry.hits_read = seen + 1
        if hits and entry.counts is not None:
            count_fresh(entry.counts, entry, hits)


def count_fresh(counts: CacheStats, entry: CacheEntry, hits: int = 1) -> None:
    """Count fresh hits, and the bytes and time that they saved."""
    counts.fresh += hits
    count_saved(counts, entry, hits)


def count_saved(counts: CacheStats, entry: CacheEntry, hits: int = 1) -> None:
    """Count the bytes that were not fetched again, and the time that this would have taken."""
    counts.bytes_saved += hits * len(entry.data)
    counts.saved_us += hits * entry.cost_us


class ProcessMemory:
    """The state of one process. ``lock`` guards all of it; no thread holds it during a fetch.

    Args:
        l1_bytes: bound on the memory of the table.

    Attributes:
        table: the entries.
        counters: the counters by group.
        in_flight: the running fetches, with remembered failures and private keys.
        log: past invalidations, for entries that a shared store returns later.
        refused: how many values were not stored, by reason.
    """

    def __init__(self, l1_bytes: int) -> None:
        self.lock = threading.Lock()
        self.counters = GroupCounters()
        self.table = MemoryTable(l1_bytes, self.counters)
        self.in_flight = InFlightTable(self.lock)
        self.log = InvalidationLog()
        self.refused: Counter[str] = Counter()
        self._warned: set[tuple[str, str]] = set()

    def inherit(self, parent: ProcessMemory) -> None:
        """Take over the entries that the parent had when this process was forked."""
        for entry in list(parent.table.entries.values()):
            entry.older = entry.newer = None
            self.table.put(entry)

    # --- counting -------------------------------------------------------------------------------

    def read_stats(self) -> CacheStats:
        """Return the sum of the counters of all groups. The caller holds the lock."""
        total = CacheStats()
        for counts in self.counters.read_all().values():
            total.add(counts)
        return total

    def read_groups(self) -> dict[str, CacheStats]:
        """Return a copy of the counters of each group. The caller holds the lock."""
        return {name: replace(one) for name, one in self.counters.read_all().items()}

    def touch(self, entry: CacheEntry) -> None:
        """Note the first hit of an entry since the counters were last read."""
        with self.lock:
            self.counters.touch(entry, kept=self.table.entries.get(entry.ident) is entry)

    def count(self, ident: Ident, name: str) -> None:
        """Add one to a counter of an ident's group."""
        with self.lock:
            counts = self.counters.get(ident)
            setattr(counts, name, getattr(counts, name) + 1)

    def count_fresh(self, entry: CacheEntry) -> None:
        """Count a fresh hit that the entry itself does not count."""
        with self.lock:
            count_fresh(self.counters.get(entry.ident), entry)

    def count_stale(self, entry: CacheEntry) -> None:
        """Count a stale hit."""
        with self.lock:
            counts = self.counters.get(entry.ident)
            counts.stale += 1
            count_saved(counts, entry)

    def refuse(self, reason: str, subject: str, advice: str) -> None:
        """Count a value that is not stored, and warn the first time for this subject.

        Args:
            reason: a short word for :meth:`.cache.SmartCache.refusals`.
            subject: what is not stored.
            advice: why, and what to do about it.
        """
        with self.lock:
            self.refused[reason] += 1
            first = (reason, subject) not in self._warned
            if first and len(self._warned) < _MOST_WARNINGS:
                self._warned.add((reason, subject))
        if first:
            logger.warning("%s is not cached: %s", subject, advice)

    # --- invalidating; the caller holds the lock ------------------------------------------------

    def invalidate(self, what: Invalidation, at: float) -> list[Ident]:
        """Mark or remove the entries that match, and mark those computed from them.

        Args:
            at: entries and fetches that began later are left alone.

        Returns:
            The entries concerned.
        """
        entries = self.table.entries
        found = {
            i
            for i in self.table.find_tagged(what.tags)
            if what.concerns(i, entries[i].tags, entries[i].deps)
        }
        if what.prefix is not None:
            found |= {i for i, one in entries.items() if what.concerns(i, one.tags, one.deps)}
        else:
            found |= self.table.find_dependents(ANY)
        concerned = [ident for ident in found if entries[ident].began <= at]
        for ident in concerned:
            entry = entries[ident]
            if what.hard and what.matches(ident, entry.tags):
                self.table.remove(entry)
            else:
                entry.mark_stale()
        for fetch in self.in_flight:
            if fetch.began > at:
                continue
            if what.hard and what.matches(fetch.ident, fetch.tags):
                self.in_flight.detach(fetch)
            elif what.concerns(fetch.ident, fetch.tags, tuple(fetch.deps.items())):
                fetch.fence = max(fetch.fence, Fence.STALE)
        self.in_flight.forget_failures(what)
        return concerned

    def invalidate_dependents(self, ident: Ident, at: float) -> list[Ident]:
        """Mark the entries that were computed from one entry up to ``at``; return them."""
        entries = self.table.entries
        marked = [one for one in self.table.find_dependents(ident) if entries[one].began <= at]
        for one in marked:
            entries[one].mark_stale()
        for fetch in self.in_flight:
            if fetch.began <= at and (ident in fetch.deps or ANY in fetch.deps):
                fetch.fence = max(fetch.fence, Fence.STALE)
        return marked

    def clear(self, until: float) -> int:
        """Remove the entries and discard the fetches that began up to ``until``; return how many
        entries went."""
        self.in_flight.failures.clear()
        for fetch in self.in_flight:
            if fetch.began <= until:
                self.in_flight.detach(fetch)
        return self.table.remove_where(lambda entry: entry.began <= until)
