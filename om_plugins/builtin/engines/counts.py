"""Counters that are exact under threads and begin at zero in each process."""

from __future__ import annotations

import os
import threading


class Counts:
    """Named counters of this process.

    A forked child begins at zero, with a lock of its own: the parent's may have been held.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._processes: dict[int, tuple[threading.Lock, dict[str, int]]] = {}

    def add(self, **amounts: int) -> None:
        """Add to some of the counters, all at once."""
        lock, counts = self._get_counters()
        with lock:
            for name, amount in amounts.items():
                counts[name] = counts.get(name, 0) + amount

    def snapshot(self) -> dict[str, int]:
        """All counters at this moment."""
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
