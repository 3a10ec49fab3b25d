from __future__ import annotations

import threading

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.cache.refresh import RefreshQueue
from om_plugins.core.clock import SystemClock
from om_plugins.workers.scheduler import BackgroundScheduler
from tests.patience import HANG_S, PATIENCE_S


def never():
    raise AssertionError("dropped")


def test_the_pool_has_a_thread_left_however_many_refreshes_hang():
    clock = SystemClock()
    scheduler = BackgroundScheduler(2, 100, clock, MemoryHub("memory://", clock))
    line = RefreshQueue(scheduler, 1, 10)
    go, done, other = threading.Event(), threading.Semaphore(0), threading.Event()

    def hang():
        go.wait(HANG_S)
        done.release()

    for _ in range(3):
        assert line.submit(hang, never)
    scheduler.submit(other.set)
    assert other.wait(PATIENCE_S)
    go.set()
    for _ in range(3):
        assert done.acquire(timeout=PATIENCE_S)
    scheduler.close()


def test_what_does_not_fit_is_refused(world):
    line = RefreshQueue(world.scheduler, 1, 2)
    ran = []
    assert line.submit(lambda: ran.append(1), never)
    assert line.submit(lambda: ran.append(2), never)
    assert line.submit(lambda: ran.append(3), never)
    assert not line.submit(lambda: ran.append(4), never)
    world.run()
    assert ran == [1, 2, 3]
    assert line.submit(lambda: ran.append(5), never)
    world.run()
    assert ran[-1] == 5


def test_one_that_raises_lets_the_next_have_its_turn(world, caplog):
    line = RefreshQueue(world.scheduler, 1, 5)
    ran = []
    line.submit(lambda: 1 / 0, never)
    line.submit(lambda: ran.append(1), never)
    world.run()
    assert ran == [1]
    assert "cache-refresh" in caplog.text


def test_who_waits_when_the_pool_ends_is_told():
    clock = SystemClock()
    scheduler = BackgroundScheduler(1, 10, clock, MemoryHub("memory://", clock))
    line = RefreshQueue(scheduler, 1, 5)
    begun, go, dropped = threading.Event(), threading.Event(), threading.Event()

    def hang():
        begun.set()
        go.wait(HANG_S)

    line.submit(hang, never)
    begun.wait(PATIENCE_S)
    line.submit(never, dropped.set)
    scheduler.close(timeout=0.05)
    go.set()
    assert dropped.wait(PATIENCE_S)
