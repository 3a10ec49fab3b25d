"""What the cache keeps per process: locks, entries, fetches under way, counters.

Made on first use and again in a forked child, where the parent's locks may be held by threads
that do not exist and its fetches never end.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable

from ..types import CacheStats
from .entry import Entry
from .invalidation import Invalidation, Memory
from .keys import Ident
from .memory import Local
from .memory__groups import Groups, count_fresh
from .refresh__line import Line
from .shared_store import News
from .singleflight import Flights
from .subscriptions import Watch

__all__ = ["Process", "process_of"]

logger = logging.getLogger("om_plugins")

process_of = os.getpid

PRIVATE_S = 60.0
_MOST_MARKS = 10_000
_MOST_WARNINGS = 1000
_STORE_LOCKS = 16


class Process:
    """The state of one process; ``lock`` guards all of it, and is never held during a fetch.

    Attributes:
        groups: the counters.
        failed: errors of fetches, which are raised again until a monotonic time, with the tags
            by which they are forgotten sooner.
        private: keys whose last answer was one caller's own: until a monotonic time, callers
            do not wait for each other's fetch.
        refused, warned: what was not kept, by reason, and what was said about it.
    """

    def __init__(self, l1_bytes: int, news: News, watch: Watch, line: Line) -> None:
        self.lock = threading.Lock()
        self.groups = Groups()
        self.local = Local(l1_bytes, self.groups)
        self.flights = Flights()
        self.memory = Memory()
        self.news = news
        self.watch = watch
        self.line = line
        self.failed: dict[Ident, tuple[Exception, float, tuple[str, ...]]] = {}
        self.private: dict[Ident, float] = {}
        self.refused: Counter[str] = Counter()
        self.warned: set[tuple[str, str]] = set()
        self.jobs: list[Callable[[], None]] = []
        self._store_locks = [threading.Lock() for _ in range(_STORE_LOCKS)]

    def store_lock(self, ident: Ident) -> threading.Lock:
        """Orders the writes of one key to the store."""
        return self._store_locks[hash(ident) % _STORE_LOCKS]

    def inherit(self, parent: Process) -> None:
        """Take over the entries that the parent had when this process was forked."""
        for entry in list(parent.local.entries.values()):
            entry.older = entry.newer = None
            self.local.put(entry)

    def snapshot(self) -> CacheStats:
        """The counters now, of all groups together. The lock is held."""
        total = CacheStats()
        for counts in self.groups.by_name().values():
            total.add(counts)
        return total

    def touch(self, entry: Entry) -> None:
        """An entry was hit for the first time since the counters were last read."""
        with self.lock:
            self.groups.touch(entry, kept=self.local.entries.get(entry.ident) is entry)

    def count_fresh(self, entry: Entry) -> None:
        """Count a fresh hit that is not counted by the entry itself."""
        with self.lock:
            count_fresh(self.groups.of(entry.ident), entry)

    def remember_failure(
        self, ident: Ident, error: Exception, until: float, tags: tuple[str, ...] = ()
    ) -> None:
        """Raise ``error`` again for the same key until then."""
        with self.lock:
            if len(self.failed) >= _MOST_MARKS:
                self.failed.pop(next(iter(self.failed)))
            self.failed[ident] = (error, until, tags)

    def remembered_failure(self, ident: Ident, now: float) -> Exception | None:
        """The error to raise again, if there is one. The lock is held."""
        found = self.failed.get(ident)
        if found is None:
            return None
        if now < found[1]:
            return found[0]
        del self.failed[ident]
        return None

    def forget_failures(self, what: Invalidation) -> None:
        """Ask again for what an invalidation means. The lock is held."""
        for ident in [i for i, (_, _, tags) in self.failed.items() if what.matches(i, tags)]:
            del self.failed[ident]

    def mark_private(self, ident: Ident, now: float) -> None:
        """For a while, nobody waits for another's fetch of this key."""
        with self.lock:
            if len(self.private) >= _MOST_MARKS:
                self.private.pop(next(iter(self.private)))
            self.private[ident] = now + PRIVATE_S

    def is_private(self, ident: Ident, now: float) -> bool:
        """Whether callers fetch on their own. The lock is held."""
        return ident in self.private and now < self.private[ident]

    def forget_old_marks(self, now: float) -> None:
        """Give back the memory of marks that are over. The lock is held."""
        for ident in [i for i, (_, until, _) in self.failed.items() if now >= until]:
            del self.failed[ident]
        for ident in [i for i, until in self.private.items() if now >= until]:
            del self.private[ident]

    def refuse(self, reason: str, subject: str, advice: str) -> None:
        """Count that something was not kept, and warn the first time for this subject.

        Args:
            reason: a short word for :meth:`.smart.SmartCache.refusals`.
            subject: what was not kept.
            advice: why, and the way out.
        """
        with self.lock:
            self.refused[reason] += 1
            first = (reason, subject) not in self.warned
            if first and len(self.warned) < _MOST_WARNINGS:
                self.warned.add((reason, subject))
        if first:
            logger.warning("%s is not cached: %s", subject, advice)

    def stop(self) -> None:
        """End the background jobs."""
        for stop in self.jobs:
            stop()
        self.jobs.clear()
