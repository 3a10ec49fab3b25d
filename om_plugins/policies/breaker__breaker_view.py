"""What a breaker tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half-open"]
Forced = Literal["open", "closed"]


@dataclass(frozen=True, slots=True)
class BreakerView:
    """What a breaker knows at one moment.

    Attributes:
        calls, failures, slow: counted in the window; zero while open.
        retry_after_s: seconds until the next probe; ``None`` while closed, while all probes are
            out and while it is forced.
        forced: what an operator decided; ``None``: it decides by itself.
        opened: how often it has opened in this process.
        in_a_row: openings that followed one another soon; each makes the cooldown longer.
        cooldown_s: the cooldown of the last opening; 0.0 when it never opened.
        raised: a rate is, or was a moment ago, at half of what opens it.
        reached: a prober has found the engine well since it opened.
        probed_at: when a prober last said how the engine is, monotonic; ``None`` for never.
        probes_failed: how many probers' words in a row, up to that one, were bad.
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
