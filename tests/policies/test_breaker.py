"""The breaker: a sliding window, one probe, and permits that always come back."""

from __future__ import annotations

import threading

import pytest

from om_plugins.policies.breaker import Breaker


def breaker(**options: object) -> Breaker:
    settings: dict = {"failure_rate": 0.5, "min_calls": 4, "window_s": 10, "cooldown_s": 5}
    return Breaker(**{**settings, "slow_s": 1.0, **options})


def run(one: Breaker, now: float, failed: bool = False, duration_s: float = 0.0) -> bool:
    permit = one.permit or one.enter(now)
    if permit:
        one.leave(permit, now, duration_s, failed=failed)
    return bool(permit)


def opened(now: float = 0.0, **options: object) -> Breaker:
    one = breaker(min_calls=1, **options)
    run(one, now, failed=True)
    assert one.view(now).state == "open"
    return one


def test_it_stays_closed_below_the_minimum_of_calls():
    one = breaker()
    for _ in range(3):
        run(one, 0, failed=True)
    assert one.view(0).state == "closed"
    run(one, 0, failed=True)
    assert one.view(0).state == "open"


def test_it_opens_at_the_failure_rate_and_not_below():
    one = breaker(min_calls=10)
    for failed in [False] * 6 + [True] * 5:
        run(one, 0, failed=failed)
    assert one.view(0).state == "closed"
    assert one.view(0).failure_rate == pytest.approx(5 / 11)
    run(one, 0, failed=True)
    assert one.view(0).state == "open"


def test_a_success_never_opens_it():
    one = breaker(min_calls=4)
    for failed in (True, True, True, False):
        run(one, 0, failed=failed)
    assert one.view(0).state == "closed"


def test_slow_calls_open_it_although_they_succeed():
    one = breaker(slow_rate=0.75)
    for duration_s in (0.1, 1.0, 2.0, 3.0):
        run(one, 0, duration_s=duration_s)
    assert one.view(0).state == "open"


def test_what_is_older_than_the_window_is_forgotten():
    one = breaker()
    for now in (0, 1, 2):
        run(one, now, failed=True)
    assert one.view(2).failures == 3
    assert one.view(9.9).failures == 3
    assert one.view(10.5).failures == 2
    assert one.view(12.5).calls == 0
    run(one, 12.5, failed=True)
    assert one.view(12.5).state == "closed"


def test_a_long_silence_forgets_everything():
    one = breaker()
    for _ in range(3):
        run(one, 0, failed=True)
    assert one.view(1e6).calls == 0


def test_open_it_refuses_until_the_cooldown_is_over():
    one = opened()
    assert not run(one, 4.9)
    assert one.view(4).retry_after_s == pytest.approx(1)
    assert run(one, 5.0)
    assert one.view(5).state == "closed"


def test_half_open_it_lets_one_probe_through():
    one = opened()
    probe = one.enter(5)
    assert probe
    assert (one.permit, one.enter(5), one.enter(9)) == (0, 0, 0)
    assert one.view(5).state == "half-open"
    one.leave(probe, 6, 0.1)
    assert one.permit


def test_a_failed_probe_opens_it_again():
    one = opened()
    one.leave(one.enter(5), 6, 0.1, failed=True)
    assert one.enter(10.9) == 0
    assert one.enter(11)


def test_a_slow_probe_opens_it_again():
    one = opened()
    one.leave(one.enter(5), 8, 3.0)
    assert one.view(8).state == "open"


def test_a_released_probe_lets_the_next_one_through_at_once():
    one = opened()
    one.release(one.enter(5), 5)
    assert one.enter(5)


def test_a_lost_probe_is_replaced_after_the_cooldown_and_may_still_close_it():
    one = opened()
    lost = one.enter(5)
    assert one.enter(9.9) == 0
    second = one.enter(10)
    assert second
    one.release(lost, 10)  # says nothing of the second
    assert one.enter(10) == 0
    one.leave(lost, 11, 0.1)
    assert one.permit
    one.leave(second, 12, 0.1, failed=True)  # of an earlier state: ignored
    assert one.permit


def test_a_call_from_before_it_opened_changes_nothing_when_it_ends_late():
    one = breaker(min_calls=1)
    early = one.permit
    run(one, 0, failed=True)
    one.leave(early, 1, 0.1)
    assert one.view(1).state == "open"
    probe = one.enter(5)
    one.leave(early, 5, 0.1, failed=True)
    one.release(early, 5)
    assert one.enter(5) == 0
    one.leave(probe, 5, 0.1)
    one.leave(early, 6, 0.1, failed=True)
    assert one.view(6).state == "closed"


def test_closing_begins_a_new_window_with_the_probe_in_it():
    one = opened()
    run(one, 5)
    view = one.view(5)
    assert (view.calls, view.failures, view.retry_after_s) == (1, 0, None)


def test_a_neutral_end_counts_nothing():
    one = breaker()
    one.release(one.permit, 0)
    assert one.view(0).calls == 0


def test_leave_tells_when_health_may_have_changed():
    one = breaker()
    assert one.leave(one.permit, 0, 0)  # the first of its bucket
    assert not one.leave(one.permit, 0, 0)
    assert one.leave(one.permit, 0, 0, failed=True)
    assert one.leave(one.permit, 1, 0)


def test_sixty_four_threads_at_a_half_open_breaker_send_one_probe():
    one = opened()
    ready = threading.Barrier(64)
    permits = []

    def caller() -> None:
        ready.wait()
        permits.append(one.permit or one.enter(5))

    threads = [threading.Thread(target=caller) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([p for p in permits if p]) == 1


def test_counts_are_exact_under_threads():
    one = Breaker(min_calls=10**9)

    def caller() -> None:
        for n in range(1000):
            one.leave(one.permit, n / 1000, 0.0, failed=n % 10 == 0)

    threads = [threading.Thread(target=caller) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    view = one.view(1)
    assert (view.calls, view.failures) == (8000, 800)
