"""The real clock, and the one of applications under test."""

from __future__ import annotations

import time as _time


class SystemClock:
    """The process's own time (see :class:`om_plugins.protocols.Clock`)."""

    __slots__ = ()

    monotonic = staticmethod(_time.monotonic)
    time = staticmethod(_time.time)
    sleep = staticmethod(_time.sleep)


LONGEST_SLEEP_S = 0.001
"""How long :class:`UnsleepingClock` sleeps at most: a loop that polls lets other threads run."""


class UnsleepingClock:
    """The real time, and no waits: the clock of an application under ``TESTING``.

    What sleeps between two attempts or polls goes on at once, so a test suite pays for no backoff.
    """

    __slots__ = ()

    monotonic = staticmethod(_time.monotonic)
    time = staticmethod(_time.time)

    def sleep(self, seconds: float) -> None:
        """Let other threads run."""
        _time.sleep(max(0.0, min(seconds, LONGEST_SLEEP_S)))
