"""Pauses: waits that end early when nobody needs the rest of them."""

from __future__ import annotations

import threading
import time

from om_plugins.core.clock import SystemClock
from om_plugins.policies.backoff__pauses import Pauses
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import Call


def in_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    return thread, results


def test_a_pause_lasts_as_long_as_it_should():
    began = time.monotonic()
    assert Pauses(SystemClock()).pause(0.05, Call())
    assert time.monotonic() - began >= 0.05


def test_a_cancelled_call_is_woken():
    pauses, call = Pauses(SystemClock()), Call()
    thread, results = in_thread(lambda: pauses.pause(30, call))
    while not pauses._sleepers:
        time.sleep(0.001)
    call.cancel()
    thread.join(5)
    assert results == [False]
    assert not pauses._sleepers


def test_everybody_is_woken_at_the_end():
    pauses = Pauses(SystemClock())
    waiting = [in_thread(lambda: pauses.pause(30, Call())) for _ in range(3)]
    while len(pauses._sleepers) < 3:
        time.sleep(0.001)
    pauses.end()
    for thread, results in waiting:
        thread.join(5)
        assert results == [False]


def test_a_server_that_stops_is_noticed_within_a_quarter_of_a_second():
    stopping = threading.Event()
    pauses = Pauses(SystemClock(), stopping.is_set)
    thread, results = in_thread(lambda: pauses.pause(30, Call()))
    began = time.monotonic()
    stopping.set()
    thread.join(5)
    assert results == [False]
    assert time.monotonic() - began < 1.0


def test_a_clock_of_its_own_is_asked_to_sleep():
    clock = FakeClock()
    assert Pauses(clock).pause(2.5, Call())
    assert clock.slept == [2.5]
    assert not Pauses(clock, lambda: True).pause(2.5, Call())
