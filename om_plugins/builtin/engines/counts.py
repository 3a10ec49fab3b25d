"""Counters that are exact under threads and start at zero in each process."""

from __future__ import annotations

import os
import threading


class Counts:
    """Named counters of this process.

    A forked child starts at zero with its own lock, because a thread of the parent may have held
    the parent's lock at the fork.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._processes: dict[int, tuple[threading.Lock, dict[str, int]]] = {}

    def add(self, **amounts: int) -> None:
        """Add to several counters in one step."""
        lock, counts = self._get_counters()
        with lock:
            for name, amount in amounts.items():
                counts[name] = counts.get(name, 0) + amount

    def snapshot(self) -> dict[str, int]:
        """A consistent copy of all counters."""
        lock, counts = self._get_counters()
        with lock:
            return dict(counts)

    def _get_counters(self) -> tuple[threading.Lock, dict[str, int]]:
        pid = os.getpid()
        found = self._processes.get(pid)
        if found is None:
            made = (threading.Lock(), dict.fromkeys(self._names, 0))
            found = self._processes.setdefault(pid, made)
        return found
