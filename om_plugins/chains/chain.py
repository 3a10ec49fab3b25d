"""The chain: engines in tiers, asked in order until one answers, inside one total deadline.

What a call needs is a :class:`~om_plugins.chains.snapshot.Plan`, put together when engines or
settings change and never changed itself. How a call goes is
:mod:`om_plugins.chains.execute`.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from blinker import NamedSignal

from ..core.clock import SystemClock
from ..core.fork import renew_after_fork
from ..errors import Cancelled, ConfigError
from ..policies.backoff import BackoffSleeper, reserve_s
from ..policies.registry import BreakerRegistry
from ..policies.retry_budget import RetryBudget
from ..protocols import Clock
from ..settings.settings__options import EngineOptions
from ..signals import Emit
from ..types import Answer, Call, EngineHealth, EngineSpec
from .engine_state import Seat, check_engine
from .engine_state__place import Place
from .execute import run
from .snapshot import OnFailure, Plan
from .snapshot__policy import ChainPolicy

__all__ = ["BreakerRegistry", "ChainPolicy", "EngineChain", "OnFailure"]


class EngineChain:
    """Asks engines in order (see :class:`om_plugins.protocols.Chain`).

    Args:
        name: the chain's name.
        policy: how it treats its engines.
        options: what is said of single engines, by name; of those that come later, too.
        clock: time.
        emit: tells the application's signals; nobody is told without one.
        breakers: the application's, so that engines of several chains may share one.
        on_failure: told of calls that fell back or failed.
        ambient_deadline: when the request under way must have ended (monotonic), ``inf`` for
            never: no call takes longer.
        stopping: true once the process is about to stop; waits between attempts then end.
        most_sleep_s: how long a call may wait between attempts in all, where the policy leaves
            that open.
    """

    def __init__(
        self,
        name: str,
        policy: ChainPolicy | None = None,
        *,
        options: Mapping[str, EngineOptions] | None = None,
        clock: Clock | None = None,
        emit: Emit | None = None,
        breakers: BreakerRegistry | None = None,
        on_failure: OnFailure | None = None,
        ambient_deadline: Callable[[], float] | None = None,
        stopping: Callable[[], bool] = lambda: False,
        most_sleep_s: Callable[[], float] = lambda: float("inf"),
    ) -> None:
        self.name = name
        self._clock = clock = clock or SystemClock()
        self._monotonic = clock.monotonic
        self._emit = emit or _nobody
        self._breakers = breakers or BreakerRegistry()
        self._on_failure = on_failure
        self._ambient = ambient_deadline
        self._sleeper = BackoffSleeper(clock, stopping)
        self._most_sleep_s = most_sleep_s
        self._lock = threading.Lock()
        self._seats: tuple[Seat, ...] = ()
        policy = policy or ChainPolicy()
        self._plan = self._planned(policy, self._budget(policy), dict(options or {}), ())
        renew_after_fork(self)

    # --- what it is made of ---

    def add(self, spec: EngineSpec) -> None:
        """Add an engine; calls under way go on with the engines they began with.

        Raises:
            ConfigError: it is no engine, or the chain has one of that name.
            TypeError: its ``call`` is ``async``.
        """
        engine = check_engine(spec, self.name)
        with self._lock:
            if any(seat.name == engine.name for seat in self._seats):
                raise ConfigError(
                    f"engine of chain {self.name!r}",
                    engine.name,
                    "is there already; names are unique",
                )
            breaker = self._breakers.get(
                self.name, engine.name, engine.traits.breaker_key, self.policy.breaker
            )
            seat = Seat(spec, breaker, self._breakers, self._clock, self._emit)
            if engine.name in self.options:
                seat.check(self.options[engine.name])
            seats = (*self._seats, seat)
            self._plan = self._planned(self.policy, self._plan.budget, self.options, seats)
            self._seats = seats

    def configure(
        self, policy: ChainPolicy | None = None, options: Mapping[str, EngineOptions] | None = None
    ) -> None:
        """Change how the chain treats its engines, in one step.

        Calls under way end as they began. Breakers, health and budgets keep what they have
        counted; a budget whose own settings change begins anew.

        Args:
            policy: replaces the chain's; ``None`` leaves it.
            options: replaces what is said of single engines, by name; ``None`` leaves it.

        Raises:
            ConfigError: no engine has that name, or an option cannot work.
        """
        with self._lock:
            before = self._plan
            policy = policy or before.policy
            options = before.options if options is None else dict(options)
            self._check(options, before.options)
            budget = before.budget
            if (policy.retry_budget, policy.retry_budget_floor) != (
                before.policy.retry_budget,
                before.policy.retry_budget_floor,
            ):
                budget = self._budget(policy)
            self._plan = self._planned(policy, budget, options, self._seats)
            like = policy.breaker()
            for seat in self._seats:
                seat.breaker.tune(like)

    @property
    def policy(self) -> ChainPolicy:
        """How it treats its engines."""
        return self._plan.policy

    @property
    def options(self) -> Mapping[str, EngineOptions]:
        """What is said of single engines, by name."""
        return self._plan.options

    @property
    def engines(self) -> Sequence[EngineSpec]:
        """The engines by tier, also those that are switched off."""
        return tuple(place.spec for place in self._plan.everyone)

    @property
    def places(self) -> tuple[Place, ...]:
        """What the chain keeps of each engine that it asks, by tier."""
        return self._plan.places

    @property
    def everyone(self) -> tuple[Place, ...]:
        """As :attr:`places`, with the engines that are switched off."""
        return self._plan.everyone

    @property
    def idempotent(self) -> bool:
        """True when every engine of every tier is idempotent."""
        places = self._plan.places
        return bool(places) and all(place.idempotent for place in places)

    def health(self) -> list[EngineHealth]:
        """The health of each engine at this moment, by tier."""
        now = self._monotonic()
        return [place.look(now) for place in self._plan.places]

    def close(self) -> None:
        """Wake callers who wait for their next attempt, and have every engine give its
        connections back."""
        self._sleeper.wake_all()
        for place in self._plan.everyone:
            place.close()

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    # --- calls ---

    def call(
        self,
        payload: object = None,
        *,
        stream: bool = False,
        timeout: float | None = None,
        idempotent: bool | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> Answer:
        """Ask the engines in order.

        Args:
            payload: what to answer; engines must not change it.
            stream: the caller wants chunks as they come (:attr:`Answer.chunks`).
            timeout: seconds in all; the chain's own when ``None``. When streamed, until the first
                chunk, and again for each chunk after it.
            idempotent: whether the same engine may be asked again; ``None``: as the engine says.
            idempotency_key: sent with every attempt; made when needed.
            headers: request headers to pass on, in lower case.
            method: for HTTP engines.

        Raises:
            ChainExhausted: no engine answered.
            InvalidRequest: the call itself is wrong.
            CallerDeadline: the time was over before every engine was asked; its ``attempts`` and
                ``__cause__`` tell what was tried.
            Cancelled: the caller gave up.
            ConfigError: the chain has no engine.
        """
        plan = self._plan
        monotonic = self._monotonic
        started = monotonic()
        if timeout is None and self._ambient is None:
            deadline = started + plan.timeout_s
            reserved_s = plan.reserve_s
        else:
            deadline = started + (plan.timeout_s if timeout is None else timeout)
            if self._ambient is not None:
                deadline = min(deadline, self._ambient())
            reserved_s = reserve_s(max(deadline - started, 0.0))
        return run(
            plan,
            Call(
                payload,
                self.name,
                headers,
                method,
                stream,
                idempotent,
                idempotency_key,
                deadline,
                monotonic,
            ),
            started,
            reserved_s,
        )

    def ask(self, call: Call) -> Answer:
        """As :meth:`call`, for a prepared :class:`Call` (which another thread may cancel)."""
        if call.cancelled:
            raise Cancelled(f"call {call.id} was cancelled")
        if self._ambient is not None:
            call.deadline = min(call.deadline, self._ambient())
        started = self._monotonic()
        return run(self._plan, call, started, reserve_s(call.deadline - started))

    # --- how a plan is made ---

    def _planned(
        self,
        policy: ChainPolicy,
        budget: RetryBudget,
        options: Mapping[str, EngineOptions],
        seats: Sequence[Seat],
    ) -> Plan:
        return Plan(
            self.name,
            policy,
            seats,
            options,
            budget=budget,
            clock=self._clock,
            emit=self._emit,
            on_failure=self._on_failure,
            sleeper=self._sleeper,
            most_sleep_s=self._most_sleep_s
            if policy.retry_sleep is None
            else lambda: cast(float, policy.retry_sleep),
        )

    def _budget(self, policy: ChainPolicy) -> RetryBudget:
        return RetryBudget(policy.retry_budget, policy.retry_budget_floor, self._monotonic())

    def _check(
        self, options: Mapping[str, EngineOptions], before: Mapping[str, EngineOptions]
    ) -> None:
        known = {seat.name: seat for seat in self._seats}
        for name, said in options.items():
            if name in known:
                known[name].check(said)
            elif name not in before:  # what was said from the start may be of one yet to come
                near = difflib.get_close_matches(name, list(known), n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
                raise ConfigError(
                    f"chain {self.name!r}: engines", name, f"no engine has that name; {hint}"
                )


def _nobody(signal: NamedSignal, **details: object) -> None:
    """Tell nobody."""
