"""Chaos: the share of hits, each kind of harm, and that it can be switched."""

from __future__ import annotations

import time

import pytest

from om_plugins import errors
from om_plugins.builtin.engines.faults import ERRORS, Chaos, ChaosOptions
from om_plugins.errors import AttemptTimeout, Cancelled, ConfigError, Transient
from om_plugins.testing import FakeClock
from om_plugins.types import Answer, Call


def chaos(ask=lambda call: {"answer": "fine"}, *, clock=None, **options):
    options = ChaosOptions.from_mapping({"rate": 1, "seed": 1, **options})
    return Chaos(ask, options, clock=clock or FakeClock(), name="up")


def outcomes(wrapped, number=200):
    seen = []
    for _ in range(number):
        try:
            wrapped(Call())
            seen.append(True)
        except Transient:
            seen.append(False)
    return seen


def test_the_rate_is_the_share_of_calls_that_are_hit():
    wrapped = chaos(rate=0.3, error="Transient")
    failed = outcomes(wrapped, 2000).count(False)
    assert 500 < failed < 700
    assert wrapped.stats() == {"calls": 2000, "latency": 0, "hang": 0, "error": failed, "garble": 0}


def test_a_seed_makes_the_same_hits_again():
    one, same, other = (chaos(rate=0.5, error="Transient", seed=seed) for seed in (7, 7, 8))
    seen = outcomes(one)
    assert outcomes(same) == seen
    assert outcomes(other) != seen


def test_without_a_seed_it_is_by_chance():
    options = ChaosOptions(rate=0.5, error="Transient")
    assert outcomes(Chaos(lambda call: 1, options)) != outcomes(Chaos(lambda call: 1, options))


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_is_raised_with_what_it_says_of_itself(name):
    kind = getattr(errors, name, RuntimeError)
    with pytest.raises(kind) as raised:
        chaos(error=name, sent="no", retry_after=3)(Call())
    if kind is not RuntimeError:
        assert (raised.value.sent, raised.value.retry_after) == ("no", 3)


def test_latency_comes_before_the_engine_is_asked():
    clock = FakeClock()
    asked_at = []
    wrapped = chaos(lambda call: asked_at.append(clock.monotonic()), clock=clock, latency=0.25)
    began = clock.monotonic()
    wrapped(Call(monotonic=clock.monotonic))
    assert asked_at == [pytest.approx(began + 0.25)]


@pytest.mark.parametrize("kind", ["latency", "hang"])
def test_a_wait_ends_with_the_attempt(kind):
    clock = FakeClock()
    call = Call(monotonic=clock.monotonic, deadline=clock.monotonic() + 9)
    call.attempt_deadline = clock.monotonic() + 2
    began = clock.monotonic()
    with pytest.raises(AttemptTimeout):
        chaos(clock=clock, **{kind: 60})(call)
    assert clock.monotonic() - began == pytest.approx(2)


def test_a_hang_is_never_answered():
    clock = FakeClock()
    asked = []
    with pytest.raises(AttemptTimeout, match="hung"):
        chaos(asked.append, clock=clock, hang=1)(Call(monotonic=clock.monotonic))
    assert asked == []


def test_a_cancelled_call_does_not_wait_to_the_end():
    clock = FakeClock()
    call = Call(monotonic=clock.monotonic)
    sleep = clock.sleep
    clock.sleep = lambda seconds: (sleep(seconds), call.cancel())
    with pytest.raises(Cancelled):
        chaos(clock=clock, latency=60)(call)
    assert len(clock.slept) == 1


@pytest.mark.parametrize(
    ("how", "payload", "spoiled"),
    [
        ("truncated", {"answer": "fine"}, '{"answer'),
        ("truncated", "a text", "a t"),
        ("truncated", b"bytes!", b"byt"),
        ("truncated", object(), "{"),
        ("type", {"answer": "fine"}, []),
        ("type", [1], {}),
        ("empty", {"answer": "fine"}, None),
    ],
)
def test_an_answer_is_spoiled(how, payload, spoiled):
    result = chaos(lambda call: payload, garble=how)(Call())
    if spoiled is None:  # None alone would be a failure of the engine
        result = result.payload
    assert result == spoiled
    answer = chaos(lambda call: Answer(payload, status=201), garble=how)(Call())
    assert (answer.payload, answer.status) == (spoiled, 201)


def test_a_stream_breaks_off_and_its_upstream_is_closed():
    closed = []

    def chunks():
        try:
            yield "first"
            yield "second"
        finally:
            closed.append(True)

    for result in (chunks, lambda: Answer(chunks=chunks())):
        closed.clear()
        seen = []
        with pytest.raises(Transient, match="broke off"):
            for chunk in chaos(lambda call, result=result: result(), garble="truncated")(Call()):
                seen.append(chunk)
        assert seen == ["fi"]
        assert closed
    assert list(chaos(lambda call: chunks(), garble="empty")(Call())) == []


def test_of_several_kinds_each_hit_gets_one():
    wrapped = chaos(error="Transient", garble="empty", latency=0.01)
    outcomes(wrapped, 300)
    stats = wrapped.stats()
    assert min(stats["error"], stats["garble"], stats["latency"]) > 50
    assert stats["error"] + stats["garble"] + stats["latency"] == stats["calls"] == 300


def test_it_can_be_switched_while_it_runs():
    wrapped = chaos(error="Transient", active=False)
    assert wrapped(Call()) == {"answer": "fine"}
    wrapped.active = True
    with pytest.raises(Transient):
        wrapped(Call())
    assert wrapped.stats()["calls"] == 1


def test_a_real_clock_is_used_when_none_is_given():
    began = time.monotonic()
    Chaos(lambda call: 1, ChaosOptions(rate=1, latency=0.02))(Call())
    assert time.monotonic() - began >= 0.02


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 2},
        {"error": "Transistor"},
        {"garble": "loud"},
        {"latncy_s": 1},
        {"sent": "perhaps"},
    ],
)
def test_a_wrong_option_is_a_config_error(options):
    with pytest.raises(ConfigError):
        ChaosOptions.from_mapping(options)
