"""What a breaker and a bulkhead cost a call, alone and from eight threads at once.

From eight threads two calls are measured: one that takes no time, where only the lock and the
interpreter count, and one that waits for a millisecond, where a breaker that holds its lock during
the call makes everybody wait for everybody.
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


def guarded(breaker: Breaker, work: Work) -> Work:
    """A call as a chain makes it: one look before, one count after."""
    monotonic = time.monotonic

    def call() -> None:
        permit = breaker.permit or breaker.enter(monotonic())
        work()
        breaker.leave(permit, monotonic(), 0.0)

    return call


def only_timed(work: Work) -> Work:
    """What a chain does anyway: it reads the clock before and after."""
    monotonic = time.monotonic

    def call() -> None:
        monotonic()
        work()
        monotonic()

    return call


def bounded(bulkhead: Bulkhead, work: Work) -> Work:
    def call() -> None:
        if bulkhead.enter(0.0):
            work()
            bulkhead.leave()

    return call


def peers(work: Work) -> dict[str, Work]:
    """Those that are installed."""
    found: dict[str, Work] = {}
    try:
        import pybreaker
    except ImportError:
        pass
    else:
        found["pybreaker"] = pybreaker.CircuitBreaker()(work)
    return found


def by_threads(work: Work, calls: int) -> Work:
    """Eight threads that make ``calls`` calls each."""

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


def subjects(work: Work) -> dict[str, Work]:
    long = 86_400.0
    return {
        "breaker": guarded(Breaker(window_s=long), work),
        "breaker, window of the last 100 calls": guarded(Breaker(window_calls=100), work),
        "bulkhead": bounded(Bulkhead(THREADS), work),
        **peers(work),
    }


def check_counts() -> None:
    """Eight threads through one breaker: not one call more or less than were made."""
    breaker = Breaker(window_s=86_400.0)
    by_threads(guarded(breaker, nothing), 10_000)()
    counted = breaker.view(time.monotonic()).calls
    if counted != THREADS * 10_000:
        raise AssertionError(f"{counted} calls were counted of {THREADS * 10_000}")


def measure(repeats: int = 30) -> dict[str, float]:
    """Microseconds per call: the minimum over the rounds, in which the subjects take turns."""
    check_counts()
    timed = only_timed(nothing)
    results = alternate({"bare call, timed": timed, **subjects(nothing)}, repeats)
    for label, work, calls in (
        (f"{THREADS} threads, a call that takes no time", nothing, CALLS),
        (f"{THREADS} threads, a call of {SLOW_S * 1000:g} ms", slow, SLOW_CALLS),
    ):
        cases = {f"bare, {label}": only_timed(work)} | {
            f"{name}, {THREADS} threads, {'no time' if work is nothing else '1 ms'}": one
            for name, one in subjects(work).items()
        }
        taken = alternate(
            {name: by_threads(one, calls) for name, one in cases.items()},
            min(repeats, 10),
            number=1,
        )
        results |= {name: value / (THREADS * calls) for name, value in taken.items()}
    return results


if __name__ == "__main__":
    for subject, cost in measure().items():
        print(f"{subject:<56} {cost:8.2f} µs")
