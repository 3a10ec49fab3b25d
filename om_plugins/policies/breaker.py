"""The circuit breaker: stop asking what fails or is slow, probe it, and let it back in.

Failure and slow-call rates over a sliding time window, as in resilience4j's time-based
``CircuitBreaker`` (the pattern: Michael Nygard, "Release It!"). Three things that many breakers
get wrong: the lock is never held during a call; half-open lets exactly one probe through; a call
that began before the breaker opened cannot close or re-open it when it ends late.

Every method takes ``now`` on the monotonic clock, so a caller that has read the time already does
not read it again.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

from .forks import renew_after_fork

State = Literal["closed", "open", "half-open"]

BUCKETS = 10
"""The window is forgotten in so many steps."""


@dataclass(frozen=True, slots=True)
class BreakerView:
    """What a breaker knows at one moment.

    Attributes:
        calls, failures, slow: counted in the window; zero while open.
        retry_after_s: seconds until the next probe; ``None`` while closed or while a probe is out.
    """

    state: State
    calls: int
    failures: int
    slow: int
    retry_after_s: float | None

    @property
    def failure_rate(self) -> float:
        """Share of failed calls, 0 to 1."""
        return self.failures / self.calls if self.calls else 0.0

    @property
    def slow_rate(self) -> float:
        """Share of slow calls, 0 to 1."""
        return self.slow / self.calls if self.calls else 0.0


class Breaker:
    """One engine's (or host's) circuit breaker.

    Args:
        failure_rate: share of failed calls that opens it, 0 to 1.
        slow_s: a call is slow from here on, in seconds.
        slow_rate: share of slow calls that opens it, 0 to 1.
        min_calls: calls in the window before it may open.
        window_s: the sliding window, in seconds.
        cooldown_s: seconds from opening to the probe; also how long a probe may be out before
            it is taken for lost and another one is let through.

    Attributes:
        permit: the number of the permit that every call shares while the breaker is closed, 0
            while it is not. Callers read it without the lock and ask :meth:`enter` when it is 0.

    A call that was let in says how it ended exactly once: :meth:`leave`, or :meth:`release` when
    its end says nothing about the engine.
    """

    __slots__ = ("__weakref__", "_bucket_end", "_calls", "_count", "_counted",
                 "_failures", "_last_permit", "_lock",
                 "_older", "_opened_at_permit", "_past", "_probing", "_slow", "_until",
                 "_width_s", "cooldown_s", "failure_rate", "min_calls", "permit", "slow_rate",
                 "slow_s")  # fmt: skip

    def __init__(
        self,
        *,
        failure_rate: float = 0.5,
        slow_s: float = 5.0,
        slow_rate: float = 0.9,
        min_calls: int = 10,
        window_s: float = 30.0,
        cooldown_s: float = 10.0,
    ) -> None:
        self.failure_rate = failure_rate
        self.slow_s = slow_s
        self.slow_rate = slow_rate
        self.min_calls = min_calls
        self.cooldown_s = cooldown_s
        self._width_s = window_s / BUCKETS
        # Re-entrant, because a stream that is garbage-collected gives its permit back, and the
        # collector may run in the middle of anything.
        self._lock = threading.RLock()
        self._last_permit = 0
        self._opened_at_permit = 0
        self._until = 0.0
        self._count = itertools.count().__next__
        self._counted = 0
        self._calls = 0
        self._close()
        renew_after_fork(self)

    def enter(self, now: float) -> int:
        """Ask to make a call.

        Returns:
            A permit to give back with :meth:`leave` or :meth:`release`; 0 when refused.
        """
        with self._lock:
            if self.permit:
                return self.permit
            if now < self._until:
                return 0
            self._probing = True
            self._until = now + self.cooldown_s
            self._last_permit += 1
            return self._last_permit

    def enter_early(self, now: float) -> int:
        """As :meth:`enter`, for a probe that does not wait for the end of the cooldown.

        Returns:
            A permit, or 0 while another probe is out.
        """
        with self._lock:
            if not self.permit and not self._probing:
                self._until = min(self._until, now)
            return self.enter(now)

    def leave(self, permit: int, now: float, duration_s: float, *, failed: bool = False) -> bool:
        """A call ended.

        Args:
            permit: from :attr:`permit` or :meth:`enter`.
            duration_s: how long it took (to the first chunk, when streamed).
            failed: it ended in an error that counts.

        Returns:
            True when the engine's health may have changed, which is rare.
        """
        slow = duration_s >= self.slow_s
        if permit == self.permit and now < self._bucket_end and not failed and not slow:
            # Nearly every call ends here. One atomic step counts it, without the lock; one that
            # meets a thread just now opening or rolling is counted a moment later, never lost.
            self._count()
            return False
        with self._lock:
            if permit == self.permit:
                rolled = now >= self._bucket_end
                if rolled:
                    self._roll(now)
                self._calls += 1
                if not failed and not slow:
                    return rolled
                self._failures += failed
                self._slow += slow
                if self._tripped():
                    self._open(now)
                return True
            if not self.permit and permit > self._opened_at_permit:
                if failed or slow:
                    self._open(now)
                else:
                    self._close()
                    self._roll(now)
                    self._calls = 1
                return True
            return False

    def release(self, permit: int, now: float) -> None:
        """A call ended without saying anything about the engine (cancelled, closed, refused)."""
        with self._lock:
            if not self.permit and permit == self._last_permit and self._probing:
                self._probing = False
                self._until = now

    def view(self, now: float) -> BreakerView:
        """The state and the counts of the window that ends now."""
        with self._lock:
            if self.permit:
                if now >= self._bucket_end:
                    self._roll(now)
                self._settle()
                calls, failures, slow = self._older
                return BreakerView(
                    "closed",
                    calls + self._calls,
                    failures + self._failures,
                    slow + self._slow,
                    None,
                )
            if self._probing:
                return BreakerView("half-open", 0, 0, 0, None)
            wait_s = max(self._until - now, 0.0)
            return BreakerView("open" if wait_s else "half-open", 0, 0, 0, wait_s)

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        if not self.permit and self._probing:  # the prober is a thread of the parent
            self._probing = False
            self._until = 0.0

    # --- under the lock ---

    def _settle(self) -> None:
        # Looking at the counter uses a number up, so that number is left out.
        count = self._count()
        self._calls += count - self._counted
        self._counted = count + 1

    def _tripped(self) -> bool:
        self._settle()
        calls, failures, slow = self._older
        calls += self._calls
        return calls >= self.min_calls and (
            failures + self._failures >= self.failure_rate * calls
            or slow + self._slow >= self.slow_rate * calls
        )

    def _open(self, now: float) -> None:
        self.permit = 0
        self._opened_at_permit = self._last_permit
        self._probing = False
        self._until = now + self.cooldown_s

    def _close(self) -> None:
        self._probing = False
        self._until = 0.0
        self._settle()
        self._calls = self._failures = self._slow = 0
        self._older = (0, 0, 0)
        self._past: deque[tuple[int, int, int]] = deque(maxlen=BUCKETS - 1)
        self._bucket_end = float("-inf")
        self._last_permit += 1
        self.permit = self._last_permit

    def _roll(self, now: float) -> None:
        bucket = now // self._width_s
        if self._bucket_end != float("-inf"):
            self._settle()
            self._past.append((self._calls, self._failures, self._slow))
            empty = round(bucket - self._bucket_end / self._width_s)
            self._past.extend([(0, 0, 0)] * min(empty, BUCKETS))
            self._calls = self._failures = self._slow = 0
            sums = [sum(column) for column in zip(*self._past, strict=True)]
            self._older = (sums[0], sums[1], sums[2])
        self._bucket_end = (bucket + 1) * self._width_s
