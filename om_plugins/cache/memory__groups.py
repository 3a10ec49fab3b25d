"""Counters by group of keys, exact under threads.

A fresh hit calls a C counter of its entry and nothing else. What entries have counted is added to
their groups when somebody looks. So that this need not visit every entry, an entry that was hit is
noted once per *epoch*, the time between two looks: a hit counts first and compares the epochs
then, so it is seen by the look under way or noted for the next one, never lost.
"""

from __future__ import annotations

import itertools

from ..types import CacheStats
from .entry import Entry
from .keys import Ident, group_of

__all__ = ["MOST_GROUPS", "OTHERS", "Groups"]

MOST_GROUPS = 200
OTHERS = "<others>"
"""Counts what comes after that many groups."""


class Groups:
    """The counters of one process. The owner's lock is held for every method.

    Attributes:
        epoch: changes with every look.
    """

    __slots__ = ("_by_name", "_touched", "epoch")

    def __init__(self) -> None:
        self.epoch = 0
        self._by_name: dict[str, CacheStats] = {}
        self._touched: set[Entry] = set()

    def of(self, ident: Ident) -> CacheStats:
        """The counters of an ident's group."""
        name = group_of(ident)
        found = self._by_name.get(name)
        if found is None:
            if len(self._by_name) >= MOST_GROUPS:
                name = OTHERS
            found = self._by_name.setdefault(name, CacheStats())
        return found

    def enter(self, entry: Entry) -> None:
        """An entry came into the table: count it, and its hits from now on."""
        entry.counts = counts = self.of(entry.ident)
        entry.hit = itertools.count().__next__
        entry.hits_read = 0
        entry.epoch = -1
        counts.entries += 1
        counts.size_bytes += len(entry.data)

    def leave(self, entry: Entry) -> None:
        """An entry left the table. A hit under way finds another epoch, and is noted late."""
        entry.epoch = -1
        self._touched.discard(entry)
        self._read(entry)
        if entry.counts is not None:
            entry.counts.entries -= 1
            entry.counts.size_bytes -= len(entry.data)

    def touch(self, entry: Entry, *, kept: bool) -> None:
        """A hit found another epoch.

        Args:
            kept: whether the entry is still in the table.
        """
        if kept:
            entry.epoch = self.epoch
            self._touched.add(entry)
        else:
            self._read(entry)

    def by_name(self) -> dict[str, CacheStats]:
        """All groups with all hits so far; not a copy."""
        self.epoch += 1
        for entry in self._touched:
            self._read(entry)
        self._touched.clear()
        return self._by_name

    def _read(self, entry: Entry) -> None:
        # a counter can only be read by counting: what reading added is taken off again
        seen = entry.hit()
        hits = seen - entry.hits_read
        entry.hits_read = seen + 1
        if hits and entry.counts is not None:
            count_fresh(entry.counts, entry, hits)


def count_fresh(counts: CacheStats, entry: Entry, hits: int = 1) -> None:
    """Count fresh hits, and what they saved."""
    counts.fresh += hits
    count_saved(counts, entry, hits)


def count_saved(counts: CacheStats, entry: Entry, hits: int = 1) -> None:
    """Count the bytes that were not made again, and the time that this would have taken."""
    counts.bytes_saved += hits * len(entry.data)
    counts.saved_us += hits * entry.cost_us
