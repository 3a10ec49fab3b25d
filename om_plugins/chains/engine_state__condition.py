"""The condition of one engine: its health as it was last seen, and its newest error."""

from __future__ import annotations

import threading

from ..core.fork import renew_after_fork
from ..policies.breaker import Breaker
from ..policies.cooldown import Cooldown
from ..protocols import Clock
from ..signals import Emit, engine_health_changed
from ..types import EngineHealth, Health
from .engine_state__health import health_of
from .load_balancing import Ejection


class Condition:
    """Tells changes of an engine's health, each once.

    Args:
        chain, engine: their names.
        breaker, cooldown, ejection: the engine's own, which health is read from.
        clock: time.
        emit: tells the application's signals.

    Attributes:
        last_error: class name of the newest failure, "" for none.
    """

    __slots__ = ("__weakref__", "_breaker", "_chain", "_clock", "_cooldown", "_ejection", "_emit",
                 "_engine", "_health", "_lock", "_since", "last_error")  # fmt: skip

    def __init__(
        self,
        chain: str,
        engine: str,
        breaker: Breaker,
        cooldown: Cooldown,
        ejection: Ejection,
        clock: Clock,
        emit: Emit,
    ) -> None:
        self._chain = chain
        self._engine = engine
        self._breaker = breaker
        self._cooldown = cooldown
        self._ejection = ejection
        self._clock = clock
        self._emit = emit
        self._health = Health.NO_DATA
        self._since = clock.time()
        self._lock = threading.Lock()
        self.last_error = ""
        renew_after_fork(self)

    def look(self, tier: int, now: float) -> EngineHealth:
        """The health at this moment; a change since the last look is told."""
        with self._lock:
            view = self._breaker.view(now)
            before, state = self._health, health_of(view, self._cooldown, now)
            ejected = now < self._ejection.until
            if state is Health.HEALTHY and ejected:
                state = Health.DEGRADED
            if state is not before:
                self._health, self._since = state, self._clock.time()
            since = self._since
        if state is not before and engine_health_changed.receivers:
            self._emit(
                engine_health_changed,
                chain=self._chain,
                engine=self._engine,
                tier=tier,
                before=before,
                after=state,
            )
        return EngineHealth(
            engine=self._engine,
            chain=self._chain,
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
            else self._clock.time() - (now - view.probed_at),
        )

    def after_fork(self) -> None:
        self._lock = threading.Lock()
