"""What passes through one engine's place, where somebody has asked for more than a breaker.

A bulkhead bounds how many calls are at work at once; a load says how busy and quick the engine is
beside its equals; a quantile says when a hedge is due. A place with none of them has no traffic
object at all, and pays one look for that.
"""

from __future__ import annotations

from ..policies.bulkhead import Bulkhead
from .load_balancing__latencies import Load, Quantile


class Traffic:
    """The optional parts of one place.

    Args:
        bulkhead: bounds the calls at work.
        load: for a tier of several engines.
        times: for hedging.
        longest_wait_s: how long a call waits for its turn at the bulkhead, at most.

    Every call that :meth:`enter` let in says :meth:`leave` exactly once.
    """

    __slots__ = ("bulkhead", "load", "longest_wait_s", "times")

    def __init__(
        self,
        bulkhead: Bulkhead | None,
        load: Load | None,
        times: Quantile | None,
        longest_wait_s: float = 0.0,
    ) -> None:
        self.bulkhead = bulkhead
        self.load = load
        self.times = times
        self.longest_wait_s = longest_wait_s

    @property
    def full(self) -> bool:
        """True while nobody more is let in at once."""
        return self.bulkhead is not None and self.bulkhead.in_use >= self.bulkhead.max_concurrency

    def enter(self, wait_s: float) -> bool:
        """Let a call in; False when the engine is full and stays so.

        Args:
            wait_s: the time that the call has left.
        """
        longest_s = self.longest_wait_s
        if self.bulkhead is not None and not self.bulkhead.enter(
            wait_s if wait_s < longest_s else longest_s  # noqa: FURB136 - min() costs a call
        ):
            return False
        if self.load is not None:
            self.load.enter()
        return True

    def leave(self) -> None:
        """A call ended."""
        if self.load is not None:
            self.load.leave()
        if self.bulkhead is not None:
            self.bulkhead.leave()

    def answered(self, duration_s: float, now: float) -> None:
        """The engine answered, ``duration_s`` after it was asked (with its first chunk)."""
        if self.load is not None:
            self.load.answered(duration_s, now)
        if self.times is not None:
            self.times.record(duration_s)
