"""Choice among equals: whose turn it is, who is busy, who is quick, and who is left alone."""

from __future__ import annotations

import collections
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from om_plugins.chains.load_balancing import Ejection, EngineLoad, smooth_cycle
from om_plugins.errors import ChainExhausted, ConfigError, Transient
from om_plugins.types import EngineSpec, Health
from tests.patience import join


def answered_by(chain, calls):
    return collections.Counter(chain.call().engine for _ in range(calls))


def chain_with(weights, engine, chain_of, **policy):
    chain = chain_of(**policy)
    for name, weight in weights.items():
        chain.add(EngineSpec(engine(name), "chain", 1, weight))
    return chain


def test_equals_take_turns(engine, chain_of):
    chain = chain_of([engine("a"), engine("b"), engine("c")])
    assert [chain.call().engine for _ in range(6)] == ["a", "b", "c"] * 2


def test_the_turns_of_one_that_cannot_be_asked_go_to_all_others(engine, chain_of):
    chain = chain_of([engine(name) for name in "abcd"])
    chain.states[1].breaker.force("open")
    assert answered_by(chain, 120) == {"a": 40, "c": 40, "d": 40}


def test_turns_follow_the_weights_and_are_spread(engine, chain_of):
    chain = chain_with({"big": 3, "small": 1}, engine, chain_of)
    turns = [chain.call().engine for _ in range(8)]
    assert collections.Counter(turns) == {"big": 6, "small": 2}
    assert turns[:4] == ["big", "big", "small", "big"]


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_a_cycle_gives_each_its_exact_share(weights):
    cycle = collections.Counter(smooth_cycle(weights))
    shares = {i: weight / sum(weights) for i, weight in enumerate(weights)}
    assert {i: count / cycle.total() for i, count in cycle.items()} == pytest.approx(shares)


def test_odd_weights_are_met_within_a_thousandth():
    cycle = collections.Counter(smooth_cycle([1.0, 0.3333, 2.718281828]))
    assert cycle[0] / cycle.total() == pytest.approx(1 / 4.051581828, abs=0.001)


def test_in_order_asks_the_first_until_it_fails(engine, chain_of):
    chain = chain_of([engine("a", "x", Transient("down"), "x"), engine("b")], balance="in_order")
    assert [chain.call().engine for _ in range(3)] == ["a", "b", "a"]


def test_the_least_busy_is_asked(engine, chain_of):
    asked = []

    def nested(call):
        asked.append("a")
        if len(asked) == 1:  # while this call is at work, the next one goes elsewhere
            assert chain.call().engine == "b"
        return "from a"

    chain = chain_of([engine("a", nested), engine("b")], balance="least_in_flight")
    assert chain.call().engine == "a"
    assert asked == ["a"]
    assert [place.in_flight for place in chain.states] == [0, 0]


def test_the_quick_one_gets_most_calls(engine, chain_of, clock):
    chain = chain_of(
        [engine("slow", takes_s=0.2), engine("quick", takes_s=0.01)], balance="lowest_latency"
    )
    assert answered_by(chain, 100)["quick"] > 80


def test_of_two_that_are_drawn_the_quicker_one_is_asked_whoever_was_first(engine, chain_of, clock):
    chain = chain_of([engine("a"), engine("b")], balance="lowest_latency")
    a, b = chain.states
    now = clock.monotonic()
    a.traffic.load.record_answer(0.2, now)
    b.traffic.load.record_answer(0.1, now)
    assert {a.peers.order(now)[0].name for _ in range(20)} == {"b"}
    b.traffic.load.enter()
    b.traffic.load.enter()  # three times a tenth is more than a fifth
    assert {a.peers.order(now)[0].name for _ in range(20)} == {"a"}


def test_the_least_busy_is_so_by_its_weight(engine, chain_of, clock):
    chain = chain_with({"big": 4, "small": 1}, engine, chain_of, balance="least_in_flight")
    big, _small = chain.states
    for _ in range(2):
        big.traffic.load.enter()
    assert {big.peers.order(0.0)[0].name for _ in range(4)} == {"big"}
    for _ in range(2):
        big.traffic.load.enter()
    assert {big.peers.order(0.0)[0].name for _ in range(4)} == {"small"}


def test_an_engine_that_failed_a_crowd_is_found_out_and_used_again(engine, chain_of, clock):
    chain = chain_of([engine("a", takes_s=0.05), engine("b", takes_s=0.05)],
                     balance="lowest_latency", eject_after=0)  # fmt: skip
    a = chain.states[0]
    now = clock.monotonic()
    permit = a.breaker.permit
    for _ in range(64):  # all at work when it went down
        a.breaker.leave(permit, now, 0.001, failed=True)
        a.traffic.load.record_failure(0.001, now)
    clock.advance(11)
    answered_by(chain, 20)
    assert a.breaker.permit
    clock.advance(40)
    assert answered_by(chain, 40)["a"] > 5


def test_an_engine_that_fails_fast_does_not_look_quick(engine, chain_of, clock):
    chain = chain_of(
        [engine("broken", Transient("down")), engine("slow", takes_s=0.2)],
        balance="lowest_latency",
        eject_after=0,
        breaker_min_calls=10_000,
    )
    answered_by(chain, 100)
    broken, slow = (place.spec.engine for place in chain.states)
    assert broken.times < slow.times / 2


def test_a_slow_answer_is_forgiven_with_time(engine, chain_of, clock):
    chain = chain_of([engine("a", takes_s=2.0), engine("b")], balance="lowest_latency")
    while chain.call().engine != "a":
        pass
    (first,) = [place for place in chain.states if place.name == "a"]
    before = first.cost(clock.monotonic())
    clock.advance(30)
    assert first.cost(clock.monotonic()) < before / 10


# --- equals in trouble --------------------------------------------------------------------------


def test_an_equal_is_asked_before_the_same_engine_again_and_without_a_wait(engine, chain_of, clock):
    broken = engine("a", Transient("down"), idempotent=True)
    chain = chain_of([broken, engine("b")])
    answer = chain.call()
    assert (answer.engine, answer.attempts, answer.degraded) == ("b", 2, False)
    assert (broken.times, clock.slept) == (1, [])


def test_the_last_of_the_equals_is_retried(engine, chain_of, clock):
    a = engine("a", Transient("down"), idempotent=True)
    b = engine("b", Transient("down"), "back", idempotent=True)
    answer = chain_of([a, b]).call()
    assert (answer.payload, a.times, b.times, len(clock.slept)) == ("back", 1, 2, 1)


def test_when_no_equal_can_be_asked_the_same_engine_is_asked_again(engine, chain_of, clock):
    a = engine("a", Transient("down"), "back", idempotent=True)
    b = engine("b")
    chain = chain_of([a, b], engine("lower"))
    chain.states[1].breaker.force("open")
    answer = chain.call()
    assert (answer.engine, answer.attempts, answer.degraded) == ("a", 2, False)
    assert (b.times, len(clock.slept)) == (0, 1)


@pytest.mark.parametrize("why", ["cooling down", "full", "half-open"])
def test_an_equal_can_be_asked_unless_it_cools_or_is_full(engine, chain_of, clock, why):
    a, b = engine("a"), engine("b", max_concurrency=1)
    place = chain_of([a, b], breaker_min_calls=1).states[1]
    now = clock.monotonic()
    assert place.can_admit(now)
    if why == "cooling down":
        place.cooldown.begin("cooling down", 5, now)
    elif why == "full":
        place.traffic.enter(0.0)
    else:
        place.breaker.leave(place.breaker.permit, now, 0.1, failed=True)
    assert not place.can_admit(now)
    if why == "full":
        place.traffic.leave()
    assert place.can_admit(now + 11)


def test_one_that_fails_five_times_in_a_row_is_asked_last_for_a_while(engine, chain_of, clock):
    broken = engine("a", Transient("down"))
    chain = chain_of([broken, engine("b"), engine("c")], breaker_min_calls=10_000)
    answered_by(chain, 20)
    assert broken.times == 5
    assert chain.health()[0].state is Health.DEGRADED
    clock.advance(31)
    answered_by(chain, 3)
    assert broken.times == 6


def test_each_ejection_takes_longer(engine, chain_of, clock):
    broken = engine("a", Transient("down"))
    chain = chain_of([broken, engine("b"), engine("c")], breaker_min_calls=10_000)
    answered_by(chain, 20)
    clock.advance(31)
    answered_by(chain, 20)
    assert broken.times == 6  # one failure more, and the row goes on
    clock.advance(31)
    answered_by(chain, 20)
    assert broken.times == 6
    clock.advance(31)
    answered_by(chain, 3)
    assert broken.times == 7


def test_ejections_grow_to_five_minutes_and_are_forgiven_after_ten():
    ejection, now, waits = Ejection(), 0.0, []
    for _ in range(12):
        ejection.begin(now)
        waits.append(ejection.until - now)
        now = ejection.until + 599
    assert waits == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]
    ejection.begin(now + 2)
    assert ejection.until - now == 32


def test_a_rate_of_few_calls_makes_no_outlier(engine, chain_of, clock):
    chain = chain_of(
        [engine("a", *[Transient("down")] * 19, "fine"), engine("b")],
        breaker_failure_rate=1.0, breaker_min_calls=100, eject_after=1000,
    )  # fmt: skip
    answered_by(chain, 36)
    assert chain.states[0].breaker.view(clock.monotonic()).calls == 18
    assert not clock.monotonic() < chain.states[0].ejection.until


def test_calls_that_fail_at_the_same_moment_eject_once(engine, chain_of, clock):
    chain = chain_of([engine(name) for name in "abcd"])
    (place, *_), now = chain.states, clock.monotonic()

    class Late:
        """Lets another call of the engine fail between the look and the lock."""

        def __enter__(self):
            place.peers._lock = threading.Lock()
            place.peers.record_failure(place, 5, now)

        def __exit__(self, *_):
            pass

    place.peers._lock = Late()
    place.peers.record_failure(place, 5, now)
    assert (place.ejection.times, place.ejection.until) == (1, now + 30)


def test_never_more_than_half_of_a_tier_is_ejected(engine, chain_of):
    engines = [engine(name, Transient("down")) for name in "abcd"]
    chain = chain_of(engines, engine("local", local=True), breaker_min_calls=10_000)
    answered_by(chain, 40)
    now = chain.states[0]._clock.monotonic()
    assert sum(now < place.ejection.until for place in chain.states) == 2


def test_an_ejected_engine_is_still_asked_when_the_others_fail(engine, chain_of, clock):
    a = engine("a", *[Transient("down")] * 5, "a is back")
    b = engine("b", *["fine"] * 5, Transient("down"))
    chain = chain_of([a, b], breaker_min_calls=10_000, balance="in_order")
    answered_by(chain, 5)
    assert clock.monotonic() < chain.states[0].ejection.until
    assert chain.call().payload == "a is back"


def test_when_most_are_shut_ejection_is_forgotten(engine, chain_of, clock):
    engines = {name: engine(name) for name in "abcd"}
    chain = chain_of(list(engines.values()))
    now = clock.monotonic()
    chain.states[0].ejection.begin(now)
    for place in chain.states[1:3]:
        place.cooldown.begin("cooling down", 60, now)
    assert chain.states[0].peers.order(now)[0].name == "a"


def test_one_that_fails_far_more_often_than_its_equals_is_ejected(engine, chain_of, clock):
    half = [Transient("down"), "fine"] * 30
    chain = chain_of(
        [engine("a", *half), engine("b")],
        breaker_failure_rate=0.9,
        eject_after=1000,
    )
    answered_by(chain, 60)
    assert clock.monotonic() < chain.states[0].ejection.until


def test_without_ejection_all_keep_their_turns(engine, chain_of):
    broken = engine("a", Transient("down"))
    chain = chain_of([broken, engine("b")], eject_after=0, breaker_min_calls=10_000)
    answered_by(chain, 20)
    assert broken.times == 10


def test_a_tier_that_fails_as_a_whole_falls_to_the_next(engine, chain_of):
    chain = chain_of([engine("a", ValueError()), engine("b", ValueError())], engine("c"))
    answer = chain.call()
    assert (answer.engine, answer.tier, answer.attempts, answer.degraded) == ("c", 2, 3, True)


def test_exhaustion_names_all_equals(engine, chain_of):
    with pytest.raises(ChainExhausted, match="a: ValueError, b: ValueError"):
        chain_of([engine("a", ValueError()), engine("b", ValueError())]).call()


def test_a_weight_that_is_none_is_refused(engine, chain_of):
    chain = chain_of(engine("a"))
    for weight in (0, -1.0, float("nan"), float("inf"), "x"):
        with pytest.raises(ConfigError, match="weight of engine 'b'"):
            chain.add(EngineSpec(engine("b"), "chain", 1, weight))
    with pytest.raises(ConfigError, match="max_concurrency of engine 'b'"):
        chain.add(EngineSpec(engine("b", max_concurrency=-1), "chain", 1))
    assert [spec.engine.name for spec in chain.engines] == ["a"]


def test_a_probing_turn_reaches_an_engine_whose_breaker_is_half_open(engine, chain_of, clock):
    a = engine("a", *[Transient("down")] * 10, "back")
    chain = chain_of([a, engine("b")], eject_after=0)
    answered_by(chain, 20)
    assert not chain.states[0].breaker.permit
    clock.advance(11)
    assert answered_by(chain, 4)["a"] >= 1
    assert chain.states[0].breaker.permit


# --- load -----------------------------------------------------------------------------------------


def test_a_stream_collected_while_a_call_is_counted_does_not_wait_for_itself():
    load = EngineLoad()
    load.enter()

    def collected_in_the_middle():
        with load._lock:
            load.leave()

    thread = threading.Thread(target=collected_in_the_middle, daemon=True)
    thread.start()
    join(thread)
    assert not thread.is_alive()
    assert load.in_flight == 0


def test_what_began_in_the_parent_does_not_end_in_the_child():
    load = EngineLoad()
    load.enter()
    load.after_fork()
    load.leave()
    assert load.in_flight == 0
    load.enter()
    assert load.cost(0.0) > 0


def test_failures_in_a_row_begin_anew_with_an_answer():
    load = EngineLoad()
    assert [load.record_failure(0.1, 0.0), load.record_failure(0.1, 0.0)] == [1, 2]
    load.record_answer(0.1, 0.0)
    assert load.record_failure(0.1, 0.0) == 1


def test_a_slow_answer_counts_at_once_and_a_quick_one_little_by_little():
    load = EngineLoad()
    load.record_answer(0.1, 0.0)
    load.record_answer(2.0, 0.0)
    assert load.expected_s(0.0) == 2.0
    load.record_answer(0.1, 1.0)
    assert 1.5 < load.expected_s(1.0) < 2.0
    for second in range(2, 60):
        load.record_answer(0.1, float(second))
    assert load.expected_s(59.0) < 0.12


def test_each_failure_makes_an_engine_look_slower_and_a_quick_one_not_quick():
    load = EngineLoad()
    load.record_failure(0.001, 0.0)
    assert load.expected_s(0.0) == 1.0
    load.record_failure(0.001, 0.0)
    assert load.expected_s(0.0) == 2.0
    load.record_failure(9.0, 0.0)
    assert load.expected_s(0.0) == 9.0


def test_of_an_engine_that_has_not_answered_yet_one_call_finds_out():
    known, new = EngineLoad(), EngineLoad()
    known.record_answer(0.1, 0.0)
    assert new.cost(0.0) < known.cost(0.0)
    new.enter()
    assert new.cost(0.0) > known.cost(0.0)
    new.record_answer(0.01, 0.0)
    assert new.cost(0.0) < known.cost(0.0)


def test_failures_of_a_crowd_do_not_make_an_engine_slow_for_ever():
    load = EngineLoad()
    for _ in range(64):
        load.record_failure(0.001, 0.0)
    assert load.expected_s(0.0) == 5.0
    load.record_failure(9.0, 0.0)
    assert load.expected_s(0.0) == 9.0
