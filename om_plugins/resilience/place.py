"""One engine's place in a chain: how a call gets in, and what its end changes.

Breaker, cooldown and health of the engine change here and nowhere else, by the table of
:mod:`om_plugins.resilience.outcomes`.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from typing import cast

from ..errors import AttemptTimeout, ConfigError, EngineUnavailable
from ..policies.breaker import Breaker
from ..policies.cooldown import Cooldown
from ..policies.deadline import reserve_s
from ..policies.forks import renew_after_fork
from ..protocols import Clock, Engine
from ..signals import Emit, engine_called, engine_failed, engine_health_changed
from ..types import Call, EngineHealth, EngineSpec, EngineTraits, Health
from .health import health_of
from .outcomes import NextTier, cooling_s, outcome_of
from .policy import ChainPolicy
from .stream import ChunkStream, End

logger = logging.getLogger("om_plugins")


class Place:
    """What a chain keeps of one engine.

    Args:
        spec: the engine, its chain and tier.
        policy: the chain's.
        breaker: the engine's own, or the one it shares.
        clock: time.
        emit: tells the application's signals.

    Attributes:
        saves_time: a local engine comes later in the chain, so this one leaves it a slice of the
            deadline.
        last_error: class name of the newest failure, "" for none.
    """

    __slots__ = ("__weakref__", "_clock", "_cooldown_s", "_emit", "_fair_share_s", "_health",
                 "_lock", "_since", "ask", "breaker", "cooldown", "idempotent", "last_error",
                 "local", "name", "saves_time", "spec", "streaming", "tier")  # fmt: skip

    def __init__(
        self, spec: EngineSpec, policy: ChainPolicy, breaker: Breaker, clock: Clock, emit: Emit
    ) -> None:
        engine = cast(Engine, spec.engine)
        self.spec = spec
        self.name = engine.name
        self.tier = spec.tier
        self.idempotent = engine.traits.idempotent
        self.local = engine.traits.local
        self.streaming = engine.traits.streaming
        self.ask = engine.call
        self.breaker = breaker
        self.cooldown = Cooldown()
        self.saves_time = False
        self.last_error = ""
        self._clock = clock
        self._emit = emit
        self._cooldown_s = policy.breaker_cooldown_s
        self._fair_share_s = fair_share_s(policy)
        self._health = Health.NO_DATA
        self._since = clock.time()
        self._lock = threading.Lock()
        renew_after_fork(self)

    # --- how a call gets in ---

    def admit(self, now: float) -> int | EngineUnavailable:
        """A permit of the breaker, or why the engine must not be asked now."""
        permit = self.breaker.permit or self.breaker.enter(now)
        if not permit:
            return EngineUnavailable(
                self.name, "breaker open", retry_after=self.breaker.view(now).retry_after_s
            )
        if self.cooldown.until and self.cooldown.refused(now):
            self.breaker.release(permit, now)
            return EngineUnavailable(
                self.name,
                self.cooldown.reason,
                retry_after=max(self.cooldown.until - now, 0.0),
            )
        return permit

    # --- what its end changes ---

    def recovered(self, now: float) -> None:
        """The engine answered, and its health may have changed by it."""
        self.cooldown.succeeded()
        self.look(now)

    def tell_called(self, call: Call, duration_s: float) -> None:
        """Tell that the engine answered."""
        self._emit(
            engine_called,
            chain=self.spec.chain,
            engine=self.name,
            tier=self.tier,
            attempt=call.attempt,
            duration_s=duration_s,
            call=call,
        )

    def failed(
        self, call: Call, permit: int, error: Exception, duration_s: float, now: float
    ) -> None:
        """The engine raised ``error``, before or in the middle of its answer."""
        outcome = outcome_of(error)
        if outcome.next_tier is not NextTier.NEVER:  # else it is the caller's doing
            self.last_error = type(error).__name__
        if outcome.trips and not self._cut_short(call, error, duration_s, now):
            self.breaker.leave(permit, now, duration_s, failed=True)
        else:
            self.breaker.release(permit, now)
        if outcome.cools:
            self.cooldown.begin("cooling down", cooling_s(error), now)
        elif outcome.offline:
            self.cooldown.begin("offline", self._cooldown_s, now)
        self.look(now)
        if engine_failed.receivers:
            self._emit(
                engine_failed,
                chain=self.spec.chain,
                engine=self.name,
                tier=self.tier,
                attempt=call.attempt,
                error=error,
                duration_s=duration_s,
                call=call,
            )

    def streams(
        self, stream: ChunkStream, call: Call, permit: int, began: float, now: float
    ) -> None:
        """The engine's first chunk is here: how it ends is recorded when it ends."""

        def ended(end: End, error: Exception | None) -> None:
            at = self._clock.monotonic()
            if end == "closed":
                self.breaker.release(permit, at)
            elif error is None:
                if self.breaker.leave(permit, at, now - began) or self.cooldown.until:
                    self.recovered(at)
                if engine_called.receivers:
                    self.tell_called(call, now - began)
            else:
                self.failed(call, permit, error, at - began, at)

        stream.on_end(ended)

    def _cut_short(self, call: Call, error: Exception, duration_s: float, now: float) -> bool:
        """True for a timeout that tells of the caller's haste and not of the engine.

        An engine that was given less time than the chain's own settings would give, because the
        caller was in a hurry or earlier attempts took the rest, is not to blame.
        """
        return (
            isinstance(error, AttemptTimeout)
            and now >= call.attempt_deadline
            and duration_s - (now - call.attempt_deadline) < self._fair_share_s
        )

    def probe(self, call: Call, ask: Callable[[Call], object]) -> None:
        """Ask without a caller, also while the breaker is open. It counts as any call: only a
        success closes the breaker and ends an offline time.

        Args:
            call: its deadline is the limit.
            ask: the engine's ``call`` or ``probe``.

        Raises:
            EngineUnavailable: somebody else is probing at the moment.
            AttemptTimeout: it answered so slowly that the breaker stays open.
            Exception: what the engine raised.
        """
        began = self._clock.monotonic()
        permit = self.breaker.enter_early(began)
        if not permit:
            raise EngineUnavailable(self.name, "is being probed")
        try:
            result = ask(call)
        except Exception as error:
            now = self._clock.monotonic()
            self.failed(call, permit, error, now - began, now)
            raise
        except BaseException:
            self.breaker.release(permit, self._clock.monotonic())
            raise
        now = self._clock.monotonic()
        self.breaker.leave(permit, now, now - began)
        self.recovered(now)
        close = getattr(result, "close", None)
        if close is not None:
            close()
        if not self.breaker.permit:
            raise AttemptTimeout(f"{self.name}: answered, but too slowly")

    # --- health ---

    def look(self, now: float) -> EngineHealth:
        """The health at this moment; a change since the last look is told."""
        with self._lock:
            view = self.breaker.view(now)
            before, state = self._health, health_of(self.breaker, view, self.cooldown, now)
            if state is not before:
                self._health, self._since = state, self._clock.time()
            since = self._since
        if state is not before and engine_health_changed.receivers:
            self._emit(
                engine_health_changed,
                chain=self.spec.chain,
                engine=self.name,
                tier=self.tier,
                before=before,
                after=state,
            )
        return EngineHealth(
            engine=self.name,
            chain=self.spec.chain,
            tier=self.tier,
            state=state,
            failure_rate=view.failure_rate,
            slow_rate=view.slow_rate,
            samples=view.calls,
            since=since,
            last_error=self.last_error,
        )

    def close(self) -> None:
        """Have the engine give its connections back, if it has any."""
        close = getattr(self.spec.engine, "close", None)
        if close is not None:
            try:
                close()
            except Exception:
                logger.exception("engine %r: close failed", self.name)

    def after_fork(self) -> None:
        self._lock = threading.Lock()


def check_engine(spec: EngineSpec, chain: str) -> Engine:
    """Refuse what is no engine, when it is registered and not when it is first needed.

    Raises:
        ConfigError: it lacks a part of the contract, or its place is not one.
        TypeError: its ``call`` is ``async``.
    """
    engine = spec.engine
    key = f"engine of chain {chain!r}"
    if spec.chain != chain:
        raise ConfigError(key, engine, f"its spec names another chain, {spec.chain!r}")
    name = getattr(engine, "name", None)
    if not isinstance(name, str) or not name:
        raise ConfigError(key, engine, "must have a name, a text that is not empty")
    call = getattr(engine, "call", None)
    if isinstance(engine, type) or not callable(call):
        raise ConfigError(key, engine, "must be an object with a method call(call)")
    if not isinstance(getattr(engine, "traits", None), EngineTraits):
        raise ConfigError(key, engine, "must have traits, an EngineTraits")
    if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
        raise TypeError(
            f"engine {name!r}: call is async, and a chain is not; "
            "wrap the coroutine function in a CallableEngine"
        )
    if isinstance(spec.tier, bool) or not isinstance(spec.tier, int) or spec.tier < 1:
        raise ConfigError(f"tier of engine {name!r}", spec.tier, "must be a whole number from 1")
    return cast(Engine, engine)


def fair_share_s(policy: ChainPolicy) -> float:
    """The time after which an engine that has not answered is to blame for it, in seconds."""
    whole_s = policy.timeout - reserve_s(policy.timeout)
    share_s = min(whole_s, policy.breaker_slow_s, policy.attempt_timeout or whole_s)
    return share_s * 0.99  # deadlines are sums of floats
