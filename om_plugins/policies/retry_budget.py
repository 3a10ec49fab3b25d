"""The retry budget: retries may be a share of the calls, and no more.

Without it, an upstream that fails gets every call several times over just when it is weakest.
After Finagle's ``RetryBudget`` (each call deposits a fraction of a retry, each retry withdraws a
whole one, deposits are forgotten with time, a floor keeps quiet services able to retry).
"""

from __future__ import annotations

import itertools
import math
import threading

from ..core.fork import renew_after_fork

MEMORY_S = 10.0
"""How long a deposit lasts, as the time constant of its decay."""


class RetryBudget:
    """Who may retry, shared by all callers of a chain.

    Args:
        ratio: retries per call, over time: 0.2 is one in five.
        floor_per_s: retries per second that are always allowed; up to ten seconds' worth are
            saved up, and are there at the start.
        now: the monotonic time.
    """

    __slots__ = ("__weakref__", "_balance", "_floor_per_s", "_lock", "_ratio", "_seen", "_then",
                 "deposit")  # fmt: skip

    def __init__(self, ratio: float, floor_per_s: float, now: float) -> None:
        self._ratio = ratio
        self._floor_per_s = floor_per_s
        # Counting is one atomic step without a lock: it happens on every call.
        self.deposit = itertools.count().__next__
        """Count a call."""
        self._seen = 0
        self._balance = floor_per_s * MEMORY_S
        self._then = now
        self._lock = threading.Lock()
        renew_after_fork(self)

    def withdraw(self, now: float) -> bool:
        """Ask for one retry (or hedge); False when the budget is spent."""
        with self._lock:
            self._settle(now)
            if self._balance < 1.0:
                return False
            self._balance -= 1.0
            return True

    def charge(self, now: float) -> None:
        """Take one for a hedge that is under way; what is owed then is paid before the next.

        Many calls may have been found slow at the same moment, each when there was one left.
        """
        with self._lock:
            self._settle(now)
            self._balance -= 1.0

    def balance(self, now: float) -> float:
        """How many retries are allowed at this moment."""
        with self._lock:
            self._settle(now)
            return self._balance

    def _settle(self, now: float) -> None:
        # Solves b' = deposits - b / MEMORY_S, with the calls since then spread evenly. Looking at
        # the counter uses a number up, so that number is left out of the count.
        count = self.deposit()
        calls, self._seen = count - self._seen, count + 1
        elapsed = max(now - self._then, 0.0)
        self._then = max(now, self._then)
        deposits = self._ratio * calls + self._floor_per_s * elapsed
        passed = elapsed / MEMORY_S
        kept = -math.expm1(-passed) / passed if passed else 1.0
        self._balance = self._balance * math.exp(-passed) + deposits * kept

    def after_fork(self) -> None:
        self._lock = threading.Lock()
