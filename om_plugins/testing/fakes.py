"""Stand-ins for tests: time that moves when told to."""

from __future__ import annotations

import threading


class FakeClock:
    """A clock that moves only by :meth:`advance` and :meth:`sleep`; nobody really waits.

    Args:
        now: Unix time to begin with; the monotonic clock begins at 1000.

    Attributes:
        slept: every duration that was slept, in order.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0
        self._lock = threading.Lock()
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self._monotonic

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        with self._lock:
            self._now += seconds
            self._monotonic += seconds

    def sleep(self, seconds: float) -> None:
        """Return at once, ``seconds`` later on this clock."""
        self.slept.append(seconds)
        self.advance(seconds)
