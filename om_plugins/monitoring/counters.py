"""What all workers have counted since the application began, for systems that keep time series.

Such a system (Prometheus, say) takes a counter that falls for one that was reset, and counts all of
it again. So a sum over workers must not fall when one of them ends: each keeps its own totals in
the hub, long after it may be gone, and the elected worker adds those of the ended ones to one
common entry.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from itertools import accumulate, zip_longest
from typing import Annotated, Any

import msgspec

from .. import signals
from ..core.fork import renew_after_fork
from ..core.histogram import Histogram, bucket_of
from ..core.problem__conversion import converted
from ..protocols import Clock, Hub
from ..types import Health
from .collector import OVERFLOW, Collector

__all__ = [
    "BOUNDS_S",
    "Ledger",
    "SignalCounts",
    "Totals",
    "counters",
    "of_requests",
    "under_bounds",
]


BOUNDS_S = (
    0.00390625, 0.0078125, 0.015625, 0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0
)  # fmt: skip
"""Upper bounds of the durations that are counted apart. Each is an edge of the histogram's own
buckets, so that the counts are exact."""

Totals = dict[tuple[str, ...], list[float]]
"""Numbers that only grow, by what they are of: ``("cache", "fresh"): [12]``."""

MAX_ROWS = 1_000
MOST_ROWS = 20_000
"""So much is read of one worker."""
TTL_S = 86_400.0
ENDED_AFTER_S = 900.0
"""A worker that has told nothing for so long has ended; while it lives, it tells every 10 s."""
COMMON_TTL_S = 30 * 86_400.0
_RENEW_S = 3_600.0
_MOST_ENDED = 2_000

_EDGES = [bucket_of(bound) for bound in BOUNDS_S]

_EACH = "monitor/totals/"
_COMMON = "monitor/totals-ended"

_Text = Annotated[str, msgspec.Meta(max_length=300)]
_Labels = Annotated[tuple[_Text, ...], msgspec.Meta(min_length=1, max_length=5)]
_Amount = Annotated[float, msgspec.Meta(ge=0, le=1e18)]
_Numbers = Annotated[list[_Amount], msgspec.Meta(min_length=1, max_length=32)]


class _Wire(msgspec.Struct):
    at: float
    rows: Annotated[list[tuple[_Labels, _Numbers]], msgspec.Meta(max_length=MOST_ROWS)]
    ended: Annotated[list[_Text], msgspec.Meta(max_length=_MOST_ENDED)] = []


def of_requests(collector: Collector) -> Totals:
    """Requests by method, route and status class: their number, their bytes, and durations.

    The durations are their sum in seconds, how many there are, and how many were shorter than each
    of :data:`BOUNDS_S`. What comes after a thousand rows is one row for each status class.
    """
    found: Totals = {}

    def look(counted: Collector, now: float) -> None:
        for number, (key, row) in enumerate(counted.rows.items()):
            method, route, status = key if number < MAX_ROWS else ("_OTHER", OVERFLOW, key[2])
            durations = row.durations(now)
            numbers = [
                row.requests, row.size_bytes, durations.total, durations.count,
                *under_bounds(durations),
            ]  # fmt: skip
            _add(found, {("request", method, route, f"{status}xx"): numbers})

    collector.read(look)
    return found


def under_bounds(durations: Histogram) -> list[int]:
    """How many records are smaller than each of :data:`BOUNDS_S`."""
    between = [0] * (len(_EDGES) + 1)
    for bucket, count in durations.counts.items():
        between[bisect_right(_EDGES, bucket)] += count
    return list(accumulate(between[:-1]))


def counters(kind: str, stats: Any, *more: str, levels: Iterable[str] = ()) -> Totals:
    """The counters of a dataclass that have counted.

    Args:
        kind: what they are of, and ``more`` of what exactly.
        levels: fields that are no counters.
    """
    values = {each.name: getattr(stats, each.name) for each in fields(stats)}
    left_out = frozenset(levels)
    return {
        (kind, *more, name): [value]
        for name, value in values.items()
        if value and name not in left_out
    }


class Ledger:
    """The totals of all workers, in the hub.

    Args:
        hub: what the workers share.
        clock: time.
    """

    def __init__(self, hub: Hub, clock: Clock) -> None:
        self._hub = hub
        self._clock = clock
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child: the lock may be held by a thread that is not here."""
        self._lock = threading.Lock()

    def put(self, uid: str, count: Callable[[], Totals]) -> None:
        """Tell this worker's totals, as ``count`` gives them."""
        with self._lock:  # no older ones are put after newer ones
            rows = [[list(key), numbers] for key, numbers in count().items()]
            self._hub.put(_EACH + uid, {"at": self._clock.time(), "rows": rows}, TTL_S)

    def read(self) -> Totals:
        """The sums over all workers, also of those that have ended."""
        # the workers' own first: one that is settled in between is then counted once
        each = self._each()
        found, ended, _ = self._common()
        for uid, wire in each.items():
            if uid not in ended:
                _add(found, dict(wire.rows))
        return found

    def settle(self) -> None:
        """In one process of all: add up those that have ended, and forget them."""
        now = self._clock.time()
        over = {uid: one for uid, one in self._each().items() if now - one.at > ENDED_AFTER_S}
        found, ended, at = self._common()
        new = [uid for uid in over if uid not in ended]
        for uid in new:
            _add(found, dict(over[uid].rows))
        if new or (found and now - at > _RENEW_S):
            rows = [[list(key), numbers] for key, numbers in found.items()]
            names = [*ended, *new][-_MOST_ENDED:]
            self._hub.put(_COMMON, {"at": now, "rows": rows, "ended": names}, COMMON_TTL_S)
        for uid in over:
            self._hub.put(_EACH + uid, None, TTL_S)

    def _each(self) -> dict[str, _Wire]:
        found = {}
        for key, data in self._hub.scan(_EACH).items():
            try:
                found[key.removeprefix(_EACH)] = converted(data, _Wire)
            except (ValueError, TypeError):
                continue  # damaged: as if it were not there
        return found

    def _common(self) -> tuple[Totals, list[str], float]:
        try:
            wire = converted(self._hub.get(_COMMON), _Wire)
        except (ValueError, TypeError):
            return {}, [], 0.0
        return dict(wire.rows), wire.ended, wire.at


def _add(total: Totals, more: Mapping[tuple[str, ...], list[float]]) -> None:
    for key, numbers in more.items():
        found = total.get(key)
        total[key] = (
            list(numbers)
            if found is None
            else [a + b for a, b in zip_longest(found, numbers, fillvalue=0)]
        )


# Counts, by the signals that tell of it, what engines and fallbacks did in this process.


class SignalCounts:
    """A receiver of signals; it lives as long as whoever keeps it.

    Args:
        sender: the application.
    """

    def __init__(self, sender: object) -> None:
        self.after_fork()
        renew_after_fork(self)
        signals.engine_called.connect(self._called, sender=sender)
        signals.engine_failed.connect(self._failed, sender=sender)
        signals.engine_fell_back.connect(self._fell_back, sender=sender)
        signals.engine_health_changed.connect(self._changed, sender=sender)
        signals.fallback_answered.connect(self._fallback, sender=sender)

    def after_fork(self) -> None:
        """A child counts for itself."""
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, ...]] = Counter()

    def totals(self) -> Totals:
        """Of engines: attempts answered and failed, answers of lower tiers, and times that one
        went offline; of the fallback: answers by kind."""
        with self._lock:
            return {key: [count] for key, count in self._counts.items()}

    def _count(self, *key: str) -> None:
        with self._lock:
            self._counts[key] += 1

    def _of_engine(self, chain: str, engine: str, what: str) -> None:
        self._count("engine", chain[:200], engine[:200], what)

    def _called(self, _: object, *, chain: str, engine: str, **_more: object) -> None:
        self._of_engine(chain, engine, "answered")

    def _failed(self, _: object, *, chain: str, engine: str, **_more: object) -> None:
        self._of_engine(chain, engine, "failed")

    def _fell_back(self, _: object, *, chain: str, engine: str, **_more: object) -> None:
        self._of_engine(chain, engine, "fallbacks")

    def _fallback(self, _: object, *, kind: str, **_more: object) -> None:
        self._count("fallback", kind)

    def _changed(
        self, _: object, *, chain: str, engine: str, after: Health, **_more: object
    ) -> None:
        if after is Health.OFFLINE:
            self._of_engine(chain, engine, "outages")
