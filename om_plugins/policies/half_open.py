"""Half-open: the probes of a breaker that is not closed, and how long it waits before the next.

The owner holds its lock while it calls any of these methods.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

_MOST_IN_A_ROW = 30


@dataclass(slots=True, eq=False)
class Probes:
    """The calls that test whether an engine works again.

    Attributes:
        permits: how many may run at once, and how many must succeed.
        succeeded: how many have succeeded.
    """

    permits: int
    succeeded: int = 0
    _out: dict[int, float] = field(default_factory=dict)

    def clear(self) -> None:
        """Drop all probes."""
        self._out.clear()
        self.succeeded = 0

    def begin(self, permit: int, lost_at: float) -> None:
        """Record that a probe begins. At ``lost_at`` it counts as lost and makes room."""
        self._out[permit] = lost_at

    def end(self, permit: int) -> None:
        """Record that a probe ended; does nothing for a probe that was lost."""
        self._out.pop(permit, None)

    def any_out(self, now: float) -> bool:
        """Return whether a probe is running and not lost."""
        for permit in [one for one, lost_at in self._out.items() if now >= lost_at]:
            del self._out[permit]
        return bool(self._out)

    def room(self, now: float) -> bool:
        """Return whether one more probe may begin."""
        self.any_out(now)
        # at least one, also when fewer permits are set than probes have succeeded already
        return len(self._out) < max(self.permits - self.succeeded, 1)


@dataclass(slots=True, eq=False)
class GrowingCooldown:
    """How long a breaker waits after each opening.

    Args:
        first_s: the first wait, in seconds.
        factor: what each opening that soon follows another one multiplies it by.
        max_s: its maximum, which is never below ``first_s``.
        jitter: each wait is longer by up to this share.
        draw: returns a uniform random number from 0 to 1.

    Attributes:
        in_a_row: openings that followed one another soon.
        last_s: the wait of the last opening.
    """

    first_s: float
    factor: float
    max_s: float
    jitter: float
    draw: Callable[[], float] = random.random
    in_a_row: int = field(default=0, init=False)
    last_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.max_s = max(self.max_s, self.first_s)

    @property
    def longest_s(self) -> float:
        """The longest wait that is possible."""
        return self.max_s * (1.0 + self.jitter)

    def next_s(self) -> float:
        """Count an opening that happens now, and return the wait after it."""
        wait_s = min(self.first_s * self.factor**self.in_a_row, self.max_s)
        self.in_a_row = min(self.in_a_row + 1, _MOST_IN_A_ROW)
        self.last_s = wait_s * (1.0 + self.jitter * self.draw())
        return self.last_s

    def agree(self, in_a_row: int, wait_s: float) -> float:
        """Take over the count and the wait of another process's breaker, inside the bounds."""
        self.in_a_row = max(self.in_a_row, min(in_a_row, _MOST_IN_A_ROW))
        self.last_s = min(max(wait_s, 0.0), self.longest_s)
        return self.last_s

    def tune(self, like: GrowingCooldown) -> None:
        """Take over the settings of another one."""
        self.first_s, self.factor = like.first_s, like.factor
        self.max_s, self.jitter = like.max_s, like.jitter
