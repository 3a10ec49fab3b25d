"""Backoff: full jitter, the reserve for local tiers, and waits that end early."""

from __future__ import annotations

import random
import threading

import pytest

from om_plugins.core.clock import SystemClock
from om_plugins.policies.backoff import BackoffSleeper, full_jitter, reserve_s
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import Call
from tests.patience import HANG_S, cut_off, join, wait_until

CAPS = (1.0, 2.0, 4.0)


@pytest.mark.parametrize(("retry", "cap"), [(1, 1), (2, 2), (3, 4), (4, 4), (9, 4)])
def test_the_wait_is_a_random_share_of_the_retrys_cap(retry, cap):
    assert full_jitter(retry, CAPS, draw=lambda: 0.5) == cap / 2
    assert full_jitter(retry, CAPS, draw=lambda: 0.0) == 0


def test_waits_are_spread_over_the_whole_cap():
    draw = random.Random(1).random
    waits = [full_jitter(3, CAPS, draw=draw) for _ in range(2000)]
    assert min(waits) < 0.1
    assert max(waits) > 3.9
    assert sum(waits) / len(waits) == pytest.approx(2, abs=0.1)


def test_what_the_upstream_asked_for_is_the_least():
    assert full_jitter(1, CAPS, at_least_s=7, draw=lambda: 0.9) == 7
    assert full_jitter(1, CAPS, at_least_s=0.1, draw=lambda: 0.9) == 0.9


def test_without_caps_there_is_no_wait():
    assert full_jitter(1, ()) == 0


# --- the reserve ---


@pytest.mark.parametrize(
    ("timeout_s", "kept_s"), [(1, 0.05), (5, 0.25), (10, 0.25), (float("inf"), 0.25), (0, 0)]
)
def test_a_twentieth_is_kept_and_at_most_a_quarter_second(timeout_s, kept_s):
    assert reserve_s(timeout_s) == pytest.approx(kept_s)


# --- waiting ---


def in_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    return thread, results


def test_a_wait_lasts_as_long_as_it_should():
    with cut_off(0.05):
        assert BackoffSleeper(SystemClock()).sleep(0.05, Call())


def test_a_cancelled_call_is_woken():
    sleeper, call = BackoffSleeper(SystemClock()), Call()
    thread, results = in_thread(lambda: sleeper.sleep(HANG_S, call))
    wait_until(lambda: sleeper.waiting)
    call.cancel()
    join(thread)
    assert results == [False]
    assert not sleeper.waiting


def test_everybody_is_woken_at_the_end():
    sleeper = BackoffSleeper(SystemClock())
    waiting = [in_thread(lambda: sleeper.sleep(HANG_S, Call())) for _ in range(3)]
    wait_until(lambda: sleeper.waiting == 3)
    sleeper.wake_all()
    for thread, results in waiting:
        join(thread)
        assert results == [False]


def test_a_server_that_stops_is_noticed_in_the_middle_of_a_wait():
    stopping = threading.Event()
    sleeper = BackoffSleeper(SystemClock(), stopping.is_set)
    thread, results = in_thread(lambda: sleeper.sleep(HANG_S, Call()))
    wait_until(lambda: sleeper.waiting)
    stopping.set()
    join(thread)
    assert results == [False]


def test_a_clock_of_its_own_is_asked_to_sleep():
    clock = FakeClock()
    assert BackoffSleeper(clock).sleep(2.5, Call())
    assert clock.slept == [2.5]
    assert not BackoffSleeper(clock, lambda: True).sleep(2.5, Call())
