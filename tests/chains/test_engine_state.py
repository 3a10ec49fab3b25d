"""The state of one engine: its health over time, and what lasts while settings change."""

from __future__ import annotations

import pytest

from om_plugins.chains.health_checks import probe_call
from om_plugins.chains.options import EngineOptions
from om_plugins.errors import ChainExhausted, NoAnswer, Transient
from om_plugins.types import Health


def test_the_snapshot_tells_what_operators_and_probers_did(engine, chain_of, clock):
    chain = chain_of([engine("a"), engine("b")])
    a, b = chain.states
    before = chain.health()[0]
    assert (before.forced, before.ejected, before.probed_at) == ("", False, None)
    now = clock.monotonic()
    a.breaker.force("open")
    b.ejection.begin(now)
    b.breaker.note_probe(True, now, now)
    clock.advance(7)
    first, second = chain.health()
    assert (first.forced, first.ejected) == ("open", False)
    assert (second.forced, second.ejected) == ("", True)
    assert second.probed_at == clock.time() - 7


def test_since_is_when_the_health_last_changed_and_not_when_it_was_last_read(
    engine, chain_of, clock
):
    chain = chain_of(engine("a", Transient(), "fine"), retries=0, breaker_min_calls=1)
    made_at = clock.time()
    clock.advance(5)
    (health,) = chain.health()
    assert (health.state, health.since) == (Health.NO_DATA, made_at)
    with pytest.raises(ChainExhausted):
        chain.call()
    opened_at = clock.time()
    for _ in range(3):
        clock.advance(2)
        (health,) = chain.health()
        assert (health.state, health.since) == (Health.OFFLINE, opened_at)
    clock.advance(10)
    assert chain.call().payload == "fine"
    closed_at = clock.time()
    clock.advance(1)
    (health,) = chain.health()
    assert (health.state, health.since) == (Health.HEALTHY, closed_at)


def test_new_settings_make_a_new_state_that_shares_what_is_counted(engine, chain_of):
    chain = chain_of([engine("a", max_concurrency=2), engine("b")])
    before = chain.states[0]
    chain.configure(options={"a": EngineOptions(weight=3.0, max_concurrency=5)})
    after = chain.states[0]
    assert after is not before
    assert (before.weight, after.weight) == (1.0, 3.0)
    assert after.breaker is before.breaker
    assert after.cooldown is before.cooldown
    assert after.health is before.health
    assert after.traffic.load is before.traffic.load
    assert after.traffic.bulkhead is before.traffic.bulkhead


def test_a_probe_that_repeats_a_call_reads_the_first_chunk(engine, chain_of, clock):
    """An engine that yields has not run before somebody reads."""

    def broken(call):
        raise Transient("the model is away")
        yield

    for script, well in ((broken, False), (lambda call: iter(["one", "two"]), True)):
        chain = chain_of(engine("a", script, streaming=True))
        (state,) = chain.states
        state.breaker.force("open")
        state.breaker.force(None)
        call = probe_call(state, clock, 3.0)
        if well:
            state.probe(call, state.ask)
        else:
            with pytest.raises(Transient):
                state.probe(call, state.ask)


@pytest.mark.parametrize("result", [None, (one for one in "ab")])
def test_a_probe_that_repeats_a_call_refuses_what_is_no_answer(engine, chain_of, clock, result):
    (state,) = chain_of(engine("a", lambda call: result)).states
    with pytest.raises(NoAnswer, match="engine 'a' returned"):
        state.probe(probe_call(state, clock, 3.0), state.ask)
