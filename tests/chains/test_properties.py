"""What holds for every sequence of outcomes, and under a steady outage."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from om_plugins.builtin.engines.callable import CallableEngine
from om_plugins.builtin.engines.static import StaticEngine
from om_plugins.chains.chain import EngineChain
from om_plugins.chains.options import ChainPolicy
from om_plugins.errors import (
    AttemptTimeout,
    CallerDeadline,
    ChainExhausted,
    InvalidRequest,
    Misconfigured,
    RateLimited,
    TooLong,
    Transient,
    Unsupported,
)
from om_plugins.policies.error_table import may_have_run
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import EngineSpec
from tests.patience import HANG_S

waits = st.none() | st.floats(allow_nan=True, allow_infinity=True)
sent = st.sampled_from(["no", "maybe", "yes"])
steps = st.one_of(
    st.just("fine"),
    st.builds(lambda s, r: Transient("x", sent=s, retry_after=r), sent, waits),
    st.builds(lambda r: RateLimited("x", retry_after=r), waits),
    st.sampled_from(
        [AttemptTimeout, Unsupported, TooLong, Misconfigured, ValueError, InvalidRequest]
    ).map(lambda kind: kind("x")),
)
engines = st.lists(
    st.fixed_dictionaries(
        {
            "steps": st.lists(
                st.tuples(steps, st.floats(0, 4, allow_nan=False)), min_size=1, max_size=5
            ),
            "idempotent": st.booleans(),
            "local": st.booleans(),
        }
    ),
    min_size=1,
    max_size=4,
)


@given(
    engines=engines,
    timeout=st.floats(0.01, 30),
    retries=st.integers(0, 4),
    attempt_timeout=st.none() | st.floats(0.01, 5),
    at_most_once=st.booleans(),
    calls=st.integers(1, 4),
)
@settings(max_examples=150)
def test_no_sleep_passes_the_deadline_and_attempts_are_bounded(
    engines, timeout, retries, attempt_timeout, at_most_once, calls
):
    clock = FakeClock()
    ends_at = [0.0]
    naps = []

    class Watch(FakeClock):
        monotonic = staticmethod(clock.monotonic)
        time = staticmethod(clock.time)

        def sleep(self, seconds):
            naps.append((seconds, clock.monotonic() + seconds, ends_at[0]))
            clock.sleep(seconds)

    chain = EngineChain(
        "c",
        ChainPolicy(
            retries=retries,
            attempt_timeout=attempt_timeout,
            at_most_once=at_most_once,
            breaker_min_calls=5,
        ),
        clock=Watch(),
    )
    asked = []
    spent = []
    for number, spec in enumerate(engines):
        endless = itertools.cycle(spec["steps"])

        def answer(call, number=number, script=endless, spec=spec):
            asked.append((number, call.attempt))
            if not spec["local"]:
                assert call.remaining() > 0
                assert call.attempt_deadline <= ends_at[0]
                assert not (at_most_once and spent)
            step, takes_s = next(script)
            clock.advance(takes_s)
            if isinstance(step, Exception):
                if not spec["local"] and may_have_run(step):
                    spent.append(number)
                raise step
            return step

        engine = CallableEngine(
            f"e{number}", answer, idempotent=spec["idempotent"], local=spec["local"]
        )
        chain.add(EngineSpec(engine, "c", number + 1))
    for _ in range(calls):
        asked.clear()
        spent.clear()
        ends_at[0] = clock.monotonic() + timeout
        try:
            result = chain.call(timeout=timeout)
        except (ChainExhausted, CallerDeadline) as error:
            assert len(error.attempts) >= len(engines)
        except InvalidRequest:
            pass
        else:
            assert result.attempts == len(asked)
            assert result.degraded == (result.tier > 1)
        assert len(asked) <= len(engines) * (retries + 1)
        assert [n for _, n in asked] == list(range(1, len(asked) + 1))
        assert [n for n, _ in asked] == sorted(n for n, _ in asked)
    for seconds, until, end in naps:
        assert seconds >= 0
        assert until <= end


def outage(clock: FakeClock, seconds: int, per_second: int, **policy: object) -> tuple[float, int]:
    """Calls per request at an upstream that is down, and requests that got no answer."""
    upstream = itertools.count()

    def down(call):
        next(upstream)
        raise Transient("refused", sent="no")

    # Sleeping must not slow the callers down: there are many of them.
    class Crowd(FakeClock):
        monotonic = staticmethod(clock.monotonic)
        time = staticmethod(clock.time)

        def sleep(self, seconds):
            pass

    chain = EngineChain("c", ChainPolicy(**policy), clock=Crowd())
    chain.add(EngineSpec(CallableEngine("up", down, idempotent=True), "c", 1))
    chain.add(EngineSpec(StaticEngine("local", "resting"), "c", 2))
    unanswered = 0
    for _ in range(seconds * per_second):
        clock.advance(1 / per_second)
        unanswered += chain.call().payload != "resting"
    return next(upstream) / (seconds * per_second), unanswered


def test_a_total_outage_sends_the_upstream_almost_nothing(clock):
    amplification, unanswered = outage(clock, 60, 100)
    assert amplification < 0.01
    assert unanswered == 0


def test_without_its_breaker_a_total_outage_still_costs_one_and_a_fifth(clock):
    amplification, _ = outage(clock, 60, 100, breaker_min_calls=100_000, retry_budget_floor=0.0)
    assert 1.19 < amplification <= 1.2


def test_sixty_four_callers_of_a_half_open_engine_send_one_call(clock):
    inside, go = threading.Semaphore(0), threading.Event()
    asked = itertools.count()
    broken = [True]

    def answer(call):
        next(asked)
        if broken[0]:
            raise ValueError
        inside.release()
        go.wait(HANG_S)
        return "back"

    chain = EngineChain("c", ChainPolicy(breaker_min_calls=1), clock=clock)
    chain.add(EngineSpec(CallableEngine("one", answer), "c", 1))
    chain.add(EngineSpec(StaticEngine("local", "resting"), "c", 2))
    chain.call()
    broken[0] = False
    clock.advance(10)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(chain.call().payload)) for _ in range(64)
    ]
    for thread in threads:
        thread.start()
    inside.acquire()
    while len(answers) < 63:
        threading.Event().wait(0.005)
    go.set()
    for thread in threads:
        thread.join()
    assert sorted(set(answers)) == ["back", "resting"]
    assert answers.count("back") == 1
    assert next(asked) == 2  # the failure that opened it, and one probe


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_chain_works_in_a_child_forked_while_other_threads_call_it():
    chain = EngineChain("c", ChainPolicy(breaker_min_calls=100_000))
    chain.add(EngineSpec(CallableEngine("one", lambda: 1 / 0), "c", 1))
    chain.add(EngineSpec(StaticEngine("local", "ok"), "c", 2))
    stop = threading.Event()

    def caller():
        while not stop.is_set():
            chain.call()
            time.sleep(0)  # lets the others run under gevent, too

    threads = [threading.Thread(target=caller) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                signal.alarm(5)
                try:
                    ok = chain.call().payload == "ok" and chain.health()[0].samples > 0
                    os._exit(0 if ok else 1)
                except BaseException:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
