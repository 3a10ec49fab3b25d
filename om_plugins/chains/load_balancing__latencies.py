"""How long an engine takes: what a hedge waits for, and what a choice among equals goes by."""

from __future__ import annotations

import math
import threading

from ..core.fork import renew_after_fork
from ..core.histogram import Histogram

ENOUGH = 50
"""Answers before a quantile is believed."""
TURN = 500
"""Answers after which the older half is forgotten."""
EVERY = 25
"""The quantile is read anew after so many answers."""
SLACK = 1.1
"""A hedge is due a tenth later than the quantile: of an engine that always takes the same time,
nothing should be cut."""
SHORTEST_S = 0.001
"""A hedge waits at least this long."""

MEMORY_S = 10.0
"""How long a slow answer is held against an engine: the time constant of the decay."""
PENALTY_S = 1.0
"""What a failure counts as, at least: an engine that fails fast must not look fast."""
PENALTY_MAX_S = 5.0
"""What failures in a row count as, at most: one that is back must be found out in time."""


class Quantile:
    """A quantile of the newest 500 to 1,000 answer times.

    Args:
        share: which one, 0 to 1.

    Attributes:
        value_s: the quantile in seconds, and a tenth; ``None`` while too little is known. Read
            without a lock.
    """

    __slots__ = ("__weakref__", "_lock", "_newer", "_older", "share", "value_s")

    def __init__(self, share: float) -> None:
        self.share = share
        self.value_s: float | None = None
        self._older = Histogram()
        self._newer = Histogram()
        self._lock = threading.Lock()
        renew_after_fork(self)

    def record(self, duration_s: float) -> None:
        """Count an answer."""
        with self._lock:
            newer = self._newer
            newer.record(duration_s)
            known = self._older.count + newer.count
            if known >= ENOUGH and newer.count % EVERY == 0:
                both = Histogram()
                both.add(self._older)
                both.add(newer)
                self.value_s = max(SLACK * (both.quantile(self.share) or 0.0), SHORTEST_S)
            if newer.count >= TURN:
                self._older, self._newer = newer, Histogram()

    def after_fork(self) -> None:
        self._lock = threading.Lock()


class Load:
    """How busy and how quick one engine of several equals is.

    The expected time is a *peak* exponentially weighted moving average, as in Finagle's
    ``PeakEwma``: a slow answer counts at once, and is forgiven with time.

    Attributes:
        in_flight: calls at work now.
        failures_in_a_row: since the last answer.
    """

    __slots__ = ("__weakref__", "_at", "_expected_s", "_lock", "failures_in_a_row", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        self.failures_in_a_row = 0
        self._expected_s = 0.0
        self._at = 0.0
        # Re-entrant, because a stream that is garbage-collected leaves here, and the collector
        # may run in the middle of anything.
        self._lock = threading.RLock()
        renew_after_fork(self)

    def enter(self) -> None:
        """A call begins."""
        with self._lock:
            self.in_flight += 1

    def leave(self) -> None:
        """A call ended, whatever it says about the engine."""
        with self._lock:
            if self.in_flight:  # else it began before a fork, in the parent
                self.in_flight -= 1

    def answered(self, duration_s: float, now: float) -> None:
        """The engine answered."""
        with self._lock:
            self.failures_in_a_row = 0
            self._take(duration_s, now)

    def failed(self, duration_s: float, now: float) -> int:
        """The engine failed; returns how often in a row."""
        with self._lock:
            self.failures_in_a_row += 1
            penalty_s = min(max(PENALTY_S, 2 * self._expected_s), PENALTY_MAX_S)
            self._take(max(duration_s, penalty_s), now)
            return self.failures_in_a_row

    def expected_s(self, now: float) -> float:
        """How long an answer takes, by what was seen lately; 0.0 when nothing was."""
        return self._expected_s * math.exp(-max(now - self._at, 0.0) / MEMORY_S)

    def cost(self, now: float) -> float:
        """Expected seconds of all that is at work, and of one call more.

        Of an engine that has not answered yet one call finds out, and not everybody's.
        """
        if not self._expected_s and self.in_flight:
            return PENALTY_S * (self.in_flight + 1)
        return (self.expected_s(now) + 1e-6) * (self.in_flight + 1)

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        self.in_flight = 0  # those calls are the parent's

    def _take(self, duration_s: float, now: float) -> None:
        kept = math.exp(-max(now - self._at, 0.0) / MEMORY_S)
        if duration_s >= self._expected_s * kept:
            self._expected_s = duration_s
        else:
            self._expected_s = self._expected_s * kept + duration_s * (1.0 - kept)
        self._at = now
