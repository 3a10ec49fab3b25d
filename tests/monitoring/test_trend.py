"""Noise sets off no trend, a real drift does, and the forecast says when."""

from __future__ import annotations

import random

import pytest

from om_plugins.monitoring.trend import GROUP, POINTS, TrendGate, decode_trends, evaluate_trend

FLAT = {"step_s": 10, "floor": 0.001}


def noise(rng, count=POINTS, level=0.2, spread=0.3):
    return [level * rng.lognormvariate(0, spread) for _ in range(count)]


def drifting(rng, count=POINTS, level=0.2, per_point=0.02, spread=0.1):
    return [level * (1 + per_point * n) * rng.lognormvariate(0, spread) for n in range(count)]


def shown_after(points, **options):
    """What the gate shows once it has seen the series point by point."""
    gate = TrendGate()
    for end in range(POINTS, len(points) + 1, GROUP):
        gate.update(points[end - POINTS : end], now=10.0 * end, **FLAT, **options)
    return gate.shown


@pytest.mark.parametrize("spread", [0.1, 0.3, 1.0])
def test_false_alarms_on_white_noise_are_rare(spread):
    rng = random.Random(11)
    runs = 1500
    alone = gated = 0
    for _ in range(runs):
        series = noise(rng, POINTS + GROUP, spread=spread)
        alone += evaluate_trend(series[GROUP:], **FLAT).verdict != "stable"
        gated += shown_after(series).verdict != "stable"
    assert alone / runs <= 0.06, alone / runs
    assert gated / runs <= 0.05, gated / runs


def test_a_drift_is_found_in_both_directions():
    rng = random.Random(12)
    worse = better = 0
    for _ in range(300):
        series = drifting(rng, POINTS + GROUP)
        worse += shown_after(series).verdict == "degrading"
        better += shown_after(series[::-1]).verdict == "improving"
    assert worse >= 285, worse
    assert better >= 285, better


def test_a_significant_but_tiny_change_is_stable():
    assert evaluate_trend([1 + 0.001 * n for n in range(POINTS)], **FLAT).verdict == "stable"


def test_a_rise_from_nearly_nothing_to_nearly_nothing_is_stable():
    series = [1e-6 * (1 + n) for n in range(POINTS)]
    assert evaluate_trend(series, **FLAT).verdict == "stable"


def test_a_constant_and_a_series_of_zeros_are_stable():
    assert evaluate_trend([5.0] * POINTS, **FLAT).verdict == "stable"
    assert evaluate_trend([0.0] * POINTS, **FLAT).verdict == "stable"


def test_outliers_alone_are_no_trend():
    rng = random.Random(3)
    series = noise(rng, spread=0.02)
    series[-1] = series[-2] = 60.0
    assert evaluate_trend(series, **FLAT).verdict == "stable"


def test_gaps_are_borne_and_too_many_are_no_data():
    rng = random.Random(5)
    series = drifting(rng)
    gappy = [None if n % 3 else value for n, value in enumerate(series)]
    assert evaluate_trend(gappy, **FLAT).verdict == "degrading"
    assert evaluate_trend([None] * 20 + series[20:], **FLAT).verdict == "no data"
    assert evaluate_trend([None] * POINTS, **FLAT).verdict == "no data"


def test_one_evaluation_alone_shows_nothing():
    gate = TrendGate()
    calm, steep = noise(random.Random(1), spread=0.01), drifting(random.Random(1))
    assert gate.update(calm, now=0, **FLAT).verdict == "stable"
    assert gate.update(steep, now=50, **FLAT).verdict == "stable"
    assert gate.update(steep, now=60, **FLAT).verdict == "stable", "too soon to count again"
    assert gate.update(steep, now=100, **FLAT).verdict == "degrading"
    assert gate.update(calm, now=150, **FLAT).verdict == "degrading"
    assert gate.update(calm, now=200, **FLAT).verdict == "stable"


def test_the_forecast_holds_the_truth_in_its_range():
    rng = random.Random(8)
    held = 0
    runs = 200
    for _ in range(runs):
        # 0.2 s at the beginning, +0.004 s every 10 s: 0.436 at the end, 1 s after 23.5 min more
        series = [0.2 + 0.004 * n + rng.gauss(0, 0.02) for n in range(POINTS)]
        found = evaluate_trend(series, **FLAT, limit=1.0)
        soonest, expected, latest = found.crosses_min
        assert soonest <= expected <= (latest or 1e9)
        held += soonest <= 23.5 <= (latest or 1e9)
    assert held / runs >= 0.85, held / runs


def test_no_crossing_is_foretold_without_a_trend_or_beyond_the_limit():
    assert evaluate_trend([0.2] * POINTS, **FLAT, limit=1.0).crosses_min is None
    rising = [2 + 0.1 * n for n in range(POINTS)]
    assert evaluate_trend(rising, **FLAT, limit=1.0).crosses_min is None
    assert evaluate_trend(rising, **FLAT).crosses_min is None


def test_what_lies_in_the_hub_is_checked():
    trend = evaluate_trend([0.2 + 0.01 * n for n in range(POINTS)], **FLAT, limit=2.0).as_dict()
    assert decode_trends({"memory": trend}) == {"memory": trend}
    assert decode_trends({"memory": {"verdict": "<script>"}}) == {}
    assert decode_trends(None) == {}
