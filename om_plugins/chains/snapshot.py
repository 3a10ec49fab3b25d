"""A snapshot of a chain: everything that one call needs, built when engines or settings change.

A snapshot never changes. A call reads it once and uses it to its end, whatever an operator changes
meanwhile; the next call finds the next snapshot.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence

from ..policies.backoff import BackoffSleeper, reserve_s
from ..policies.retry_budget import RetryBudget
from ..protocols import Clock
from ..settings.callbacks import refuse_unfinished
from ..signals import Emit
from ..types import Answer, Attempt, Call
from .engine_state import EngineState, tier_of
from .load_balancing import Tier
from .options import ChainPolicy, EngineOptions

logger = logging.getLogger("om_plugins")

OnFailure = Callable[[Call, Sequence[Attempt]], None]
"""Called with a call that no engine or only a lower tier answered, and with its attempts. Must not
raise."""

NO_OPTIONS = EngineOptions()


class ChainSnapshot:
    """What a chain does, at one moment.

    Args:
        name: the chain's name.
        policy: how the chain treats its engines.
        engines: the states of its engines so far, in the order of registration.
        options: the options of single engines, by name.
        budget: the retry budget; the same in all snapshots while its settings stay.
        clock: the clock.
        emit: sends the application's signals.
        on_failure: called with calls that fell back or failed.
        sleeper: lets callers wait between attempts.
        max_sleep_s: returns how long a call may wait between attempts in all.

    Attributes:
        registered: the engines under these settings, in the order of registration.
        all_engines: the same by tier.
        engines: those of them that are switched on.
        tiers: the tiers in order, where one has several engines; ``None`` where every call asks
            the engines in the same order.
    """

    __slots__ = ("all_engines", "attempt_timeout", "budget", "clock", "deposit", "emit", "engines",
                 "learners", "max_sleep_s", "monotonic", "name", "on_failure", "options",
                 "policy", "registered", "reserve_s", "sleeper", "tiers",
                 "timeout_s")  # fmt: skip

    def __init__(
        self,
        name: str,
        policy: ChainPolicy,
        engines: Sequence[EngineState],
        options: Mapping[str, EngineOptions],
        *,
        budget: RetryBudget,
        clock: Clock,
        emit: Emit,
        on_failure: OnFailure | None,
        sleeper: BackoffSleeper,
        max_sleep_s: Callable[[], float],
    ) -> None:
        self.name = name
        self.policy = policy
        self.options = options
        self.budget = budget
        self.deposit = budget.deposit
        self.clock = clock
        self.monotonic = clock.monotonic
        self.emit = emit
        self.on_failure = on_failure
        self.sleeper = sleeper
        self.max_sleep_s = max_sleep_s
        self.attempt_timeout = policy.attempt_timeout
        self.timeout_s = policy.timeout
        self.reserve_s = reserve_s(policy.timeout)
        self.registered = self._apply_settings(engines)
        # sorting keeps the order of registration inside a tier
        self.all_engines = tuple(sorted(self.registered, key=lambda engine: engine.tier))
        self.engines = tuple(engine for engine in self.all_engines if engine.enabled)
        self.tiers = self._build_tiers()
        local_later = False
        for engine in reversed(self.engines):
            engine.saves_time = local_later and not engine.local
            local_later = local_later or engine.local
        self.learners = tuple(
            (engine.name, engine.learn) for engine in self.engines if engine.learn is not None
        )

    def order(self, now: float) -> tuple[EngineState, ...]:
        """Return the engines in the order in which one call asks them."""
        if self.tiers is None:
            return self.engines
        return tuple(
            itertools.chain.from_iterable(
                tier.order(now) if isinstance(tier, Tier) else tier for tier in self.tiers
            )
        )

    def teach(self, call: Call, answer: Answer) -> None:
        """Pass a whole, new answer to the engines that learn from the others."""
        if answer.chunks is not None or answer.stale:
            return
        for name, learn in self.learners:
            if name != answer.engine:
                try:
                    refuse_unfinished(learn(call, answer))
                except Exception:  # the caller has its answer; this must not take it away
                    logger.exception("engine %r: learn failed", name)

    def _apply_settings(self, engines: Sequence[EngineState]) -> tuple[EngineState, ...]:
        policy = self.policy
        options = [self.options.get(engine.name, NO_OPTIONS) for engine in engines]
        tiers = [
            tier_of(engine.spec, one)
            for engine, one in zip(engines, options, strict=True)
            if one.enabled
        ]
        return tuple(
            engine.with_settings(
                one,
                has_equals=tiers.count(tier_of(engine.spec, one)) > 1,
                hedge=0.0 if policy.at_most_once else policy.hedge,
                bulkhead_wait_s=policy.bulkhead_wait,
                attempt_s=policy.attempt_timeout or policy.timeout,
                fair_share_s=policy.fair_share_s(),
                offline_s=policy.breaker_cooldown,
            )
            for engine, one in zip(engines, options, strict=True)
        )

    def _build_tiers(self) -> list[tuple[EngineState, ...] | Tier[EngineState]] | None:
        tiers: list[tuple[EngineState, ...] | Tier[EngineState]] = []
        for _, group in itertools.groupby(self.engines, key=lambda engine: engine.tier):
            members = tuple(group)
            if len(members) > 1:
                tier = Tier(members, self.policy.balance, self.policy.eject_after)
                for engine in members:
                    engine.peers = tier
                tiers.append(tier)
            else:
                tiers.append(members)
        return tiers if any(isinstance(tier, Tier) for tier in tiers) else None
