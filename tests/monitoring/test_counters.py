"""Totals over all workers: exact, bounded, and never falling."""

from __future__ import annotations

import pytest

from om_plugins import Settings
from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.core.histogram import Histogram
from om_plugins.monitoring.collector import Collector
from om_plugins.monitoring.counters import (
    BOUNDS_S,
    COMMON_TTL_S,
    ENDED_AFTER_S,
    LIVE_S,
    MAX_ROWS,
    SharedCounters,
    count_below_bounds,
    count_metrics,
    count_requests,
)
from om_plugins.plugins.feature_checks import MAX_LABELS
from om_plugins.plugins.kit import Host, Metric
from om_plugins.runtime import Runtime
from om_plugins.testing import FakeClock
from om_plugins.types import EngineSpec, EngineTraits

HITS = ("cache", "fresh")


@pytest.fixture
def hub(clock):
    return MemoryHub("memory://", clock)


@pytest.fixture
def ledger(hub, clock):
    return SharedCounters(hub, clock)


@pytest.mark.parametrize("bound", BOUNDS_S)
def test_a_bound_parts_what_is_below_it_from_what_is_not(bound):
    durations = Histogram()
    durations.record(bound * 0.999)
    durations.record(bound)
    place = BOUNDS_S.index(bound)
    assert count_below_bounds(durations)[place] == 1
    assert count_below_bounds(durations)[place + 1 :] == [2] * (len(BOUNDS_S) - place - 1)


def test_durations_are_counted_since_the_beginning(clock):
    collector = Collector(clock)
    for waited in (0, 300, 300, 3_000, 600):
        clock.advance(waited)
        collector.leave(("/", "GET", "200 OK", 0.2, 10, clock.monotonic(), False))
        ((_, numbers),) = count_requests(collector).items()
    requests, size, seconds, count, *under = numbers
    assert (requests, size, count) == (5, 50, 5)
    assert seconds == pytest.approx(1.0)
    assert under == [0] * 6 + [5] * 6  # 0.25 s is the seventh


def test_the_rows_are_bounded_and_nothing_is_lost(clock):
    collector = Collector(clock, max_routes=10_000)
    for number in range(MAX_ROWS + 50):
        collector.leave((f"/{number}", "GET", "200 OK", 0.1, 1, clock.monotonic(), False))
    found = count_requests(collector)
    assert len(found) == MAX_ROWS + 1
    assert found["request", "_OTHER", "<overflow>", "2xx"][0] == 50


def test_metrics_of_one_name_and_labels_are_added_up():
    labels = {"b": "2", "a": "1"}
    metrics = [
        Metric("om_x", "Some", 2, labels),
        Metric("om_x", "Some", 3, {"a": "1", "b": "2"}),
        Metric("om_x", "Some", 1, {"a": "other"}),
        Metric("om_y", "Present", 7, kind="gauge"),
    ]
    assert count_metrics(metrics) == {
        ("counter", "om_x", "Some", "a", "1", "b", "2"): [5],
        ("counter", "om_x", "Some", "a", "other"): [1],
        ("gauge", "om_y", "Present"): [7],
    }


def test_metrics_that_cannot_be_added_up_are_left_out(ledger):
    many = {str(number): "x" for number in range(MAX_LABELS + 1)}
    wrong = [Metric("om_x", "", value) for value in (-1, float("nan"), float("inf"))]
    long = Metric("om_long", "about" * 100, 1, {"label": "x" * 1000})
    ledger.publish("a", lambda: count_metrics([*wrong, Metric("om_x", "", 1, many), long]))
    ((key, numbers),) = ledger.read().items()
    assert (key[1], numbers) == ("om_long", [1])


def test_gauges_are_those_of_the_workers_that_run(ledger, clock):
    metrics = [Metric("om_count", "", 1), Metric("om_now", "", 5, kind="gauge")]
    ledger.publish("a", lambda: count_metrics(metrics))
    clock.advance(LIVE_S - 1)
    ledger.publish("b", lambda: count_metrics(metrics))
    assert ledger.read() == {("counter", "om_count", ""): [2], ("gauge", "om_now", ""): [10]}
    clock.advance(2)
    assert ledger.read() == {("counter", "om_count", ""): [2], ("gauge", "om_now", ""): [5]}
    clock.advance(ENDED_AFTER_S)
    ledger.add_ended_workers()
    assert ledger.read() == {("counter", "om_count", ""): [2]}


def test_workers_are_added_up(ledger):
    ledger.publish("a", lambda: {HITS: [3], ("cpu",): [1.5]})
    ledger.publish("b", lambda: {HITS: [4, 1]})
    assert ledger.read() == {HITS: [7, 1], ("cpu",): [1.5]}


def test_what_an_ended_worker_counted_stays(ledger, hub, clock):
    ledger.publish("a", lambda: {HITS: [3]})
    for round_ in range(200):  # for days
        clock.advance(ENDED_AFTER_S)
        ledger.publish("b", lambda n=round_: {HITS: [n]})
        ledger.add_ended_workers()
        assert ledger.read() == {HITS: [3 + round_]}
    assert list(hub.scan("monitor/totals2/")) == ["monitor/totals2/b"]
    for _ in range(80):
        clock.advance(COMMON_TTL_S / 60)
        ledger.add_ended_workers()
    assert ledger.read() == {HITS: [3 + 199]}


def test_one_that_is_settled_is_not_counted_twice(ledger, hub, clock):
    ledger.publish("a", lambda: {HITS: [3]})
    left = hub.get("monitor/totals2/a")
    clock.advance(ENDED_AFTER_S + 1)
    ledger.add_ended_workers()
    hub.put("monitor/totals2/a", left, 60)  # as when the settling process died halfway
    assert ledger.read() == {HITS: [3]}
    ledger.add_ended_workers()
    assert ledger.read() == {HITS: [3]}
    assert not hub.scan("monitor/totals2/")


@pytest.mark.parametrize(
    "damaged",
    [
        7,
        {"at": 1.0, "rows": [[["cache", "fresh"], [-5]]]},
        {"at": 1.0, "rows": [[["cache", 5], [5]]]},
        {"at": 1.0, "rows": [[[], [5]]]},
        {"at": 1.0, "rows": [[["cache", "fresh"], []]]},
        {"at": 1.0, "rows": [[["cache", "fresh"], [float("nan")]]]},
        {"at": 1.0, "rows": [[["x" * 1_000], [5]]]},
        {"at": 1.0, "rows": [[["cache", "fresh"], [1] * 100]]},
    ],
)
def test_a_damaged_entry_is_left_out(ledger, hub, damaged):
    ledger.publish("a", lambda: {HITS: [3]})
    hub.put("monitor/totals2/b", damaged, 60)
    assert ledger.read() == {HITS: [3]}
    hub.put("monitor/totals2-ended", damaged, 60)
    assert ledger.read() == {HITS: [3]}


# Engines are counted by what the signals of their own application tell.


class Engine:
    traits = EngineTraits(local=True, idempotent=True)

    def __init__(self, name, error=None):
        self.name = name
        self._error = error

    def call(self, call):
        if self._error is not None:
            raise self._error
        return "answer"


def made(sender):
    settings = Settings(hub_url="memory://", metrics=True, chain_defaults={"retries": 0})
    runtime = Runtime(settings, sender=sender, clock=FakeClock(), host=Host(testing=True))
    runtime.add_engine(EngineSpec(Engine("first", ConnectionError("away")), "c", tier=1))
    runtime.add_engine(EngineSpec(Engine("second"), "c", tier=2))
    return runtime


def counts_of(runtime):
    return {
        (one.name, one.labels["engine"]): one.value
        for one in runtime.part_of("monitoring").read_metrics()
        if one.name.startswith("om_engine")
    }


def test_answers_failures_and_fallbacks_are_counted_for_each_application():
    one, other = made("one"), made("other")
    for _ in range(3):
        one.part_of("chains").get("c").call({})
    other.part_of("chains").get("c").call({})
    found = counts_of(one)
    assert found["om_engine_failures", "first"] == 3
    assert found["om_engine_answers", "second"] == 3
    assert found["om_engine_fallbacks", "second"] == 3
    assert counts_of(other)["om_engine_answers", "second"] == 1
    for runtime in (one, other):
        runtime.close()
