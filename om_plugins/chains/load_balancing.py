"""Choice among equals: which engine of a tier is asked first, and which is left alone for a while.

``round_robin`` is nginx's smooth weighted round-robin, computed when the tier is put together.
``least_in_flight`` goes by calls at work per weight. ``lowest_latency`` draws two engines and takes
the one with the lower expected time (Michael Mitzenmacher, "The Power of Two Choices in Randomized
Load Balancing", 2001; the measure is Finagle's peak EWMA). ``in_order`` asks them as they were
registered.

Passive outlier ejection, as in Envoy: an engine that fails several times in a row, or far more
often than its equals, is asked last for a while. Never more than half of a tier is ejected, so
never its last engine; and when more than half cannot be asked anyhow, ejection is forgotten (the
*panic threshold*): to ask a doubtful engine beats to ask none.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..core.fork import renew_after_fork

if TYPE_CHECKING:
    from .engine_state__place import Place

__all__ = ["Ejection", "Tier", "smooth_cycle"]

EJECT_S = 30.0
"""The first ejection takes so long; each one soon after takes that much longer."""
EJECT_MAX_S = 300.0
FORGIVEN_S = 600.0
"""After so long without an ejection, the next one is a first one."""
OUTLIER_CALLS = 20
"""Calls in the breaker's window before a failure rate is compared."""
OUTLIER_RATE = 0.3
"""An engine is an outlier when its failure rate is above its equals' mean by this much."""
_LONGEST_CYCLE = 1000


class Tier:
    """The engines of one tier that has several.

    Args:
        places: in the order of registration.
        balance: how the first one is chosen, one of
            :data:`~om_plugins.settings.settings__options.BALANCES`.
        eject_after: failures in a row that eject an engine; 0 ejects none.
        draw: a uniform random number from 0 to 1.
    """

    __slots__ = ("__weakref__", "_cycle", "_eject_after", "_lock", "_order", "_rings", "_turn",
                 "places")  # fmt: skip

    def __init__(
        self,
        places: Sequence[Place],
        balance: str,
        eject_after: int,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.places = tuple(places)
        self._eject_after = eject_after
        self._rings = [self.places[i:] + self.places[:i] for i in range(len(self.places))]
        self._cycle = smooth_cycle([place.weight for place in self.places])
        self._turn = itertools.count().__next__
        orders: dict[str, Callable[[float], tuple[Place, ...]]] = {
            "round_robin": self._round_robin,
            "least_in_flight": self._least_in_flight,
            "lowest_latency": lambda now: self._lowest_latency(now, draw),
            "in_order": lambda now: self.places,
        }
        self._order = orders[balance]
        self._lock = threading.Lock()
        renew_after_fork(self)

    def order(self, now: float) -> tuple[Place, ...]:
        """The engines in the order in which one call asks them."""
        order = self._order(now)
        for place in order:
            if now < place.ejection.until:
                return self._ejected_last(order, now)
        return order

    def failed(self, place: Place, failures_in_a_row: int, now: float) -> None:
        """An engine of this tier failed: eject it, if it is worse than its equals."""
        if not self._eject_after or now < place.ejection.until:
            return
        if failures_in_a_row < self._eject_after and not self._is_outlier(place, now):
            return
        with self._lock:
            ejected = sum(now < one.ejection.until for one in self.places)
            already = now < place.ejection.until  # by a call that failed at the same moment
            if not already and ejected + 1 <= len(self.places) // 2:
                place.ejection.begin(now)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def _round_robin(self, now: float) -> tuple[Place, ...]:
        cycles, turn = divmod(self._turn(), len(self._cycle))
        first, *others = self._rings[self._cycle[turn]]
        # those after it take turns, too: the turns of one that cannot be asked must not all go
        # to its neighbour
        at = cycles % len(others)
        return (first, *others[at:], *others[:at])

    def _least_in_flight(self, now: float) -> tuple[Place, ...]:
        ring = self._rings[self._turn() % len(self._rings)]  # equals take turns
        return tuple(sorted(ring, key=lambda place: (place.in_flight + 1) / place.weight))

    def _lowest_latency(self, now: float, draw: Callable[[], float]) -> tuple[Place, ...]:
        count = len(self.places)
        one = int(draw() * count) % count
        other = (one + 1 + int(draw() * (count - 1)) % (count - 1)) % count
        # one that is not closed keeps its turn, so that it is probed however slow it looked
        if self.places[one].breaker.permit and (
            self.places[other].cost(now) < self.places[one].cost(now)
        ):
            one, other = other, one
        rest = [place for i, place in enumerate(self.places) if i not in (one, other)]
        return (self.places[one], self.places[other], *rest)

    def _ejected_last(self, order: tuple[Place, ...], now: float) -> tuple[Place, ...]:
        ejected = [place for place in order if now < place.ejection.until]
        shut = sum(not place.breaker.permit or now < place.cooldown.until for place in order
                   if now >= place.ejection.until)  # fmt: skip
        if 2 * (len(ejected) + shut) > len(order):
            return order
        return (*(place for place in order if place not in ejected), *ejected)

    def _is_outlier(self, place: Place, now: float) -> bool:
        mine = place.breaker.view(now)
        if mine.calls < OUTLIER_CALLS:
            return False
        others = [
            view.failure_rate
            for one in self.places
            if one is not place and (view := one.breaker.view(now)).calls >= OUTLIER_CALLS
        ]
        return bool(others) and mine.failure_rate > sum(others) / len(others) + OUTLIER_RATE


class Ejection:
    """Whether one engine is left alone because its equals do better.

    Attributes:
        until: the monotonic time until which it is asked last; in the past when it is not.
        times: how often in a row it was ejected.
    """

    __slots__ = ("times", "until")

    def __init__(self) -> None:
        self.until = float("-inf")
        self.times = 0

    def begin(self, now: float) -> None:
        """Eject it: 30 s, and 30 s more each time, at most 5 min."""
        self.times = 1 if now > self.until + FORGIVEN_S else self.times + 1
        self.until = now + min(EJECT_S * self.times, EJECT_MAX_S)


def smooth_cycle(weights: Sequence[float]) -> list[int]:
    """Which engine's turn it is, over one cycle of smooth weighted round-robin.

    Args:
        weights: above 0.

    Returns:
        Indices; each comes as often as its weight says, and as evenly spread as can be. Weights
        without a small common measure are met within a thousandth.
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
