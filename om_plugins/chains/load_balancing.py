"""Load balancing: which engine of a tier a call asks first, and what that choice is based on.

``round_robin`` is nginx's smooth weighted round-robin, computed when the tier is built.
``least_in_flight`` goes by the calls under way per weight. ``lowest_latency`` draws two engines and
takes the one with the lower expected time (Michael Mitzenmacher, "The Power of Two Choices in
Randomized Load Balancing", 2001; the measure is Finagle's peak EWMA). ``in_order`` asks the engines
as they were registered.

Passive outlier ejection, as in Envoy: an engine that fails several times in a row, or far more
often than its equals, is asked last for a while. At most half of a tier is ejected, so its last
engine never is. When more than half of a tier cannot be asked anyway, ejection is ignored (the
*panic threshold*): a doubtful engine is better than none.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ..core.fork import renew_after_fork
from ..core.histogram import Histogram
from ..policies.breaker import Breaker
from ..policies.bulkhead import Bulkhead
from ..policies.cooldown import Cooldown

EJECT_S = 30.0
"""The first ejection lasts this long; each one soon after another lasts that much longer."""
EJECT_MAX_S = 300.0
FORGIVEN_S = 600.0
"""After this long without an ejection, the next one counts as the first."""
OUTLIER_CALLS = 20
"""Calls in the breaker's window before failure rates are compared."""
OUTLIER_RATE = 0.3
"""An engine is an outlier when its failure rate is above its equals' mean by this much."""
_LONGEST_CYCLE = 1000

QUANTILE_MIN_ANSWERS = 50
"""Answers before a quantile is used."""
QUANTILE_HALF_WINDOW = 500
"""Answers after which the older half of the window is dropped."""
QUANTILE_REFRESH = 25
"""The quantile is computed again after this many answers."""
HEDGE_SLACK = 1.1
"""A hedge is due a tenth later than the quantile, so that an engine that always takes the same time
is never cut."""
HEDGE_MIN_S = 0.001
"""A hedge waits at least this long."""

LATENCY_DECAY_S = 10.0
"""How long a slow answer counts against an engine: the time constant of the decay."""
FAILURE_PENALTY_S = 1.0
"""A failure counts as at least this long: an engine that fails fast must not look fast."""
FAILURE_PENALTY_MAX_S = 5.0
"""Failures in a row count as at most this long: an engine that works again must be tried soon."""


# --- a tier -------------------------------------------------------------------------------------


class TierMember(Protocol):
    """What a tier reads of its engines."""

    name: str
    weight: float
    breaker: Breaker
    cooldown: Cooldown
    ejection: Ejection

    @property
    def in_flight(self) -> int: ...

    def cost(self, now: float) -> float: ...


Member = TypeVar("Member", bound=TierMember)


class Tier(Generic[Member]):
    """The engines of one tier that has several.

    Args:
        members: the engines in the order of registration.
        balance: how the first one is chosen, one of
            :data:`~om_plugins.chains.options.BALANCES`.
        eject_after: failures in a row that eject an engine; 0 ejects none.
        draw: returns a uniform random number from 0 to 1.
    """

    __slots__ = ("__weakref__", "_cycle", "_eject_after", "_lock", "_order", "_rings", "_turn",
                 "members")  # fmt: skip

    def __init__(
        self,
        members: Sequence[Member],
        balance: str,
        eject_after: int,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.members = tuple(members)
        self._eject_after = eject_after
        self._rings = [self.members[i:] + self.members[:i] for i in range(len(self.members))]
        self._cycle = smooth_cycle([member.weight for member in self.members])
        self._turn = itertools.count().__next__
        orders: dict[str, Callable[[float], tuple[Member, ...]]] = {
            "round_robin": self._round_robin,
            "least_in_flight": self._least_in_flight,
            "lowest_latency": lambda now: self._lowest_latency(now, draw),
            "in_order": lambda now: self.members,
        }
        self._order = orders[balance]
        self._lock = threading.Lock()
        renew_after_fork(self)

    def order(self, now: float) -> tuple[Member, ...]:
        """Return the engines in the order in which one call asks them."""
        order = self._order(now)
        for member in order:  # a loop, because any() costs every call a generator
            if now < member.ejection.until:
                return self._ejected_last(order, now)
        return order

    def record_failure(self, member: Member, failures_in_a_row: int, now: float) -> None:
        """Record that an engine of this tier failed; eject it if it is worse than its equals."""
        if not self._eject_after or now < member.ejection.until:
            return
        if failures_in_a_row < self._eject_after and not self._is_outlier(member, now):
            return
        with self._lock:
            ejected = sum(now < one.ejection.until for one in self.members)
            already = now < member.ejection.until  # by a call that failed at the same moment
            if not already and ejected + 1 <= len(self.members) // 2:
                member.ejection.begin(now)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def _round_robin(self, now: float) -> tuple[Member, ...]:
        cycles, turn = divmod(self._turn(), len(self._cycle))
        first, *others = self._rings[self._cycle[turn]]
        # the others rotate, too: when one engine cannot be asked, its calls must not all go to its
        # neighbour
        at = cycles % len(others)
        return (first, *others[at:], *others[:at])

    def _least_in_flight(self, now: float) -> tuple[Member, ...]:
        ring = self._rings[self._turn() % len(self._rings)]  # engines with equal load take turns
        return tuple(sorted(ring, key=lambda member: (member.in_flight + 1) / member.weight))

    def _lowest_latency(self, now: float, draw: Callable[[], float]) -> tuple[Member, ...]:
        count = len(self.members)
        one = int(draw() * count) % count
        other = (one + 1 + int(draw() * (count - 1)) % (count - 1)) % count
        # an engine whose breaker is not closed keeps its turn, so that it is probed however slow
        # it looked
        if self.members[one].breaker.permit and (
            self.members[other].cost(now) < self.members[one].cost(now)
        ):
            one, other = other, one
        rest = [member for i, member in enumerate(self.members) if i not in (one, other)]
        return (self.members[one], self.members[other], *rest)

    def _ejected_last(self, order: tuple[Member, ...], now: float) -> tuple[Member, ...]:
        ejected = [member for member in order if now < member.ejection.until]
        blocked = sum(
            not member.breaker.permit or now < member.cooldown.until
            for member in order
            if now >= member.ejection.until
        )
        if 2 * (len(ejected) + blocked) > len(order):
            return order
        return (*(member for member in order if member not in ejected), *ejected)

    def _is_outlier(self, member: Member, now: float) -> bool:
        own = member.breaker.view(now)
        if own.calls < OUTLIER_CALLS:
            return False
        others = [
            view.failure_rate
            for one in self.members
            if one is not member and (view := one.breaker.view(now)).calls >= OUTLIER_CALLS
        ]
        return bool(others) and own.failure_rate > sum(others) / len(others) + OUTLIER_RATE


@dataclass(slots=True, eq=False)
class Ejection:
    """Whether an engine is asked last for a while because its equals do better.

    Attributes:
        until: the monotonic time until which it is asked last; in the past when it is not ejected.
        times: how often in a row it was ejected.
    """

    until: float = float("-inf")
    times: int = 0

    def begin(self, now: float) -> None:
        """Eject the engine: for 30 s, and 30 s more each time in a row, at most 5 min."""
        self.times = 1 if now > self.until + FORGIVEN_S else self.times + 1
        self.until = now + min(EJECT_S * self.times, EJECT_MAX_S)


def smooth_cycle(weights: Sequence[float]) -> list[int]:
    """Compute one cycle of smooth weighted round-robin.

    Args:
        weights: the weight of each engine, above 0.

    Returns:
        Indices of engines. Each appears as often as its weight says, spread as evenly as possible.
        Weights without a small common measure are met within a thousandth.
    """
    total = sum(weights)
    current = [0.0] * len(weights)
    cycle: list[int] = []
    while len(cycle) < _LONGEST_CYCLE:
        for i, weight in enumerate(weights):
            current[i] += weight
        first = max(range(len(weights)), key=current.__getitem__)
        current[first] -= total
        cycle.append(first)
        if all(abs(one) < 1e-9 * total for one in current):
            break
    return cycle


# --- what is measured of an engine --------------------------------------------------------------


class LatencyQuantile:
    """A quantile of the newest 500 to 1,000 answer times of an engine: when a hedge is due.

    Args:
        quantile: which one, 0 to 1.

    Attributes:
        value_s: the quantile and a tenth, in seconds; ``None`` while there are too few answers.
            Callers read it without a lock.
    """

    __slots__ = ("__weakref__", "_lock", "_newer", "_older", "quantile", "value_s")

    def __init__(self, quantile: float) -> None:
        self.quantile = quantile
        self.value_s: float | None = None
        self._older = Histogram()
        self._newer = Histogram()
        self._lock = threading.Lock()
        renew_after_fork(self)

    def record(self, duration_s: float) -> None:
        """Count an answer."""
        with self._lock:
            newer = self._newer
            newer.record(duration_s)
            count = self._older.count + newer.count
            if count >= QUANTILE_MIN_ANSWERS and newer.count % QUANTILE_REFRESH == 0:
                both = Histogram()
                both.add(self._older)
                both.add(newer)
                value_s = HEDGE_SLACK * (both.quantile(self.quantile) or 0.0)
                self.value_s = max(value_s, HEDGE_MIN_S)
            if newer.count >= QUANTILE_HALF_WINDOW:
                self._older, self._newer = newer, Histogram()

    def after_fork(self) -> None:
        self._lock = threading.Lock()


class EngineLoad:
    """How busy and how fast one engine of several equals is.

    The expected time is a *peak* exponentially weighted moving average, as in Finagle's
    ``PeakEwma``: a slow answer counts at once and fades with time.

    Attributes:
        in_flight: calls under way.
        failures_in_a_row: failures since the last answer.
    """

    __slots__ = ("__weakref__", "_expected_s", "_lock", "_updated_at", "failures_in_a_row",
                 "in_flight")  # fmt: skip

    def __init__(self) -> None:
        self.in_flight = 0
        self.failures_in_a_row = 0
        self._expected_s = 0.0
        self._updated_at = 0.0
        # Re-entrant, because a stream that is garbage-collected calls leave(), and the collector
        # may run in the middle of anything.
        self._lock = threading.RLock()
        renew_after_fork(self)

    def enter(self) -> None:
        """Count a call that begins."""
        with self._lock:
            self.in_flight += 1

    def leave(self) -> None:
        """Count a call that ended, whatever its end says about the engine."""
        with self._lock:
            if self.in_flight:  # 0: the call began before a fork, in the parent
                self.in_flight -= 1

    def record_answer(self, duration_s: float, now: float) -> None:
        """Record an answer."""
        with self._lock:
            self.failures_in_a_row = 0
            self._update(duration_s, now)

    def record_failure(self, duration_s: float, now: float) -> int:
        """Record a failure; returns how many there were in a row."""
        with self._lock:
            self.failures_in_a_row += 1
            penalty_s = min(max(FAILURE_PENALTY_S, 2 * self._expected_s), FAILURE_PENALTY_MAX_S)
            self._update(max(duration_s, penalty_s), now)
            return self.failures_in_a_row

    def expected_s(self, now: float) -> float:
        """Return how long an answer takes, by the latest calls; 0.0 when there were none."""
        return self._expected_s * math.exp(-max(now - self._updated_at, 0.0) / LATENCY_DECAY_S)

    def cost(self, now: float) -> float:
        """Return the expected seconds of all calls under way and of one call more.

        While an engine has not answered yet, a call under way makes it expensive: one call finds
        out how fast it is, and not all of them.
        """
        if not self._expected_s and self.in_flight:
            return FAILURE_PENALTY_S * (self.in_flight + 1)
        return (self.expected_s(now) + 1e-6) * (self.in_flight + 1)

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        self.in_flight = 0  # those calls are the parent's

    def _update(self, duration_s: float, now: float) -> None:
        weight = math.exp(-max(now - self._updated_at, 0.0) / LATENCY_DECAY_S)
        if duration_s >= self._expected_s * weight:
            self._expected_s = duration_s
        else:
            self._expected_s = self._expected_s * weight + duration_s * (1.0 - weight)
        self._updated_at = now


@dataclass(slots=True, eq=False)
class EngineTraffic:
    """What counts the calls of one engine beside its breaker.

    An engine that needs none of the three has no such object, and its calls pay one look for that.

    Args:
        bulkhead: limits the calls under way.
        load: for a tier of several engines.
        latency: for hedging.
        bulkhead_wait_s: how long a call waits at the bulkhead, at most.

    Each call that :meth:`enter` let in calls :meth:`leave` exactly once.
    """

    bulkhead: Bulkhead | None
    load: EngineLoad | None
    latency: LatencyQuantile | None
    bulkhead_wait_s: float = 0.0

    @property
    def full(self) -> bool:
        """True while a call would have to wait."""
        return self.bulkhead is not None and self.bulkhead.in_use >= self.bulkhead.max_concurrency

    def enter(self, left_s: float) -> bool:
        """Let a call in; returns False when the engine is full and stays full.

        Args:
            left_s: the time that the call has left, in seconds.
        """
        wait_s = self.bulkhead_wait_s
        if self.bulkhead is not None and not self.bulkhead.enter(
            left_s if left_s < wait_s else wait_s  # noqa: FURB136 - min() costs a call
        ):
            return False
        if self.load is not None:
            self.load.enter()
        return True

    def leave(self) -> None:
        """Count a call that ended."""
        if self.load is not None:
            self.load.leave()
        if self.bulkhead is not None:
            self.bulkhead.leave()

    def record_answer(self, duration_s: float, now: float) -> None:
        """Record that the engine answered ``duration_s`` after it was asked (first chunk)."""
        if self.load is not None:
            self.load.record_answer(duration_s, now)
        if self.latency is not None:
            self.latency.record(duration_s)
