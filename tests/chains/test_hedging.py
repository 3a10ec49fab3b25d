"""Hedging: a question that takes longer than most is asked anew, without a thread."""

from __future__ import annotations

import threading

import pytest

from om_plugins.chains.load_balancing import QUANTILE_MIN_ANSWERS, LatencyQuantile
from om_plugins.errors import AttemptTimeout, Cancelled, Transient
from om_plugins.types import Call

QUICK_S = 0.020


class Service:
    """An engine that honours its time, as one on a socket does."""

    def __init__(self, name, clock, engine_of, **traits):
        self.durations = []
        self.cuts = 0
        self.asked = 0
        options = {"idempotent": True, "hedge_safe": True, **traits}
        self.clock = clock
        self.engine = engine_of(name, self.answer, **options)

    def answer(self, call):
        self.asked += 1
        takes_s = self.durations.pop(0) if self.durations else QUICK_S
        if call.remaining() < takes_s:
            self.clock.advance(max(call.remaining(), 0.0))
            self.cuts += 1
            raise AttemptTimeout("no answer in time", sent="yes")
        self.clock.advance(takes_s)
        return takes_s


@pytest.fixture
def service(clock, engine):
    def make(name="a", **traits):
        return Service(name, clock, engine, **traits)

    return make


def warmed(chain, calls=2 * QUANTILE_MIN_ANSWERS):
    for _ in range(calls):
        chain.call()
    return chain


def test_a_slow_first_attempt_is_cut_and_asked_anew(service, chain_of, clock):
    a = service()
    chain = warmed(chain_of(a.engine, hedge=0.95))
    a.durations = [0.270]
    answer = chain.call()
    assert (answer.attempts, answer.degraded) == (2, False)
    assert answer.elapsed_s == pytest.approx(2 * QUICK_S, rel=0.1)
    assert clock.slept == []


def test_hedging_takes_the_tail_away(service, chain_of, clock):
    """5 % of the calls take 250 ms more: the 95th percentile falls from 270 ms to near 40 ms."""
    a = service()
    chain = warmed(chain_of(a.engine, hedge=0.95))
    times = []
    for number in range(2000):
        if number % 20 == 19:
            a.durations = [QUICK_S + 0.250]
        times.append(chain.call().elapsed_s)
        clock.advance(0.1)
    times.sort()
    assert times[int(0.96 * len(times))] < 0.050
    assert a.asked < 1.10 * (2000 + 2 * QUANTILE_MIN_ANSWERS)


def test_the_point_of_the_cut_stays_where_it_belongs(service, chain_of, clock):
    """What was cut counts with its hedge: were it left out, each cut would lower the next."""
    a = service()
    chain = warmed(chain_of(a.engine, hedge=0.9), 500)
    for number in range(3000):
        a.durations = [QUICK_S * (1 + (number * 7919 % 100) / 100)]
        chain.call()
        clock.advance(0.1)
    assert chain.states[0].traffic.latency.value_s == pytest.approx(1.1 * 1.9 * QUICK_S, rel=0.08)


def test_a_hedge_is_asked_of_an_equal(service, chain_of):
    a, b = service("a"), service("b")
    chain = warmed(chain_of([a.engine, b.engine], hedge=0.95), 200)
    a.durations = [0.270]
    answer = chain.call()
    assert (answer.engine, answer.attempts) == ("b", 2)


def test_without_an_equal_to_ask_a_hedge_stays_on_its_engine(service, chain_of, engine):
    a, b = service("a"), service("b")
    chain = warmed(
        chain_of([a.engine, b.engine], engine("lower"), hedge=0.95), 4 * QUANTILE_MIN_ANSWERS
    )
    chain.states[1].breaker.force("open")
    a.durations = [0.270]
    answer = chain.call()
    assert (answer.engine, answer.attempts, answer.degraded) == ("a", 2, False)


def test_a_cut_is_nobodys_failure(service, chain_of, clock, listening, events):
    a = service()
    chain = warmed(chain_of(a.engine, hedge=0.95))
    a.durations = [0.270]
    chain.call()
    view = chain.states[0].breaker.view(clock.monotonic())
    assert view.failures == 0
    assert [name for name, _ in events if name == "engine_failed"] == []
    (told,) = [details for name, details in events if name == "retry_scheduled"]
    assert (told["delay_s"], told["attempt"]) == (0.0, 2)


def test_a_hedge_that_is_slow_too_has_the_whole_time(service, chain_of):
    a = service()
    chain = warmed(chain_of(a.engine, hedge=0.95))
    a.durations = [0.270, 0.270]
    answer = chain.call()
    assert (answer.attempts, a.cuts) == (2, 1)
    assert answer.elapsed_s == pytest.approx(0.290, rel=0.1)


def test_hedges_drink_from_the_retry_budget(service, chain_of):
    a = service()
    chain = warmed(chain_of(a.engine, hedge=0.95, retry_budget=0.0, retry_budget_floor=0.3))
    answers = []
    for _ in range(20):
        a.durations = [0.270]
        answers.append(chain.call().attempts)
    assert answers.count(2) <= 4  # 3 saved up, and one that came meanwhile


def test_a_hedge_that_others_left_nothing_for_is_owed(service, chain_of, clock):
    """Many calls may begin while there is one left: together they must not have one each."""
    a = service()
    chain = warmed(chain_of(a.engine, hedge=0.95))
    budget = chain.budget

    def slow_while_others_take_all(call):
        while budget.withdraw(clock.monotonic()):
            pass
        clock.advance(call.remaining())
        raise AttemptTimeout("no answer in time", sent="yes")

    a.engine.steps = [slow_while_others_take_all, a.answer]
    assert chain.call().attempts == 2
    assert budget.balance(clock.monotonic()) < 0.0


@pytest.mark.parametrize(
    ("traits", "policy"),
    [
        ({"hedge_safe": False}, {}),
        ({"idempotent": False}, {}),
        ({}, {"at_most_once": True}),
        ({}, {"hedge": 0.0}),
    ],
)
def test_what_must_not_be_asked_twice_is_not(service, chain_of, traits, policy):
    a = service(**traits)
    chain = warmed(chain_of(a.engine, **{"hedge": 0.95, **policy}))
    a.durations = [0.270]
    assert chain.call().attempts == 1


def test_a_call_that_says_it_is_not_idempotent_is_not_hedged(service, chain_of):
    a = service()
    chain = warmed(chain_of(a.engine, hedge=0.95))
    a.durations = [0.270]
    assert chain.call(idempotent=False).attempts == 1


def test_a_failure_before_the_cut_is_a_failure(engine, chain_of, clock):
    steps = ["x"] * (2 * QUANTILE_MIN_ANSWERS) + [Transient("down"), "back"]
    flaky = engine("a", *steps, takes_s=QUICK_S, idempotent=True, hedge_safe=True)
    chain = warmed(chain_of(flaky, hedge=0.95))
    answer = chain.call()
    assert (answer.attempts, len(clock.slept)) == (2, 1)


def test_a_timeout_of_its_own_before_the_cut_is_a_failure(engine, chain_of, clock):
    steps = ["x"] * (2 * QUANTILE_MIN_ANSWERS) + [AttemptTimeout("its own limit"), "back"]
    flaky = engine("a", *steps, takes_s=QUICK_S, idempotent=True, hedge_safe=True)
    chain = warmed(chain_of(flaky, hedge=0.95))
    flaky.takes_s = QUICK_S / 2
    answer = chain.call()
    assert (answer.attempts, len(clock.slept)) == (2, 1)


def test_a_call_cancelled_at_its_cut_is_not_asked_anew(service, chain_of, clock):
    a = service()
    chain = warmed(chain_of(a.engine, hedge=0.95))
    asked = a.asked

    def cancelled_meanwhile(call):
        call.cancel()
        a.durations = [0.270]
        return a.answer(call)

    a.engine.steps = [cancelled_meanwhile]
    call = Call(chain="chain", deadline=clock.monotonic() + 10, monotonic=clock.monotonic)
    with pytest.raises(Cancelled):
        chain.ask(call)
    assert a.asked == asked + 1


def test_what_was_cut_counts_with_its_hedge(service, chain_of):
    a, b = service("a"), service("b")
    chain = warmed(chain_of([a.engine, b.engine], hedge=0.95), 200)
    a.durations = [0.270]
    chain.call()
    times = chain.states[0].traffic.latency
    cut_s = 1.1 * QUICK_S
    assert times._newer.quantile(1.0) == pytest.approx(cut_s + QUICK_S, rel=0.05)


def test_streams_are_hedged_until_their_first_chunk(service, chain_of, clock, engine):
    durations = [QUICK_S] * (2 * QUANTILE_MIN_ANSWERS)

    def chunks(call):
        takes_s = durations.pop(0) if durations else QUICK_S
        if call.remaining() < takes_s:
            clock.advance(call.remaining())
            raise AttemptTimeout("no chunk", sent="yes")
        clock.advance(takes_s)
        yield "a"
        clock.advance(1.0)
        yield "b"

    streaming = engine("s", chunks, idempotent=True, hedge_safe=True, streaming=True)
    chain = chain_of(streaming, hedge=0.95)
    for _ in range(2 * QUANTILE_MIN_ANSWERS):
        list(chain.call(stream=True))
    durations.append(0.270)
    answer = chain.call(stream=True)
    assert (answer.attempts, list(answer)) == (2, ["a", "b"])


# --- the quantile -------------------------------------------------------------------------------


def test_a_quantile_is_not_believed_before_enough_answers():
    quantile = LatencyQuantile(0.95)
    for _ in range(QUANTILE_MIN_ANSWERS - 1):
        quantile.record(0.1)
    assert quantile.value_s is None
    quantile.record(0.1)
    assert quantile.value_s == pytest.approx(0.11, rel=0.02)


def test_a_quantile_follows_the_newest_answers():
    quantile = LatencyQuantile(0.95)
    for duration_s in [0.1] * 1000 + [0.4] * 1000:
        quantile.record(duration_s)
    assert quantile.value_s == pytest.approx(0.44, rel=0.02)


def test_a_quantile_counts_under_threads():
    quantile = LatencyQuantile(0.5)

    def record():
        for _ in range(200):
            quantile.record(0.05)

    threads = [threading.Thread(target=record) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert quantile._older.count + quantile._newer.count == 600  # 1000 were forgotten
