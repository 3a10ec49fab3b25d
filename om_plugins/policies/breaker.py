"""The circuit breaker: keep calls away from an engine that fails or is slow, and probe it.

Failure and slow-call rates over a sliding window, as in resilience4j's ``CircuitBreaker`` (the
pattern: Michael Nygard, "Release It!"). Three things that many breakers get wrong: this one never
holds its lock during a call; in the half-open state it lets exactly the allowed number of probes
through, never more; and a call that began before the breaker opened cannot close or re-open it when
it ends late.

**Half-open.** At most ``half_open_permits`` probes run at once, and no more are let through than
are needed: the breaker closes when that many have succeeded. The first probe that fails or is slow
opens it again, and the other probes of that time no longer count. (resilience4j judges the rate
over all probes; here a single failure says as much, because probes are few.)

**Cooldown.** Each opening soon after another one doubles the cooldown, up to a maximum. The
cooldown is as short as at first again once the breaker has stayed closed for the longer of its
window and its last cooldown.

Every method takes ``now`` on the monotonic clock, so that a caller that has read the time already
does not read it again.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..core.fork import renew_after_fork
from ..errors import ConfigError
from .half_open import GrowingCooldown, Probes
from .window import NEVER, CountWindow, TimeWindow, Window

State = Literal["closed", "open", "half-open"]
Forced = Literal["open", "closed"]
Change = Literal["opened", "closed", "forced"]

RAISED = 0.5
"""A rate becomes raised at this share of its threshold, …"""
CALM = 0.3
"""… and stops being raised below this one. Between the two it stays as it was."""


@dataclass(frozen=True, slots=True)
class BreakerView:
    """What a breaker knows at one moment.

    Attributes:
        calls, failures, slow: the counts of the window; zero while open.
        retry_after_s: seconds until the next probe; ``None`` while it is closed or forced, and
            while all probes run.
        forced: the state that an operator set; ``None`` while the breaker decides by itself.
        opened: how often it has opened in this process.
        in_a_row: openings soon after one another; each makes the cooldown longer.
        cooldown_s: the cooldown of the last opening; 0.0 when it never opened.
        raised: a rate is, or was a moment ago, at half of the value that opens the breaker.
        reached: a health check has succeeded since the breaker opened.
        probed_at: when a health check last gave a result, monotonic; ``None`` for never.
        probes_failed: how many health checks in a row, up to that one, failed.
    """

    state: State
    calls: int
    failures: int
    slow: int
    retry_after_s: float | None
    forced: Forced | None = None
    opened: int = 0
    in_a_row: int = 0
    cooldown_s: float = 0.0
    raised: bool = False
    reached: bool = False
    probed_at: float | None = None
    probes_failed: int = 0

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
        window_calls: judge this many of the last calls instead of the last seconds. Each call then
            takes the lock for a moment, and ``min_calls`` is at most this.
        half_open_permits: how many probes may run at once, and must succeed to close it.
        cooldown_s: seconds from opening to the first probe; also how long a probe may run before it
            counts as lost and another one is let through.
        cooldown_factor: each opening soon after another one multiplies the cooldown by this.
        cooldown_max_s: the longest cooldown; never below ``cooldown_s``.
        cooldown_jitter: each cooldown is longer by up to this share, so that many processes do
            not probe at the same moment.
        draw: returns a uniform random number from 0 to 1.

    Attributes:
        permit: the number of the permit that all calls share while the breaker is closed; 0 while
            it is not. Callers read it without the lock and call :meth:`enter` when it is 0.
        on_change: called after the breaker opened, closed or was forced in this process, on the
            thread that caused it and without the lock. Must be fast. Changes that come from other
            processes do not call it.

    A call that was let in reports its end exactly once: with :meth:`leave`, or with :meth:`release`
    when its end says nothing about the engine.
    """

    __slots__ = ("__weakref__", "_bucket_end", "_by_count", "_change", "_closed_at", "_cooldown",
                 "_count", "_counted", "_forced", "_last_permit", "_lock", "_opened",
                 "_opened_at_permit", "_probed_at", "_probes", "_probes_failed", "_raised",
                 "_reached", "_shut_at", "_until", "_window", "_window_kind", "failure_rate",
                 "min_calls", "on_change", "permit", "slow_rate", "slow_s")  # fmt: skip

    def __init__(
        self,
        *,
        failure_rate: float = 0.5,
        slow_s: float = 5.0,
        slow_rate: float = 0.9,
        min_calls: int = 10,
        window_s: float = 30.0,
        window_calls: int | None = None,
        half_open_permits: int = 1,
        cooldown_s: float = 10.0,
        cooldown_factor: float = 2.0,
        cooldown_max_s: float = 60.0,
        cooldown_jitter: float = 0.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.failure_rate = failure_rate
        self.slow_s = slow_s
        self.slow_rate = slow_rate
        self.min_calls = min(min_calls, window_calls) if window_calls else min_calls
        self.on_change: Callable[[Change], None] | None = None
        # Re-entrant, because a stream that is garbage-collected gives its permit back, and the
        # collector may run in the middle of anything.
        self._lock = threading.RLock()
        self._window_kind = (window_s, window_calls)
        self._set_window()
        self._count = itertools.count().__next__
        self._counted = 0
        self._probes = Probes(half_open_permits)
        self._cooldown = GrowingCooldown(
            cooldown_s, cooldown_factor, cooldown_max_s, cooldown_jitter, draw
        )
        self._last_permit = 0
        self._opened_at_permit = 0
        self._shut_at = NEVER
        self._opened = 0
        self._forced: Forced | None = None
        self._change: Change | None = None
        self._raised = False
        self._reached = False
        self._probed_at: float | None = None
        self._probes_failed = 0
        self._close(NEVER)
        renew_after_fork(self)

    def tune(self, like: Breaker) -> None:
        """Take over the settings of another breaker, while in use.

        The state stays, and so do the counts unless the window changes. A cooldown that has begun
        ends when it would have ended.
        """
        with self._lock:
            self.failure_rate = like.failure_rate
            self.slow_s = like.slow_s
            self.slow_rate = like.slow_rate
            self.min_calls = like.min_calls
            self._probes.permits = like._probes.permits
            self._cooldown.tune(like._cooldown)
            if like._window_kind != self._window_kind:
                self._settle()
                self._window_kind = like._window_kind
                self._set_window()

    @property
    def cooldown_s(self) -> float:
        """The first cooldown, in seconds."""
        return self._cooldown.first_s

    def enter(self, now: float) -> int:
        """Take a permit for a call.

        Returns:
            A permit to give back with :meth:`leave` or :meth:`release`; 0 when the call is refused.
        """
        with self._lock:
            if self.permit:
                return self.permit
            if self._forced or now < self._until:
                return 0
            return self._probe(now)

    def enter_early(self, now: float) -> int:
        """Take a permit for a probe that does not wait for the end of the cooldown.

        Other calls still wait for that end. A failure of the probe does not make the cooldown
        longer; a success lets the next probe through at once, or closes the breaker when no more
        are needed.

        Returns:
            A permit; 0 while another probe runs, and while the breaker is forced open.
        """
        with self._lock:
            if self.permit or self._forced or now >= self._until:
                return self.enter(now)
            return 0 if self._probes.any_out(now) else self._probe(now)

    def leave(self, permit: int, now: float, duration_s: float, *, failed: bool = False) -> bool:
        """Report that a call ended.

        Args:
            permit: from :attr:`permit` or :meth:`enter`.
            duration_s: how long it took (to the first chunk, when streamed).
            failed: the call ended in an error that counts.

        Returns:
            True when the health of the engine may have changed, which is rare.
        """
        slow = duration_s >= self.slow_s
        if permit == self.permit and now < self._bucket_end and not failed and not slow:
            # Nearly every call ends here. One atomic step counts it without the lock. A call that
            # meets a thread which opens or rolls just now is counted a moment later, never lost.
            self._count()
            return False
        with self._lock:
            by_count = self._by_count
            if by_count is not None and permit == self.permit and not failed and not slow:
                return by_count.add_well() or self._raised
            may_have_changed = self._count_end(permit, now, failed, slow)
            change, self._change = self._change, None
        self._notify(change)
        return may_have_changed

    def release(self, permit: int, now: float) -> None:
        """Give back the permit of a call whose end says nothing about the engine: it was cancelled,
        closed or refused."""
        with self._lock:
            self._probes.end(permit)

    # --- what others decide ---

    def force(self, state: Forced | None, *, remote: bool = False) -> bool:
        """Force the breaker into a state, or let it decide by itself again.

        Args:
            state: ``"open"`` refuses every call, probes too. ``"closed"`` counts calls but never
                opens. ``None`` lets the breaker decide by itself again; one that was forced open
                goes on with a probe.
            remote: the change comes from elsewhere, so ``on_change`` is not called.

        Returns:
            True when this is a change.

        Raises:
            ConfigError: ``state`` has another value.
        """
        if state not in ("open", "closed", None):
            raise ConfigError("breaker", state, "must be 'open', 'closed' or None")
        with self._lock:
            if state == self._forced:
                return False
            before, self._forced = self._forced, state
            if state == "open":
                self._shut(NEVER, 0.0)
            elif state == "closed" and not self.permit:
                self._close(NEVER)
            elif before == "open":
                self._until = 0.0
            self._cooldown.in_a_row = 0
            change: Change | None = None if remote else "forced"
        self._notify(change)
        return True

    def apply_opened(self, now: float, for_s: float, in_a_row: int, at: float) -> bool:
        """Open because the same breaker opened in another process.

        Does nothing when this one is forced or has closed since.

        Args:
            for_s: seconds until the next probe here.
            in_a_row: that of the other breaker, so that both agree on the next cooldown.
            at: when the other one opened.

        Returns:
            True when this is a change.
        """
        with self._lock:
            if self._forced or at < self._closed_at:
                return False
            self._forgive(now)
            until = now + self._cooldown.agree(in_a_row, for_s)
            if self.permit:
                self._opened += 1
                self._shut(at, until)
                return True
            if not self._probes.any_out(now):
                self._until = max(self._until, until)
            return False

    def apply_closed(self, now: float, at: float) -> bool:
        """Close because a probe closed the same breaker in another process.

        Does nothing when this one is forced or has opened since.

        Args:
            at: when the other one closed.

        Returns:
            True when this is a change.
        """
        with self._lock:
            if self.permit or self._forced or at < self._shut_at:
                return False
            self._close(now)
            return True

    def note_probe(self, well: bool | None, now: float, at: float) -> bool:
        """Take the result of a health check, which does not count as a call.

        A good result ends the cooldown: the next call is a probe, and only its success closes the
        breaker, because an engine may say that it is well and fail every call. When no call comes
        before the next good result, that result closes the breaker. A bad result opens nothing.

        Args:
            well: the result; ``None`` when the results have expired.
            at: when the check ran.

        Returns:
            True when the breaker's state changed.
        """
        with self._lock:
            self._probed_at = None if well is None else at
            if not well:
                self._probes_failed = 0 if well is None else self._probes_failed + 1
                return False
            self._probes_failed = 0
            return self._reach(now, at)

    def note_answer(self, now: float, at: float) -> bool:
        """Take word that the engine answered a probe in another process, as a good result of a
        health check.

        Args:
            at: when it answered.

        Returns:
            True when the breaker's state changed.
        """
        with self._lock:
            return self._reach(now, at)

    # --- what others see ---

    def view(self, now: float) -> BreakerView:
        """Return the state, and the counts of the window that ends now."""
        with self._lock:
            state: State = "closed"
            calls = failures = slow = 0
            retry_after_s: float | None = None
            if self.permit:
                if now >= self._bucket_end:
                    self._roll(now)
                self._settle()
                calls, failures, slow = self._window.totals
                self._judge(calls, failures, slow)
            elif self._forced:
                state = "open"
            elif now < self._until:
                state, retry_after_s = "open", self._until - now
            else:
                state, retry_after_s = "half-open", 0.0 if self._probes.room(now) else None
            return BreakerView(
                state,
                calls,
                failures,
                slow,
                retry_after_s,
                self._forced,
                self._opened,
                self._cooldown.in_a_row,
                self._cooldown.last_s,
                self._raised,
                self._reached,
                self._probed_at,
                self._probes_failed,
            )

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        self._probes.clear()  # the probers are threads of the parent

    def _notify(self, change: Change | None) -> None:
        if change is not None and self.on_change is not None:
            self.on_change(change)

    # --- under the lock ---

    def _count_end(self, permit: int, now: float, failed: bool, slow: bool) -> bool:
        if permit == self.permit:
            rolled = now >= self._bucket_end
            if rolled:
                self._roll(now)
            self._window.add(1, failed, slow)
            if not failed and not slow:
                return rolled
            if self._tripped():
                self._open(now)
            return True
        if self.permit or permit <= self._opened_at_permit:
            return False
        self._probes.end(permit)
        if self._forced:
            return False
        if failed or slow:
            if now >= self._until:
                self._open(now)
            return True
        self._probes.succeeded += 1
        succeeded = self._probes.succeeded
        if succeeded < self._probes.permits:
            self._until = min(self._until, now)
            return True
        self._close(now)
        self._roll(now)
        self._window.add(succeeded, False, False)
        self._change = "closed"
        return True

    def _probe(self, now: float) -> int:
        if not self._probes.room(now):
            return 0
        self._last_permit += 1
        self._probes.begin(self._last_permit, now + self._cooldown.first_s)
        return self._last_permit

    def _reach(self, now: float, at: float) -> bool:
        if self.permit or self._forced or at < self._shut_at:
            return False
        if self._reached and not self._probes.any_out(now):
            self._close(now)
            return True
        self._reached = True
        changed = now < self._until
        self._until = min(self._until, now)
        return changed

    def _settle(self) -> None:
        # Reading the counter uses a number up, so the count leaves it out.
        count = self._count()
        if count > self._counted:
            self._window.add(count - self._counted, False, False)
        self._counted = count + 1

    def _tripped(self) -> bool:
        self._settle()
        calls, failures, slow = self._window.totals
        self._judge(calls, failures, slow)
        return (
            not self._forced
            and calls >= self.min_calls
            and (failures >= self.failure_rate * calls or slow >= self.slow_rate * calls)
        )

    def _judge(self, calls: int, failures: int, slow: int) -> None:
        """Update whether a rate is raised, with hysteresis."""
        share = CALM if self._raised else RAISED
        failing = failures > 0 and failures >= share * self.failure_rate * calls
        dragging = slow > 0 and slow >= share * self.slow_rate * calls
        self._raised = (self._raised or calls >= self.min_calls) and (failing or dragging)

    def _forgive(self, now: float) -> None:
        """Reset the cooldown to its first length once the breaker was closed for long enough."""
        if self.permit and now - self._closed_at >= max(
            self._window_kind[0], self._cooldown.last_s
        ):
            self._cooldown.in_a_row = 0

    def _open(self, now: float) -> None:
        self._forgive(now)
        self._opened += 1
        self._shut(now, now + self._cooldown.next_s())
        self._change = "opened"

    def _shut(self, at: float, until: float) -> None:
        self.permit = 0
        self._shut_at = at
        self._opened_at_permit = self._last_permit
        self._until = until
        self._forget()

    def _close(self, now: float) -> None:
        self._forget()
        self._closed_at = now
        self._until = 0.0
        self._settle()
        self._window.clear()
        self._bucket_end = self._window.bucket_end
        self._last_permit += 1
        self.permit = self._last_permit

    def _roll(self, now: float) -> None:
        self._settle()
        self._window.roll(now)
        self._bucket_end = self._window.bucket_end

    def _forget(self) -> None:
        self._probes.clear()
        self._reached = False
        self._raised = False

    def _set_window(self) -> None:
        window_s, window_calls = self._window_kind
        self._by_count = CountWindow(window_calls) if window_calls else None
        self._window: Window = self._by_count or TimeWindow(window_s)
        self._bucket_end = self._window.bucket_end
