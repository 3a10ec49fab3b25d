"""Cooldown: no calls to an engine for a while although it is not broken.

An engine that answered "too many requests" cools down; an engine that refuses its own probe (wrong
credentials, wrong address) is offline. Neither says anything about its failure rate, so the breaker
does not count them.
"""

from __future__ import annotations

import threading
from typing import Literal

from ..core.fork import renew_after_fork

Reason = Literal["cooling down", "offline"]


class Cooldown:
    """Why, and until when, an engine gets no calls.

    Attributes:
        until: when it may get calls again (monotonic); 0.0 when there is no cooldown. A caller
            reads this without the lock and calls :meth:`refused` only when it is not 0.0.
        reason: ``"cooling down"`` ends by itself; ``"offline"`` ends when a probe succeeds.
    """

    __slots__ = ("__weakref__", "_lock", "_trial", "_wait_s", "reason", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self.reason: Reason = "cooling down"
        self._wait_s = 0.0
        self._trial = False
        self._lock = threading.Lock()
        renew_after_fork(self)

    def begin(self, reason: Reason, seconds: float, now: float) -> None:
        """Begin a cooldown. It does not shorten a longer or more serious one.

        Args:
            reason: why the engine gets no calls.
            seconds: for how long.
            now: the monotonic time.
        """
        with self._lock:
            if reason == "cooling down" and self.until and self.reason == "offline":
                return
            if reason == self.reason:
                self.until = max(self.until, now + seconds)
            else:
                self.reason, self.until = reason, now + seconds
            self._wait_s = seconds
            self._trial = False

    def refused(self, now: float) -> bool:
        """Return True when the engine must not get a call now.

        When the time of an offline engine is over, one call is let in as a trial. Other calls are
        refused until the trial succeeds, says nothing, or has taken as long as the cooldown itself.
        """
        with self._lock:
            if now < self.until:
                return True
            if self.reason == "offline" and self.until:
                self.until = now + self._wait_s
                self._trial = True
            else:
                self.until = 0.0
            return False

    def release(self, now: float) -> None:
        """Record that a call ended in a way that says nothing about the engine. When it was the
        trial of an offline engine, the next call is the trial."""
        with self._lock:
            if self._trial and self.reason == "offline" and self.until:
                self.until = now
                self._trial = False

    def succeeded(self) -> bool:
        """Record that the engine answered: it is not offline. A wait it asked for still holds.

        Returns:
            True when it was offline until now.
        """
        with self._lock:
            was_offline = self.reason == "offline" and self.until > 0.0
            if was_offline:
                self.until = 0.0
            return was_offline

    def after_fork(self) -> None:
        self._lock = threading.Lock()
