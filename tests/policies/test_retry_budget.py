"""The retry budget: a share of the calls, a floor, and a short memory."""

from __future__ import annotations

import threading

import pytest

from om_plugins.policies.retry_budget import RetryBudget


def drawn(budget: RetryBudget, now: float, tries: int = 1000) -> int:
    return sum(budget.withdraw(now) for _ in range(tries))


def test_ten_seconds_of_the_floor_are_there_at_the_start():
    assert drawn(RetryBudget(0.2, 1.0, now=0), 0) == 10


def test_one_call_in_five_may_be_retried():
    budget = RetryBudget(0.2, 0.0, now=0)
    for _ in range(100):
        budget.deposit()
    assert drawn(budget, 0) == 20
    assert not budget.withdraw(0)


def test_the_floor_comes_back_with_time():
    budget = RetryBudget(0.0, 1.0, now=0)
    drawn(budget, 0)
    assert drawn(budget, 0.5) == 0
    assert drawn(budget, 3.5) in (2, 3)


def test_savings_are_forgotten():
    budget = RetryBudget(0.2, 0.0, now=0)
    for _ in range(1000):
        budget.deposit()
    assert budget.balance(0) == pytest.approx(200)
    assert budget.balance(10) == pytest.approx(200 / 2.718, rel=0.01)
    assert budget.balance(1000) < 1


def test_a_steady_load_settles_at_ten_seconds_of_deposits():
    budget = RetryBudget(0.2, 1.0, now=0)
    for second in range(1, 61):
        for _ in range(50):
            budget.deposit()
        budget.balance(second)
    assert budget.balance(60) == pytest.approx(10 * (0.2 * 50 + 1), rel=0.1)


def test_a_clock_read_earlier_by_another_thread_does_no_harm():
    budget = RetryBudget(0.0, 1.0, now=100)
    assert budget.withdraw(99)
    assert budget.balance(100) == pytest.approx(9)


def test_no_budget_allows_no_retry():
    budget = RetryBudget(0.0, 0.0, now=0)
    budget.deposit()
    assert not budget.withdraw(1e6)


def test_threads_never_draw_more_than_there_is():
    budget = RetryBudget(0.2, 0.0, now=0)
    got = []

    def caller() -> None:
        for _ in range(500):
            budget.deposit()
            got.append(budget.withdraw(0))

    threads = [threading.Thread(target=caller) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got) == pytest.approx(800, abs=1)


def test_what_is_owed_is_paid_before_the_next_retry():
    budget = RetryBudget(0.0, 1.0, now=0)
    drawn(budget, 0)
    budget.charge(0)
    budget.charge(0)
    assert budget.balance(0) == pytest.approx(-2.0)
    assert drawn(budget, 1.0) == 0
    assert drawn(budget, 5.0) in (1, 2)
