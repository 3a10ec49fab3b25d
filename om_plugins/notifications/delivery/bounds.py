"""How much may wait for one notifier, and what is dropped when it is more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .breaker import DropReason
from .pending import Pending


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How much waits for one notifier at most.

    Attributes:
        count: notifications.
        size_bytes: bytes of all of them.
        age_s: seconds that one waits.
    """

    count: int = 1_000
    size_bytes: int = 4_000_000
    age_s: float = 86_400.0

    def describe(self, reason: DropReason) -> str:
        """Return what is said of those that are dropped for a reason."""
        if reason == "too old":
            return f"it waited for more than {self.age_s:.0f} s"
        return f"more than {self.count} notifications or {self.size_bytes} bytes wait"


def find_excess(
    waiting: Sequence[Pending], limits: QueueLimits, now: float
) -> Iterator[tuple[Pending, DropReason | None]]:
    """Find what is to be dropped: what is too old, and the oldest of what is too much.

    A notification that is larger than all may be together drops itself and no other one.

    Args:
        waiting: all that wait, the oldest first.
        now: the Unix time.

    Yields:
        Each notification, and why it is to be dropped; ``None`` for one that may wait.
    """
    fitting = [one.size for one in waiting if one.size <= limits.size_bytes]
    size, count = sum(fitting), len(fitting)
    for pending in waiting:
        fits = pending.size <= limits.size_bytes
        reason: DropReason | None = None
        if not fits or count > limits.count or size > limits.size_bytes:
            reason = "too many"
        elif pending.at < now - limits.age_s:
            reason = "too old"
        if reason is not None and fits:
            size -= pending.size
            count -= 1
        yield pending, reason
