from __future__ import annotations

import random
import sys
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from om_plugins.cache.entry import OVERHEAD_BYTES, Entry
from om_plugins.cache.memory import Local


def entry(ident: str, size: int = 10, tags: tuple[str, ...] = ()) -> Entry:
    return Entry(ident, b"x" * size, tags=tags, began=0, stored=0, stale_time=10, cache_time=100)


ROOM = OVERHEAD_BYTES + 11  # for one entry with a key of one letter


def test_an_entry_that_was_asked_for_outlives_one_that_was_not():
    local = Local(3 * ROOM)
    for name in "abc":
        local.put(entry(name))
    local.entries["a"].visited = True
    local.put(entry("d"))
    assert list(local.entries) == ["a", "c", "d"]
    assert local.evictions == 1


def test_a_scan_does_not_push_out_what_is_in_use():
    local = Local(10 * ROOM)
    for name in "abcde":
        local.put(entry(name))
    for number in range(200):
        for name in "abcde":
            local.entries[name].visited = True
        local.put(entry(chr(1000 + number)))
    assert set("abcde") <= set(local.entries)


def test_the_hand_goes_round_when_everything_was_visited():
    local = Local(3 * ROOM)
    for name in "abc":
        local.put(entry(name))
        local.entries[name].visited = True
    local.put(entry("d"))
    assert list(local.entries) == ["b", "c", "d"]


def test_an_entry_over_the_limit_is_not_kept_and_its_older_self_goes():
    local = Local(3 * ROOM)
    local.put(entry("a"))
    assert not local.put(entry("a", size=10_000))
    assert not local.entries
    assert local.weight == local.size_bytes == local.evictions == 0


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 900), st.booleans())))
def test_sums_and_order_stay_true(steps):
    local = Local(4 * ROOM)
    for name, size, out in steps:
        if out and name in local.entries:
            local.remove(local.entries[name])
        else:
            local.put(entry(name, size, tags=("t", name)))
            if name in local.entries:
                local.entries[name].visited = size % 2 == 0
        kept = list(local)
        assert {e.ident for e in kept} == set(local.entries)
        assert len(kept) == len(local.entries)
        assert local.weight == sum(e.weight for e in kept) <= local.limit_bytes
        assert local.size_bytes == sum(len(e.data) for e in kept)
        assert local.tagged(["t"]) == set(local.entries)


def test_what_counts_against_the_limit_is_what_memory_it_takes():
    rng = random.Random(7)
    sys.intern("x")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    local = Local(1 << 30)
    for number in range(20_000):
        local.put(
            Entry(
                f"key-{number}", rng.randbytes(rng.randrange(200)), tags=(), began=1.5 + number,
                stored=2.5 + number, stale_time=10.0, cache_time=20.0,
            )
        )  # fmt: skip
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.75 < taken / local.weight < 1.25
