from __future__ import annotations

import pickle
import tracemalloc
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from om_plugins.cache.values import decode, encode
from om_plugins.errors import CacheError

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary()
    | st.text(st.characters(exclude_categories=["Cs"])) | st.dates() | st.datetimes() | st.times()
    | st.timedeltas() | st.uuids() | st.decimals(allow_nan=False)
    | st.datetimes(timezones=st.timezones() | st.just(UTC))
)  # fmt: skip
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
hashable = st.integers() | texts | st.tuples(st.integers(), texts)
values = st.recursive(
    leaves | st.sets(hashable, max_size=3) | st.frozensets(hashable, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=8,
)


def same(one: object, other: object) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, datetime | time):
        return repr(one) == repr(other)
    return one == other


@given(values)
def test_what_comes_back_is_what_went_in(value):
    assert same(decode(encode(value)), value)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=9))),
        time(1, 2, 3, 4, tzinfo=UTC),
        date.max,
        Decimal("NaN"),
        2**200,
        -(2**63) - 1,
        {1: "a", False: "b", 2.5: "c", b"x": "d"},
        UUID(int=5),
        (),
        float("inf"),
    ],
)
def test_corners_come_back_as_they_were(value):
    assert repr(decode(encode(value))) == repr(value)


@dataclass
class Point:
    x: int


class Size(IntEnum):
    BIG = 1


@pytest.mark.parametrize(
    "value",
    [
        Point(1), Size.BIG, Markup("<b>"), OrderedDict(a=1), namedtuple("Pair", "a")(1), object(),
        bytearray(b"x"), {"deep": [Point(1)]}, {(1, 2): 3}, range(3), iter([]),
    ],
)  # fmt: skip
def test_a_type_that_would_come_back_as_another_is_refused_by_name(value):
    named = {"dict": "Point|tuple"}.get(type(value).__name__, type(value).__qualname__)
    with pytest.raises(CacheError, match=named):
        encode(value)


def test_what_cannot_be_written_is_a_cache_error():
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(CacheError, match="contains itself"):
        encode(endless)
    with pytest.raises(CacheError, match="surrogate"):
        encode("\ud800")


def test_nothing_is_unpickled():
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('ran')",))

    with pytest.raises(Exception, match=r".") as found:  # msgspec's own errors, or a lookup's
        decode(pickle.dumps(Bomb()))
    assert not isinstance(found.value, SystemExit)


def test_the_bytes_of_a_value_have_no_slack_behind_them():
    """A cache that is bounded by what it counts must not hold half as much again."""
    tracemalloc.start()
    try:
        kept = [encode("x" * 5000) for _ in range(200)]
        held = tracemalloc.get_traced_memory()[0] / len(kept)
    finally:
        tracemalloc.stop()
    assert held < 1.03 * len(kept[0])
