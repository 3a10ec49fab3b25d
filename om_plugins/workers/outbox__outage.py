"""Outage: when something that went away is tried again.

Each half second where a try costs nothing (a connection that is refused). Where it has to wait,
so seldom that trying takes a twentieth of one thread's time. What comes and goes is left alone for
twice as long each time, up to half a minute, until it has stayed for ten seconds.
"""

from __future__ import annotations

import math

__all__ = ["Outage"]

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STEADY_S = 10.0
_SHARE_OF_TRYING = 0.05


class Outage:
    """Whether one thing is away, and when to try it. Times are monotonic seconds.

    It has no lock: of two threads that find a try due at the very same moment, both may try.

    Attributes:
        down: it is away.
        retry_at: when the next try is due.
    """

    __slots__ = ("_back_at", "_pause_s", "down", "retry_at")

    def __init__(self) -> None:
        self.down = False
        self.retry_at = -math.inf
        self._pause_s = FIRST_PAUSE_S
        self._back_at = -math.inf

    def due(self, now: float) -> bool:
        """Whether to try now; the caller then does, and the next try is later."""
        if now < self.retry_at:
            return False
        self.retry_at = now + self._pause_s
        return True

    def failed(self, now: float, took_s: float = 0.0) -> bool:
        """It is away, or still away.

        Args:
            took_s: what it took to find out.

        Returns:
            True when it went away just now.
        """
        began = not self.down
        if began:
            flaps = now - self._back_at < STEADY_S
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S) if flaps else FIRST_PAUSE_S
        self.down = True
        patience = min(took_s / _SHARE_OF_TRYING, LONGEST_PAUSE_S)
        self.retry_at = now + max(self._pause_s, patience)
        return began

    def over(self, now: float) -> None:
        """It is back."""
        self.down = False
        self._back_at = now
