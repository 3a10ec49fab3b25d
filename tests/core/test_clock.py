"""The clock of the process."""

from __future__ import annotations

import time

from om_plugins.core.clock import SystemClock
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
