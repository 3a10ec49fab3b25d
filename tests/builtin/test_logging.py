"""The log monitor writes one line a minute, the log notifier one line a notification."""

from __future__ import annotations

import logging

import pytest

from om_plugins.builtin import BUILTINS
from om_plugins.builtin.logging import MAX_DURATIONS, LogMonitor, LogNotifier
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.testing import FakeClock
from om_plugins.types import Notification, Sample


def sample(status=200, duration_s=0.1):
    return Sample("/", "GET", status, duration_s, 100, 0.0)


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "om_plugins")
    return lambda: [record.getMessage().partition(": ")[2] for record in caplog.records]


def test_a_minute_is_one_line(lines):
    clock = FakeClock()
    monitor = LogMonitor(logging.getLogger("om_plugins.plugin.monitor-log"), clock)
    monitor.record([sample(duration_s=0.01 * n) for n in range(1, 101)])
    assert lines() == []
    clock.advance(60)
    monitor.record([sample(503, 0.5)])
    assert lines() == ["101 requests in 60 s, 1 failed, p95 950 ms, 10100 bytes"]
    clock.advance(61)
    monitor.record([sample()])
    assert lines()[1:] == ["1 requests in 61 s, 0 failed, p95 100 ms, 100 bytes"]


def test_a_quiet_minute_is_no_line(lines):
    clock = FakeClock()
    monitor = LogMonitor(logging.getLogger("om_plugins.plugin.monitor-log"), clock)
    clock.advance(600)
    monitor.record([])
    assert lines() == []


def test_a_busy_minute_takes_bounded_memory():
    monitor = LogMonitor(logging.getLogger("om_plugins.plugin.monitor-log"), FakeClock())
    for _ in range(5):
        monitor.record([sample()] * MAX_DURATIONS)
    assert len(monitor._durations) == MAX_DURATIONS


def test_it_is_shipped_and_gets_what_requests_did(lines):
    assert BUILTINS["monitor-log"] == "om_plugins.builtin.logging:monitor_plugin"
    runtime = Runtime(clock=(clock := FakeClock()), host=Host(testing=True))
    runtime.start()
    runtime.part_of("monitoring").tick()
    runtime.part_of("monitoring").collector.leave(
        ("/", "GET", "200 OK", 0.1, 5, clock.monotonic(), False)
    )
    clock.advance(60)
    runtime.part_of("monitoring").tick()
    runtime.scheduler.run_pending()
    runtime.close()
    assert lines() == ["1 requests in 60 s, 0 failed, p95 100 ms, 5 bytes"]


def test_kinds_become_levels_and_lines_cannot_be_forged(caplog):
    notifier = LogNotifier(logging.getLogger("om_plugins.plugin.log"))
    with caplog.at_level(logging.INFO, "om_plugins"):
        notifier.send(Notification(kind="error", message="a\nERROR forged", title="T"), 1)
        notifier.send(Notification(kind="warning", message="w"), 1)
        notifier.send(Notification(kind="success", message="디스크"), 1)
    assert [r.levelname for r in caplog.records] == ["ERROR", "WARNING", "INFO"]
    assert caplog.records[0].getMessage() == r"to operators: T: a\nERROR forged"
    assert caplog.records[2].getMessage() == "to operators: 디스크"
