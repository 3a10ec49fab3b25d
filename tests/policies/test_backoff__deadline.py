"""The slice of a deadline that is kept for local tiers."""

from __future__ import annotations

import pytest

from om_plugins.policies.backoff__deadline import reserve_s


@pytest.mark.parametrize(
    ("timeout_s", "kept_s"), [(1, 0.05), (5, 0.25), (10, 0.25), (float("inf"), 0.25), (0, 0)]
)
def test_a_twentieth_is_kept_and_at_most_a_quarter_second(timeout_s, kept_s):
    assert reserve_s(timeout_s) == pytest.approx(kept_s)
