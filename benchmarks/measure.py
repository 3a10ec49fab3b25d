"""Measures all benchmarks: the cases take turns, and the minimum of many repeats counts."""

from __future__ import annotations

import gc
import timeit
from collections.abc import Callable, Mapping


def alternate(
    cases: Mapping[str, Callable[[], object]], repeats: int = 30, number: int = 1000
) -> dict[str, float]:
    """Measure the microseconds per call of each case.

    Args:
        cases: the functions to run, by name.
        repeats: the number of rounds. Each case runs once in each round, so that all run under
            the same load of the machine.
        number: the calls of a case in a round.

    Returns:
        The minimum over the rounds: the cost when nothing else disturbs the work.
    """
    timers = {name: timeit.Timer(case) for name, case in cases.items()}
    for timer in timers.values():
        timer.timeit(max(1, number // 10))
    best = dict.fromkeys(cases, float("inf"))
    gc.collect()
    for _ in range(repeats):
        for name, timer in timers.items():
            best[name] = min(best[name], timer.timeit(number) / number * 1e6)
    return best
