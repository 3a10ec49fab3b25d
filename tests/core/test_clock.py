"""The clock of the process."""

from __future__ import annotations

import time

from om_plugins.core.clock import LONGEST_SLEEP_S, SystemClock, UnsleepingClock
from om_plugins.protocols import Clock


def test_the_system_clock_is_the_time_of_the_process():
    clock: Clock = SystemClock()
    before = time.monotonic(), time.time()
    now = clock.monotonic(), clock.time()
    assert all(0 <= later - earlier < 5 for earlier, later in zip(before, now, strict=True))


def test_sleeping_lets_time_pass():
    clock = SystemClock()
    began = clock.monotonic()
    clock.sleep(0.001)
    assert clock.monotonic() - began >= 0.001


def test_the_clock_of_an_application_under_test_does_not_sleep():
    clock: Clock = UnsleepingClock()
    slept = []
    real, time.sleep = time.sleep, slept.append
    try:
        for seconds in (3600, 0, -1, 0.0001):
            clock.sleep(seconds)
    finally:
        time.sleep = real
    assert slept == [LONGEST_SLEEP_S, 0, 0.0, 0.0001]


def test_its_time_is_the_real_one():
    assert UnsleepingClock.monotonic is time.monotonic
    assert UnsleepingClock.time is time.time
