"""The chain: tiers, retries, deadlines, and what the answer says of how it came about."""

from __future__ import annotations

import functools
import gc
import threading
import weakref
from datetime import timedelta

import pytest

from om_plugins import signals
from om_plugins.builtin.engines.static import StaticEngine
from om_plugins.chains.chain import EngineChain
from om_plugins.chains.options import ChainPolicy, EngineOptions
from om_plugins.errors import (
    AttemptTimeout,
    CallerDeadline,
    Cancelled,
    ChainExhausted,
    ConfigError,
    EngineUnavailable,
    InvalidRequest,
    RateLimited,
    TooLong,
    Transient,
    Unsupported,
)
from om_plugins.policies.registry import BreakerRegistry
from om_plugins.recovery.counted_errors import find_engine_error, find_skip_reason
from om_plugins.types import Answer, Call, EngineSpec, EngineTraits


def test_the_first_engine_answers_and_the_answer_says_so(engine, chain_of, clock):
    one, two = engine("one", takes_s=0.5), engine("two")
    answer = chain_of(one, two).call({"q": 1})
    assert (answer.payload, answer.engine, answer.tier) == ("from one", "one", 1)
    assert (answer.attempts, answer.degraded, answer.stale) == (1, False, False)
    assert (list(answer.history), answer.elapsed_s) == ([], 0.5)
    assert two.times == 0


def test_an_unknown_argument_of_a_call_is_named_with_the_way_out(engine, chain_of):
    chain = chain_of(engine("one"))
    with pytest.raises(TypeError, match=r"'question'; .* write call\(\{'question': …\}\)"):
        chain.call(question="x")
    with pytest.raises(TypeError, match="'timeout_s'; did you mean 'timeout'"):
        chain.call({}, timeout_s=3)


@pytest.mark.parametrize(
    ("timeout", "words"), [("3", "text is no number"), (timedelta(seconds=3), r"total_seconds\(\)")]
)
def test_a_timeout_that_is_no_number_is_named_with_the_way_out(engine, chain_of, timeout, words):
    with pytest.raises(ConfigError, match=rf"chain\.call\(timeout\) .*{words}"):
        chain_of(engine("one")).call({}, timeout=timeout)


def test_a_lower_tier_answers_when_the_first_fails(engine, chain_of):
    broken = engine("one", Transient("down", sent="no"))
    answer = chain_of(broken, engine("two"), retries=0).call()
    assert (answer.payload, answer.tier, answer.degraded) == ("from two", 2, True)
    assert answer.attempts == 2
    assert [record.as_dict()["error"] for record in answer.history] == ["Transient"]


def test_another_engine_of_the_same_tier_is_no_degradation(engine, chain_of):
    answer = chain_of([engine("one", ValueError()), engine("two")]).call()
    assert (answer.engine, answer.tier, answer.degraded) == ("two", 1, False)


def test_engines_are_asked_by_tier_whatever_the_order_they_came_in(engine, chain_of, clock):
    chain = EngineChain("c", ChainPolicy(), clock=clock)
    for name, tier in (("last", 3), ("first", 1), ("second", 1), ("middle", 2)):
        chain.add(EngineSpec(engine(name), "c", tier))
    assert [spec.engine.name for spec in chain.engines] == ["first", "second", "middle", "last"]


def test_an_engines_own_answer_is_completed_not_replaced(engine, chain_of):
    own = Answer({"a": 1}, status=206, stale=True, metadata={"model": "m"})
    answer = chain_of(engine("one", own)).call()
    assert answer is own
    assert (answer.engine, answer.status, answer.stale) == ("one", 206, True)
    assert answer.metadata == {"model": "m"}


def test_a_chain_without_engines_names_itself(chain_of):
    with pytest.raises(ConfigError, match="chain 'chain': has no engine"):
        chain_of().call()


def test_a_chain_whose_engines_are_all_switched_off_is_exhausted(engine):
    failures = []
    chain = EngineChain("chain", on_failure=lambda *args: failures.append(args))
    for name in ("one", "two"):
        chain.add(EngineSpec(engine(name), "chain"))
    off = EngineOptions(enabled=False)
    chain.configure(chain.policy, {"one": off, "two": off})
    with pytest.raises(ChainExhausted, match="one: switched off, two: switched off") as caught:
        chain.call()
    assert [one.skipped for one in caught.value.attempts] == [True, True]
    ((_, attempts),) = failures
    assert find_engine_error(attempts, 0.0) is find_skip_reason(attempts) is None, (
        "there is nothing to recover"
    )


def test_two_engines_of_one_name_are_refused(engine, chain_of):
    with pytest.raises(ConfigError, match=r"'one'.*already"):
        chain_of(engine("one"), engine("one"))


class NoName:
    traits = EngineTraits()

    def call(self, call):
        return 1


class NoTraits:
    name = "x"

    def call(self, call):
        return 1


class NoCall:
    name = "x"
    traits = EngineTraits()


class AsyncCall(NoCall):
    async def call(self, call):
        return 1


@pytest.mark.parametrize(
    ("thing", "needle"), [(NoName(), "name"), (NoTraits(), "traits"), (NoCall(), "call")]
)
def test_what_is_no_engine_is_refused_when_it_is_added(chain_of, thing, needle):
    with pytest.raises(ConfigError, match=f"must .*{needle}"):
        chain_of(thing)


def test_an_async_engine_is_refused_with_the_way_out(chain_of):
    with pytest.raises(TypeError, match="CallableEngine"):
        chain_of(AsyncCall())


class Sound:
    name = "x"
    traits = EngineTraits()

    def call(self, call):
        return 1


class TakesNothing(Sound):
    def call(self):
        return 1


class TakesTwo(Sound):
    def call(self, call, timeout):
        return 1


class ProbesNothing(Sound):
    def probe(self):
        return True


class ProbeIsNoMethod(Sound):
    probe = True


class AsyncProbe(Sound):
    async def probe(self, call):
        return True


class LearnsOne(Sound):
    def learn(self, answer):
        pass


class AttachesNothing(Sound):
    def attach(self):
        pass


class AsyncClose(Sound):
    async def close(self):
        pass


class YieldsCall(Sound):
    def call(self, call):
        yield 1


class YieldsProbe(Sound):
    def probe(self, call):
        yield True


class YieldsClose(Sound):
    def close(self):
        yield


class YieldsLearn(Sound):
    def learn(self, call, answer):
        yield


class AsyncObject:
    async def __call__(self, call):
        return 1


class CallIsAsyncObject(Sound):
    call = AsyncObject()


class ProbeIsAsyncPartial(Sound):
    probe = functools.partial(AsyncObject())


class AsyncGeneratorCall(Sound):
    traits = EngineTraits(streaming=True)

    async def call(self, call):
        yield 1


@pytest.mark.parametrize(
    ("thing", "method"),
    [
        (YieldsCall(), "call"),
        (YieldsProbe(), "probe"),
        (YieldsClose(), "close"),
        (YieldsLearn(), "learn"),
        (CallIsAsyncObject(), "call"),
        (ProbeIsAsyncPartial(), "probe"),
        (AsyncGeneratorCall(), "call"),
        (TakesNothing(), "call"),
        (TakesTwo(), "call"),
        (ProbesNothing(), "probe"),
        (ProbeIsNoMethod(), "probe"),
        (AsyncProbe(), "probe"),
        (LearnsOne(), "learn"),
        (AttachesNothing(), "attach"),
        (AsyncClose(), "close"),
    ],
)
def test_a_method_that_no_chain_can_call_is_refused(chain_of, thing, method):
    with pytest.raises(
        (ConfigError, TypeError), match=f"engine 'x': {method} .*(must|async|yield)"
    ):
        chain_of(thing)


def test_a_streaming_engine_may_yield(chain_of):
    class Yields(YieldsCall):
        traits = EngineTraits(streaming=True)

    assert chain_of(Yields()).call().payload == [1]


async def later():
    return {"answer": 1}


async def chunks():
    yield 1


NO_ANSWERS = {
    "forgotten return": lambda: None,
    "coroutine": later,
    "async generator": chunks,
    "generator": lambda: (one for one in "ab"),
    "awaitable": lambda: Awaited(),
}


class Awaited:
    def __await__(self):
        return iter(())


@pytest.mark.parametrize("made", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_no_answer_goes_to_the_next_tier(engine, chain_of, made, caplog):
    first = engine("one", lambda call: made())
    answer = chain_of(first, engine("two", {"answer": 2})).call()
    assert (answer.tier, answer.payload) == (2, {"answer": 2})
    assert "NoAnswer: engine 'one' returned" in caplog.text


@pytest.mark.parametrize("said", ["no", 1, 0, "yes", [], object()])
def test_whether_a_call_may_be_repeated_is_true_or_false(engine, chain_of, said):
    with pytest.raises(ConfigError, match=r"chain.call\(idempotent\).*must be True or False"):
        chain_of(engine("one")).call(idempotent=said)


def test_a_method_with_more_arguments_that_have_defaults_is_accepted(chain_of):
    class Lenient(Sound):
        def call(self, call, *, extra=1):
            return 1

        def probe(self, *args, **kwargs):
            return None

    assert chain_of(Lenient()).call().payload == 1


@pytest.mark.parametrize(
    ("trait", "value"),
    [
        ("idempotent", "yes"),
        ("local", 1),
        ("streaming", None),
        ("hedge_safe", "false"),
        ("max_concurrency", "3"),
        ("max_concurrency", True),
        ("max_concurrency", -1),
        ("max_concurrency", float("nan")),
        ("breaker_key", 3),
    ],
)
def test_a_trait_of_a_wrong_type_is_refused(engine, chain_of, trait, value):
    with pytest.raises(ConfigError, match=f"^{trait} of engine 'a' .*: must be"):
        chain_of(engine("a", **{trait: value}))


@pytest.mark.parametrize(
    ("thing", "way_out"),
    [
        (lambda call: 1, "@om.engine"),
        (StaticEngine, r"StaticEngine\(…\)"),
        (Sound, r"Sound\(…\)"),
        (len, "CallableEngine"),
        ("an engine", "method call"),
    ],
)
def test_what_is_taken_for_an_engine_says_what_to_write(chain_of, thing, way_out):
    with pytest.raises(ConfigError, match=way_out):
        chain_of(thing)


@pytest.mark.parametrize("weight", ["1", -1, float("nan"), True, None])
def test_a_weight_that_is_none_is_refused(engine, chain_of, weight):
    with pytest.raises(ConfigError, match="weight of engine 'a'"):
        chain_of(engine("b")).add(EngineSpec(engine("a"), "chain", 1, weight))


def test_a_spec_of_another_chain_or_no_tier_is_refused(engine, chain_of):
    chain = chain_of(engine("one"))
    with pytest.raises(ConfigError, match="another chain"):
        chain.add(EngineSpec(engine("two"), "other"))
    with pytest.raises(ConfigError, match="from 1"):
        chain.add(EngineSpec(engine("two"), "chain", 0))


@pytest.mark.parametrize("name", ["", "*", 5, None])
def test_what_is_no_name_of_a_chain_is_refused(engine, name):
    with pytest.raises(ConfigError, match="must be a name"):
        EngineChain(name).add(EngineSpec(engine("one"), name))


def test_an_idempotent_engine_is_retried_with_the_same_call(engine, chain_of, clock):
    flaky = engine("one", Transient("a"), Transient("b"), "fine", idempotent=True)
    answer = chain_of(flaky).call()
    assert (answer.payload, answer.attempts, answer.degraded) == ("fine", 3, False)
    assert [c["attempt"] for c in flaky.calls] == [1, 2, 3]
    assert len({c["id"] for c in flaky.calls}) == len({c["key"] for c in flaky.calls}) == 1
    assert len(clock.slept) == 2
    assert clock.slept[0] <= 1.0
    assert clock.slept[1] <= 2.0


def test_the_calls_own_word_on_idempotence_comes_before_the_trait(engine, chain_of):
    unsafe = engine("unsafe", Transient("x"))
    with pytest.raises(ChainExhausted):
        chain_of(unsafe).call(idempotent=True)
    assert unsafe.times == 4
    safe = engine("safe", Transient("x"), idempotent=True)
    with pytest.raises(ChainExhausted):
        chain_of(safe).call(idempotent=False)
    assert safe.times == 1


def test_a_wait_that_does_not_fit_the_deadline_is_not_begun(engine, chain_of, clock):
    patient = engine("one", Transient("x", retry_after=20), idempotent=True)
    answer = chain_of(patient, engine("two")).call(timeout=10)
    assert answer.engine == "two"
    assert clock.slept == []
    assert patient.times == 1


def test_a_retry_after_that_fits_is_waited_for(engine, chain_of, clock):
    limited = engine("one", RateLimited("x", retry_after=3), "fine")
    answer = chain_of(limited, engine("two")).call()
    assert (answer.payload, answer.attempts) == ("fine", 2)
    assert clock.slept == [3]


def test_a_rate_limited_engine_cools_down_and_its_breaker_does_not_count_it(
    engine, chain_of, clock
):
    limited = engine("one", RateLimited("x", retry_after=60), "fine")
    chain = chain_of(limited, engine("two"), breaker_min_calls=1)
    assert chain.call().engine == "two"
    answer = chain.call()
    assert answer.engine == "two"
    skipped = answer.history[0].error
    assert isinstance(skipped, EngineUnavailable)
    assert skipped.reason == "cooling down"
    assert skipped.retry_after == pytest.approx(60)
    assert limited.times == 1
    clock.advance(60)
    assert chain.call().engine == "one"


def test_an_invalid_request_ends_the_call_at_once(engine, chain_of):
    two = engine("two")
    wrong = InvalidRequest("no such field", status=422)
    with pytest.raises(InvalidRequest) as caught:
        chain_of(engine("one", wrong, idempotent=True), two).call()
    assert caught.value is wrong
    assert two.times == 0


def test_an_open_breaker_is_skipped_and_recorded(engine, chain_of, clock):
    broken = engine("one", ValueError("x"))
    chain = chain_of(broken, engine("two"), breaker_min_calls=3)
    for _ in range(10):
        answer = chain.call()
    assert broken.times == 3
    error = answer.history[0].error
    assert isinstance(error, EngineUnavailable)
    assert (error.reason, error.retry_after) == ("breaker open", 10)
    assert (answer.attempts, answer.history[0].skipped) == (1, True)


def test_an_open_breaker_skips_the_last_engine_too(engine, chain_of):
    chain = chain_of(engine("one", ValueError("x")), breaker_min_calls=1)
    with pytest.raises(ChainExhausted):
        chain.call()
    with pytest.raises(ChainExhausted) as caught:
        chain.call()
    assert caught.value.retry_after == 10
    assert [str(e) for e in caught.value.exceptions] == ["one: breaker open"]


def test_a_failure_that_opens_the_breaker_is_not_waited_upon(engine, chain_of, clock):
    broken = engine("one", Transient("x"), idempotent=True)
    answer = chain_of(broken, engine("two"), breaker_min_calls=2).call()
    assert (answer.engine, broken.times, len(clock.slept)) == ("two", 2, 1)


def test_an_engine_that_cools_down_keeps_no_probe_of_its_breaker(engine, chain_of, clock):
    one = engine("one", ValueError(), RateLimited("x", retry_after=30), "fine")
    chain = chain_of(one, engine("two"), breaker_min_calls=1, breaker_cooldown=10, retries=0)
    chain.call()
    clock.advance(10)
    chain.call()  # the probe: rate-limited
    clock.advance(29)
    assert str(chain.call().history[0].error) == "one: cooling down"
    clock.advance(1)
    assert chain.call().engine == "one"


def test_a_degraded_engine_is_still_asked(engine, chain_of):
    one = engine("one", ValueError("x"), "fine", "fine", ValueError("x"), "fine")
    chain = chain_of(one, engine("two"), breaker_min_calls=4, breaker_failure_rate=0.9)
    for _ in range(4):
        chain.call()
    assert chain.health()[0].state == "degraded"
    assert chain.call().engine == "one"


def test_exhaustion_holds_every_attempt_and_the_least_wait(engine, chain_of):
    with pytest.raises(ChainExhausted) as caught:
        chain_of(
            engine("one", Transient("x", retry_after=40)),
            engine("two", RateLimited("x", retry_after=30)),
            engine("three", TooLong("x")),
        ).call()
    group = caught.value
    assert (group.chain, group.retry_after) == ("chain", 30)
    assert [a.engine for a in group.attempts] == ["one", "two", "three"]
    assert [type(e) for e in group.exceptions] == [Transient, RateLimited, TooLong]
    assert not group.all_rate_limited


def test_a_chain_inside_a_chain_is_not_retried(engine, chain_of):
    inner = chain_of(engine("deep", Transient("x"), idempotent=True), name="inner", retries=2)
    outer = engine("outer", lambda call: inner.call(call.payload), idempotent=True)
    with pytest.raises(ChainExhausted):
        chain_of(outer).call()
    assert outer.times == 1


# --- at most once ---


def test_at_most_once_is_replayed_nowhere_once_it_may_have_been_sent(engine, chain_of):
    one = engine("one", Transient("x", sent="maybe"), idempotent=True)
    two, local = engine("two"), engine("local", local=True)
    answer = chain_of(one, two, local, at_most_once=True).call()
    assert (answer.engine, one.times, two.times) == ("local", 1, 0)
    assert [str(r.error) for r in answer.history] == ["x", "two: at most once"]


def test_at_most_once_goes_on_when_it_was_not_sent(engine, chain_of):
    one = engine("one", Transient("refused", sent="no"))
    answer = chain_of(one, engine("two"), at_most_once=True, retries=1).call()
    assert (answer.engine, one.times) == ("two", 2)


def test_at_most_once_goes_on_after_a_refusal(engine, chain_of):
    answer = chain_of(engine("one", Unsupported()), engine("two"), at_most_once=True).call()
    assert answer.engine == "two"


def test_at_most_once_without_a_local_tier_is_exhausted(engine, chain_of):
    with pytest.raises(ChainExhausted) as caught:
        chain_of(engine("one", KeyError("x")), engine("two"), at_most_once=True).call()
    assert [type(e) for e in caught.value.exceptions] == [KeyError, EngineUnavailable]


# --- time ---


def test_an_engine_before_a_local_one_leaves_it_a_slice_of_the_deadline(engine, chain_of):
    def hang(call):
        engine_clock.advance(call.remaining())
        call.raise_if_done()

    hanging = engine("one", hang, cancellable=True)
    engine_clock = hanging.clock
    local = engine("local", local=True)
    answer = chain_of(hanging, local).call(timeout=2)
    assert hanging.calls[0]["remaining"] == pytest.approx(1.9)
    assert local.calls[0]["remaining"] == pytest.approx(0.1)
    assert answer.elapsed_s == pytest.approx(1.9)


def test_without_a_local_tier_the_whole_deadline_is_the_engines(engine, chain_of):
    one = engine("one")
    chain_of(one, engine("two")).call(timeout=2)
    assert one.calls[0]["remaining"] == pytest.approx(2)


def test_the_attempt_timeout_bounds_each_attempt(engine, chain_of, clock):
    slow = engine("one", AttemptTimeout("x"), takes_s=1.5, idempotent=True)
    chain_of(slow, engine("two"), attempt_timeout=1.5, retries=1, delays=(0.0,)).call()
    assert [c["remaining"] for c in slow.calls] == pytest.approx([1.5, 1.5])


def test_a_deadline_that_passed_between_tiers_is_the_callers(engine, chain_of):
    two = engine("two")
    with pytest.raises(CallerDeadline) as caught:
        chain_of(engine("one", OSError("late"), takes_s=11), two).call()
    assert two.times == 0
    assert [type(a.error) for a in caught.value.attempts] == [OSError, EngineUnavailable]
    assert isinstance(caught.value.__cause__, ChainExhausted)


def test_a_local_engine_answers_even_after_another_overran_the_deadline(engine, chain_of):
    local = engine("local", local=True)
    answer = chain_of(engine("one", OSError("late"), takes_s=30), engine("two"), local).call()
    assert answer.engine == "local"
    assert local.calls[0]["remaining"] == pytest.approx(0.25)


def test_a_call_without_time_asks_nobody(engine, chain_of):
    one = engine("one")
    for timeout in (0, -1, float("nan")):
        with pytest.raises(CallerDeadline):
            chain_of(one).call(timeout=timeout)
    assert one.times == 0


def test_a_call_may_have_no_limit(engine, chain_of):
    one = engine("one")
    assert chain_of(one, engine("local", local=True)).call(timeout=float("inf")).engine == "one"
    assert one.calls[0]["remaining"] == float("inf")


def test_a_callers_haste_is_not_the_engines_failure(engine, chain_of, clock):
    def hang(call):
        clock.advance(call.remaining() + 0.001)
        raise AttemptTimeout("socket timed out")

    chain = chain_of(engine("one", hang), breaker_min_calls=1)
    with pytest.raises(CallerDeadline):
        chain.call(timeout=0.01)
    assert chain.health()[0].state == "no data"


def test_an_engine_that_hangs_for_its_fair_share_is_to_blame(engine, chain_of, clock):
    def hang(call):
        clock.advance(call.remaining() + 0.001)
        raise AttemptTimeout("socket timed out")

    for late in ((), (engine("local", local=True),)):
        chain = chain_of(engine("one", hang), *late, breaker_min_calls=1, timeout=2)
        if late:
            assert chain.call().engine == "local"
        else:
            with pytest.raises(CallerDeadline):
                chain.call()
        assert chain.health()[0].state == "offline"


# --- cancellation and BaseException ---


def test_a_cancelled_call_is_not_retried(engine, chain_of, clock):
    def give_up(call):
        call.cancel()
        raise Transient("socket closed")

    one, two = engine("one", give_up, idempotent=True), engine("two")
    with pytest.raises(Cancelled):
        chain_of(one, two).call()
    assert (one.times, two.times, clock.slept) == (1, 0, [])


def test_a_call_cancelled_beforehand_asks_nobody(engine, chain_of, clock):
    one = engine("one")
    call = Call(deadline=clock.monotonic() + 1, monotonic=clock.monotonic)
    call.cancel()
    with pytest.raises(Cancelled):
        chain_of(one).ask(call)
    assert one.times == 0


def test_a_prepared_call_is_asked_as_it_is(engine, chain_of, clock):
    call = Call("q", chain="chain", deadline=clock.monotonic() + 3, monotonic=clock.monotonic)
    one = engine("one", lambda call: call.payload)
    assert chain_of(one).ask(call).payload == "q"
    assert one.calls[0]["remaining"] == pytest.approx(3)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_base_exception_goes_through_and_its_permit_comes_back(engine, chain_of, clock, kind):
    one = engine("one", ValueError(), kind(), "fine")
    chain = chain_of(one, breaker_min_calls=1)
    with pytest.raises(ChainExhausted):
        chain.call()
    clock.advance(10)
    with pytest.raises(kind):
        chain.call()  # the half-open probe
    assert chain.call().payload == "fine"


def test_an_answer_after_failures_does_not_keep_their_frames_alive(engine, chain_of):
    class Big:
        pass

    def fail(call):
        nonlocal seen
        big = Big()
        seen = weakref.ref(big)
        raise ValueError

    seen = None
    gc.disable()
    try:
        answer = chain_of(engine("one", fail), engine("two")).call()
        assert answer.engine == "two"
        assert seen() is None
    finally:
        gc.enable()


# --- budget ---


def test_when_the_retry_budget_is_spent_the_next_tier_is_asked_at_once(engine, chain_of, clock):
    flaky = engine("one", Transient("x"), idempotent=True)
    chain = chain_of(
        flaky, engine("two"), retry_budget=0.0, retry_budget_floor=0.2, breaker_min_calls=1000
    )
    for _ in range(10):
        chain.call()
    assert flaky.times == 10 + 2


# --- signals ---


@pytest.mark.usefixtures("listening")
def test_signals_tell_what_happened(engine, chain_of, events):
    flaky = engine("one", Transient("x"), idempotent=True)
    chain_of(flaky, engine("two"), retries=1).call()
    assert [name for name, _ in events] == [
        "engine_health_changed",
        "engine_failed",
        "retry_scheduled",
        "engine_failed",
        "engine_health_changed",
        "engine_called",
        "engine_fell_back",
    ]
    fell_back = events[-1][1]
    assert (fell_back["chain"], fell_back["engine"], fell_back["tier"]) == ("chain", "two", 2)
    assert fell_back["attempts"] == 3
    assert len(fell_back["history"]) == 2


def test_nothing_is_told_when_nobody_listens(engine, chain_of, events):
    gc.collect()  # applications of earlier tests may listen until they are collected
    for signal in (signals.engine_failed, signals.engine_fell_back):
        assert not signal.receivers
    chain_of(engine("one", ValueError()), engine("two")).call()
    assert events == []


@pytest.mark.usefixtures("listening")
def test_health_changes_are_told_once_each(engine, chain_of, events, clock):
    one = engine("one", *["ok"] * 5, *[ValueError()] * 5, "ok")
    chain = chain_of(one, engine("two"), breaker_min_calls=4)
    for _ in range(12):
        chain.call()
    clock.advance(10)
    chain.call()
    changes = [
        (d["before"].value, d["after"].value)
        for name, d in events
        if name == "engine_health_changed" and d["engine"] == "one"
    ]
    assert changes == [
        ("no data", "healthy"),
        ("healthy", "degraded"),
        ("degraded", "offline"),
        ("offline", "healthy"),
    ]


# --- shared breakers, many threads, closing ---


def test_engines_with_one_breaker_key_share_a_breaker_over_chains(engine, chain_of):
    breakers = BreakerRegistry()
    options = {"breakers": breakers, "breaker_min_calls": 1}
    a = chain_of(engine("one", ValueError(), breaker_key="host"), name="a", **options)
    b = chain_of(engine("one", breaker_key="host"), engine("two"), name="b", **options)
    c = chain_of(engine("one"), name="c", **options)
    with pytest.raises(ChainExhausted):
        a.call()
    assert (b.call().engine, c.call().engine) == ("two", "one")


def test_counts_are_exact_under_threads():
    chain = EngineChain("c", ChainPolicy())
    chain.add(EngineSpec(StaticEngine("one", "x"), "c"))
    threads = [
        threading.Thread(target=lambda: [chain.call() for _ in range(500)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert chain.health()[0].samples == 4000


def test_no_thread_is_started(threads_begun):
    chain = EngineChain("c", ChainPolicy())
    chain.add(EngineSpec(StaticEngine("one", "x"), "c"))
    chain.call()
    assert threads_begun == []


def test_adding_an_engine_does_not_disturb_a_call_under_way(engine, chain_of):
    def add_then_fail(call):
        chain.add(EngineSpec(engine("late"), "chain", 2))
        raise ValueError

    chain = chain_of(engine("one", add_then_fail, "fine"))
    with pytest.raises(ChainExhausted):
        chain.call()
    assert [spec.engine.name for spec in chain.engines] == ["one", "late"]


def test_closing_the_chain_closes_every_engine_even_after_one_fails(engine, chain_of, caplog):
    one, two = engine("one"), engine("two")
    closed = []

    def fail():
        raise OSError("gone")

    one.close, two.close = fail, lambda: closed.append("two")
    chain_of(one, two, engine("three")).close()
    assert closed == ["two"]
    assert "engine 'one': close failed" in caplog.text


def test_a_chain_is_idempotent_when_every_engine_is(engine, chain_of):
    a, b = engine("a", idempotent=True), engine("b", idempotent=True)
    assert chain_of(a, b).idempotent
    assert not chain_of(engine("a", idempotent=True), engine("b")).idempotent
    assert not chain_of().idempotent


def test_a_local_engine_that_looks_at_its_time_has_some_after_an_overrun(engine, chain_of, clock):
    def looks(call):
        call.raise_if_done()
        return call.remaining()

    overruns = engine("one", Transient("late"), takes_s=20.0)
    answer = chain_of(overruns, engine("local", looks, local=True)).call(timeout=2.0)
    assert answer.payload == pytest.approx(0.1)


def test_what_is_at_work_stays_counted_when_settings_change(engine, chain_of):
    one = engine("one", lambda call: iter("xy"), streaming=True, max_concurrency=2)
    chain = chain_of([one, engine("two")])
    answer = chain.call(stream=True)
    bulkhead = chain.states[0].traffic.bulkhead
    chain.configure(ChainPolicy(timeout=3))
    assert chain.states[0].traffic.bulkhead is bulkhead
    assert (chain.states[0].in_flight, bulkhead.in_use) == (1, 1)
    answer.close()
    assert (chain.states[0].in_flight, bulkhead.in_use) == (0, 0)


def test_what_an_operator_forced_is_left_alone_by_other_changes(engine, chain_of, clock):
    chain = chain_of(engine("one"), engine("two"))
    chain.states[0].breaker.force("open")
    chain.configure(options={"one": EngineOptions(tier=3)})
    assert chain.states[1].breaker.view(clock.monotonic()).forced == "open"


def test_a_timeout_of_the_engines_own_is_a_failure_also_when_the_caller_is_in_a_hurry(
    engine, chain_of, clock
):
    chain = chain_of(engine("one", AttemptTimeout("its own limit"), takes_s=1.0), engine("two"))
    assert chain.call(timeout=2.0).engine == "two"
    assert chain.states[0].breaker.view(clock.monotonic()).failures == 1


def test_an_engine_that_is_refused_leaves_the_chain_as_it_was(engine, chain_of, clock):
    said = {"two": EngineOptions.from_mapping({"chaos": {"rate": 2}})}
    chain = EngineChain("c", options=said, clock=clock)
    chain.add(EngineSpec(engine("one"), "c"))
    with pytest.raises(ConfigError, match="rate 2"):
        chain.add(EngineSpec(engine("two"), "c", 2))
    assert [spec.engine.name for spec in chain.engines] == ["one"]
    chain.add(EngineSpec(engine("three"), "c", 3))
    assert chain.call().engine == "one"


def test_what_was_said_of_an_engine_yet_to_come_is_in_nobodys_way(engine, clock):
    said = {"later": EngineOptions.from_mapping({"tier": 9})}
    chain = EngineChain("c", options=said, clock=clock)
    chain.add(EngineSpec(engine("one"), "c"))
    chain.configure(ChainPolicy(timeout=3), {**said, "one": EngineOptions(tier=5)})
    assert chain.policy.timeout == 3
    with pytest.raises(ConfigError, match="'late'"):
        chain.configure(options={**said, "late": EngineOptions()})
    chain.add(EngineSpec(engine("later"), "c"))
    assert [place.tier for place in chain.states] == [5, 9]
