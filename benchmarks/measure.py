"""How all benchmarks measure: same work, alternating, the minimum of many repeats."""

from __future__ import annotations

import gc
import timeit
from collections.abc import Callable, Mapping


def alternate(
    cases: Mapping[str, Callable[[], object]], repeats: int = 30, number: int = 1000
) -> dict[str, float]:
    """Microseconds per call of each case.

    Args:
        cases: what to run, by name.
        repeats: rounds; in each, every case runs once, so that all see the same machine.
        number: calls of a case in a round.

    Returns:
        The minimum over the rounds: what the work costs when nothing disturbs it.
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
