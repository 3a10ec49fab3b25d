"""Cooldowns: patience that ends by itself, and an outage that ends with a probe."""

from __future__ import annotations

import threading

from om_plugins.policies.cooldown import Cooldown


def test_nothing_is_against_an_engine_at_first():
    assert Cooldown().until == 0.0


def test_patience_ends_by_itself_for_everybody():
    one = Cooldown()
    one.begin("cooling down", 5, now=100)
    assert one.refused(104.9)
    assert not one.refused(105)
    assert not one.refused(105)
    assert one.until == 0.0


def test_a_longer_patience_is_not_shortened():
    one = Cooldown()
    one.begin("cooling down", 60, now=0)
    one.begin("cooling down", 1, now=1)
    assert one.refused(59)


def test_a_success_meanwhile_does_not_end_patience():
    one = Cooldown()
    one.begin("cooling down", 60, now=0)
    one.succeeded()
    assert one.refused(1)


def test_an_offline_engine_is_probed_by_one_caller_of_many():
    one = Cooldown()
    one.begin("offline", 10, now=0)
    admitted = []
    ready = threading.Barrier(32)

    def caller() -> None:
        ready.wait()
        admitted.append(not one.refused(10))

    threads = [threading.Thread(target=caller) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 1


def test_an_offline_engine_is_back_when_its_probe_succeeds():
    one = Cooldown()
    one.begin("offline", 10, now=0)
    assert not one.refused(10)
    one.succeeded()
    assert one.until == 0.0


def test_a_probe_that_never_ends_is_followed_by_another():
    one = Cooldown()
    one.begin("offline", 10, now=0)
    assert not one.refused(10)
    assert one.refused(19)
    assert not one.refused(20)


def test_a_trial_that_says_nothing_lets_the_next_call_try():
    one = Cooldown()
    one.begin("offline", 10, now=0)
    one.release(5)  # a call that began before
    assert one.refused(9)
    assert not one.refused(10)
    assert one.refused(11)
    one.release(11)
    assert not one.refused(11)
    one.begin("offline", 10, now=12)
    one.release(12)  # the trial has failed already
    assert one.refused(13)


def test_a_wait_that_was_asked_for_is_not_released():
    one = Cooldown()
    one.begin("cooling down", 10, now=0)
    one.release(1)
    assert one.refused(2)


def test_offline_outlasts_patience():
    one = Cooldown()
    one.begin("offline", 10, now=0)
    one.begin("cooling down", 1, now=5)
    assert one.reason == "offline"
    assert one.refused(9)


def test_offline_follows_patience_at_once():
    one = Cooldown()
    one.begin("cooling down", 300, now=0)
    one.begin("offline", 10, now=0)
    assert (one.reason, one.until) == ("offline", 10)
