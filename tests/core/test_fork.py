"""Fork: a lock that another thread held at that moment works in the child."""

from __future__ import annotations

import os
import signal
import threading
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

import om_plugins
from om_plugins.core import fork
from om_plugins.core.fork import CachedProperty, PerProcess, renew_after_fork
from om_plugins.policies.breaker import Breaker
from om_plugins.policies.cooldown import Cooldown
from om_plugins.policies.retry_budget import RetryBudget
from tests.patience import HANG_S

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


class Slow:
    """Has a property whose computation begins and ends when it is told to."""

    def __init__(self):
        self.begun, self.go, self.times = threading.Event(), threading.Event(), 0

    @CachedProperty
    def value(self):
        """The value."""
        self.times += 1
        self.begun.set()
        self.go.wait(HANG_S)
        return object()


def test_two_threads_get_the_one_value_of_a_property():
    slow, found = Slow(), []
    threads = [threading.Thread(target=lambda: found.append(slow.value)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert slow.begun.wait(HANG_S)
    slow.go.set()
    for thread in threads:
        thread.join(HANG_S)
    assert len(set(found)) == slow.times == 1
    assert slow.value is found[0]
    assert Slow.value.__doc__ == "The value."


def test_a_property_that_raises_is_computed_again():
    class Picky:
        ready = False

        @CachedProperty
        def value(self):
            if not self.ready:
                raise LookupError("not yet")
            return 1

    picky = Picky()
    with pytest.raises(LookupError):
        _ = picky.value
    picky.ready = True
    assert picky.value == 1


def test_a_fork_waits_until_a_thread_has_computed_a_property_or_ended_an_import():
    slow = Slow()
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    assert slow.begun.wait(HANG_S)
    threading.Timer(0.2, slow.go.set).start()
    assert in_child(lambda: "value" in vars(slow))  # else this very fork came before
    thread.join(HANG_S)


def test_a_child_that_is_forked_all_the_same_computes_its_own(monkeypatch):
    monkeypatch.setattr(fork, "_LONGEST_HOLD_S", 0.01)
    slow, other = Slow(), Slow()
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    assert slow.begun.wait(HANG_S)
    other.go.set()
    try:
        assert in_child(lambda: other.value is other.value)
    finally:
        slow.go.set()
        thread.join(HANG_S)


def test_of_two_threads_that_fork_at_once_each_gives_back_what_it_holds(monkeypatch):
    monkeypatch.setattr(fork, "_LONGEST_HOLD_S", 0.01)
    fork._close_all()
    begun, end = threading.Event(), threading.Event()

    def fork_as_well():
        fork._close_all()  # it waits in vain, and goes on all the same
        begun.set()
        end.wait(HANG_S)
        fork._reopen_all()

    second = threading.Thread(target=fork_as_well)
    second.start()
    assert begun.wait(HANG_S)
    fork._reopen_all()
    end.set()
    second.join(HANG_S)
    found = []
    third = threading.Thread(target=lambda: found.append(fork._making.acquire(timeout=0.01)))
    third.start()
    third.join(HANG_S)
    assert found == [True]
    fork._making = threading.RLock()  # the third thread has ended with it


def test_no_lock_of_the_standard_library_is_kept_in_a_child():
    package = Path(om_plugins.__file__).parent
    found = [p.name for p in package.rglob("*.py") if "@cached_property" in p.read_text()]
    assert not found, "use om_plugins.core.fork.CachedProperty"
