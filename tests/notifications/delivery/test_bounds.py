"""What is dropped from a queue that is too full or too old."""

from __future__ import annotations

import pytest

from om_plugins.notifications.delivery.bounds import QueueLimits, find_excess
from om_plugins.notifications.delivery.pending import Pending
from om_plugins.types import Notification

LIMITS = QueueLimits(count=3, size_bytes=100, age_s=60.0)


def waiting(*sizes_and_ages):
    return [
        Pending(str(number), Notification(kind="info", message=""), at=1000.0 - age, size=size)
        for number, (size, age) in enumerate(sizes_and_ages)
    ]


@pytest.mark.parametrize(
    ("waits", "reasons"),
    [
        ([], []),
        ([(10, 0)] * 3, [None] * 3),
        ([(10, 0)] * 5, ["too many", "too many", None, None, None]),
        ([(40, 0)] * 3, ["too many", None, None]),
        ([(100, 0)], [None]),
        ([(10, 61), (10, 60)], ["too old", None]),
        ([(10, 61), (10, 0), (10, 0), (10, 0)], ["too many", None, None, None]),
        # one that is larger than the whole queue drops no other one
        ([(10, 0), (10, 0), (101, 0)], [None, None, "too many"]),
        ([(101, 0), (10, 0), (10, 0), (10, 0)], ["too many", None, None, None]),
        ([(10, 0), (500, 0), (10, 0), (500, 0), (10, 0)], [None, "too many"] * 2 + [None]),
        ([(60, 0), (500, 0), (60, 0)], ["too many", "too many", None]),
        ([(101, 90)], ["too many"]),
    ],
)
def test_the_oldest_and_what_is_too_large_are_dropped(waits, reasons):
    pending = waiting(*waits)
    found = list(find_excess(pending, LIMITS, 1000.0))
    assert [one for one, _ in found] == pending
    assert [reason for _, reason in found] == reasons


def test_a_limit_says_what_it_is():
    assert LIMITS.describe("too old") == "it waited for more than 60 s"
    assert LIMITS.describe("too many") == "more than 3 notifications or 100 bytes wait"
