"""Health, as it is read from a breaker and a cooldown."""

from __future__ import annotations

from itertools import pairwise

import pytest

from om_plugins.policies.breaker import Breaker
from om_plugins.policies.cooldown import Cooldown
from om_plugins.policies.health import health_of
from om_plugins.types import Health


def breaker(fine: int = 0, failed: int = 0, slow: int = 0) -> Breaker:
    one = Breaker(failure_rate=0.5, slow_s=1, slow_rate=0.9, min_calls=10, cooldown_s=5)
    for count, duration_s, bad in ((fine, 0, False), (slow, 1, False), (failed, 0, True)):
        for _ in range(count):
            one.leave(one.permit, 0, duration_s, failed=bad)
    return one


def state(one: Breaker, cooldown: Cooldown | None = None, now: float = 0) -> Health:
    return health_of(one.view(now), cooldown or Cooldown(), now)


@pytest.mark.parametrize(
    ("counts", "health"),
    [
        ({}, Health.NO_DATA),
        ({"fine": 1}, Health.HEALTHY),
        ({"fine": 3, "failed": 6}, Health.HEALTHY),  # too few to judge
        ({"fine": 8, "failed": 2}, Health.HEALTHY),
        ({"fine": 15, "failed": 5}, Health.DEGRADED),
        ({"fine": 11, "slow": 9}, Health.DEGRADED),
        ({"fine": 12, "slow": 8}, Health.HEALTHY),
        ({"failed": 1}, Health.DEGRADED),  # too few to open the breaker, but none succeeded
        ({"fine": 1, "failed": 1}, Health.HEALTHY),
        ({"failed": 10}, Health.OFFLINE),
    ],
)
def test_rates_make_the_state(counts, health):
    assert state(breaker(**counts)) is health


def test_half_open_is_offline_until_the_probe_succeeds():
    one = breaker(failed=10)
    probe = one.enter(5)
    assert state(one, now=5) is Health.OFFLINE
    one.leave(probe, 5, 0)
    assert state(one, now=5) is Health.HEALTHY


def test_cooling_down_is_degraded_for_as_long_as_it_lasts():
    cooldown = Cooldown()
    cooldown.begin("cooling down", 3, now=1)
    assert state(breaker(fine=1), cooldown, now=2) is Health.DEGRADED
    assert state(breaker(fine=1), cooldown, now=4) is Health.HEALTHY


def test_waiting_for_an_operator_is_offline_until_a_probe_succeeds():
    cooldown = Cooldown()
    cooldown.begin("offline", 3, now=1)
    assert state(breaker(fine=1), cooldown, now=2) is Health.OFFLINE
    assert state(breaker(fine=1), cooldown, now=20) is Health.OFFLINE
    cooldown.succeeded()
    assert state(breaker(fine=1), cooldown, now=20) is Health.HEALTHY


def test_quiet_becomes_no_data():
    assert state(breaker(fine=5), now=100) is Health.NO_DATA


def test_degraded_is_left_only_below_a_lower_rate():
    one = breaker(fine=15, failed=5)
    seen = [state(one)]
    for _ in range(20):
        one.leave(one.permit, 0, 0)
        seen.append(state(one))
    assert seen[0] is Health.DEGRADED
    assert seen[-1] is Health.HEALTHY
    changes = [pair for pair in pairwise(seen) if pair[0] is not pair[1]]
    assert len(changes) == 1
    assert one.view(0).failure_rate < 0.15  # the rate that made it degraded is 0.25


def test_forced_open_is_offline_and_forced_closed_is_what_its_calls_say():
    one = breaker(fine=5)
    one.force("open")
    assert state(one) is Health.OFFLINE
    one.force("closed")
    one.leave(one.permit, 0, 0)
    assert state(one) is Health.HEALTHY


def test_without_calls_it_is_what_the_prober_says():
    one = breaker()
    one.note_probe(True, 0, 0)
    assert state(one) is Health.HEALTHY
    one.note_probe(False, 0, 0)
    assert state(one) is Health.DEGRADED
    one.note_probe(False, 0, 0)
    assert state(one) is Health.OFFLINE
    one.note_probe(True, 0, 0)
    assert state(one) is Health.HEALTHY
    one.note_probe(None, 0, 0)
    assert state(one) is Health.NO_DATA


def test_calls_that_succeed_go_before_a_prober_that_complains():
    one = breaker(fine=1, failed=2)
    for _ in range(3):
        one.note_probe(False, 0, 0)
    assert state(one) is Health.HEALTHY


def test_calls_that_fail_do_not_speak_against_a_prober_that_complains():
    one = breaker(failed=2)
    one.note_probe(False, 0, 0)
    assert state(one) is Health.DEGRADED


def test_a_prober_keeps_no_call_away():
    one = breaker()
    for _ in range(5):
        one.note_probe(False, 0, 0)
    assert one.permit


def test_open_and_found_well_is_degraded_until_a_call_or_a_second_look_says_more():
    one = breaker(failed=10)
    one.note_probe(True, 1, 1)
    assert state(one, now=1) is Health.DEGRADED
    one.note_probe(True, 31, 31)
    assert state(one, now=31) is Health.HEALTHY


def test_waiting_for_an_operator_is_offline_whatever_the_prober_says():
    one, cooldown = breaker(), Cooldown()
    cooldown.begin("offline", 3, now=0)
    one.note_probe(True, 0, 0)
    assert state(one, cooldown) is Health.OFFLINE
