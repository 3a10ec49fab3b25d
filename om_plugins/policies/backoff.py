"""Backoff: how long a call waits between two attempts, and how that wait ends early.

Full jitter (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): a
uniformly random share of a growing cap spreads the callers best and costs the upstream least.

A deadline is a point on the monotonic clock. No retry and no wait extends the total deadline of a
call. A chain reserves a small part of the total time for later *local* tiers, so that a first tier
that hangs cannot use up the time of the tier that would certainly have answered.

A caller that waits for its next attempt holds a thread of the server. It must not hold the thread
for an answer that nobody wants any more, and it must not delay a server that is stopping.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

from ..core.clock import SystemClock
from ..protocols import Clock
from ..types import Call

RESERVE_SHARE = 0.05
RESERVE_MAX_S = 0.25

STOPPING_CHECK_S = 0.25
"""How often a waiting caller checks whether the server is stopping."""


def full_jitter(
    retry: int,
    caps_s: Sequence[float],
    *,
    at_least_s: float = 0.0,
    draw: Callable[[], float] = random.random,
) -> float:
    """Return the seconds to wait before a retry.

    Args:
        retry: the number of the retry, from 1.
        caps_s: the longest wait before the first, second, … retry; the last cap repeats. Without
            caps there is no wait.
        at_least_s: the wait that the upstream asked for (Retry-After, RFC 9110 section 10.2.3).
        draw: returns a uniform random number from 0 to 1.
    """
    cap_s = caps_s[min(retry, len(caps_s)) - 1] if caps_s else 0.0
    return max(draw() * cap_s, at_least_s)


def reserve_s(timeout_s: float) -> float:
    """Return the seconds of a call's time that are reserved for later local tiers.

    Args:
        timeout_s: the total time of the call, ``inf`` for no limit.

    Returns:
        5 % of the total, at most 250 ms.
    """
    return min(timeout_s * RESERVE_SHARE, RESERVE_MAX_S)


class BackoffSleeper:
    """Lets the callers of one chain wait between attempts.

    Args:
        clock: the clock. Of a clock that is not the system's, only ``sleep`` is used.
        stopping: returns True once the process is about to stop.
    """

    __slots__ = ("_clock", "_stopping", "_waiting")

    def __init__(self, clock: Clock, stopping: Callable[[], bool] = lambda: False) -> None:
        self._clock = clock
        self._stopping = stopping
        self._waiting: set[threading.Event] = set()

    def sleep(self, seconds: float, call: Call) -> bool:
        """Wait in the calling thread.

        Args:
            seconds: how long.
            call: the wait ends early when this call is cancelled.

        Returns:
            False when the wait ended early: the call was cancelled, :meth:`wake_all` was called or
            the process is stopping.
        """
        if not isinstance(self._clock, SystemClock):
            self._clock.sleep(seconds)
            return not self._stopping()
        monotonic = self._clock.monotonic
        until = monotonic() + seconds
        woken = threading.Event()
        self._waiting.add(woken)
        forget = call.on_cancel(woken.set)
        try:
            while (left := until - monotonic()) > 0:
                if self._stopping() or woken.wait(min(left, STOPPING_CHECK_S)):
                    return False
            return True
        finally:
            forget()
            self._waiting.discard(woken)

    @property
    def waiting(self) -> int:
        """How many callers wait at this moment."""
        return len(self._waiting)

    def wake_all(self) -> None:
        """End every wait that is under way."""
        for woken in list(self._waiting):
            woken.set()
