"""The overview adds up what all workers counted."""

from __future__ import annotations

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.core.histogram import Histogram
from om_plugins.monitoring.collector import Collector
from om_plugins.monitoring.overview import build_overview
from om_plugins.monitoring.windows import Slot
from om_plugins.monitoring.worker_snapshots import (
    TTL_S,
    RouteView,
    WorkerSnapshots,
    WorkerView,
    encode_own_slots,
    read_own_view,
)
from om_plugins.types import CacheStats, StoreStats


@pytest.fixture
def hub(clock):
    return MemoryHub("memory://", clock)


@pytest.fixture
def add_up(hub, clock):
    """The overview of this worker and of one that published its snapshot."""
    collector = Collector(clock)

    def add_up(mine, other):
        views = [
            read_own_view(
                "u", collector, dropped=0, rss_bytes=1, cache=CacheStats(), engines=[], **counted
            )
            for counted in (mine, other)
        ]
        slots = encode_own_slots(collector, past=False)
        WorkerSnapshots(hub).publish(views[1], slots, past=False)
        workers = [views[0], *WorkerSnapshots(hub).read_others(past=False)]
        return build_overview(workers, clock.time(), {}, "")

    return add_up


def test_the_caches_groups_of_all_workers_are_added_up(add_up):
    groups = add_up(
        {"groups": {"panel": CacheStats(fresh=2, saved_us=9)}},
        {
            "groups": {
                "panel": CacheStats(fresh=3, misses=1, bytes_saved=30),
                "user": CacheStats(misses=1),
            }
        },
    )["cache_groups"]
    assert [one["name"] for one in groups] == ["panel", "user"]
    panel = groups[0]
    counted = [panel[name] for name in ("fresh", "misses", "bytes_saved", "saved_us")]
    assert counted == [5, 1, 30, 9]
    assert panel["hit_rate"] == 0.8333


def test_what_all_workers_asked_of_the_store_is_added_up(add_up, clock):
    assert add_up({"store": None}, {"store": None})["cache_store"] is None
    clock.advance(TTL_S + 1)
    found = add_up(
        {"store": StoreStats(hits=3, read_bytes=30)}, {"store": StoreStats(hits=2, failures=1)}
    )["cache_store"]
    assert (found["hits"], found["read_bytes"], found["failures"]) == (5, 30, 1)


def row(route, requests, *durations):
    histogram = Histogram()
    for duration in durations:
        histogram.record(duration)
    return RouteView("GET", route, 2, requests, 10 * requests, histogram)


def test_rows_of_one_route_are_one_row_and_the_busiest_of_late_come_first():
    one = WorkerView("a", routes=[row("/", 900), row("/x", 3, 0.1, 0.1)])
    two = WorkerView("b", routes=[row("/x", 1, 0.3)])
    table = build_overview([one, two], 0.0, {}, "")["routes"]
    assert [(r["route"], r["requests"], r["recent"]) for r in table] == [
        ("/x", 4, 3),
        ("/", 900, 0),
    ]
    assert table[0]["size_bytes"] == 40
    assert table[0]["p50_ms"] == pytest.approx(100, rel=0.02)
    assert table[1]["p50_ms"] is None


def test_the_present_is_complete_seconds_for_rates_and_the_last_minute_for_percentiles():
    def slot(second, requests):
        made = Slot(second)
        made.requests = requests
        for _ in range(requests):
            made.durations.record(0.1)
        return made

    seconds = [slot(930, 30), slot(985, 60), slot(995, 20), slot(1000, 7)]
    seen = build_overview([WorkerView("a", seconds=seconds)], 1000.5, {}, "")
    assert seen["requests_per_s"] == 2.0  # 20 of the ten seconds before this one
    assert seen["p95_ms"] == pytest.approx(100, rel=0.02)
    assert seen["success_rate"] == 1.0
    assert build_overview([], 1000.5, {}, "")["p95_ms"] is None
