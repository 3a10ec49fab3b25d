"""Engine health of all workers as one."""

from __future__ import annotations

import pytest

from om_plugins.types import EngineHealth, Health
from om_plugins.workers.engine_health import decode_health, encode_health, merge_health

OK, BAD, OFF, NONE = Health.HEALTHY, Health.DEGRADED, Health.OFFLINE, Health.NO_DATA


def health(state, samples=10, failure_rate=0.0, engine="e", tier=1, since=5.0, last_error=""):
    return EngineHealth(engine, "c", tier, state, failure_rate, 0.0, samples, since, last_error)


@pytest.mark.parametrize(
    ("states", "merged"),
    [
        ([OK, OK], OK),
        ([NONE, OK], OK),
        ([NONE, NONE], NONE),
        ([OK, BAD], BAD),
        ([OK, OK, OFF], BAD),
        ([OK, OFF], OFF),
        ([NONE, OFF], OFF),
        ([OFF, OFF, OK], OFF),
    ],
)
def test_the_state_is_that_of_most_workers_who_know(states, merged):
    (one,) = merge_health([[health(state)] for state in states])
    assert one.state is merged


def test_rates_are_weighed_by_samples():
    (one,) = merge_health(
        [[health(OK, 90, 0.0)], [health(BAD, 10, 0.5, since=9.0, last_error="OSError")]]
    )
    assert (one.samples, one.failure_rate, one.last_error) == (100, pytest.approx(0.05), "OSError")
    assert one.since == 9.0


def test_engines_stay_in_the_order_of_their_tiers():
    worker = [health(OK, engine="z"), health(OK, engine="a"), health(OK, engine="m", tier=2)]
    assert [h.engine for h in merge_health([worker, worker])] == ["z", "a", "m"]


def test_health_passes_through_the_hub():
    worker = [health(OK), health(OFF, engine="f", tier=2, last_error="Transient")]
    assert decode_health(encode_health(worker)) == worker


def test_what_operators_and_probers_did_is_told_of_any_worker():
    forced, probed = health(OFF), health(OK)
    forced.forced, forced.ejected, forced.probed_at = "open", True, 3.0
    probed.probed_at = 9.0
    assert decode_health(encode_health([forced])) == [forced]
    (one,) = merge_health([[health(OK)], [forced], [probed]])
    assert (one.forced, one.ejected, one.probed_at) == ("open", True, 9.0)


def test_workers_of_an_earlier_version_are_understood_and_understand():
    """During a deployment both serve: what one does not know is left out, not refused."""
    (told,) = encode_health([health(OK)])
    for name in ("forced", "ejected", "probed_at"):
        del told[name]
    assert decode_health([told]) == [health(OK)]
    assert decode_health([{**told, "of_a_later_version": 1}]) == [health(OK)]


@pytest.mark.parametrize(
    "hostile",
    [
        None,
        [1],
        [{}],
        [{**encode_health([health(OK)])[0], "state": "fine"}],
        [{**encode_health([health(OK)])[0], "forced": "shut"}],
    ],
)
def test_what_is_no_health_is_refused(hostile):
    with pytest.raises(ValueError):
        decode_health(hostile)
