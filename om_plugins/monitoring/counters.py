"""Counters: what all workers counted since the application began, for systems like Prometheus.

Such a system takes a counter that falls for one that was reset, and counts its whole value again.
So the sum over all workers must not fall when a worker ends. Each worker keeps its totals in the
hub, where they outlive it, and the elected worker adds the totals of ended workers to one common
entry.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import Annotated

import msgspec

from .. import signals
from ..core.body import convert
from ..core.fork import renew_after_fork
from ..core.histogram import Histogram, bucket_of
from ..plugins.feature_checks import MAX_LABELS, MAX_TEXT, MOST
from ..plugins.kit import Metric
from ..protocols import Clock, Hub
from ..types import Health
from .collector import OVERFLOW, Collector

BOUNDS_S = (
    0.00390625, 0.0078125, 0.015625, 0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0
)  # fmt: skip
"""The upper bounds of durations that are counted separately. Each one is an edge of the histogram's
own buckets, so the counts are exact."""

Totals = dict[tuple[str, ...], list[float]]
"""Numbers by what they count. The first part of a key tells the kind of the row:

* ``("request", method, route, status)``: see :func:`count_requests`;
* ``("counter", name, about, label, value, …)``: a metric that only grows;
* ``("gauge", name, about, label, value, …)``: a metric of the present.
"""

MAX_ROWS = 1_000
MAX_METRICS = 10_000
MOST_ROWS = 20_000
"""The greatest number of rows that is read from one worker."""
TTL_S = 86_400.0
ENDED_AFTER_S = 900.0
"""A worker that published nothing for so long has ended; a live one publishes every 10 s."""
COMMON_TTL_S = 30 * 86_400.0
LIVE_S = 25.0
"""The gauges of a worker count for so long: it publishes every 10 s, and one may be late."""
_RENEW_S = 3_600.0
_MOST_ENDED = 2_000

_EDGES = [bucket_of(bound) for bound in BOUNDS_S]

_EACH = "monitor/totals2/"
_COMMON = "monitor/totals2-ended"

_Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
_Labels = Annotated[tuple[_Text, ...], msgspec.Meta(min_length=1, max_length=3 + 2 * MAX_LABELS)]
_Amount = Annotated[float, msgspec.Meta(ge=0, le=MOST)]
_Numbers = Annotated[list[_Amount], msgspec.Meta(min_length=1, max_length=32)]


class _CountersWire(msgspec.Struct):
    at: float
    rows: Annotated[list[tuple[_Labels, _Numbers]], msgspec.Meta(max_length=MOST_ROWS)]
    ended: Annotated[list[_Text], msgspec.Meta(max_length=_MOST_ENDED)] = []


def count_requests(collector: Collector) -> Totals:
    """Count requests by method, route and status class.

    The numbers of a row are the requests, their body bytes, the sum of the durations in seconds,
    the number of durations, and how many durations are shorter than each of :data:`BOUNDS_S`. After
    a thousand rows, the rest becomes one row for each status class.
    """
    found: Totals = {}

    def look(counted: Collector, now: float) -> None:
        for number, (key, row) in enumerate(counted.rows.items()):
            method, route, status = key if number < MAX_ROWS else ("_OTHER", OVERFLOW, key[2])
            durations = row.durations(now)
            numbers = [
                row.requests, row.size_bytes, durations.total, durations.count,
                *count_below_bounds(durations),
            ]  # fmt: skip
            _add(found, {("request", method, route, f"{status}xx"): numbers})

    collector.read(look)
    return found


def count_below_bounds(durations: Histogram) -> list[int]:
    """Count the durations below each of :data:`BOUNDS_S`."""
    between = [0] * (len(_EDGES) + 1)
    for bucket, count in durations.counts.items():
        between[bisect_right(_EDGES, bucket)] += count
    return list(accumulate(between[:-1]))


def count_metrics(metrics: Iterable[Metric]) -> Totals:
    """Return the rows of metrics; those of the same name and labels are added up.

    Metrics that cannot be added up are left out: with too many labels, or with a value that is
    negative or infinite.
    """
    found: Totals = {}
    for one in metrics:
        labels = sorted((one.labels or {}).items())
        if not 0 <= one.value <= MOST or len(labels) > MAX_LABELS:
            continue
        texts = (one.kind, one.name, one.about, *(text for pair in labels for text in pair))
        key = tuple(str(text)[:MAX_TEXT] for text in texts)
        if key in found or len(found) < MAX_METRICS:
            _add(found, {key: [one.value]})
    return found


@dataclass(eq=False, repr=False)
class SharedCounters:
    """The totals of all workers, in the hub.

    Args:
        hub: the hub that the workers share.
        clock: time.
    """

    hub: Hub
    clock: Clock

    def __post_init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Make a new lock in a child: a thread of the parent may hold the old one for ever."""
        self._lock = threading.Lock()

    def publish(self, uid: str, count: Callable[[], Totals]) -> None:
        """Publish this worker's totals.

        Args:
            uid: the name of the worker.
            count: returns the totals.
        """
        with self._lock:  # older totals must not replace newer ones
            rows = [[list(key), numbers] for key, numbers in count().items()]
            self.hub.put(_EACH + uid, {"at": self.clock.time(), "rows": rows}, TTL_S)

    def read(self) -> Totals:
        """Return the sums over all workers.

        Those that have ended are included, except for their gauges.
        """
        # the workers first: one that is added to the common entry meanwhile is counted once
        each = self._read_each()
        found, ended, _ = self._read_common()
        now = self.clock.time()
        for uid, wire in each.items():
            if uid not in ended:
                _add(found, _rows_of(wire, gauges=now - wire.at < LIVE_S))
        return found

    def add_ended_workers(self) -> None:
        """Add the totals of ended workers to the common entry, in the elected worker alone."""
        now = self.clock.time()
        over = {uid: one for uid, one in self._read_each().items() if now - one.at > ENDED_AFTER_S}
        found, ended, at = self._read_common()
        new = [uid for uid in over if uid not in ended]
        for uid in new:
            _add(found, _rows_of(over[uid], gauges=False))
        if new or (found and now - at > _RENEW_S):
            rows = [[list(key), numbers] for key, numbers in found.items()]
            names = [*ended, *new][-_MOST_ENDED:]
            self.hub.put(_COMMON, {"at": now, "rows": rows, "ended": names}, COMMON_TTL_S)
        for uid in over:
            self.hub.put(_EACH + uid, None, TTL_S)

    def _read_each(self) -> dict[str, _CountersWire]:
        found = {}
        for key, data in self.hub.scan(_EACH).items():
            try:
                found[key.removeprefix(_EACH)] = convert(data, _CountersWire)
            except (ValueError, TypeError):
                continue  # a damaged entry is ignored
        return found

    def _read_common(self) -> tuple[Totals, list[str], float]:
        try:
            wire = convert(self.hub.get(_COMMON), _CountersWire)
        except (ValueError, TypeError):
            return {}, [], 0.0
        return dict(wire.rows), wire.ended, wire.at


def _rows_of(wire: _CountersWire, *, gauges: bool) -> Totals:
    return {key: numbers for key, numbers in wire.rows if gauges or key[0] != "gauge"}


def _add(total: Totals, more: Mapping[tuple[str, ...], list[float]]) -> None:
    for key, numbers in more.items():
        found = total.get(key)
        total[key] = (
            list(numbers)
            if found is None
            else [a + b for a, b in zip_longest(found, numbers, fillvalue=0)]
        )


_PAGES = "om_fallback_answers"
_ABOUT = {
    "om_engine_answers": "Attempts that an engine answered",
    "om_engine_failures": "Attempts that failed",
    "om_engine_outages": "Times that one worker found an engine offline",
    "om_engine_fallbacks": "Answers of an engine that is not on its chain's first tier",
    _PAGES: "Answers in place of views that failed",
}
_LABELS = dict.fromkeys(_ABOUT, ("chain", "engine")) | {_PAGES: ("kind",)}


class SignalCounter:
    """Counts what engines and fallbacks did in this process, by their signals.

    It counts as long as somebody keeps a reference to it.

    Args:
        sender: the application that sends the signals.
    """

    def __init__(self, sender: object) -> None:
        self.after_fork()
        renew_after_fork(self)
        signals.engine_called.connect(self._count_answer, sender=sender)
        signals.engine_failed.connect(self._count_failure, sender=sender)
        signals.engine_fell_back.connect(self._count_fallback, sender=sender)
        signals.engine_health_changed.connect(self._count_outage, sender=sender)
        signals.fallback_answered.connect(self._count_fallback_page, sender=sender)

    def after_fork(self) -> None:
        """Start again from zero in a child."""
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, ...]] = Counter()

    def read(self) -> list[Metric]:
        """Return the counts.

        Of engines: answered attempts, failed attempts, answers of later tiers, and how often an
        engine went offline. Of fallbacks: answers by kind.
        """
        with self._lock:
            counts = list(self._counts.items())
        return [
            Metric(name, _ABOUT[name], count, dict(zip(_LABELS[name], values, strict=True)))
            for (name, *values), count in counts
        ]

    def _count(self, *key: str) -> None:
        with self._lock:
            self._counts[key] += 1

    def _count_engine(self, chain: str, engine: str, what: str) -> None:
        self._count(f"om_engine_{what}", chain[:200], engine[:200])

    def _count_answer(self, _: object, *, chain: str, engine: str, **_more: object) -> None:
        self._count_engine(chain, engine, "answers")

    def _count_failure(self, _: object, *, chain: str, engine: str, **_more: object) -> None:
        self._count_engine(chain, engine, "failures")

    def _count_fallback(self, _: object, *, chain: str, engine: str, **_more: object) -> None:
        self._count_engine(chain, engine, "fallbacks")

    def _count_fallback_page(self, _: object, *, kind: str, **_more: object) -> None:
        self._count(_PAGES, kind)

    def _count_outage(
        self, _: object, *, chain: str, engine: str, after: Health, **_more: object
    ) -> None:
        if after is Health.OFFLINE:
            self._count_engine(chain, engine, "outages")
