"""Readings agree with psutil."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from example_app.system import Sampler, read_disks, read_memory, read_swap
from om_plugins.testing.fakes import FakeClock


def test_totals_equal_psutils() -> None:
    assert read_memory().total == psutil.virtual_memory().total
    assert read_swap().total == psutil.swap_memory().total
    for disk in read_disks():
        assert disk.total == psutil.disk_usage(disk.mount).total


def test_the_root_disk_is_always_there_and_each_device_once() -> None:
    disks = read_disks()
    assert disks[0].mount == "/"
    assert len({d.device for d in disks}) == len(disks)


def test_a_snapshot_knows_this_process_as_psutil_does() -> None:
    before = set(psutil.pids())
    now = Sampler().snapshot()
    me = psutil.Process()
    mine = next(p for p in now.processes if p.pid == os.getpid())
    assert mine.name == me.name()
    assert mine.memory == pytest.approx(me.memory_info().rss, rel=0.3)
    assert now.boot_time == psutil.boot_time()
    assert now.cpu.logical == psutil.cpu_count()
    lasting = before & set(psutil.pids())
    missed = lasting - {p.pid for p in now.processes}
    assert all(is_over(pid) for pid in missed)


def is_over(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_busy_loop_shows_as_cpu_use() -> None:
    clock = FakeClock()
    sampler = Sampler(monotonic=clock.monotonic, wall=clock.time, sleep=clock.sleep)
    began = time.process_time()
    sampler.snapshot()
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    clock.advance(0.6)
    now = sampler.snapshot()
    mine = next(p for p in now.processes if p.pid == os.getpid())
    most_s = time.process_time() - began
    tick_s = 0.02  # the system counts in hundredths of a second, user and system time apart
    assert (0.3 - tick_s) / 0.6 * 100 < mine.cpu_percent < (most_s + tick_s) / 0.6 * 100
    assert 0 < now.cpu.percent <= 100


def test_a_recent_snapshot_is_shared_and_an_old_window_is_measured_afresh() -> None:
    ticks = [0.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        ticks[0] += seconds

    sampler = Sampler(monotonic=lambda: ticks[0], wall=lambda: ticks[0], sleep=sleep)
    first = sampler.snapshot()
    assert slept == [0.2]
    assert sampler.snapshot(max_age_s=1.0) is first
    ticks[0] += 5
    assert sampler.snapshot() is not first
    assert slept == [0.2]
    ticks[0] += 60
    sampler.snapshot()
    assert slept == [0.2, 0.2]
