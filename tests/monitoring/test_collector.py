"""Counts are exact under threads, routes are bounded, and a child counts for itself."""

from __future__ import annotations

import os
import sys
import threading
import tracemalloc

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.core.clock import SystemClock
from om_plugins.monitoring.collector import OVERFLOW, UNMATCHED, Collector, MonitorQueues
from om_plugins.types import Sample
from om_plugins.workers.scheduler import BackgroundScheduler
from tests.patience import HANG_S, PATIENCE_S


@pytest.fixture
def collector(clock):
    return Collector(clock, own=frozenset({"/_om/*"}))


def done(collector, clock, route="/", method="GET", status="200 OK", duration=0.01, **more):
    collector.enter()
    size, apart = more.get("size", 10), more.get("apart", False)
    collector.leave((route, method, status, duration, size, clock.monotonic(), apart))


def keys(collector):
    collector.fold()
    return set(collector.rows)


def test_counts_are_exact_under_threads(collector, clock):
    folding = threading.Event()

    def work():
        for _ in range(5000):
            done(collector, clock)

    def fold():
        while not folding.is_set():
            collector.fold()
            collector.in_flight()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        folder = threading.Thread(target=fold)
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in (folder, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        folding.set()
        folder.join()
    finally:
        sys.setswitchinterval(before)
    collector.fold()
    assert collector.requests == 40_000
    assert collector.in_flight() == 0
    (row,) = collector.rows.values()
    assert row.requests == row.recent(clock.time()).count == 40_000
    assert row.size_bytes == 400_000


def test_in_flight_is_what_began_and_did_not_end(collector, clock):
    collector.enter()
    collector.enter()
    assert collector.in_flight() == 2
    done(collector, clock)
    assert collector.in_flight() == 2
    collector.fold()
    assert collector.in_flight() == 2


def test_rows_are_method_rule_and_status_class(collector, clock):
    done(collector, clock, "/a", "GET", "200 OK")
    done(collector, clock, "/a", "GET", "204 NO CONTENT")
    done(collector, clock, "/a", "GET", "503 SERVICE UNAVAILABLE")
    done(collector, clock, None, "BREW", "404 NOT FOUND")
    done(collector, clock, "/a", "POST", "nonsense")
    assert keys(collector) == {
        ("GET", "/a", 2),
        ("GET", "/a", 5),
        ("_OTHER", UNMATCHED, 4),
        ("POST", "/a", 5),
    }
    assert collector.rows["GET", "/a", 2].requests == 2


def test_errors_and_refusals_are_told_apart(collector, clock):
    for status in ("200 OK", "301 MOVED", "404 NOT FOUND", "500 X", "503 Y"):
        done(collector, clock, status=status)
    collector.fold()
    (slot,) = collector.windows.read(1, clock.time())
    assert (slot.requests, slot.refused, slot.errors) == (5, 1, 2)


def test_more_than_five_hundred_routes_overflow(collector, clock):
    for number in range(800):
        done(collector, clock, f"/route/{number}")
    found = keys(collector)
    assert len(found) == 501
    assert collector.rows["GET", OVERFLOW, 2].requests == 300


def test_hostile_methods_and_phrases_take_no_memory(collector, clock):
    def flood():
        for number in range(20_000):
            done(collector, clock, None, f"M{number}", f"404 {number}")
            if number % 1000 == 0:
                collector.fold()
        collector.fold()

    flood()
    tracemalloc.start()
    try:
        flood()
        ours = tracemalloc.Filter(True, "*/om_plugins/monitoring/*")  # not that of other threads
        traces = tracemalloc.take_snapshot().filter_traces([ours])
        grown = sum(one.size for one in traces.statistics("filename"))
    finally:
        tracemalloc.stop()
    assert keys(collector) == {("_OTHER", UNMATCHED, 4)}
    assert grown < 50_000


def test_own_pages_are_listed_and_not_counted_among_requests(collector, clock):
    done(collector, clock, "/_om/*", duration=25.0)
    done(collector, clock, "/")
    collector.fold()
    (slot,) = collector.windows.read(1, clock.time())
    assert slot.requests == 1
    assert collector.rows["GET", "/_om/*", 2].requests == 1


def test_an_event_stream_counts_as_a_request_and_not_as_a_slow_one(collector, clock):
    done(collector, clock, duration=600.0, apart=True)
    collector.fold()
    (slot,) = collector.windows.read(1, clock.time())
    assert (slot.requests, slot.durations.count) == (1, 0)


def test_durations_of_a_route_are_those_of_the_last_minutes(collector, clock):
    done(collector, clock)
    collector.fold()
    (row,) = collector.rows.values()
    assert row.recent(clock.time()).count == 1
    assert row.recent(clock.time() + 700).count == 0
    assert row.requests == 1


def test_listeners_get_samples_with_rule_and_status(collector, clock):
    got = []
    collector.add_listener(got.append)
    done(collector, clock, "/a", "PURGE", "503 X", 0.5, size=7)
    collector.fold()
    (sample,) = got
    assert (sample.route, sample.method, sample.status) == ("/a", "_OTHER", 503)
    assert (sample.duration_s, sample.size_bytes, sample.at) == (0.5, 7, clock.time())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_begins_at_zero_even_when_the_parent_was_folding(collector, clock):
    done(collector, clock)
    collector.enter()
    children = []

    def fork(_collector, _now):  # no count changes meanwhile: the parent holds the lock
        pid = os.fork()
        if pid:
            children.append(pid)
            return
        code = 1  # pragma: no cover - the child
        try:
            clean = (collector.in_flight(), collector.requests) == (0, 0)
            done(collector, clock)
            collector.fold()
            code = 0 if clean and collector.requests == 1 else 2
        finally:
            os._exit(code)

    collector.read(fork)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert collector.in_flight() == 1


def test_a_day_of_traffic_on_all_routes_takes_bounded_memory(clock):
    tracemalloc.start()
    try:
        collector = Collector(clock)
        for minute in range(24 * 60):
            for number in range(12):
                route = f"/route/{(minute * 12 + number) % 600}"
                done(collector, clock, route, duration=0.001 * (1 + (minute * number) % 997))
                clock.advance(5)
            collector.fold()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 6_000_000, size


# Monitors get batches in the background; a slow or broken one is bounded.

SAMPLES = [Sample("/", "GET", 200, 0.1, number, 0.0) for number in range(10)]


class Monitor:
    def __init__(self):
        self.batches = []

    def record(self, samples):
        self.batches.append([sample.size_bytes for sample in samples])


def guarded(plugin, function, *args):
    try:
        return True, function(*args)
    except Exception as error:
        return False, error


@pytest.fixture
def scheduler(clock):
    made = BackgroundScheduler(2, 10, clock, MemoryHub("memory://", clock), synchronous=True)
    yield made
    made.close()


def test_samples_come_in_batches_and_once(scheduler):
    monitor = Monitor()
    delivery = MonitorQueues([("m", monitor)], scheduler=scheduler, guarded=guarded)
    for sample in SAMPLES:
        delivery.add(sample)
    delivery.deliver()
    delivery.deliver()
    assert monitor.batches == []
    scheduler.run_pending()
    delivery.deliver()
    scheduler.run_pending()
    assert monitor.batches == [list(range(10))]


def test_a_full_queue_drops_the_oldest_and_counts_them(scheduler):
    monitor = Monitor()
    delivery = MonitorQueues([("m", monitor)], scheduler=scheduler, guarded=guarded, size=4)
    for sample in SAMPLES:
        delivery.add(sample)
    delivery.deliver()
    scheduler.run_pending()
    assert monitor.batches == [[6, 7, 8, 9]]
    assert delivery.dropped == 6


def test_a_broken_monitor_keeps_no_other_from_its_samples(scheduler):
    class Broken:
        calls = 0

        def record(self, samples):
            self.calls += 1
            raise RuntimeError

    broken, monitor = Broken(), Monitor()
    delivery = MonitorQueues([("b", broken), ("m", monitor)], scheduler=scheduler, guarded=guarded)
    for _ in range(2):
        delivery.add(SAMPLES[0])
        delivery.deliver()
        scheduler.run_pending()
    assert broken.calls == 2
    assert monitor.batches == [[0], [0]]


def test_a_slow_monitor_holds_up_nobody_and_is_not_called_twice_at_once():
    clock = SystemClock()
    scheduler = BackgroundScheduler(4, 10, clock, MemoryHub("memory://", clock))
    begun, gate, got = threading.Event(), threading.Event(), threading.Event()

    class Slow:
        calls = 0

        def record(self, samples):
            self.calls += 1
            begun.set()
            gate.wait(HANG_S)

    class Quick:
        def record(self, samples):
            if begun.is_set():
                got.set()

    slow = Slow()
    delivery = MonitorQueues([("s", slow), ("q", Quick())], scheduler=scheduler, guarded=guarded)
    try:
        delivery.add(SAMPLES[0])
        delivery.deliver()
        assert begun.wait(PATIENCE_S)
        delivery.add(SAMPLES[1])
        delivery.deliver()
        assert got.wait(PATIENCE_S)
        assert slow.calls == 1
    finally:
        gate.set()
        scheduler.close()
