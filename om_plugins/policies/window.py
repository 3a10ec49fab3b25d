"""Sliding windows: how many of the latest calls there were, failed and were slow.

By time or by count, as in resilience4j's ``CircuitBreaker``. The owner holds its lock while it
calls any of these methods.
"""

from __future__ import annotations

from collections import deque

BUCKETS = 10
"""A window by time drops its oldest calls in this many steps."""

NEVER = float("-inf")


class TimeWindow:
    """The calls of the last ``window_s`` seconds.

    Attributes:
        bucket_end: the time until which calls may be added without :meth:`roll`.
        totals: calls, failures and slow calls in the window.
    """

    __slots__ = ("_calls", "_failures", "_older", "_past", "_slow", "_width_s", "bucket_end")

    def __init__(self, window_s: float) -> None:
        self._width_s = window_s / BUCKETS
        self.clear()

    def clear(self) -> None:
        """Drop all calls."""
        self.bucket_end = NEVER
        self._calls = self._failures = self._slow = 0
        self._older = (0, 0, 0)
        self._past: deque[tuple[int, int, int]] = deque(maxlen=BUCKETS - 1)

    def add(self, calls: int, failed: bool, slow: bool) -> None:
        """Count ``calls`` calls that ended in the same way."""
        self._calls += calls
        if failed:
            self._failures += calls
        if slow:
            self._slow += calls

    def roll(self, now: float) -> None:
        """Begin the bucket of ``now``, and drop the buckets that have left the window."""
        bucket = now // self._width_s
        if self.bucket_end != NEVER:
            self._past.append((self._calls, self._failures, self._slow))
            empty = round(bucket - self.bucket_end / self._width_s)
            self._past.extend([(0, 0, 0)] * min(empty, BUCKETS))
            self._calls = self._failures = self._slow = 0
            sums = [sum(column) for column in zip(*self._past, strict=True)]
            self._older = (sums[0], sums[1], sums[2])
        self.bucket_end = (bucket + 1) * self._width_s

    @property
    def totals(self) -> tuple[int, int, int]:
        calls, failures, slow = self._older
        return calls + self._calls, failures + self._failures, slow + self._slow


class CountWindow:
    """The last ``size`` calls; each new call drops the oldest one."""

    __slots__ = ("_bad", "_last", "_size", "bucket_end")

    def __init__(self, size: int) -> None:
        self._size = size
        self._last: deque[int] = deque(maxlen=size)
        self.bucket_end = NEVER  # every call must be added
        self.clear()

    def clear(self) -> None:
        """Drop all calls."""
        self._last.clear()
        self._bad = [0, 0, 0, 0]  # by kind of call: well, failed, slow, both

    def add_well(self) -> bool:
        """Count a call that did not fail and was not slow; returns True for the first of all."""
        last = self._last
        full = len(last) == self._size
        if full and (oldest := last[0]):
            self._bad[oldest] -= 1
        last.append(0)
        return not full and len(last) == 1

    def add(self, calls: int, failed: bool, slow: bool) -> None:
        """Count ``calls`` calls that ended in the same way."""
        kind = failed + 2 * slow
        for _ in range(calls):
            self.add_well()
            self._last[-1] = kind
            self._bad[kind] += 1

    def roll(self, now: float) -> None:
        """Do nothing: time drops no call from this window."""

    @property
    def totals(self) -> tuple[int, int, int]:
        _, failed, slow, both = self._bad
        return len(self._last), failed + both, slow + both


Window = TimeWindow | CountWindow
