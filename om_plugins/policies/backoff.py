"""Backoff: how long to wait before the same engine is asked again.

Full jitter (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): a
uniformly random share of a growing cap spreads the callers best, and costs the upstream least.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence


def full_jitter(
    retry: int,
    caps_s: Sequence[float],
    *,
    at_least_s: float = 0.0,
    draw: Callable[[], float] = random.random,
) -> float:
    """Seconds to wait before a retry.

    Args:
        retry: its number, from 1.
        caps_s: the longest wait before the first, second, … retry; the last one repeats. With no
            caps there is no wait.
        at_least_s: what the upstream asked for (Retry-After, RFC 9110 section 10.2.3).
        draw: a uniform random number from 0 to 1.
    """
    cap_s = caps_s[min(retry, len(caps_s)) - 1] if caps_s else 0.0
    return max(draw() * cap_s, at_least_s)
