"""What settings change in the way of a call: which errors, how long a wait, how many at once."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from unittest.mock import Mock

import pytest

from om_plugins import signals
from om_plugins.builtin.engines.callable import CallableEngine
from om_plugins.builtin.engines.static import StaticEngine
from om_plugins.chains.chain import EngineChain
from om_plugins.chains.options import ChainPolicy
from om_plugins.errors import (
    AttemptTimeout,
    CallerDeadline,
    Cancelled,
    ChainExhausted,
    ConfigError,
    EngineError,
    EngineUnavailable,
    InvalidRequest,
    Misconfigured,
    NoAnswer,
    RateLimited,
    TooLong,
    Transient,
    Unsupported,
)
from om_plugins.policies.registry import BreakerRegistry
from om_plugins.types import Answer, Call, EngineSpec, EngineTraits, HttpResponse
from tests.patience import HANG_S, PATIENCE_S, cut_off, join, wait_until


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
    chain = EngineChain("c", ChainPolicy(delays=()), clock=clock, max_sleep_s=lambda: 0.5)
    chain.add(EngineSpec(engine("a", RateLimited("wait", retry_after=0.4)), "c"))
    with pytest.raises(ChainExhausted):
        chain.call()
    assert clock.slept == [0.4]


def test_a_wait_that_is_refused_costs_no_budget(engine, chain_of, clock):
    a = engine("a", RateLimited("wait", retry_after=2), idempotent=True)
    chain = chain_of(a, retry_sleep=1.0)
    before = chain.budget.balance(clock.monotonic())
    with pytest.raises(ChainExhausted):
        chain.call()
    assert chain.budget.balance(clock.monotonic()) >= before


def real_chain(*engines, **options):
    chain = EngineChain("real", ChainPolicy(delays=(HANG_S,), timeout=2 * HANG_S), **options)
    for tier, one in enumerate(engines, 1):
        chain.add(EngineSpec(one, "real", tier))
    return chain


def asleep(chain):
    wait_until(lambda: chain._sleeper.waiting)


def patient(call):
    raise RateLimited("wait", retry_after=HANG_S)


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
    join(thread)
    assert [answer.engine for answer in answers] == ["local"]


def test_whose_wait_was_ended_does_not_ask_the_same_engine_again():
    asked = []

    def down(call):
        asked.append(call.attempt)
        raise Transient("down", sent="no")

    chain = real_chain(
        CallableEngine("a", down, idempotent=True),
        CallableEngine("local", lambda call: "resting", local=True),
    )
    thread = threading.Thread(target=chain.call)
    thread.start()
    asleep(chain)
    chain.close()
    join(thread)
    assert asked == [1]


def test_a_cancelled_call_does_not_go_on_waiting():
    chain = real_chain(CallableEngine("a", patient, idempotent=True))
    call = Call(chain="real", deadline=time.monotonic() + 2 * HANG_S)
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
    join(thread)
    assert len(errors) == 1


def test_what_is_not_believed_of_a_retry_after_is_not_slept(engine, chain_of, clock):
    a = engine("a", RateLimited("wait", retry_after=1e9), idempotent=True)
    answer = chain_of(a, engine("b")).call(timeout=float("inf"))
    assert (answer.engine, a.times, clock.slept) == ("b", 1, [])


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


def test_a_prepared_call_does_not_outlast_the_request_either(engine, clock):
    chain = EngineChain("c", clock=clock, ambient_deadline=lambda: clock.monotonic() + 3)
    one = engine("a")
    chain.add(EngineSpec(one, "c"))
    chain.ask(Call(chain="c", deadline=clock.monotonic() + 30, monotonic=clock.monotonic))
    assert one.calls[0]["remaining"] == 3


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
        assert self.go.wait(HANG_S)
        return "held"


def crowd(chain, held, calls):
    threads = [threading.Thread(target=chain.call) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for _ in range(calls):
        assert held.inside.acquire(timeout=PATIENCE_S)
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
        join(thread)
    assert chain.call().engine == "held"


def test_a_full_engine_does_not_keep_a_permit_of_its_breaker(clock):
    held = Held(max_concurrency=1)
    chain = real_chain(held)
    (thread,) = crowd(chain, held, 1)
    with pytest.raises(ChainExhausted, match="bulkhead full"):
        chain.call()
    view = chain.states[0].breaker.view(time.monotonic())
    assert (view.calls, view.failures) == (0, 0)
    held.go.set()
    join(thread)


def test_a_full_engine_gives_the_probe_of_its_breaker_back(engine, chain_of, clock):
    a = engine("a", Transient("x"), "back", max_concurrency=1)
    chain = chain_of(a, retries=0, breaker_min_calls=1)
    with pytest.raises(ChainExhausted):
        chain.call()
    clock.advance(11)
    bulkhead = chain.states[0].traffic.bulkhead
    assert bulkhead.enter(0.0)  # a call of another chain
    with pytest.raises(ChainExhausted, match="bulkhead full"):
        chain.call()
    bulkhead.leave()
    assert chain.call().payload == "back"


def test_a_call_may_wait_for_its_turn():
    held = Held(max_concurrency=1)
    chain = EngineChain("real", ChainPolicy(bulkhead_wait=HANG_S))
    chain.add(EngineSpec(held, "real"))
    (thread,) = crowd(chain, held, 1)
    threading.Timer(0.05, held.go.set).start()
    assert chain.call().engine == "held"
    join(thread)


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


class Interrupted(BaseException):
    """As a timeout of gevent is: no ``Exception``, raised where a thread waits."""


def test_who_is_interrupted_while_waiting_for_a_turn_gives_the_probe_back(
    engine, chain_of, clock, monkeypatch
):
    a = engine("a", *[Transient("x")] * 3, "back", max_concurrency=1)
    chain = chain_of(a, retries=0, breaker_min_calls=3)
    for _ in range(3):
        with pytest.raises(ChainExhausted):
            chain.call()
    clock.advance(11)
    bulkhead = chain.states[0].traffic.bulkhead
    with monkeypatch.context() as patch:
        patch.setattr(type(bulkhead), "enter", lambda self, wait_s: exec("raise Interrupted", {
            "Interrupted": Interrupted}))  # fmt: skip
        with pytest.raises(Interrupted):
            chain.call()
    assert chain.call().payload == "back"


def test_a_call_cancelled_while_it_waits_for_its_turn_asks_nobody():
    held = Held(max_concurrency=1)
    chain = EngineChain("real", ChainPolicy(bulkhead_wait=HANG_S))
    chain.add(EngineSpec(held, "real"))
    (thread,) = crowd(chain, held, 1)
    call, errors = Call(chain="real", deadline=time.monotonic() + HANG_S), []

    def ask():
        try:
            chain.ask(call)
        except Cancelled as error:
            errors.append(error)

    waiter = threading.Thread(target=ask)
    waiter.start()
    bulkhead = chain.states[0].traffic.bulkhead
    wait_until(lambda: bulkhead.waiting)
    call.cancel()
    held.go.set()
    for one in (thread, waiter):
        join(one)
    assert len(errors) == 1
    assert not held.inside.acquire(blocking=False)  # nobody else was inside
    assert bulkhead.in_use == 0


def test_the_time_of_an_attempt_begins_when_its_turn_has_come(engine, clock, monkeypatch):
    a = engine("a", max_concurrency=1)
    chain = EngineChain("c", ChainPolicy(attempt_timeout=1.0, bulkhead_wait=5.0), clock=clock)
    chain.add(EngineSpec(a, "c"))
    bulkhead = chain.states[0].traffic.bulkhead
    enter = type(bulkhead).enter

    def late(self, wait_s):
        clock.advance(4)
        return enter(self, wait_s)

    monkeypatch.setattr(type(bulkhead), "enter", late)
    chain.call()
    assert a.calls[0]["remaining"] == 1.0


def test_whose_turn_comes_when_its_time_is_over_asks_nobody(engine, clock, monkeypatch):
    a = engine("a", max_concurrency=1)
    chain = EngineChain("c", ChainPolicy(timeout=3.0, bulkhead_wait=5.0), clock=clock)
    chain.add(EngineSpec(a, "c"))
    bulkhead = chain.states[0].traffic.bulkhead
    enter = type(bulkhead).enter

    def late(self, wait_s):
        clock.advance(wait_s)
        return enter(self, wait_s)

    monkeypatch.setattr(type(bulkhead), "enter", late)
    with pytest.raises(CallerDeadline, match="no time left"):
        chain.call()
    assert (a.times, bulkhead.in_use) == (0, 0)


def test_nobody_waits_for_a_turn_beyond_the_deadline():
    held = Held(max_concurrency=1)
    chain = EngineChain("real", ChainPolicy(bulkhead_wait=HANG_S))
    chain.add(EngineSpec(held, "real"))
    (thread,) = crowd(chain, held, 1)
    with cut_off(0.3), pytest.raises(CallerDeadline, match="bulkhead full"):
        chain.call(timeout=0.3)
    held.go.set()
    join(thread)


def test_each_chain_of_a_shared_engine_waits_as_long_as_it_says_itself(engine, clock):
    held = Held(max_concurrency=1)
    registry = BreakerRegistry()
    patient = EngineChain("patient", ChainPolicy(bulkhead_wait=HANG_S), breakers=registry)
    patient.add(EngineSpec(held, "patient"))
    hasty = EngineChain("hasty", breakers=registry)
    hasty.add(EngineSpec(held, "hasty"))
    threads = crowd(patient, held, 1)
    with pytest.raises(ChainExhausted, match="bulkhead full"):
        hasty.call()
    threads.append(threading.Thread(target=patient.call))
    threads[1].start()
    held.go.set()
    for thread in threads:
        join(thread)
    assert patient.states[0].traffic.bulkhead.in_use == 0


def test_whoever_is_told_of_a_recovery_cannot_keep_its_room(engine, clock):
    def emit(signal, **details):
        raise Interrupted

    def listener(sender, **details):
        pass

    chain = EngineChain("c", clock=clock, emit=emit)
    chain.add(EngineSpec(engine("a", max_concurrency=1), "c"))
    signals.engine_health_changed.connect(listener)
    try:
        with pytest.raises(Interrupted):
            chain.call()
    finally:
        signals.engine_health_changed.disconnect(listener)
    assert chain.states[0].traffic.bulkhead.in_use == 0


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


def test_an_engine_that_cannot_learn_takes_no_answer_away(engine, chain_of, caplog):
    learner = Learner()
    learner.learn = lambda call, answer: 1 / 0
    assert chain_of(engine("a", "one"), learner).call("q").payload == "one"
    assert "'learner': learn failed" in caplog.text


@pytest.mark.parametrize("method", ["learn", "close"])
def test_what_an_engine_does_not_run_is_said(engine, chain_of, method, caplog):
    learner = Learner()
    setattr(learner, method, lambda *arguments: later())
    chain = chain_of(engine("a", "one"), learner)
    assert chain.call("q").payload == "one"
    chain.close()
    assert f"'learner': {method} failed" in caplog.text
    assert "nobody awaits" in caplog.text


@pytest.mark.parametrize("stream", ["no", 1, "False", Mock()])
def test_whether_an_answer_is_streamed_is_true_or_false(engine, chain_of, stream):
    with pytest.raises(ConfigError, match=r"chain.call\(stream\)"):
        chain_of(engine("a", "one")).call("q", stream=stream)


def test_streams_are_not_learnt(engine, chain_of):
    learner = Learner()
    chain = chain_of(engine("a", lambda call: iter("xy"), streaming=True), learner)
    list(chain.call(stream=True))
    assert learner.seen == []


# --- the error table ----------------------------------------------------------------------------


def group() -> ChainExhausted:
    return ChainExhausted("inner", [ValueError()])


# error, retried when not idempotent, retried when idempotent, next tier, next tier under
# at_most_once, trips the breaker
ROWS = [
    (Transient(sent="no"), True, True, True, True, True),
    (Transient(sent="maybe"), False, True, True, False, True),
    (Transient(sent="yes"), False, True, True, False, True),
    (RateLimited(retry_after=1), True, True, True, True, False),
    (RateLimited(retry_after=60), False, False, True, True, False),
    (RateLimited(), True, True, True, True, False),
    (AttemptTimeout(), False, True, True, False, True),
    (CallerDeadline(), False, False, False, False, False),
    (Cancelled(), False, False, False, False, False),
    (InvalidRequest(), False, False, False, False, False),
    (Unsupported(), False, False, True, True, False),
    (TooLong(), False, False, True, True, False),
    (Misconfigured(), False, False, True, True, False),
    (EngineUnavailable("x", "bulkhead full"), False, False, True, True, False),
    (EngineError(), False, True, True, False, True),
    (ValueError(), False, True, True, False, True),
    (group(), False, False, True, False, True),
]
IDS = [
    f"{type(row[0]).__name__}-{getattr(row[0], 'sent', '')}-{getattr(row[0], 'retry_after', '')}"
    for row in ROWS
]


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_chain_does_what_the_table_says(row, engine, chain_of, clock):
    error, retried, retried_if_idempotent, next_tier, next_if_at_most_once, trips = row

    def run(idempotent: bool, at_most_once: bool):
        one, two = engine("one", error, idempotent=idempotent), engine("two")
        chain = chain_of(one, two, retries=1, at_most_once=at_most_once, breaker_min_calls=100)
        with contextlib.suppress(ChainExhausted, CallerDeadline, Cancelled, InvalidRequest):
            chain.call()
        return one.times > 1, two.times == 1, chain.health()[0]

    again, fell_back, health = run(idempotent=False, at_most_once=False)
    assert (again, fell_back) == (retried, next_tier)
    assert health.failure_rate == (1.0 if trips else 0.0)
    assert health.samples == (1 + again if trips else 0)
    assert run(idempotent=True, at_most_once=False)[:2] == (retried_if_idempotent, next_tier)
    assert run(idempotent=False, at_most_once=True)[1] == next_if_at_most_once


@pytest.mark.parametrize("error", [row[0] for row in ROWS], ids=IDS)
def test_no_error_of_a_call_takes_an_engine_offline_and_only_rate_limited_cools(
    error, engine, chain_of
):
    chain = chain_of(engine("one", error), engine("two"), retries=0, breaker_min_calls=100)
    with contextlib.suppress(CallerDeadline, Cancelled, InvalidRequest):
        chain.call()
    assert chain.health()[0].state.value != "offline"
    assert (chain.states[0].cooldown.until > 0) == isinstance(error, RateLimited)


def test_at_most_once_retries_only_what_was_not_sent(engine, chain_of):
    for sent, times in (("no", 2), ("maybe", 1), ("yes", 1)):
        one = engine("one", Transient(sent=sent), idempotent=True)
        with pytest.raises(ChainExhausted):
            chain_of(one, at_most_once=True, retries=1).call()
        assert one.times == times


# --- an engine that returns None ----------------------------------------------------------------


async def forgotten_in_a_coroutine(call):
    {"answer": 1}  # noqa: B018


@pytest.mark.parametrize(
    "made",
    [
        lambda: CallableEngine("a", lambda call: None),
        lambda: CallableEngine("a", lambda: None),
        lambda: CallableEngine("a", forgotten_in_a_coroutine),
        lambda: CallableEngine("a", lambda call: None, max_threads=1),
        lambda: CallableEngine("a", lambda call: None, interrupt=True),
        lambda: StaticEngine("a", lambda call: None),
    ],
    ids=["call", "no argument", "async", "pool", "interrupt", "static"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_forgotten_return_is_a_failure_and_the_next_tier_answers(chain_of, engine, made, stream):
    chain = chain_of(made(), engine("b"))
    answer = chain.call(stream=stream)
    assert (answer.engine, answer.degraded, answer.attempts) == ("b", True, 2)
    (attempt,) = answer.history
    assert isinstance(attempt.error, NoAnswer)
    assert "'a' returned None" in str(attempt.error)
    assert "Answer(None)" in str(attempt.error)


def test_the_last_tier_that_forgets_its_return_is_no_answer(chain_of, engine):
    with pytest.raises(ChainExhausted) as caught:
        chain_of(engine("a", None)).call()
    assert [type(one) for one in caught.value.exceptions] == [NoAnswer]


@pytest.mark.parametrize("payload", [0, False, "", [], {}, b"", 0.0])
def test_other_empty_values_are_answers(chain_of, engine, payload):
    answer = chain_of(engine("a", payload), engine("b")).call()
    assert (answer.engine, answer.payload) == ("a", payload)


@pytest.mark.parametrize("made", [lambda call: Answer(None), Answer(None, status=204)])
def test_none_on_purpose_is_an_answer(chain_of, engine, made):
    answer = chain_of(engine("a", made), engine("b")).call()
    assert (answer.engine, answer.payload, answer.degraded) == ("a", None, False)


async def later(call=None):
    return "later"


def pieces(call=None):
    yield "a piece"


def yields(make):
    def answer(call):
        yield make()

    return answer


@pytest.mark.parametrize(
    "made",
    [
        lambda call: Answer(later()),
        lambda call: Answer(pieces(), metadata={"by": "hand"}),
        lambda call: Answer(piece for piece in "ab"),
        lambda call: Answer(aiter(piecewise())),
        lambda call: Answer(chunks=iter([later()])),
        lambda call: Answer(chunks=[pieces(), "b"]),
        yields(later),
        yields(pieces),
        yields(lambda: asyncio.Future(loop=Mock())),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_has_not_run_inside_an_answer_is_no_answer(chain_of, engine, made, stream):
    answer = chain_of(CallableEngine("a", made), engine("b")).call(stream=stream)
    assert answer.engine == "b"
    (attempt,) = answer.history
    assert isinstance(attempt.error, NoAnswer)
    assert re.search("nobody awaits|may answer in chunks|has run", str(attempt.error))


async def piecewise():
    yield "a piece"


@pytest.mark.parametrize("payload", [None, "text", object(), HttpResponse(), ["a"], iter("ab")])
def test_other_payloads_of_an_answer_are_left_alone(chain_of, engine, payload):
    answer = chain_of(engine("a", lambda call: Answer(payload)), engine("b")).call()
    assert (answer.engine, answer.payload) == ("a", payload)


def test_an_engine_that_goes_on_returning_none_opens_its_breaker(chain_of, engine):
    first = engine("a", None)
    chain = chain_of(first, engine("b"), breaker_min_calls=2)
    for _ in range(5):
        chain.call()
    assert first.times == 2
