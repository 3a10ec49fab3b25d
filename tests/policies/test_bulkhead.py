"""The bulkhead: so many at a time, a bounded wait, and permits that always come back."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time

import pytest

from om_plugins.errors import ConfigError
from om_plugins.policies.bulkhead import Bulkhead
from tests.patience import HANG_S, cut_off, join, wait_until


def start(work) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_so_many_get_in_and_no_more():
    one = Bulkhead(2)
    assert [one.enter(9) for _ in range(3)] == [True, True, False]
    assert one.in_use == 2
    one.leave()
    assert one.enter(0)


def test_nobody_waits_unless_told_to():
    one = Bulkhead(1)
    one.enter(0)
    with cut_off():
        assert not one.enter(HANG_S)


@pytest.mark.parametrize(("max_wait_s", "timeout_s"), [(0.02, HANG_S), (HANG_S, 0.02), (HANG_S, 0)])
def test_the_wait_is_the_shorter_of_both(max_wait_s, timeout_s):
    one = Bulkhead(1, max_wait_s)
    one.enter(0)
    with cut_off(min(max_wait_s, timeout_s)):
        assert not one.enter(timeout_s)
    assert (one.waiting, one.in_use) == (0, 1)


def test_who_waits_gets_the_permit_of_who_leaves_in_the_order_of_coming():
    one = Bulkhead(1, HANG_S, 5)
    one.enter(0)
    came = []
    threads = []
    for number in range(3):
        threads.append(start(lambda number=number: one.enter(HANG_S) and came.append(number)))
        wait_until(lambda number=number: one.waiting == number + 1)
    for number in range(3):
        one.leave()
        wait_until(lambda number=number: came == list(range(number + 1)))
    assert (one.in_use, one.waiting) == (1, 0)
    join(*threads)


def test_only_so_many_may_wait():
    one = Bulkhead(1, HANG_S, 1)
    one.enter(0)
    waiter = start(lambda: one.enter(HANG_S))
    wait_until(lambda: one.waiting == 1)
    with cut_off():
        assert not one.enter(HANG_S)
    one.leave()
    join(waiter)
    assert one.in_use == 1


def test_as_many_may_wait_as_may_be_at_work_unless_told_otherwise():
    one = Bulkhead(2, HANG_S)
    one.enter(0), one.enter(0)
    waiters = [start(lambda: one.enter(HANG_S)) for _ in range(2)]
    wait_until(lambda: one.waiting == 2)
    with cut_off():
        assert not one.enter(HANG_S)
    one.leave(), one.leave()
    join(*waiters)


class Interrupt(BaseException):
    pass


@pytest.mark.parametrize("admitted", [False, True])
def test_an_interrupted_wait_leaks_nothing(monkeypatch, admitted):
    one = Bulkhead(1, 10)
    one.enter(0)

    class Bell:
        def acquire(self, timeout=-1):
            if timeout > 0:  # the wait itself, and not the making of a waiter
                if admitted:
                    one.leave()
                raise Interrupt
            return True

        def release(self):
            pass

    monkeypatch.setattr(threading, "Lock", Bell)
    with pytest.raises(Interrupt):
        one.enter(10)
    assert one.waiting == 0
    assert one.in_use == (0 if admitted else 1)


def test_larger_lets_those_in_who_wait():
    one = Bulkhead(1, HANG_S)
    one.enter(0)
    waiter = start(lambda: one.enter(HANG_S))
    wait_until(lambda: one.waiting == 1)
    one.resize(2)
    join(waiter)
    assert (one.in_use, one.max_concurrency) == (2, 2)


def test_smaller_leaves_calls_under_way_and_lets_nobody_in_until_there_is_room():
    one = Bulkhead(4)
    for _ in range(3):
        one.enter(0)
    one.resize(1)
    assert one.in_use == 3
    for left in (2, 1):
        assert not one.enter(0)
        one.leave()
        assert one.in_use == left
    assert not one.enter(0)
    one.leave()
    assert one.enter(0)
    assert not one.enter(0)


def test_a_size_that_goes_up_and_down_under_load_ends_right():
    one = Bulkhead(3, 1, 100)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            if one.enter(0.01):
                one.leave()
            time.sleep(0)  # a greenlet gives way only when it waits

    threads = [start(work) for _ in range(6)]
    for number in range(300):
        one.resize(number % 5 + 1)
    stop.set()
    join(*threads)
    one.resize(2)
    assert (one.in_use, one.waiting) == (0, 0)
    assert [one.enter(0) for _ in range(3)] == [True, True, False]


def test_under_threads_there_are_never_more_than_allowed_and_nothing_is_lost():
    one = Bulkhead(3, HANG_S, 100)
    at_work, most = [], []

    def work() -> None:
        for _ in range(300):
            assert one.enter(HANG_S)
            at_work.append(None)
            most.append(len(at_work))
            at_work.pop()
            one.leave()

    threads = [start(work) for _ in range(12)]
    join(*threads)
    assert len(most) == 12 * 300
    assert max(most) <= 3
    assert (one.in_use, one.waiting) == (0, 0)


def test_one_leave_too_many_makes_no_permit():
    one = Bulkhead(1)
    one.leave()
    assert [one.enter(0), one.enter(0)] == [True, False]


def test_the_collector_may_give_a_permit_back_in_the_middle_of_anything():
    one = Bulkhead(1, 0.01, 100)

    class Forgotten:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            one.leave()

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(200):
            if one.enter(0.01):
                Forgotten()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert one.in_use == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # threads are the point here
def test_a_forked_child_begins_with_all_permits():
    one = Bulkhead(2, HANG_S)
    one.enter(0), one.enter(0)
    waiter = start(lambda: one.enter(HANG_S))
    wait_until(lambda: one.waiting == 1)
    with one._lock:
        pid = os.fork()
        if pid == 0:
            one.leave()  # of the call in which the parent forked: not one of these permits
            well = (one.in_use, one.waiting) == (0, 0)
            os._exit(0 if well and [one.enter(0) for _ in range(3)] == [1, 1, 0] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    one.leave()
    join(waiter)
    assert one.in_use == 2


def test_greenlets_wait_without_stopping_each_other():
    pytest.importorskip("gevent")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from gevent import monkey; monkey.patch_all()\n"
            "import gevent\n"
            "from om_plugins.policies.bulkhead import Bulkhead\n"
            "one = Bulkhead(1, 60, 10)\n"
            "done = []\n"
            "def work():\n"
            "    assert one.enter(60)\n"
            "    gevent.sleep(0.01)\n"
            "    done.append(1)\n"
            "    one.leave()\n"
            "gevent.joinall([gevent.spawn(work) for _ in range(5)], raise_error=True)\n"
            "assert len(done) == 5 and one.in_use == one.waiting == 0\n"
            "assert one.enter(0)\n"
            "waiter = gevent.spawn(one.enter, 60)\n"
            "gevent.sleep(0.01)\n"
            "assert one.waiting == 1\n"
            "waiter.kill()\n"
            "assert one.waiting == 0 and one.in_use == 1\n",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("size", [0, -1, True])
def test_a_size_below_one_is_refused(size):
    with pytest.raises(ConfigError, match="must be a whole number from 1"):
        Bulkhead(size)
    with pytest.raises(ConfigError):
        Bulkhead(1).resize(size)


def test_a_wait_that_is_no_time_is_refused():
    with pytest.raises(ConfigError, match="0 or more"):
        Bulkhead(1, float("nan"))
