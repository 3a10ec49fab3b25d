"""Responses in memory: their hits and what these saved are counted, evicted ones included."""

from __future__ import annotations

from tests.http_cache.world import World


def test_saved_bytes_and_hits_are_exact_and_survive_eviction():
    world = World()
    for _ in range(4):
        world.get()
    stats = world.cache.stats()
    assert (stats.hits, stats.bytes_saved, stats.stored, stats.misses) == (3, 15, 1, 1)
    world.cache.purge("/")
    again = world.cache.stats()
    assert (again.hits, again.bytes_saved, again.entries) == (3, 15, 0)
