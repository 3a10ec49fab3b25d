"""Functions that cannot be interrupted: left alone in time, and never more than so many."""

from __future__ import annotations

import contextlib
import contextvars
import os
import subprocess
import sys
import threading
import time

import pytest

from om_plugins.builtin.engines import pool as bounded_pool
from om_plugins.builtin.engines.callable import CallableEngine
from om_plugins.builtin.engines.pool import AttemptTimer, BoundedPool
from om_plugins.chains.chain import EngineChain
from om_plugins.chains.options import ChainPolicy
from om_plugins.errors import (
    AttemptTimeout,
    CallerDeadline,
    Cancelled,
    ConfigError,
    EngineUnavailable,
)
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import Call, EngineSpec
from tests.patience import HANG_S, PATIENCE_S, cut_off, join, wait_until


def attempt(seconds, total=60.0):
    call = Call(deadline=time.monotonic() + total)
    call.attempt_deadline = time.monotonic() + seconds
    return call


@pytest.fixture
def hanging():
    """A function that hangs until the test is over."""
    over = threading.Event()
    yield lambda: over.wait(HANG_S)
    over.set()


def test_what_the_function_returns_or_raises_comes_through():
    pool = BoundedPool("f", 2)
    assert pool.run(lambda: 7, Call()) == 7
    with pytest.raises(LookupError):
        pool.run(lambda: {}["x"], Call())


def test_the_callers_context_is_there():
    who = contextvars.ContextVar("who")
    who.set("me")
    assert BoundedPool("f", 1).run(who.get, Call()) == "me"


def test_a_thread_is_used_again():
    pool = BoundedPool("f", 4)
    names = {pool.run(threading.get_ident, Call()) for _ in range(20)}
    assert len(names) == 1
    assert pool.stats()["threads"] == 1


@pytest.mark.parametrize(
    ("call", "error"),
    [(attempt, AttemptTimeout), (lambda s: attempt(s, total=s), CallerDeadline)],
)
def test_it_gives_up_at_the_deadline(hanging, call, error):
    with cut_off(0.1), pytest.raises(error):
        BoundedPool("f", 1).run(hanging, call(0.1))


def test_it_gives_up_when_the_call_is_cancelled(hanging):
    call = Call()
    threading.Timer(0.02, call.cancel).start()
    with cut_off(), pytest.raises(Cancelled):
        BoundedPool("f", 1).run(hanging, call)


def test_a_full_pool_fails_at_once_and_never_has_more_threads(hanging, threads_begun):
    pool = BoundedPool("f", 3)
    for _ in range(3):
        with pytest.raises(AttemptTimeout):
            pool.run(hanging, attempt(0.01))
    with cut_off():
        for _ in range(50):
            with pytest.raises(EngineUnavailable, match="pool full") as caught:
                pool.run(hanging, attempt(HANG_S))
    assert caught.value.sent == "no"
    assert pool.stats() == {"threads": 3, "busy": 3}
    assert len(threads_begun) <= 3


def test_a_thread_that_was_left_alone_works_again_when_it_is_done():
    pool = BoundedPool("f", 1)
    over = threading.Event()
    with pytest.raises(AttemptTimeout):
        pool.run(over.wait, attempt(0.01))
    over.set()
    wait_until(lambda: not pool.stats()["busy"])
    assert pool.run(lambda: "again", Call()) == "again"
    assert pool.stats()["threads"] == 1


def test_what_comes_too_late_is_closed():
    closed = threading.Event()
    over = threading.Event()

    class Late:
        def close(self):
            closed.set()

    def slow():
        over.wait(HANG_S)
        return Late()

    with pytest.raises(AttemptTimeout):
        BoundedPool("f", 1).run(slow, attempt(0.01))
    over.set()
    assert closed.wait(PATIENCE_S)


def test_idle_threads_end(monkeypatch):
    monkeypatch.setattr(bounded_pool, "_IDLE_S", 0.02)
    pool = BoundedPool("f", 2)
    pool.run(lambda: 1, Call())
    wait_until(lambda: not pool.stats()["threads"])
    assert pool.stats() == {"threads": 0, "busy": 0}
    assert pool.run(lambda: 2, Call()) == 2


def test_many_callers_never_lose_an_answer_nor_a_place():
    pool = BoundedPool("f", 8)
    outcomes = []

    def ask(number):
        for one in range(50):
            try:
                outcomes.append(pool.run(lambda one=one: (number, one), attempt(HANG_S)))
            except EngineUnavailable:
                outcomes.append(None)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 400
    assert {one for one in outcomes if one} <= {(n, o) for n in range(8) for o in range(50)}
    wait_until(lambda: not pool.stats()["busy"])
    assert pool.stats()["threads"] <= 8


def test_a_forked_child_has_threads_of_its_own(hanging):
    pool = BoundedPool("f", 1)
    with pytest.raises(AttemptTimeout):
        pool.run(hanging, attempt(0.01))  # full in the parent
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - in the child
        try:
            os.write(write, str(pool.run(lambda: "child", attempt(HANG_S))).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"child"
    os.waitpid(pid, 0)


GEVENT = """
from gevent import monkey; monkey.patch_all()
import time
from om_plugins.builtin.engines.pool import AttemptTimer, BoundedPool
from om_plugins.errors import AttemptTimeout, EngineUnavailable
from om_plugins.types import Call

pool = BoundedPool("f", 1)
assert pool.run(lambda: 1, Call()) == 1
call = Call(deadline=time.monotonic() + 0.05)
try:
    pool.run(lambda: time.sleep(30), call)
except Exception as error:
    print(type(error).__name__)
try:
    pool.run(lambda: 1, Call())
except EngineUnavailable:
    print("full")
"""


def test_it_works_under_gevent():
    pytest.importorskip("gevent")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", GEVENT],
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.stdout.split() == ["CallerDeadline", "full"], done.stderr


def test_an_engine_in_a_pool_lets_the_next_tier_answer_in_time(hanging):
    chain = EngineChain("c", ChainPolicy(timeout=HANG_S, attempt_timeout=0.05, retries=0))
    slow = CallableEngine("slow", hanging, max_threads=1)
    chain.add(EngineSpec(slow, "c", 1))
    chain.add(EngineSpec(CallableEngine("quick", lambda: "quick", local=True), "c", 2))
    assert slow.traits.cancellable
    with cut_off():
        answers = [chain.call() for _ in range(3)]
    assert [answer.payload for answer in answers] == ["quick"] * 3
    errors = [type(answer.history[0].error) for answer in answers]
    assert errors == [AttemptTimeout, EngineUnavailable, EngineUnavailable]


def test_a_pool_is_not_for_generators_and_has_a_size():
    def generate():
        yield 1

    with pytest.raises(TypeError, match="generator cannot run in a pool"):
        CallableEngine("f", generate, max_threads=1)
    for wrong in (0, True, 1001, "8", 1.5):
        with pytest.raises(ConfigError, match="from 1 to 1000"):
            CallableEngine("f", lambda: 1, max_threads=wrong)


# --- the timer ------------------------------------------------------------------------------------


class Driver:
    """A database driver: a query can only be stopped from another thread."""

    def __init__(self):
        self.stopped = threading.Event()

    def query(self):
        if self.stopped.wait(HANG_S):
            raise RuntimeError("query was cancelled by request")

    def cancel(self):
        self.stopped.set()


def test_what_only_another_thread_can_stop_is_stopped_at_the_attempts_deadline():
    driver = Driver()

    def ask(call):
        call.on_cancel(driver.cancel)
        driver.query()

    with cut_off(0.1), pytest.raises(AttemptTimeout) as caught:
        call = attempt(0.1)
        CallableEngine("db", ask, interrupt=True).call(call)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert not call.cancelled, "the call goes on to its next attempt"


def test_what_it_waits_on_after_the_deadline_is_stopped_too():
    drivers = [Driver(), Driver()]

    def ask(call):
        call.on_cancel(drivers[0].cancel)
        try:
            drivers[0].query()
        except RuntimeError:
            call.on_cancel(drivers[1].cancel)
            drivers[1].query()

    with cut_off(0.05), pytest.raises(AttemptTimeout):
        CallableEngine("db", ask, interrupt=True).call(attempt(0.05))


def ending_in(seconds, clock, when_cut):
    call = Call(deadline=clock.monotonic() + seconds, monotonic=clock.monotonic)
    call.on_cancel(when_cut)
    return call


def test_an_attempt_that_ends_in_time_is_left_alone(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(bounded_pool, "time", clock)
    timer = AttemptTimer("left alone")
    stopped, late = [], threading.Event()
    with timer.watching(ending_in(1, clock, lambda: stopped.append(1))):
        pass
    with pytest.raises(LookupError), timer.watching(ending_in(1, clock, lambda: stopped.append(2))):
        raise LookupError
    clock.advance(5)
    with timer.watching(ending_in(0, clock, late.set)):
        assert late.wait(PATIENCE_S)  # and whatever was due before it has had its turn
    assert stopped == []


def test_an_engine_that_is_watched_answers_and_fails_as_any_other():
    engine = CallableEngine("f", lambda call: call.payload["x"], interrupt=True)
    assert engine.call(Call({"x": 1}, deadline=time.monotonic() + HANG_S)) == 1
    with pytest.raises(LookupError):
        engine.call(Call({}, deadline=time.monotonic() + HANG_S))


def test_one_thread_serves_all_and_ends_when_idle(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(bounded_pool, "time", clock)
    monkeypatch.setattr(bounded_pool, "_IDLE_S", 0.02)
    timer = AttemptTimer("t")
    cut = []
    with contextlib.ExitStack() as watched:
        for seconds in (8, 2, 5, 900):
            call = ending_in(seconds, clock, lambda seconds=seconds: cut.append(seconds))
            watched.enter_context(timer.watching(call))
        timers = [one for one in threading.enumerate() if one.name == "om-timer-t"]
        clock.advance(10)
        wait_until(lambda: len(cut) == 3)
    assert cut == [2, 5, 8]
    assert len(timers) == 1
    join(timers[0])
