"""Counters that are exact under threads and start at zero in each process."""

from __future__ import annotations

import threading

from ...core.fork import PerProcess


class Counts:
    """Named counters of this process.

    A forked child starts at zero with its own lock, because a thread of the parent may have held
    the parent's lock at the fork.
    """

    def __init__(self, *names: str) -> None:
        self._counters = PerProcess(lambda: (threading.Lock(), dict.fromkeys(names, 0)))

    def add(self, **amounts: int) -> None:
        """Add to several counters in one step."""
        lock, counts = self._counters.get()
        with lock:
            for name, amount in amounts.items():
                counts[name] = counts.get(name, 0) + amount

    def snapshot(self) -> dict[str, int]:
        """A consistent copy of all counters."""
        lock, counts = self._counters.get()
        with lock:
            return dict(counts)
