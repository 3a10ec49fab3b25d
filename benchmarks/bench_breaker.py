"""Measures a breaker and a bulkhead, with one thread and with eight threads.

With eight threads two calls are measured. A call that takes no time shows the cost of the lock and
the interpreter. A call that waits for a millisecond shows whether a breaker holds its lock during
the call, which makes all threads wait for each other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from measure import alternate

from om_plugins.policies.breaker import Breaker
from om_plugins.policies.bulkhead import Bulkhead

THREADS = 8
CALLS = 500
SLOW_CALLS = 10
SLOW_S = 0.001

Work = Callable[[], object]


def nothing() -> None:
    """The bare call."""


def slow() -> None:
    """The bare call that waits."""
    time.sleep(SLOW_S)


def add_breaker(breaker: Breaker, work: Work) -> Work:
    """Return a call as a chain makes it: one check before and one count after."""
    monotonic = time.monotonic

    def call() -> None:
        permit = breaker.permit or breaker.enter(monotonic())
        work()
        breaker.leave(permit, monotonic(), 0.0)

    return call


def add_timing(work: Work) -> Work:
    """Return a call that reads the clock before and after, as a chain does in any case."""
    monotonic = time.monotonic

    def call() -> None:
        monotonic()
        work()
        monotonic()

    return call


def add_bulkhead(bulkhead: Bulkhead, work: Work) -> Work:
    def call() -> None:
        if bulkhead.enter(0.0):
            work()
            bulkhead.leave()

    return call


def make_peers(work: Work) -> dict[str, Work]:
    """Return the cases of the installed libraries."""
    found: dict[str, Work] = {}
    try:
        import pybreaker
    except ImportError:
        pass
    else:
        found["pybreaker"] = pybreaker.CircuitBreaker()(work)
    return found


def run_in_threads(work: Work, calls: int) -> Work:
    """Return a function in which eight threads make ``calls`` calls each."""

    def loop() -> None:
        for _ in range(calls):
            work()

    def run() -> None:
        threads = [threading.Thread(target=loop) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def make_subjects(work: Work) -> dict[str, Work]:
    long = 86_400.0
    return {
        "breaker": add_breaker(Breaker(window_s=long), work),
        "breaker, window of the last 100 calls": add_breaker(Breaker(window_calls=100), work),
        "bulkhead": add_bulkhead(Bulkhead(THREADS), work),
        **make_peers(work),
    }


def check_counts() -> None:
    """Check that one breaker counts the calls of eight threads exactly."""
    breaker = Breaker(window_s=86_400.0)
    run_in_threads(add_breaker(breaker, nothing), 10_000)()
    counted = breaker.view(time.monotonic()).calls
    if counted != THREADS * 10_000:
        raise AssertionError(f"{counted} calls were counted of {THREADS * 10_000}")


def measure(repeats: int = 30) -> dict[str, float]:
    """Measure microseconds per call: the minimum over the rounds, in which all take turns."""
    check_counts()
    timed = add_timing(nothing)
    results = alternate({"bare call, timed": timed, **make_subjects(nothing)}, repeats)
    for label, work, calls in (
        (f"{THREADS} threads, a call that takes no time", nothing, CALLS),
        (f"{THREADS} threads, a call of {SLOW_S * 1000:g} ms", slow, SLOW_CALLS),
    ):
        cases = {f"bare, {label}": add_timing(work)} | {
            f"{name}, {THREADS} threads, {'no time' if work is nothing else '1 ms'}": one
            for name, one in make_subjects(work).items()
        }
        taken = alternate(
            {name: run_in_threads(one, calls) for name, one in cases.items()},
            min(repeats, 10),
            number=1,
        )
        results |= {name: value / (THREADS * calls) for name, value in taken.items()}
    return results


if __name__ == "__main__":
    for subject, cost in measure().items():
        print(f"{subject:<56} {cost:8.2f} µs")
