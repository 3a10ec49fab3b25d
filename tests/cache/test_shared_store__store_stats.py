from __future__ import annotations


def test_what_a_store_is_asked_is_counted(make_world, store, fetcher):
    one, two = make_world(store=store), make_world(store=store)
    one.cache.query("k", fetcher("value"))
    two.cache.query("k", fetcher("value"))
    one.cache.remove("k")
    said, heard = one.cache.store_stats(), two.cache.store_stats()
    assert said.misses >= 1
    assert (said.hits, said.writes, said.deletes) == (0, 1, 1)
    assert (heard.misses, heard.hits, heard.writes) == (0, 1, 0)
    assert heard.read_bytes == said.written_bytes > 0


def test_times_that_it_was_out_of_reach_are_counted(make_world, store, fetcher):
    world = make_world(store=store)
    store.down = True
    world.cache.query("k", fetcher("value"))
    world.cache.remove("k")  # a store that is away is not asked again at once
    assert world.cache.store_stats().failures == 1


def test_memory_alone_is_no_store(world):
    assert world.cache.store_stats() is None
