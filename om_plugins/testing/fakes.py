"""For tests: a clock that a test moves, and threads that work at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class FakeClock:
    """A clock that only :meth:`advance` and :meth:`sleep` move. Nothing waits in real time.

    Args:
        now: the Unix time at the start; the monotonic time starts at 1000.

    Attributes:
        slept: the durations of all sleeps, in order.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0
        self._lock = threading.Lock()
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self._monotonic

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move Unix time and monotonic time forward."""
        with self._lock:
            self._now += seconds
            self._monotonic += seconds

    def sleep(self, seconds: float) -> None:
        """Move the clock forward by ``seconds`` and return at once."""
        self.slept.append(seconds)
        self.advance(seconds)


def run_in_threads(count: int, work: Callable[[int], T]) -> list[T]:
    """Call ``work`` in ``count`` threads at once, with the number of each thread.

    Returns:
        The results, in the order of the numbers.

    Raises:
        TimeoutError: the threads take longer than 30 seconds.
        AssertionError: a thread failed.
    """
    barrier = threading.Barrier(count)

    def run(number: int) -> T:
        barrier.wait(10)
        try:
            return work(number)
        except Exception as error:
            raise AssertionError(f"thread {number} failed: {error!r}") from error

    pool = ThreadPoolExecutor(count)
    try:
        return list(pool.map(run, range(count), timeout=30))
    finally:
        pool.shutdown(wait=False)
