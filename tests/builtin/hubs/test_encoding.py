"""Ids, names, times to live and values as every shipped hub writes them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from om_plugins.builtin.hubs.encoding import (
    MAX_AMOUNT,
    MAX_NAME_CHARS,
    MAX_VALUE_BYTES,
    check_amount,
    check_name,
    check_ttl,
    decode,
    encode,
    next_id,
    read_id,
    write_id,
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(plain)
def test_data_comes_back_as_it_was(data):
    assert decode(encode("topic", data)) == (True, data)


@given(st.binary() | st.none() | st.text())
def test_damaged_data_is_nothing(encoded):
    readable, value = decode(encoded)
    assert readable or value is None


@pytest.mark.parametrize("data", [object(), {1: object()}, 2**70, "\ud800"])
def test_data_without_an_encoding_is_refused_by_name(data):
    with pytest.raises(ValueError, match="cannot be kept"):
        encode("topic", data)


def test_a_value_that_is_too_large_is_refused():
    with pytest.raises(ValueError, match="are more than 1000000"):
        encode("topic", b"x" * MAX_VALUE_BYTES)


def test_ids_grow_when_the_clock_stands_or_goes_back():
    first = next_id(0, 1_700_000_000.0)
    assert write_id(first) == "1700000000000000"
    assert next_id(first, 1_700_000_000.0) == first + 1
    assert next_id(first, 1_600_000_000.0) == first + 1


@given(st.integers(0, 10**18 - 1))
def test_an_id_is_read_as_it_was_written(number):
    assert read_id(write_id(number)) == number


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "٣", " 1", "1" * 19])
def test_a_text_that_is_no_id_is_before_all(text):
    assert read_id(text) == 0


@pytest.mark.parametrize("name", ["", "x" * (MAX_NAME_CHARS + 1), "\ud800"])
def test_a_name_that_not_every_hub_can_keep_is_refused(name):
    with pytest.raises(ValueError, match=r"hub name|surrogates"):
        check_name(name)
    assert check_name("이름") == "이름"


@pytest.mark.parametrize("ttl", [0, -1, math.inf, math.nan])
def test_a_time_to_live_is_a_number_above_zero(ttl):
    with pytest.raises(ValueError, match="ttl must be a number of seconds above 0"):
        check_ttl("key", ttl)
    assert check_ttl("key", 0.5) == 0.5


def test_a_step_of_a_counter_has_a_bound():
    assert check_amount("key", -MAX_AMOUNT) == -MAX_AMOUNT
    with pytest.raises(ValueError, match="is beyond"):
        check_amount("key", MAX_AMOUNT + 1)
