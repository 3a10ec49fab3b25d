"""The circuit breaker of one notifier, which all workers share.

The first failure opens it. While it is open nothing is sent. When its pause is over, it is
half-open: one notification, the oldest, is sent as the probe. Its success closes the breaker, and
its failure begins a longer pause. The worker that has the lease of the queue decides for all, so
there is never more than one probe.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from ...policies.backoff import full_jitter

PAUSES_S = (1.0, 2.0, 4.0, 4.0, 8.0, 8.0, 15.0, 15.0, 30.0, 60.0)
"""The longest pause after the first, second, … failure in a row; the last one repeats. What is
back after an outage is found after about half the time that it was away, and within a minute."""

_LONGEST_ERROR = 300

DropReason = Literal["too old", "too many", "refused", "failed"]
DROP_REASONS: tuple[DropReason, ...] = ("too old", "too many", "refused", "failed")


@dataclass(slots=True)
class DeliveryBreaker:
    """The state of a notifier's breaker. Times are Unix times, which the workers share.

    Attributes:
        failures: attempts in a row that failed; 0 while it is closed.
        since: when the first of them failed.
        retry_at: when the next attempt is due.
        pause_s: how long the pause is; a clock that is set back makes it no longer.
        error: what the last one failed with.
        waiting: how many notifications waited when this was written.
        dropped: how many notifications were dropped, by reason.
    """

    failures: int = 0
    since: float = 0.0
    retry_at: float = 0.0
    pause_s: float = 0.0
    error: str = ""
    waiting: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, stored: object, longest_s: float) -> DeliveryBreaker:
        """Make a breaker of what a worker stored.

        Args:
            stored: what :meth:`as_data` returned, or anything.
            longest_s: the longest pause.
        """
        data = stored if isinstance(stored, Mapping) else {}
        dropped = data.get("dropped")
        counts = dropped if isinstance(dropped, Mapping) else {}
        return cls(
            failures=int(_read_number(data, "failures")),
            since=_read_number(data, "since"),
            retry_at=_read_number(data, "retry_at"),
            pause_s=min(_read_number(data, "pause_s"), longest_s),
            error=str(data.get("error") or ""),
            waiting=int(_read_number(data, "waiting")),
            dropped={
                one: int(_read_number(counts, one)) for one in DROP_REASONS if counts.get(one)
            },
        )

    def as_data(self) -> dict[str, object] | None:
        """Return the state as data for the hub; ``None`` when there is nothing to remember."""
        return asdict(self) if self.failures or self.dropped else None

    def find_pause_s(self, now: float) -> float:
        """Return the seconds until a notification may be sent; 0.0 for now."""
        return max(0.0, min(self.retry_at - now, self.pause_s)) if self.failures else 0.0

    def open(
        self,
        now: float,
        error: str,
        asked_s: float | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Record that an attempt failed: begin a pause, or a longer one.

        Args:
            now: the Unix time.
            error: why, for people.
            asked_s: how long the other side asks to wait; the pause is not shorter.
            draw: returns a uniform random number from 0 to 1.
        """
        if not self.failures:
            self.since = now
        self.failures += 1
        self.error = error[:_LONGEST_ERROR]
        cap_s = PAUSES_S[min(self.failures, len(PAUSES_S)) - 1]
        pause_s = full_jitter(self.failures, PAUSES_S, at_least_s=cap_s / 2, draw=draw)
        self.pause_s = max(pause_s, asked_s or 0.0)
        self.retry_at = now + self.pause_s

    def close(self) -> None:
        """Record that an attempt succeeded, or that a notification is given up."""
        self.failures, self.error = 0, ""
        self.since = self.retry_at = self.pause_s = 0.0

    def count_drop(self, reason: DropReason, number: int = 1) -> None:
        """Count notifications that nobody will get."""
        self.dropped[reason] = self.dropped.get(reason, 0) + number


def _read_number(data: Mapping[str, object], name: str) -> float:
    value = data.get(name)
    sound = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15
    return float(value) if sound else 0.0  # type: ignore[arg-type]
