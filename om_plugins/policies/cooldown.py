"""Cooldown: leaving one engine alone for a while although it is not broken.

An engine that answered "too many requests" cools down, one with wrong credentials is offline:
neither says anything about its failure rate, so the breaker does not count them.
"""

from __future__ import annotations

import threading
from typing import Literal

from ..core.fork import renew_after_fork

Reason = Literal["cooling down", "offline"]


class Cooldown:
    """Why, and until when, an engine is left alone.

    Attributes:
        until: when it may be asked again (monotonic), 0.0 while nothing is against it: a caller
            reads this without the lock and asks :meth:`refused` only when it is not 0.0.
        reason: ``"cooling down"`` ends by itself; ``"offline"`` ends when one probe succeeds.
    """

    __slots__ = ("__weakref__", "_lock", "_wait_s", "reason", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self.reason: Reason = "cooling down"
        self._wait_s = 0.0
        self._lock = threading.Lock()
        renew_after_fork(self)

    def begin(self, reason: Reason, seconds: float, now: float) -> None:
        """Leave the engine alone. A longer or graver cooldown under way is not shortened."""
        with self._lock:
            if reason == "cooling down" and self.until and self.reason == "offline":
                return
            if reason == self.reason:
                self.until = max(self.until, now + seconds)
            else:
                self.reason, self.until = reason, now + seconds
            self._wait_s = seconds

    def refused(self, now: float) -> bool:
        """True when the engine must not be asked now.

        When an offline engine's time is over, the first caller is its probe; the others are
        refused until the probe ends well or has taken as long as the cooldown itself.
        """
        with self._lock:
            if now < self.until:
                return True
            if self.reason == "offline" and self.until:
                self.until = now + self._wait_s
            else:
                self.until = 0.0
            return False

    def succeeded(self) -> None:
        """The engine answered: it is not offline. Patience that it asked for still counts."""
        with self._lock:
            if self.reason == "offline":
                self.until = 0.0

    def after_fork(self) -> None:
        self._lock = threading.Lock()
