"""Health: how well an engine works, for reports.

Health is read from the breaker, the cooldown and the latest probes:

| state | when |
|---|---|
| offline | its breaker is open or half-open, or an operator must act; or no call succeeded and two probes in a row failed |
| degraded | it cools down; or a rate is at half of what would open the breaker; or there were calls and none succeeded; or it refused three calls in a row lately; or no call succeeded and the last probe failed; or a probe succeeded since its breaker opened, and no call has come yet |
| no data | no calls were counted and nothing probed it |
| healthy | otherwise |

Calls count for more than probes: an engine that answers is well, whatever its health address says.
A degraded engine becomes healthy only below a lower rate (a third of the threshold instead of
half), so that its health does not flap.

Health is a report and decides nothing: only the breaker and the cooldown keep a call away from an
engine. A chain therefore still calls a degraded engine, also when it is the last one.
"""  # noqa: E501 - a table

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from ..core.fork import renew_after_fork
from ..protocols import Clock
from ..signals import Emit, engine_health_changed
from ..types import EngineHealth, Health
from .breaker import Breaker, BreakerView
from .cooldown import Cooldown

PROBES_TO_OFFLINE = 2
"""One failed probe alone may be bad luck."""
REFUSALS_TO_DEGRADED = 3
"""One refused call alone may be its caller's fault."""
REFUSED_LATELY_S = 300.0
"""How long refused calls say something about the engine, when no other calls come."""


@dataclass(slots=True, weakref_slot=True, eq=False, repr=False)
class HealthTracker:
    """Keeps the health of one engine and reports each change once.

    Args:
        chain, engine: their names.
        breaker, cooldown: those of the engine; its health is read from them.
        clock: the clock.
        emit: sends the application's signals.

    Attributes:
        last_error: class name of the newest failure, "" for none.
    """

    chain: str
    engine: str
    breaker: Breaker
    cooldown: Cooldown
    clock: Clock
    emit: Emit
    last_error: str = field(default="", init=False)
    _refusals: int = field(default=0, init=False)
    _refused_at: float = field(default=0.0, init=False)
    _state: Health = field(default=Health.NO_DATA, init=False)
    _since: float = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._since = self.clock.time()
        renew_after_fork(self)

    def check(self, tier: int, now: float, *, ejected: bool) -> EngineHealth:
        """Return the health at this moment, and send a signal where it has changed.

        Args:
            tier: the engine's tier, for the report.
            now: the monotonic time.
            ejected: the chain calls the engine last for a while, because its equals do better.
        """
        with self._lock:
            view = self.breaker.view(now)
            before, state = self._state, health_of(view, self.cooldown, now)
            if state in (Health.HEALTHY, Health.NO_DATA) and self._refuses(view, now):
                state = Health.DEGRADED
            if state is Health.HEALTHY and ejected:
                state = Health.DEGRADED
            if state is not before:
                self._state, self._since = state, self.clock.time()
            since = self._since
        if state is not before and engine_health_changed.receivers:
            self.emit(
                engine_health_changed,
                chain=self.chain,
                engine=self.engine,
                tier=tier,
                before=before,
                after=state,
            )
        return EngineHealth(
            engine=self.engine,
            chain=self.chain,
            tier=tier,
            state=state,
            failure_rate=view.failure_rate,
            slow_rate=view.slow_rate,
            samples=view.calls,
            since=since,
            last_error=self.last_error,
            forced=view.forced or "",
            ejected=ejected,
            probed_at=None
            if view.probed_at is None
            else self.clock.time() - (now - view.probed_at),
        )

    def record_refusal(self, now: float) -> None:
        """Record that the engine refused a call, which no breaker counts."""
        view = self.breaker.view(now)
        with self._lock:
            self._refusals = 1 if view.calls > view.failures else self._refusals + 1
            self._refused_at = now

    def _refuses(self, view: BreakerView, now: float) -> bool:
        return (
            self._refusals >= REFUSALS_TO_DEGRADED
            and view.calls == view.failures
            and now - self._refused_at < REFUSED_LATELY_S
        )

    def after_fork(self) -> None:
        self._lock = threading.Lock()


def health_of(view: BreakerView, cooldown: Cooldown, now: float) -> Health:
    """Return the health of an engine, by the table in the module's docstring.

    Args:
        view: what the engine's breaker has counted.
        cooldown: the engine's cooldown.
        now: the monotonic time.
    """
    cools_until = cooldown.until
    if cools_until and cooldown.reason == "offline":
        return Health.OFFLINE
    if view.state != "closed":
        back = view.state == "half-open" and view.reached
        return Health.DEGRADED if back else Health.OFFLINE
    if now < cools_until:
        return Health.DEGRADED
    if view.calls == view.failures and view.probed_at is not None and view.probes_failed:
        offline = view.probes_failed >= PROBES_TO_OFFLINE
        return Health.OFFLINE if offline else Health.DEGRADED
    if not view.calls:
        return Health.NO_DATA if view.probed_at is None else Health.HEALTHY
    # calls of which none succeeded say enough, also when they are too few to open the breaker
    return Health.DEGRADED if view.raised or view.calls == view.failures else Health.HEALTHY
