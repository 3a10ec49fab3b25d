from __future__ import annotations

import os
import random
import sys
import threading
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from om_plugins.cache.entry import OVERHEAD_BYTES, CacheEntry
from om_plugins.cache.memory import MOST_GROUPS, OTHERS, MemoryTable


def entry(ident: str, size: int = 10, tags: tuple[str, ...] = ()) -> CacheEntry:
    return CacheEntry(
        ident, b"x" * size, tags=tags, began=0, stored=0, stale_time=10, cache_time=100
    )


ROOM = OVERHEAD_BYTES + 11  # for one entry with a key of one letter


def test_an_entry_that_was_asked_for_outlives_one_that_was_not():
    local = MemoryTable(3 * ROOM)
    for name in "abc":
        local.put(entry(name))
    local.entries["a"].visited = True
    local.put(entry("d"))
    assert list(local.entries) == ["a", "c", "d"]
    assert local.evictions == 1


def test_a_scan_does_not_push_out_what_is_in_use():
    local = MemoryTable(10 * ROOM)
    for name in "abcde":
        local.put(entry(name))
    for number in range(200):
        for name in "abcde":
            local.entries[name].visited = True
        local.put(entry(chr(1000 + number)))
    assert set("abcde") <= set(local.entries)


def test_the_hand_goes_round_when_everything_was_visited():
    local = MemoryTable(3 * ROOM)
    for name in "abc":
        local.put(entry(name))
        local.entries[name].visited = True
    local.put(entry("d"))
    assert list(local.entries) == ["b", "c", "d"]


def test_an_entry_over_the_limit_is_not_kept_and_its_older_self_goes():
    local = MemoryTable(3 * ROOM)
    local.put(entry("a"))
    assert not local.put(entry("a", size=10_000))
    assert not local.entries
    assert local.weight == local.size_bytes == local.evictions == 0


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 900), st.booleans())))
def test_sums_and_order_stay_true(steps):
    local = MemoryTable(4 * ROOM)
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
        assert local.find_tagged(["t"]) == set(local.entries)


def test_what_counts_against_the_limit_is_what_memory_it_takes():
    rng = random.Random(7)
    sys.intern("x")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    local = MemoryTable(1 << 30)
    for number in range(20_000):
        local.put(
            CacheEntry(
                f"key-{number}", rng.randbytes(rng.randrange(200)), tags=(), began=1.5 + number,
                stored=2.5 + number, stale_time=10.0, cache_time=20.0,
            )
        )  # fmt: skip
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.75 < taken / local.weight < 1.25


# --- counters by group ----------------------------------------------------------------------------


def test_look_ups_are_counted_by_the_beginning_of_their_key(world, fetcher):
    for key in ("panel:cpu", "panel:disk", ("user", 7), ("user", 8), "servers"):
        world.cache.query(key, fetcher("xy"))
    for _ in range(3):
        world.cache.query("panel:cpu", fetcher("xy"))
    groups = world.cache.groups()
    assert set(groups) == {"panel", "user", "servers"}
    panel = groups["panel"]
    assert (panel.misses, panel.fresh, panel.entries) == (2, 3, 2)
    assert panel.size_bytes == 2 * len(b"\xa2xy")


def test_groups_add_up_to_the_whole(world, fetcher):
    for key in ("a:1", "b:1", "a:2", "a:1"):
        world.cache.query(key, fetcher("value"))
    world.cache.get("none:1")
    whole = world.cache.stats()
    groups = world.cache.groups().values()
    for name in ("fresh", "misses", "fetches", "entries", "size_bytes", "bytes_saved"):
        assert getattr(whole, name) == sum(getattr(one, name) for one in groups)


def test_hits_say_what_they_saved(world):
    def fetch():
        world.clock.advance(0.25)
        return "x" * 100

    world.cache.query("k", fetch)
    assert world.cache.stats().saved_us == 0
    for _ in range(4):
        world.cache.query("k", fetch)
    world.clock.advance(11)
    world.cache.query("k", fetch)
    stats = world.cache.stats()
    assert (stats.fresh, stats.stale) == (4, 1)
    assert stats.saved_us == 5 * 250_000
    assert stats.bytes_saved == 5 * stats.size_bytes


def test_hits_of_an_entry_that_is_gone_stay_counted(world, fetcher):
    world.cache.query("k", fetcher("old"))
    world.cache.query("k", fetcher("old"))
    world.cache.stats()
    world.cache.query("k", fetcher("old"))
    world.cache.set("k", "new")
    world.cache.query("k", fetcher("old"))
    world.cache.remove("k")
    assert world.cache.stats().fresh == 3


def test_hits_of_many_threads_are_counted_exactly_while_entries_come_and_go(world, fetcher):
    cache = world.cache
    rounds, threads = 2000, 4
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    misses = []

    def look():
        for n in range(rounds):
            if n % 50 == 0:
                cache.remove("k")
            if n % 70 == 0:
                cache.stats()
            cache.query("k", fetcher("value"))

    try:
        several = [threading.Thread(target=look) for _ in range(threads)]
        for one in several:
            one.start()
        for one in several:
            one.join()
    finally:
        sys.setswitchinterval(before)
    assert not misses
    stats = cache.stats()
    assert stats.hits + stats.misses == rounds * threads


def test_a_process_counts_so_many_groups_and_no_more(world):
    for n in range(MOST_GROUPS + 20):
        world.cache.set(f"group-{n}", n)
        world.cache.get(f"group-{n}")
    groups = world.cache.groups()
    assert len(groups) == MOST_GROUPS + 1
    assert groups[OTHERS].fresh == groups[OTHERS].entries == 20


def test_evictions_are_counted_where_they_happen(make_world):
    world = make_world(l1_bytes=20_000)
    for n in range(30):
        world.cache.set(f"big:{n}", "x" * 1000)
    world.cache.set("small:1", "x")
    groups = world.cache.groups()
    assert groups["big"].evictions == world.cache.stats().evictions > 0
    assert groups["big"].entries + groups["big"].evictions == 30


def test_a_child_counts_for_itself(world, fetcher):
    world.cache.query("k", fetcher("value"))
    world.cache.query("k", fetcher("value"))
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            world.cache.query("k", fetcher("value"))
            stats = world.cache.stats()
            os.write(writing, f"{stats.fresh} {stats.misses} {stats.entries}".encode())
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.read(reading, 100) == b"1 0 1"
    assert world.cache.stats().fresh == 1
    os.close(reading)
    os.close(writing)
