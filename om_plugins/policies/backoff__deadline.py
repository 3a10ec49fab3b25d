"""Deadlines: how a call's total time is shared between attempts and later tiers.

A deadline is a point on the monotonic clock. The total deadline of a call is never extended by a
retry or a sleep. A small slice of it is kept for later *local* tiers, so that a first tier that
hangs cannot eat the time of the one that would certainly have answered.
"""

from __future__ import annotations

RESERVE_SHARE = 0.05
RESERVE_MAX_S = 0.25


def reserve_s(timeout_s: float) -> float:
    """The slice of a call's time that is kept for later local tiers, in seconds.

    Args:
        timeout_s: the call's total time, ``inf`` for no limit.

    Returns:
        5 % of the total, at most 250 ms.
    """
    return min(timeout_s * RESERVE_SHARE, RESERVE_MAX_S)
