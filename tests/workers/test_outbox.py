"""An outbox keeps the order, whatever the scheduler's threads do."""

from __future__ import annotations

import os
import threading
import time

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.core.clock import SystemClock
from om_plugins.testing.fakes import FakeClock
from om_plugins.workers.outbox import Outbox, run_later
from om_plugins.workers.scheduler import BackgroundScheduler
from tests.patience import HANG_S, wait_until


@pytest.fixture
def scheduler():
    clock = SystemClock()
    made = BackgroundScheduler(4, 50, clock, MemoryHub("memory://", clock))
    yield made
    made.close()


def test_many_threads_deliver_in_order(scheduler):
    delivered = []

    def deliver(item, attempt):
        time.sleep(0.0005 * (item % 3))
        delivered.append(item)

    outbox = Outbox("o", deliver, scheduler, 1000)
    for number in range(200):
        assert outbox.put(number)
    wait_until(lambda: len(delivered) == 200)
    assert delivered == list(range(200))


def test_what_fails_is_tried_again_before_the_next_and_holds_no_thread(scheduler):
    tried = []

    def deliver(item, attempt):
        tried.append((item, attempt))
        return 0.1 if item == "a" and attempt < 3 else None

    outbox = Outbox("o", deliver, scheduler, 10)
    outbox.put("a")
    outbox.put("b")
    wait_until(lambda: tried)
    wait_until(lambda: scheduler.stats().running == 0)
    wait_until(lambda: len(tried) == 4)
    assert tried == [("a", 1), ("a", 2), ("a", 3), ("b", 1)]


def test_one_more_than_fits_is_refused(scheduler):
    go = threading.Event()
    outbox = Outbox("o", lambda item, attempt: go.wait(HANG_S) and None, scheduler, 2)
    assert [outbox.put(n) for n in range(3)] == [True, True, False]
    go.set()


def test_a_delivery_that_raises_is_logged_and_the_next_one_goes_on(scheduler, caplog):
    delivered = []

    def deliver(item, attempt):
        if item == "bad":
            raise RuntimeError("no")
        delivered.append(item)

    outbox = Outbox("o", deliver, scheduler, 10)
    outbox.put("bad")
    outbox.put("good")
    wait_until(lambda: delivered == ["good"])
    assert "o: a delivery failed" in caplog.text


def test_when_the_scheduler_is_full_the_next_one_takes_it_along():
    clock = SystemClock()
    scheduler = BackgroundScheduler(1, 1, clock, MemoryHub("m", clock), synchronous=True)
    delivered = []
    outbox = Outbox("o", lambda item, attempt: delivered.append(item), scheduler, 10)
    scheduler.submit(lambda: None)
    assert outbox.put(1)  # no place for its job
    scheduler.run_pending()
    assert delivered == []
    assert outbox.put(2)
    scheduler.run_pending()
    assert delivered == [1, 2]


def test_a_child_process_does_not_deliver_what_its_parent_has():
    clock = SystemClock()
    scheduler = BackgroundScheduler(1, 9, clock, MemoryHub("m", clock), synchronous=True)
    delivered = []
    outbox = Outbox("o", lambda item, attempt: delivered.append(item), scheduler, 10)
    outbox.put("parent")
    pid = os.fork()
    if pid == 0:
        outbox.put("child")
        scheduler.run_pending()
        os._exit(0 if delivered == ["child"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    scheduler.run_pending()
    assert delivered == ["parent"]


def test_a_function_runs_once_and_later_and_not_when_the_wait_is_ended():
    clock = FakeClock()
    scheduler = BackgroundScheduler(1, 9, clock, MemoryHub("memory://", clock), synchronous=True)
    ran = []
    run_later(scheduler, 3.0, lambda: ran.append("one"), "one")
    run_later(scheduler, 3.0, lambda: ran.append("two"), "two")()
    for expected in ([], [], ["one"], ["one"], ["one"], ["one"]):
        clock.advance(1)
        scheduler.run_due()
        assert ran == expected
