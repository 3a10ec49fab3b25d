"""When to try again something that is out of reach.

It is tried each half second where a try costs nothing, such as a connection that is refused. Where
a try takes time, it is tried so rarely that trying takes a twentieth of the time of one thread.
What fails again soon after it came back is left alone for twice as long each time, up to half a
minute, until it has stayed reachable for ten seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STEADY_S = 10.0
_SHARE_OF_TRYING = 0.05


@dataclass(slots=True, eq=False)
class Outage:
    """Whether one thing is out of reach, and when to try it. Times are monotonic seconds.

    It has no lock: when a try is due, two threads may try at the same moment.

    Attributes:
        down: whether it is out of reach.
        retry_at: when the next try is due.
    """

    down: bool = False
    retry_at: float = -math.inf
    _pause_s: float = FIRST_PAUSE_S
    _back_at: float = -math.inf

    def claim_try(self, now: float) -> bool:
        """Return whether the caller may try now; the next try is then later."""
        if now < self.retry_at:
            return False
        self.retry_at = now + self._pause_s
        return True

    def record_failure(self, now: float, took_s: float = 0.0) -> bool:
        """Record that it is out of reach.

        Args:
            took_s: how long the try took, in seconds.

        Returns:
            True when it was reachable before.
        """
        is_new = not self.down
        if is_new:
            flaps = now - self._back_at < STEADY_S
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S) if flaps else FIRST_PAUSE_S
        self.down = True
        pause_s = min(took_s / _SHARE_OF_TRYING, LONGEST_PAUSE_S)
        self.retry_at = now + max(self._pause_s, pause_s)
        return is_new

    def record_success(self, now: float) -> None:
        """Record that it is reachable again."""
        self.down = False
        self._back_at = now
