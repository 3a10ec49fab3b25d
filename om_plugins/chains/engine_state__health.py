"""Health: how an engine is doing, read from its breaker, its cooldown and its last probes.

| state | when |
|---|---|
| offline | its breaker is open or half-open, or an operator must act; or nobody's call succeeded and two probes in a row failed |
| degraded | it cools down; or a rate is at half of what would open the breaker; or there were calls and none succeeded; or nobody's call succeeded and the last probe failed; or a prober found it well since its breaker opened, and nobody has called yet |
| no data | nothing was counted and nobody probed |
| healthy | else |

What calls found goes before what probes found: an engine that answers is well, whatever its health
address says. A degraded engine is healthy again only below a lower rate (a third of the threshold
instead of half), so that it does not flap.

Health is told, not acted upon: what keeps a call away from an engine is its breaker and its
cooldown alone, so a degraded engine is still asked, the last one too.
"""  # noqa: E501 - a table

from __future__ import annotations

from ..policies.breaker import BreakerView
from ..policies.cooldown import Cooldown
from ..types import Health

__all__ = ["PROBES_TO_OFFLINE", "health_of"]

PROBES_TO_OFFLINE = 2
"""A single probe that fails may have met a moment of bad luck."""


def health_of(view: BreakerView, cooldown: Cooldown, now: float) -> Health:
    """The state of an engine.

    Args:
        view: what its breaker counted, and whether a rate is raised.
        cooldown: the engine's own.
        now: the monotonic time.
    """
    left_alone = cooldown.until
    if left_alone and cooldown.reason == "offline":
        return Health.OFFLINE
    if view.state != "closed":
        back = view.state == "half-open" and view.reached
        return Health.DEGRADED if back else Health.OFFLINE
    if now < left_alone:
        return Health.DEGRADED
    if view.calls == view.failures and view.probed_at is not None and view.probes_failed:
        offline = view.probes_failed >= PROBES_TO_OFFLINE
        return Health.OFFLINE if offline else Health.DEGRADED
    if not view.calls:
        return Health.NO_DATA if view.probed_at is None else Health.HEALTHY
    # too few calls to open the breaker say enough when none of them succeeded
    return Health.DEGRADED if view.raised or view.calls == view.failures else Health.HEALTHY
