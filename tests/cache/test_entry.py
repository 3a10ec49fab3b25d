from __future__ import annotations

import math
import pickle
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from om_plugins.cache.entry import LONGEST_S, CacheEntry, Record, pack, unpack
from om_plugins.cache.keys import ANY, identify

NOW = 1_700_000_000.0


def record(**changes: object) -> Record:
    values = {"began": NOW, "stored": NOW, "stale_time": 10.0, "cache_time": 100.0}
    return Record(**(values | {"tags": ("a", "b"), "body": b"body"} | changes))  # type: ignore[arg-type]


def test_a_record_comes_back_as_it_was():
    assert unpack(pack(record()), NOW + 1) == record()


def test_flags_and_fence_come_with_it():
    whole = record(flags=1, fence=1_795_000_000_000_000)
    assert unpack(pack(whole), NOW + 1) == whole


def test_what_it_was_computed_from_comes_with_it():
    deps = (("price", ("prices",)), (identify(("user", 7), "me"), ()), (ANY, ()))
    assert unpack(pack(record(deps=deps, cost_us=1500)), NOW + 1) == record(deps=deps, cost_us=1500)


@pytest.mark.parametrize("ident", [b"x", b"s:a", b"\xff" * 20, b"S\xff"])
def test_a_record_computed_from_what_is_no_key_is_a_miss(ident):
    head = msgspec.msgpack.encode((0, 0, (NOW, NOW, 10.0, 100.0), [], [], [(ident, [])], 0))
    assert unpack(b"OMC\x01" + struct.pack(">I", len(head)) + head, NOW) is None


@pytest.mark.parametrize(("flags", "fence"), [(-1, 0), (256, 0), (0, -1), (0, 2**63), (1.5, 0)])
def test_flags_and_fences_that_make_no_sense_are_a_miss(flags, fence):
    head = msgspec.msgpack.encode((flags, fence, (NOW, NOW, 10.0, 100.0), [], [], [], 0))
    assert unpack(b"OMC\x01" + struct.pack(">I", len(head)) + head, NOW) is None


def test_a_record_that_is_over_is_a_miss():
    assert unpack(pack(record()), NOW + 99.9) is not None
    assert unpack(pack(record()), NOW + 100) is None


def test_times_without_end_are_cut():
    found = unpack(pack(record(stale_time=math.inf, cache_time=math.inf)), NOW)
    assert found is not None
    assert found.stale_time == found.cache_time == LONGEST_S


def test_a_record_from_the_future_does_not_live_longer():
    found = unpack(pack(record(began=NOW + 9e9, stored=NOW + 9e9)), NOW)
    assert found is not None
    assert (found.began, found.stored) == (NOW, NOW)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"OMC",
        pickle.dumps("planted"),
        pack(record())[:12],
        b"X" + pack(record())[1:],
        pack(record())[:3] + b"\x09" + pack(record())[4:],
        pack(record())[:4] + b"\xff\xff\xff\xff" + pack(record())[8:],
    ],
)
def test_bytes_of_another_form_are_a_miss(data):
    assert unpack(data, NOW) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_times_that_make_no_sense_are_a_miss(bad):
    head = msgspec.msgpack.encode((0, 0, (NOW, NOW, bad, 100.0), [], []))
    assert unpack(b"OMC\x01" + struct.pack(">I", len(head)) + head, NOW) is None


@given(st.binary(max_size=200), st.integers(0, 60))
def test_damage_never_raises(noise, at):
    whole = pack(record())
    unpack(noise, NOW)
    unpack(whole[:at] + noise + whole[at:], NOW)


def test_an_invalidated_entry_is_stale_for_everyone_but_keeps_its_value():
    entry = CacheEntry(
        "k", b"v", tags=(), began=NOW, stored=5.0, stale_time=math.inf, cache_time=50.0
    )
    assert entry.is_fresh(54.0, None)
    assert entry.is_fresh(54.0, 1000.0)
    assert not entry.is_fresh(55.0, 1000.0)  # gone, whatever the caller would accept
    entry.mark_stale()
    assert not entry.is_fresh(6.0, None)
    assert not entry.is_fresh(6.0, math.inf)
    assert entry.data == b"v"
    assert entry.stored == 5.0
