"""Quantiles are off by at most a known share, and histograms add up."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from om_plugins.core.histogram import (
    BUCKETS,
    HIGHEST,
    LOWEST,
    RELATIVE_ERROR,
    Histogram,
    bucket_of,
    middle_of,
)

durations = st.floats(LOWEST, HIGHEST)


def of(*values):
    made = Histogram()
    for value in values:
        made.record(value)
    return made


@given(durations)
def test_a_value_is_told_within_the_relative_error(value):
    assert abs(middle_of(bucket_of(value)) - value) <= RELATIVE_ERROR * value


@given(durations, durations)
def test_buckets_keep_the_order_of_values(one, other):
    if one <= other:
        assert bucket_of(one) <= bucket_of(other)


@pytest.mark.parametrize("odd", [math.nan, -1.0, 0.0, -math.inf, 1e-12])
def test_what_is_too_small_or_no_number_goes_into_the_first_bucket(odd):
    assert bucket_of(odd) == 0


@pytest.mark.parametrize("huge", [math.inf, 1e300, HIGHEST])
def test_what_is_too_large_goes_into_the_last(huge):
    assert bucket_of(huge) == BUCKETS - 1


def test_quantiles_are_nearest_rank_within_the_error():
    values = [random.Random(7).lognormvariate(-4, 1) for _ in range(5000)]
    made = of(*values)
    values.sort()
    for share in (0.0, 0.5, 0.95, 0.99, 1.0):
        true = values[max(1, math.ceil(share * len(values))) - 1]
        assert made.quantile(share) == pytest.approx(true, rel=RELATIVE_ERROR)
    assert made.quantiles(0.5, 0.95, 0.99) == [made.quantile(q) for q in (0.5, 0.95, 0.99)]
    assert made.mean == pytest.approx(sum(values) / len(values))


def test_nothing_recorded_has_no_quantiles():
    assert Histogram().quantiles(0.5, 0.95) == [None, None]
    assert Histogram().quantile(0.5) is None
    assert Histogram().mean is None


@given(st.lists(durations), st.lists(durations))
def test_adding_two_is_recording_all(first, second):
    merged = of(*first)
    merged.add(of(*second))
    together = of(*first, *second)
    assert merged.counts == together.counts
    assert merged.count == together.count
    assert merged.total == pytest.approx(together.total)


def test_above_counts_what_is_larger_than_a_limit():
    made = of(0.1, 0.2, 2.5, 3.0, 60.0)
    assert made.above(2.0) == 3
    assert made.above(100.0) == 0


@given(st.lists(st.floats(0, 1e4)))
def test_what_was_encoded_is_decoded(values):
    made = of(*values)
    again = Histogram.decode(made.encode())
    assert (again.counts, again.count) == (made.counts, made.count)
    assert again.total == pytest.approx(made.total, abs=1e-6)


def test_a_thousand_requests_take_few_bytes():
    random.seed(3)
    made = of(*(random.lognormvariate(-4, 0.5) for _ in range(1000)))
    assert len(made.encode()) < 300


@pytest.mark.parametrize(
    "damaged",
    [
        b"\xff",
        b"\x00\x01",
        b"\x00\xff\xff\x7f\x01",
        b"\x00\x01\x00",
        b"\x80" * 90_000,
        b"\xff" * 12 + b"\x01",
        b"\x00\x01\x01\x00\x01",
    ],
)
def test_damaged_bytes_are_refused(damaged):
    with pytest.raises(ValueError, match="not a histogram"):
        Histogram.decode(damaged)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    try:
        made = Histogram.decode(data)
    except ValueError:
        return
    assert made.count == sum(made.counts.values())
