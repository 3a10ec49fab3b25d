from __future__ import annotations

import pytest

from om_plugins.policies.outage import Outage


def test_what_never_failed_is_there_and_what_failed_is_away():
    outage = Outage()
    assert not outage.down
    assert outage.record_failure(100.0)
    assert outage.down
    assert not outage.record_failure(100.5)  # it was away already
    outage.record_success(101.0)
    assert not outage.down


def test_one_caller_tries_each_half_second_where_a_try_costs_nothing():
    outage = Outage()
    outage.record_failure(100.0)
    assert not outage.claim_try(100.49)
    assert outage.claim_try(100.5)
    assert not outage.claim_try(100.5)  # somebody tries just now
    outage.record_failure(100.5)
    assert outage.claim_try(101.0)


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.01, 0.5), (0.5, 10.0), (5.0, 30.0)])
def test_trying_takes_a_twentieth_of_the_time_and_pauses_end(took_s, pause_s):
    outage = Outage()
    outage.record_failure(100.0, took_s)
    assert not outage.claim_try(100.0 + pause_s - 0.01)
    assert outage.claim_try(100.0 + pause_s)


def test_what_comes_and_goes_is_left_alone_for_longer_until_it_stays():
    outage, now, pauses = Outage(), 100.0, []
    for _ in range(8):
        outage.record_failure(now)
        pauses.append(outage.retry_at - now)
        outage.record_success(now := outage.retry_at)
        now += 9.0
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
    outage.record_failure(now + 1.1)
    assert outage.retry_at == now + 1.6
