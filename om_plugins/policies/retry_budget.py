"""The retry budget: retries may be a share of the calls, and no more.

Without a budget, an upstream that fails gets every call several times just when it is weakest.
After Finagle's ``RetryBudget``: each call deposits a part of a retry, each retry withdraws a whole
one, deposits expire with time, and a floor lets services with few calls retry, too.
"""

from __future__ import annotations

import itertools
import math
import threading

from ..core.fork import renew_after_fork

MEMORY_S = 10.0
"""How long a deposit lasts, as the time constant of its decay."""


class RetryBudget:
    """The retries that all callers of a chain share.

    Args:
        ratio: retries per call, over time: 0.2 is one in five.
        floor_per_s: retries per second that are always allowed. Those of ten seconds are saved at
            most, and are available at the start.
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
        """Withdraw one retry or hedge; returns False when the budget is spent."""
        with self._lock:
            self._settle(now)
            if self._balance < 1.0:
                return False
            self._balance -= 1.0
            return True

    def charge(self, now: float) -> None:
        """Withdraw one hedge that has begun already; the balance may become negative.

        Many calls may need a hedge at the same moment, when the balance allowed each of them alone.
        """
        with self._lock:
            self._settle(now)
            self._balance -= 1.0

    def balance(self, now: float) -> float:
        """Return how many retries are allowed at this moment."""
        with self._lock:
            self._settle(now)
            return self._balance

    def _settle(self, now: float) -> None:
        # Solves b' = deposits - b / MEMORY_S, with the calls since then spread evenly. Looking at
        # the counter uses a number up, so the count leaves it out.
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
