"""A chain's plan: all that one call needs, put together when engines or settings change.

A plan is never changed. A call reads it once and goes on with it to its end, whatever an operator
changes meanwhile; the next call finds the next plan.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence

from ..policies.backoff import BackoffSleeper, reserve_s
from ..policies.retry_budget import RetryBudget
from ..protocols import Clock
from ..settings.settings__options import EngineOptions
from ..signals import Emit
from ..types import Answer, Attempt, Call
from .engine_state import Seat, tier_of
from .engine_state__place import Place
from .load_balancing import Tier
from .snapshot__policy import ChainPolicy

__all__ = ["OnFailure", "Plan"]

logger = logging.getLogger("om_plugins")

OnFailure = Callable[[Call, Sequence[Attempt]], None]
"""Told of a call that no engine, or only a lower tier answered, and what was tried. Must not
raise."""

NO_OPTIONS = EngineOptions()


class Plan:
    """What a chain does, at one moment.

    Args:
        name: the chain's name.
        policy: how it treats its engines.
        seats: its engines, as they were registered.
        options: by engine, what is said of it alone.
        budget: the chain's; kept from plan to plan while its settings stay.
        clock: time.
        emit: tells the application's signals.
        on_failure: told of calls that fell back or failed.
        sleeper: how its callers wait.
        most_sleep_s: how long a call may wait between attempts in all, when the policy leaves
            that open.

    Attributes:
        places: the engines that are asked, by tier.
        everyone: the same, with those that are switched off.
        steps: tiers in order, where one has several engines; ``None`` where all calls go alike.
    """

    __slots__ = (
        "attempt_timeout",
        "budget",
        "clock",
        "deposit",
        "emit",
        "everyone",
        "learners",
        "monotonic",
        "most_sleep_s",
        "name",
        "on_failure",
        "options",
        "places",
        "policy",
        "reserve_s",
        "sleeper",
        "steps",
        "timeout_s",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        policy: ChainPolicy,
        seats: Sequence[Seat],
        options: Mapping[str, EngineOptions],
        *,
        budget: RetryBudget,
        clock: Clock,
        emit: Emit,
        on_failure: OnFailure | None,
        sleeper: BackoffSleeper,
        most_sleep_s: Callable[[], float],
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
        self.most_sleep_s = most_sleep_s
        self.attempt_timeout = policy.attempt_timeout
        self.timeout_s = policy.timeout
        self.reserve_s = reserve_s(policy.timeout)
        tiers: dict[int, list[Seat]] = {}
        for seat in seats:
            tiers.setdefault(tier_of(seat.spec, self._options_of(seat)), []).append(seat)
        everyone: list[Place] = []
        steps: list[tuple[Place, ...] | Tier] = []
        for _, members in sorted(tiers.items()):
            asked = [seat for seat in members if self._options_of(seat).enabled]
            places = [self._place(seat, equals=len(asked) > 1) for seat in members]
            everyone += places
            places = [place for place in places if self._options_of(place).enabled]
            if len(places) > 1:
                tier = Tier(places, policy.balance, policy.eject_after)
                for place in places:
                    place.peers = tier
                steps.append(tier)
            else:
                steps.append(tuple(places))
        self.everyone = tuple(everyone)
        self.places = tuple(one for one in everyone if self._options_of(one).enabled)
        local_later = False
        for place in reversed(self.places):
            place.saves_time = local_later and not place.local
            local_later = local_later or place.local
        self.learners = tuple(
            (place.name, place.learn) for place in self.places if place.learn is not None
        )
        self.steps = steps if any(isinstance(step, Tier) for step in steps) else None

    def order(self, now: float) -> tuple[Place, ...]:
        """The engines in the order in which one call asks them."""
        if self.steps is None:
            return self.places
        return tuple(
            itertools.chain.from_iterable(
                step.order(now) if isinstance(step, Tier) else step for step in self.steps
            )
        )

    def teach(self, call: Call, answer: Answer) -> None:
        """Show a whole, new answer to the engines that learn from the others."""
        if answer.chunks is not None or answer.stale:
            return
        for name, learn in self.learners:
            if name != answer.engine:
                try:
                    learn(call, answer)
                except Exception:  # the caller has its answer; this must not take it away
                    logger.exception("engine %r: learn failed", name)

    def _options_of(self, one: Seat | Place) -> EngineOptions:
        return self.options.get(one.name, NO_OPTIONS)

    def _place(self, seat: Seat, *, equals: bool) -> Place:
        options = self._options_of(seat)
        seat.prepare(self.policy, options, equals=equals)
        return Place(seat, self.policy, options, equals=equals, clock=self.clock, emit=self.emit)
