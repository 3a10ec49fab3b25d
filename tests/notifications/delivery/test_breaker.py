"""The breaker of a notifier: pauses that grow, and a state that workers share."""

from __future__ import annotations

import pytest

from om_plugins.notifications.delivery.breaker import PAUSES_S, DeliveryBreaker

DAY_S = 86_400.0


def longest():
    return 1.0


def test_each_failure_in_a_row_makes_the_pause_longer_up_to_a_minute():
    breaker = DeliveryBreaker()
    now, pauses = 1000.0, []
    for _ in range(12):
        breaker.open(now, "away", draw=longest)
        pauses.append(breaker.find_pause_s(now))
        now = breaker.retry_at
    assert pauses == [*PAUSES_S, 60.0, 60.0]
    assert (breaker.failures, breaker.since) == (12, 1000.0)


def test_an_outage_is_noticed_to_be_over_before_it_is_twice_as_long():
    breaker = DeliveryBreaker()
    now = 0.0
    for _ in range(40):
        breaker.open(now, "away", draw=longest)
        assert breaker.find_pause_s(now) <= now + 1.0
        now = breaker.retry_at


@pytest.mark.parametrize(
    ("asked_s", "pause_s"), [(None, 1.0), (0.0, 1.0), (0.2, 1.0), (2.0, 2.0), (7200.0, 7200.0)]
)
def test_the_pause_is_never_shorter_than_asked_for(asked_s, pause_s):
    breaker = DeliveryBreaker()
    breaker.open(50.0, "429", asked_s, draw=longest)
    assert breaker.find_pause_s(50.0) == pause_s


def test_a_success_closes_it_and_keeps_what_was_dropped():
    breaker = DeliveryBreaker()
    assert breaker.as_data() is None
    breaker.open(1.0, "away")
    breaker.count_drop("too old", 3)
    breaker.close()
    assert breaker.find_pause_s(1.0) == 0.0
    assert breaker.as_data() == DeliveryBreaker(dropped={"too old": 3}, waiting=0).as_data()


def test_another_worker_reads_the_same_state():
    breaker = DeliveryBreaker(waiting=4)
    breaker.open(100.0, "x" * 1000, 30.0)
    breaker.count_drop("refused")
    read = DeliveryBreaker.read(breaker.as_data(), DAY_S)
    assert read == breaker
    assert len(read.error) == 300


@pytest.mark.parametrize(
    "stored",
    [
        None, "x", [], {"failures": "many"}, {"failures": True}, {"failures": -1},
        {"failures": float("nan")}, {"retry_at": None, "dropped": 7}, {"dropped": {"odd": 1}},
    ],
)  # fmt: skip
def test_a_state_that_cannot_be_read_is_that_of_a_closed_breaker(stored):
    assert DeliveryBreaker.read(stored, DAY_S) == DeliveryBreaker()


def test_a_pause_is_never_longer_than_a_notification_waits():
    stored = DeliveryBreaker(failures=1, retry_at=1e12, pause_s=1e9).as_data()
    assert DeliveryBreaker.read(stored, DAY_S).find_pause_s(100.0) == DAY_S


def test_a_clock_that_is_set_back_makes_the_pause_no_longer():
    breaker = DeliveryBreaker()
    breaker.open(1_000_000.0, "away", draw=longest)
    assert breaker.find_pause_s(1_000_000.0 - 7200) == 1.0
