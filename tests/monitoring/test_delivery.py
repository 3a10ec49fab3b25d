"""Monitors get batches in the background; a slow or broken one is bounded."""

from __future__ import annotations

import threading

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.core.clock import SystemClock
from om_plugins.monitoring.delivery import Delivery
from om_plugins.types import Sample
from om_plugins.workers.scheduler import BackgroundScheduler

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
    delivery = Delivery([("m", monitor)], scheduler=scheduler, guarded=guarded)
    for sample in SAMPLES:
        delivery.take(sample)
    delivery.send()
    delivery.send()
    assert monitor.batches == []
    scheduler.run_pending()
    delivery.send()
    scheduler.run_pending()
    assert monitor.batches == [list(range(10))]


def test_a_full_queue_drops_the_oldest_and_counts_them(scheduler):
    monitor = Monitor()
    delivery = Delivery([("m", monitor)], scheduler=scheduler, guarded=guarded, size=4)
    for sample in SAMPLES:
        delivery.take(sample)
    delivery.send()
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
    delivery = Delivery([("b", broken), ("m", monitor)], scheduler=scheduler, guarded=guarded)
    for _ in range(2):
        delivery.take(SAMPLES[0])
        delivery.send()
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
            gate.wait(5)

    class Quick:
        def record(self, samples):
            if begun.is_set():
                got.set()

    slow = Slow()
    delivery = Delivery([("s", slow), ("q", Quick())], scheduler=scheduler, guarded=guarded)
    try:
        delivery.take(SAMPLES[0])
        delivery.send()
        assert begun.wait(5)
        delivery.take(SAMPLES[1])
        delivery.send()
        assert got.wait(5)
        assert slow.calls == 1
    finally:
        gate.set()
        scheduler.close()
