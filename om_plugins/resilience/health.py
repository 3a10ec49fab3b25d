"""Health: how an engine is doing, read from its breaker and its cooldown.

Closed and quiet is healthy; closed with a rate at half of what would open it, or cooling down, is
degraded; open, half-open or waiting for an operator is offline; nothing counted is "no data".
Health is told, not acted upon: what keeps a call away from an engine is its breaker and its
cooldown alone, so a degraded engine is still asked, the last one too.
"""

from __future__ import annotations

from ..policies.breaker import Breaker, BreakerView
from ..policies.cooldown import Cooldown
from ..types import Health

RAISED = 0.5
"""A rate is raised from this share of its threshold on."""


def health_of(breaker: Breaker, view: BreakerView, cooldown: Cooldown, now: float) -> Health:
    """The state of an engine.

    Args:
        breaker: for its thresholds.
        view: what it counted.
        cooldown: the engine's own.
        now: the monotonic time.
    """
    left_alone = cooldown.until
    if view.state != "closed" or (left_alone and cooldown.reason == "offline"):
        return Health.OFFLINE
    if now < left_alone:
        return Health.DEGRADED
    if not view.calls:
        return Health.NO_DATA
    if view.calls >= breaker.min_calls and (
        view.failure_rate >= RAISED * breaker.failure_rate
        or view.slow_rate >= RAISED * breaker.slow_rate
    ):
        return Health.DEGRADED
    return Health.HEALTHY
