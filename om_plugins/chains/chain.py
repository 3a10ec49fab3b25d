"""The chain: engines in tiers, asked in order until one answers, inside one total deadline.

What a call needs is a :class:`~om_plugins.chains.snapshot.ChainSnapshot`, which the chain builds
when engines or settings change and never changes itself. :mod:`om_plugins.chains.execute` describes
how a call runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Never, cast

from blinker import NamedSignal

from ..core.clock import SystemClock
from ..core.fork import renew_after_fork
from ..core.moved import explain_keyword, with_old_names
from ..errors import Cancelled, ConfigError, suggest
from ..plugins.checks import check_engine
from ..policies.backoff import BackoffSleeper, reserve_s
from ..policies.registry import BreakerRegistry
from ..policies.retry_budget import RetryBudget
from ..protocols import Clock
from ..settings.arguments import check_value, flag, seconds
from ..signals import Emit
from ..types import Answer, Call, EngineHealth, EngineSpec
from .engine_state import EngineState, check_chaos
from .execute import execute
from .failures.failure_log import FailureLog
from .failures.refusals import Begin, begin_probe
from .options import ChainPolicy, EngineOptions
from .snapshot import ChainSnapshot, OnFailure


@with_old_names
class EngineChain:
    """Asks engines in order (see :class:`om_plugins.protocols.Chain`).

    Args:
        name: the chain's name.
        policy: how the chain treats its engines.
        options: options of single engines by name, also of engines that are added later.
        clock: the clock.
        emit: sends the application's signals; without it none are sent.
        breakers: the registry of the application, so that engines of several chains may share a
            breaker.
        on_failure: called with calls that fell back or failed.
        ambient_deadline: returns when the current request must have ended (monotonic), ``inf`` for
            never: no call takes longer.
        stopping: returns True once the process is about to stop; waits between attempts then end.
        max_sleep_s: returns how long a call may wait between attempts in all, where the policy
            leaves that open.
        begin_probe: runs the own probe of an engine that refused a call, off the path of that call;
            without it on a thread of its own.
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
        max_sleep_s: Callable[[], float] = lambda: float("inf"),
        begin_probe: Begin = begin_probe,
    ) -> None:
        self.name = name
        self._begin_probe = begin_probe
        self._clock = clock = clock or SystemClock()
        self._monotonic = clock.monotonic
        self._emit = emit or _emit_nothing
        self._breakers = breakers or BreakerRegistry()
        self._failures = FailureLog(name, clock)
        self._on_failure = on_failure
        self._ambient_deadline = ambient_deadline
        self._sleeper = BackoffSleeper(clock, stopping)
        self._max_sleep_s = max_sleep_s
        self._lock = threading.Lock()
        policy = policy or ChainPolicy()
        self._snapshot = self._build_snapshot(
            policy, self._new_budget(policy), dict(options or {}), ()
        )
        renew_after_fork(self)

    # --- its engines and settings ---

    def add(self, spec: EngineSpec) -> None:
        """Add an engine. Calls under way go on with the engines they began with.

        Raises:
            ConfigError: the object is not an engine, or the chain has one of that name.
            TypeError: its ``call`` is ``async``.
        """
        engine = check_engine(spec, self.name)
        with self._lock:
            before = self._snapshot
            if any(one.name == engine.name for one in before.registered):
                raise ConfigError(
                    f"engine of chain {self.name!r}",
                    engine.name,
                    "is there already; names are unique",
                )
            breaker = self._breakers.get(
                self.name, engine.name, engine.traits.breaker_key, before.policy.breaker
            )
            state = EngineState(
                spec,
                breaker,
                self._breakers,
                self._clock,
                self._emit,
                self._failures,
                self._begin_probe,
            )
            if engine.name in before.options:
                check_chaos(engine.name, before.options[engine.name])
            self._snapshot = self._build_snapshot(
                before.policy, before.budget, before.options, (*before.registered, state)
            )

    def configure(
        self, policy: ChainPolicy | None = None, options: Mapping[str, EngineOptions] | None = None
    ) -> None:
        """Change how the chain treats its engines, in one step.

        Calls under way end as they began. Breakers, health and budgets keep what they have
        counted; a budget starts again when its own settings change.

        Args:
            policy: replaces the chain's policy; ``None`` leaves it.
            options: replaces the options of single engines, by name; ``None`` leaves them.

        Raises:
            ConfigError: no engine has that name, or an option cannot work.
        """
        with self._lock:
            before = self._snapshot
            policy = policy or before.policy
            options = before.options if options is None else dict(options)
            self._check_options(options, before)
            budget = before.budget
            if (policy.retry_budget, policy.retry_budget_floor) != (
                before.policy.retry_budget,
                before.policy.retry_budget_floor,
            ):
                budget = self._new_budget(policy)
            self._snapshot = self._build_snapshot(policy, budget, options, before.registered)
            like = policy.breaker()
            for engine in self._snapshot.registered:
                engine.breaker.tune(like)

    @property
    def policy(self) -> ChainPolicy:
        """How the chain treats its engines."""
        return self._snapshot.policy

    @property
    def options(self) -> Mapping[str, EngineOptions]:
        """The options of single engines, by name."""
        return self._snapshot.options

    @property
    def budget(self) -> RetryBudget:
        """The retry budget that all callers share."""
        return self._snapshot.budget

    @property
    def engines(self) -> Sequence[EngineSpec]:
        """The engines by tier, also those that are switched off."""
        return tuple(engine.spec for engine in self._snapshot.all_engines)

    @property
    def states(self) -> tuple[EngineState, ...]:
        """The state of each engine that is switched on, by tier."""
        return self._snapshot.engines

    @property
    def all_states(self) -> tuple[EngineState, ...]:
        """As :attr:`states`, with the engines that are switched off."""
        return self._snapshot.all_engines

    @property
    def idempotent(self) -> bool:
        """True when every engine of every tier is idempotent."""
        engines = self._snapshot.engines
        return bool(engines) and all(engine.idempotent for engine in engines)

    def health(self) -> list[EngineHealth]:
        """Return the health of each engine at this moment, by tier."""
        now = self._monotonic()
        return [engine.check_health(now) for engine in self._snapshot.engines]

    def close(self) -> None:
        """Wake callers who wait for their next attempt, and have every engine give its
        connections back."""
        self._sleeper.wake_all()
        for engine in self._snapshot.all_engines:
            engine.close()

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
        **unknown: Never,
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
            **unknown: parts of the payload, most often; any is an error.

        Raises:
            ChainExhausted: no engine answered.
            InvalidRequest: the call itself is wrong.
            CallerDeadline: the time was over before every engine was asked; its ``attempts`` and
                ``__cause__`` tell what was tried.
            Cancelled: the caller gave up.
            ConfigError: the chain has no engine.
        """
        if unknown:
            name = next(iter(unknown))
            known = ["stream", "timeout", "idempotent", "idempotency_key", "headers", "method"]
            payload = f"call({{{name!r}: …}}), since the payload is one value"
            raise TypeError(explain_keyword("chain.call", name, known, usage=payload))
        if stream is not False:
            check_value("chain.call(stream)", stream, _FLAG)
        if idempotent is not None:
            check_value("chain.call(idempotent)", idempotent, _FLAG)
        snapshot = self._snapshot
        monotonic = self._monotonic
        started = monotonic()
        if timeout is None and self._ambient_deadline is None:
            deadline = started + snapshot.timeout_s
            reserved_s = snapshot.reserve_s
        else:
            try:
                deadline = started + (snapshot.timeout_s if timeout is None else timeout)
            except TypeError:
                check_value("chain.call(timeout)", timeout, seconds())
                raise
            if self._ambient_deadline is not None:
                deadline = min(deadline, self._ambient_deadline())
            reserved_s = reserve_s(max(deadline - started, 0.0))
        return execute(
            snapshot,
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
        if self._ambient_deadline is not None:
            call.deadline = min(call.deadline, self._ambient_deadline())
        started = self._monotonic()
        return execute(self._snapshot, call, started, reserve_s(call.deadline - started))

    # --- building snapshots ---

    def _build_snapshot(
        self,
        policy: ChainPolicy,
        budget: RetryBudget,
        options: Mapping[str, EngineOptions],
        engines: Sequence[EngineState],
    ) -> ChainSnapshot:
        return ChainSnapshot(
            self.name,
            policy,
            engines,
            options,
            budget=budget,
            clock=self._clock,
            emit=self._emit,
            on_failure=self._on_failure,
            sleeper=self._sleeper,
            max_sleep_s=self._max_sleep_s
            if policy.retry_sleep is None
            else lambda: cast(float, policy.retry_sleep),
        )

    def _new_budget(self, policy: ChainPolicy) -> RetryBudget:
        return RetryBudget(policy.retry_budget, policy.retry_budget_floor, self._monotonic())

    def _check_options(self, options: Mapping[str, EngineOptions], before: ChainSnapshot) -> None:
        known = [engine.name for engine in before.registered]
        for name, one in options.items():
            if name in known:
                check_chaos(name, one)
            elif name not in before.options:  # options from the start may be of a later engine
                hint = suggest(name, known, f"it has {', '.join(known)}")
                raise ConfigError(
                    f"chain {self.name!r}: engines", name, f"no engine has that name; {hint}"
                )


_FLAG = flag(none=True)


def _emit_nothing(signal: NamedSignal, **details: object) -> None:
    """Send no signal."""
