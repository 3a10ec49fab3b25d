"""Backoff: full jitter under growing caps, and never less than was asked for."""

from __future__ import annotations

import random

import pytest

from om_plugins.policies.backoff import full_jitter

CAPS = (1.0, 2.0, 4.0)


@pytest.mark.parametrize(("retry", "cap"), [(1, 1), (2, 2), (3, 4), (4, 4), (9, 4)])
def test_the_wait_is_a_random_share_of_the_retrys_cap(retry, cap):
    assert full_jitter(retry, CAPS, draw=lambda: 0.5) == cap / 2
    assert full_jitter(retry, CAPS, draw=lambda: 0.0) == 0


def test_waits_are_spread_over_the_whole_cap():
    draw = random.Random(1).random
    waits = [full_jitter(3, CAPS, draw=draw) for _ in range(2000)]
    assert min(waits) < 0.1
    assert max(waits) > 3.9
    assert sum(waits) / len(waits) == pytest.approx(2, abs=0.1)


def test_what_the_upstream_asked_for_is_the_least():
    assert full_jitter(1, CAPS, at_least_s=7, draw=lambda: 0.9) == 7
    assert full_jitter(1, CAPS, at_least_s=0.1, draw=lambda: 0.9) == 0.9


def test_without_caps_there_is_no_wait():
    assert full_jitter(1, ()) == 0
