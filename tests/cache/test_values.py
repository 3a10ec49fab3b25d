from __future__ import annotations

import dataclasses
import os
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

from om_plugins.cache.entry import Record, pack, unpack
from om_plugins.cache.keys import make_store_key
from om_plugins.cache.values import PICKLED, Pickled, PickleEncoder, decode, encode
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


# --- pickles --------------------------------------------------------------------------------------


KEY = make_store_key("k")


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Bomb:
    def __init__(self, at):
        self.at = at

    def __reduce__(self):
        return (os.mkdir, (str(self.at),))


@pytest.fixture
def pickles():
    return PickleEncoder(lambda: "secret key")


def test_plain_data_is_written_as_always(pickles):
    assert type(pickles.encode([1, "two"])) is bytes
    assert decode(pickles.encode([1, "two"])) == [1, "two"]


def test_what_nothing_else_can_write_is_pickled_and_comes_back(pickles):
    data = pickles.encode({"at": Point(1, 2)})
    assert decode(data) == {"at": Point(1, 2)}


def test_a_pickle_that_is_not_this_processs_own_is_never_read(pickles, tmp_path):
    planted = bytes(pickles.encode([Bomb(tmp_path / "ran")]))
    for data in (planted, b"\x91" + planted, bytearray(planted)):
        with pytest.raises(CacheError, match="unknown origin"):
            decode(data)
    assert not (tmp_path / "ran").exists()
    decode(Pickled(planted))
    assert (tmp_path / "ran").exists()  # so the bomb works


def test_what_cannot_be_pickled_is_refused_with_the_way_out(pickles):
    with pytest.raises(CacheError, match=r"Cache plain data instead .*nor can it be pickled"):
        pickles.encode(lambda: None)


def test_a_signature_is_bound_to_the_key_the_bytes_and_the_secret(pickles):
    data = pickles.encode(Point(1, 2))
    body = pickles.sign(KEY, data)
    assert pickles.verify(KEY, body) == data
    assert type(pickles.verify(KEY, body)) is Pickled
    assert pickles.verify(make_store_key("other"), body) is None
    assert PickleEncoder(lambda: "another secret").verify(KEY, body) is None
    for at in range(len(body)):
        assert pickles.verify(KEY, body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]) is None
        assert pickles.verify(KEY, body[:at]) is None


@pytest.mark.parametrize("secret", [None, "", b""])
def test_nothing_is_signed_or_read_without_a_secret(pickles, secret):
    without = PickleEncoder(lambda: secret)
    with pytest.raises(CacheError, match="OM_SECRET_KEY"):
        without.sign(KEY, b"data")
    assert without.verify(KEY, pickles.sign(KEY, b"data")) is None


# --- in the cache ---------------------------------------------------------------------------------


@pytest.fixture
def workers(make_world, store, pickles):
    return make_world(store=store, pickles=pickles), make_world(store=store, pickles=pickles)


def test_a_signed_pickle_is_shared_between_workers(workers, store, fetcher):
    one, two = workers
    assert one.cache.query("k", fetcher(Point(1, 2))) == Point(1, 2)
    assert two.cache.query("k", fetcher("never")) == Point(1, 2)
    two.cache.set("k", Point(3, 4))
    one.clock.advance(6)
    assert one.cache.get("k") == Point(3, 4)
    record = unpack(store.data[KEY], one.clock.time())
    assert record.flags == PICKLED


def test_a_stale_pickle_is_refreshed_like_any_value(workers, fetcher):
    one, _ = workers
    fetch = fetcher(Point(1, 1), Point(2, 2))
    one.cache.query("k", fetch)
    one.clock.advance(11)
    assert one.cache.query("k", fetch) == Point(1, 1)
    one.run()
    assert one.cache.query("k", fetch) == Point(2, 2)


@pytest.mark.parametrize("flags", [0, PICKLED, 2])
@pytest.mark.parametrize("opted_in", [True, False])
def test_a_planted_pickle_is_a_miss_and_nothing_runs(
    make_world, store, pickles, fetcher, tmp_path, flags, opted_in
):
    world = make_world(store=store, pickles=pickles if opted_in else None)
    evil = PickleEncoder(lambda: "guessed")
    data = evil.encode([Bomb(tmp_path / "ran")])
    now = world.clock.time()
    for body in (bytes(data), evil.sign(KEY, data), pickles.sign(make_store_key("other"), data)):
        store.data[KEY] = pack(Record(now, now, 60.0, 60.0, (), body, flags=flags))
        assert world.cache.query("k", fetcher("fetched")) == "fetched"
        world.cache.remove("k")
    assert not (tmp_path / "ran").exists()


def test_a_signed_pickle_is_a_miss_for_who_has_not_opted_in(workers, make_world, store, fetcher):
    workers[0].cache.set("k", Point(1, 2))
    assert make_world(store=store).cache.query("k", fetcher("fetched")) == "fetched"


def test_without_a_secret_pickles_stay_in_memory_and_the_old_value_goes(make_world, store, caplog):
    world = make_world(store=store, pickles=PickleEncoder(lambda: None))
    world.cache.set("k", "plain")
    for _ in range(3):
        world.cache.set("k", Point(1, 2))
    assert KEY not in store.data
    assert world.cache.query("k", int) == Point(1, 2)
    assert len([r for r in caplog.records if "set OM_SECRET_KEY" in r.getMessage()]) == 1


def test_a_pickle_of_a_class_that_is_gone_is_a_miss(workers, store, fetcher, monkeypatch):
    one, two = workers
    one.cache.set("k", Point(1, 2))
    monkeypatch.setitem(globals(), "Point", None)
    assert two.cache.query("k", fetcher("fetched")) == "fetched"
