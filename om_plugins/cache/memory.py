"""The first level: entries in this process's memory, bounded in bytes, evicted by SIEVE.

SIEVE (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024) keeps entries in the order of their
arrival and only sets a bit on a hit, so a hit takes no lock and moves nothing. A hand walks from
the oldest entry to the newest, clears bits, and evicts the first entry that has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from .entry import Entry
from .invalidation import ANY
from .keys import Ident
from .memory__groups import Groups

__all__ = ["Local"]

_K = TypeVar("_K")


class Local:
    """A table of entries. The owner's lock is held for every method; ``entries.get`` needs none.

    Args:
        limit_bytes: bound on the weight of all entries: key, value and overhead.
        groups: the counters.

    Attributes:
        entries: by ident.
        weight: what counts against the limit.
        size_bytes: the encoded values alone.
        evictions: entries pushed out by the limit so far.
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

    def __init__(self, limit_bytes: int, groups: Groups | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.groups = Groups() if groups is None else groups
        self.entries: dict[Ident, Entry] = {}
        self.weight = 0
        self.size_bytes = 0
        self.evictions = 0
        self._oldest: Entry | None = None
        self._newest: Entry | None = None
        self._hand: Entry | None = None
        self._tagged: dict[str, set[Ident]] = {}
        self._dependents: dict[Ident, set[Ident]] = {}

    def put(self, entry: Entry) -> bool:
        """Add or replace an entry; False when it alone is over the limit."""
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
        for tag in _all_tags(entry):
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

    def remove(self, entry: Entry) -> None:
        """Take out an entry that is in the table."""
        del self.entries[entry.ident]
        self.groups.leave(entry)
        self.weight -= entry.weight
        self.size_bytes -= len(entry.data)
        for tag in _all_tags(entry):
            _discard(self._tagged, tag, entry.ident)
        for ident, _ in entry.deps:
            _discard(self._dependents, ident, entry.ident)
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

    def tagged(self, tags: Iterable[str]) -> set[Ident]:
        """The idents of all entries that have any of ``tags``, or were computed from one."""
        found: set[Ident] = set()
        for tag in tags:
            found |= self._tagged.get(tag, set())
        return found

    def dependents(self, ident: Ident) -> set[Ident]:
        """The idents of all entries that were computed from this one."""
        return self._dependents.get(ident, set()) | self._dependents.get(ANY, set())

    def remove_where(self, condition: Callable[[Entry], bool]) -> int:
        """Take out the entries for which ``condition`` holds; returns how many."""
        found = [entry for entry in self if condition(entry)]
        for entry in found:
            self.remove(entry)
        return len(found)

    def shrink(self, limit_bytes: int) -> int:
        """Push entries out until they weigh no more than this; returns how many went."""
        before = self.evictions
        while self.weight > limit_bytes:
            self._evict()
        return self.evictions - before

    def __iter__(self) -> Iterator[Entry]:
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


def _all_tags(entry: Entry) -> set[str]:
    return {*entry.tags, *(tag for _, tags in entry.deps for tag in tags)}


def _discard(index: dict[_K, set[Ident]], key: _K, ident: Ident) -> None:
    idents = index.get(key)
    if idents is not None:
        idents.discard(ident)
        if not idents:
            del index[key]
