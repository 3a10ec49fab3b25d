"""What settings change in the way of a call: which errors, how long a wait, how many at once."""

from __future__ import annotations

import threading
import time

import pytest

from om_plugins.builtin.engine_callable import CallableEngine
from om_plugins.errors import (
    CallerDeadline,
    Cancelled,
    ChainExhausted,
    EngineUnavailable,
    RateLimited,
    Transient,
)
from om_plugins.resilience.chain import ChainPolicy, EngineChain
from om_plugins.types import Answer, Call, EngineSpec, EngineTraits


class Busy(Exception):
    pass


# --- which errors -------------------------------------------------------------------------------


def test_only_the_errors_that_are_named_are_retried(engine, chain_of):
    named = engine("a", Transient("x"), "fine", idempotent=True)
    assert chain_of(named, retry_on=(Transient,)).call().attempts == 2
    other = engine("a", Busy(), "fine", idempotent=True)
    with pytest.raises(ChainExhausted):
        chain_of(other, retry_on=(Transient,)).call()


def test_errors_to_give_up_on_go_to_the_next_tier_at_once(engine, chain_of, clock):
    a = engine("a", Busy(), idempotent=True)
    answer = chain_of(a, engine("b"), give_up_on=(Busy,)).call()
    assert (answer.engine, a.times, clock.slept) == ("b", 1, [])


def test_naming_an_error_does_not_make_its_retry_safe(engine, chain_of):
    unsafe = engine("a", Transient("x", sent="maybe"))
    with pytest.raises(ChainExhausted):
        chain_of(unsafe, retry_on=(Transient,)).call()
    assert unsafe.times == 1


# --- how long a wait ----------------------------------------------------------------------------


def test_the_waits_of_a_call_are_bounded_in_all(engine, chain_of, clock):
    a = engine("a", RateLimited("wait", retry_after=0.4), idempotent=True)
    with pytest.raises(ChainExhausted):
        chain_of(a, retries=10, retry_sleep=1.0, delays=()).call()
    assert clock.slept == [0.4, 0.4]


def test_a_server_with_one_thread_bounds_them_by_itself(engine, clock):
    chain = EngineChain("c", ChainPolicy(delays=()), clock=clock, most_sleep_s=lambda: 0.5)
    chain.add(EngineSpec(engine("a", RateLimited("wait", retry_after=0.4)), "c"))
    with pytest.raises(ChainExhausted):
        chain.call()
    assert clock.slept == [0.4]


def test_a_wait_that_is_refused_costs_no_budget(engine, chain_of, clock):
    a = engine("a", RateLimited("wait", retry_after=2), idempotent=True)
    chain = chain_of(a, retry_sleep=1.0)
    before = chain._plan.budget.balance(clock.monotonic())
    with pytest.raises(ChainExhausted):
        chain.call()
    assert chain._plan.budget.balance(clock.monotonic()) >= before


def real_chain(*engines, **options):
    chain = EngineChain("real", ChainPolicy(delays=(30.0,), timeout=60), **options)
    for tier, one in enumerate(engines, 1):
        chain.add(EngineSpec(one, "real", tier))
    return chain


def asleep(chain):
    while not chain._pauses._sleepers:
        time.sleep(0.001)


def patient(call):
    raise RateLimited("wait", retry_after=30)


def test_callers_who_wait_are_answered_by_the_next_tier_when_the_chain_is_closed():
    chain = real_chain(
        CallableEngine("a", patient, idempotent=True),
        CallableEngine("local", lambda call: "resting", local=True),
    )
    answers = []
    thread = threading.Thread(target=lambda: answers.append(chain.call()))
    thread.start()
    asleep(chain)
    chain.close()
    thread.join(5)
    assert [answer.engine for answer in answers] == ["local"]


def test_a_cancelled_call_does_not_go_on_waiting():
    chain = real_chain(CallableEngine("a", patient, idempotent=True))
    call = Call(chain="real", deadline=time.monotonic() + 60)
    errors = []

    def ask():
        try:
            chain.ask(call)
        except Cancelled as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    asleep(chain)
    call.cancel()
    thread.join(5)
    assert len(errors) == 1


# --- the deadline of the request around it ------------------------------------------------------


def test_no_call_takes_longer_than_the_request_around_it(engine, clock):
    until = [clock.monotonic() + 3]
    chain = EngineChain("c", clock=clock, ambient_deadline=lambda: until[0])
    one = engine("a")
    chain.add(EngineSpec(one, "c"))
    chain.call()
    chain.call(timeout=2)
    chain.call(timeout=20)
    until[0] = float("inf")
    chain.call()
    assert [c["remaining"] for c in one.calls] == [3, 2, 3, 10]


def test_a_request_whose_time_is_over_asks_nobody(engine, clock):
    chain = EngineChain("c", clock=clock, ambient_deadline=lambda: clock.monotonic() - 1)
    one = engine("a")
    chain.add(EngineSpec(one, "c"))
    with pytest.raises(CallerDeadline):
        chain.call()
    assert one.times == 0


# --- how many at once ---------------------------------------------------------------------------


class Held:
    """An engine whose calls stay at work until they are let go."""

    name = "held"

    def __init__(self, **traits):
        self.traits = EngineTraits(idempotent=True, **traits)
        self.inside = threading.Semaphore(0)
        self.go = threading.Event()

    def call(self, call):
        self.inside.release()
        assert self.go.wait(10)
        return "held"


def crowd(chain, held, calls):
    threads = [threading.Thread(target=chain.call) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for _ in range(calls):
        assert held.inside.acquire(timeout=10)
    return threads


def test_an_engine_that_is_full_is_skipped_and_says_so():
    held = Held(max_concurrency=2)
    chain = real_chain(held, CallableEngine("local", lambda call: "resting", local=True))
    threads = crowd(chain, held, 2)
    answer = chain.call()
    assert (answer.engine, answer.attempts) == ("local", 1)
    assert isinstance(answer.history[0].error, EngineUnavailable)
    assert answer.history[0].error.reason == "bulkhead full"
    held.go.set()
    for thread in threads:
        thread.join(10)
    assert chain.call().engine == "held"


def test_a_full_engine_does_not_keep_a_permit_of_its_breaker(clock):
    held = Held(max_concurrency=1)
    chain = real_chain(held)
    (thread,) = crowd(chain, held, 1)
    with pytest.raises(ChainExhausted, match="bulkhead full"):
        chain.call()
    view = chain.places[0].breaker.view(time.monotonic())
    assert (view.calls, view.failures) == (0, 0)
    held.go.set()
    thread.join(10)


def test_a_call_may_wait_for_its_turn():
    held = Held(max_concurrency=1)
    chain = EngineChain("real", ChainPolicy(bulkhead_wait=10.0))
    chain.add(EngineSpec(held, "real"))
    (thread,) = crowd(chain, held, 1)
    threading.Timer(0.05, held.go.set).start()
    assert chain.call().engine == "held"
    thread.join(10)


@pytest.mark.parametrize("error", [Transient("x"), KeyboardInterrupt()])
def test_a_call_that_fails_makes_room(engine, chain_of, error):
    a = engine("a", error, error, "fine", max_concurrency=1)
    chain = chain_of(a, retries=0)
    for _ in range(2):
        with pytest.raises((ChainExhausted, KeyboardInterrupt)):
            chain.call()
    assert chain.call().payload == "fine"


def test_a_stream_keeps_its_room_until_it_ends(engine, chain_of):
    a = engine("a", lambda call: iter("xy"), streaming=True, max_concurrency=1)
    chain = chain_of(a)
    first = chain.call(stream=True)
    with pytest.raises(ChainExhausted, match="bulkhead full"):
        chain.call(stream=True)
    first.close()
    second = chain.call(stream=True)
    assert list(second) == ["x", "y"]
    forgotten = chain.call(stream=True)
    del forgotten
    assert list(chain.call(stream=True)) == ["x", "y"]


# --- engines that learn -------------------------------------------------------------------------


class Learner:
    traits = EngineTraits(local=True)

    def __init__(self, name="learner"):
        self.name = name
        self.seen = []

    def call(self, call):
        return Answer("learnt", stale=True)

    def learn(self, call, answer):
        self.seen.append((call.payload, answer.engine, answer.payload))


def test_an_engine_learns_what_the_others_answered(engine, chain_of):
    learner = Learner()
    chain = chain_of(engine("a", "one", Transient("down")), learner, retries=0)
    chain.call("q")
    assert learner.seen == [("q", "a", "one")]
    assert chain.call("q").stale
    assert len(learner.seen) == 1  # not from itself, nor anything stale


def test_streams_are_not_learnt(engine, chain_of):
    learner = Learner()
    chain = chain_of(engine("a", lambda call: iter("xy"), streaming=True), learner)
    list(chain.call(stream=True))
    assert learner.seen == []
