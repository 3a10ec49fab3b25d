"""Fork: a lock that another thread held at that moment works in the child."""

from __future__ import annotations

import os
import signal
import threading
import warnings
import weakref
from collections.abc import Callable

import pytest

from om_plugins.core.fork import PerProcess, renew_after_fork
from om_plugins.policies.breaker import Breaker
from om_plugins.policies.cooldown import Cooldown
from om_plugins.policies.retry_budget import RetryBudget

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def in_child(work: Callable[[], bool]) -> bool:
    """Run ``work`` in a forked child; False when it fails or hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads are the point here
        pid = os.fork()
    if pid == 0:
        signal.alarm(5)
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def while_held(lock: object, work: Callable[[], bool]) -> bool:
    """Run ``work`` in a child that is forked while another thread holds ``lock``."""
    held, done = threading.Event(), threading.Event()

    def holder() -> None:
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=holder)
    thread.start()
    held.wait()
    try:
        return in_child(work)
    finally:
        done.set()
        thread.join()


def test_a_breaker_works_in_a_child():
    one = Breaker()
    assert while_held(one._lock, lambda: one.view(1).state == "closed")


def test_a_budget_works_in_a_child():
    one = RetryBudget(0.2, 1, 0)
    assert while_held(one._lock, lambda: one.withdraw(1))


def test_a_cooldown_works_in_a_child():
    one = Cooldown()
    one.begin("offline", 5, 0)
    assert while_held(one._lock, lambda: one.refused(1))


def test_a_probe_of_the_parents_is_not_waited_for_in_the_child():
    one = Breaker(min_calls=1, cooldown_s=5)
    one.leave(one.permit, 0, 0, failed=True)
    assert one.enter(5)
    assert in_child(lambda: bool(one.enter(5.1)))
    assert not one.enter(5.1)


def test_things_are_not_kept_alive_for_a_fork():
    class Thing:
        def after_fork(self) -> None:
            pass

    thing = Thing()
    renew_after_fork(thing)
    gone = weakref.ref(thing)
    del thing
    assert gone() is None


def test_a_process_has_one_object_and_a_child_its_own():
    one = PerProcess(list)
    mine = one.get()
    assert one.get() is mine
    assert in_child(lambda: one.get() is not mine and one.get() is one.get())
    assert one.pop() is mine
    assert one.pop() is None
    assert one.get() is not mine
