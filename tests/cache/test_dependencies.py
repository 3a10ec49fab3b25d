"""Entries computed from others: the dependency tracking of ``cache/entry.py``."""

from __future__ import annotations

import asyncio
import threading

import pytest

from om_plugins.cache.entry import MOST_DEPS
from om_plugins.cache.memoize.memoized import memoize


def total(world, fetch_price, **options):
    """A value computed from another one."""

    def compute():
        return 10 * world.cache.query("price", fetch_price, tags=["prices"], **options)

    return compute


@pytest.fixture
def workers(make_world, store):
    return make_world(store=store), make_world(store=store)


def hear(*worlds):
    worlds[0].clock.advance(1.5)
    for world in worlds:
        world.scheduler.run_due()


def stale(world, key):
    """Whether the entry in memory is stale."""
    return not world.cache._entries[key].is_fresh(world.clock.monotonic(), None)


# --- what is invalidated ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "invalidate",
    [
        lambda cache: cache.invalidate("price"),
        lambda cache: cache.invalidate("pri"),
        lambda cache: cache.invalidate(tags=["prices"]),
        lambda cache: cache.purge("price"),
        lambda cache: cache.purge(tags=["prices"]),
        lambda cache: cache.remove("price"),
        lambda cache: cache.set("price", 3),
    ],
    ids=["key", "prefix", "tag", "purge", "purge by tag", "remove", "set"],
)
def test_what_was_computed_from_an_entry_is_invalidated_with_it(world, fetcher, invalidate):
    compute = total(world, fetcher(2, 3))
    assert world.cache.query("total", compute) == 20
    world.clock.advance(1)
    assert not stale(world, "total")
    invalidate(world.cache)
    assert stale(world, "total")
    assert world.cache.query("total", compute) == 20
    world.run()
    assert world.cache.query("total", compute) == 30
    assert not stale(world, "total")


def test_what_was_computed_from_something_else_stays_fresh(world, fetcher):
    world.cache.query("total", total(world, fetcher(2)))
    world.cache.query("other", fetcher(1), tags=["others"])
    assert world.cache.invalidate("total") == 1
    assert not stale(world, "other")
    world.cache.set("price", 2)  # the value that it was computed from
    world.cache.query("total", total(world, fetcher(2)))


def test_setting_the_same_value_again_changes_nothing(world, fetcher):
    world.cache.query("total", total(world, fetcher(2)))
    world.cache.set("price", 2)
    assert not stale(world, "total")


def test_dependencies_reach_through_values_in_between(world, fetcher):
    compute = total(world, fetcher(2))
    world.cache.query("page", lambda: [world.cache.query("total", compute)])
    assert world.cache.invalidate("price") == 3
    assert stale(world, "page")


def test_a_look_up_that_found_nothing_counts_as_well(world):
    world.cache.query("answer", lambda: world.cache.get("maybe", "nothing"))
    world.cache.set("maybe", "something")
    assert stale(world, "answer")


def test_a_hit_counts_in_memory_and_under_another_scope(world, fetcher):
    world.cache.query("price", fetcher(2), scope="me")
    world.cache.query("total", lambda: world.cache.query("price", fetcher(0), scope="me"))
    assert world.cache.invalidate(scope="me") == 2
    assert stale(world, "total")


def test_memoized_functions_are_followed(world):
    @memoize(lambda: world.cache)
    def price(article):
        return article * 2

    world.cache.query("total", lambda: price(1) + price(2))
    price.invalidate(1)
    assert stale(world, "total")


def test_tasks_of_an_async_fetcher_are_followed_and_threads_are_not(world, fetcher):
    async def compute():
        async def one():
            return world.cache.query("price", fetcher(2))

        return await asyncio.create_task(one())

    def in_a_thread():
        thread = threading.Thread(target=lambda: world.cache.query("price", fetcher(2)))
        thread.start()
        thread.join()

    world.cache.query("with a task", compute)
    world.cache.query("with a thread", in_a_thread)
    world.cache.invalidate("price")
    assert stale(world, "with a task")
    assert not stale(world, "with a thread")


def test_another_caches_look_ups_are_its_own(make_world, fetcher):
    one, two = make_world(namespace="one"), make_world(namespace="two")
    compute = total(one, fetcher(2))
    one.cache.query("total", lambda: two.cache.query("between", compute))
    two.cache.invalidate("price")
    assert not stale(one, "total")
    one.cache.invalidate("price")
    assert stale(one, "total")
    assert not stale(two, "between")


def test_with_too_many_dependencies_any_invalidation_counts(world, fetcher):
    def compute():
        return [world.cache.query(("part", n), fetcher(n)) for n in range(MOST_DEPS + 1)]

    world.cache.query("all", compute)
    assert world.cache.invalidate("unrelated") == 1
    assert stale(world, "all")


# --- while it is computed -----------------------------------------------------------------------


def test_an_invalidation_while_the_fetcher_runs_is_not_lost(world, fetcher):
    price = fetcher(2, 3)

    def compute():
        found = 10 * world.cache.query("price", price)
        world.clock.advance(0.1)
        world.cache.invalidate("price")
        return found

    assert world.cache.query("total", compute) == 20
    assert stale(world, "total")


def test_what_was_computed_from_a_stale_value_is_stale(world, fetcher):
    price = fetcher(2, 3)
    world.cache.query("price", price)
    world.clock.advance(11)
    assert world.cache.query("total", total(world, price)) == 20
    assert stale(world, "total")


def test_in_the_background_a_stale_value_is_fetched_anew_first(world, fetcher):
    price = fetcher(2, 3)
    compute = total(world, price)
    world.cache.query("total", compute)
    world.clock.advance(1.5)
    world.cache.invalidate("price")
    world.cache.query("total", compute)
    assert world.run() == 1
    assert price.calls == 2
    assert world.cache.query("total", compute) == 30
    assert world.cache.query("price", price) == 3
    assert not stale(world, "total")


def test_when_that_fails_the_stale_value_serves_and_nobody_hurries(world, fetcher):
    price = fetcher(2, OSError("down"))
    compute = total(world, price)
    world.cache.query("total", compute)
    world.clock.advance(1.5)
    world.cache.invalidate("price")
    for _ in range(5):
        assert world.cache.query("total", compute) == 20
        world.run()
    assert price.calls == 2
    assert stale(world, "total")


# --- other workers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "invalidate",
    [
        lambda cache: cache.invalidate("price"),
        lambda cache: cache.invalidate(tags=["prices"]),
        lambda cache: cache.purge("price"),
        lambda cache: cache.remove("price"),
    ],
    ids=["key", "tag", "purge", "remove"],
)
def test_other_workers_hear_of_it(workers, fetcher, invalidate):
    one, two = workers
    two.cache.query("total", total(two, fetcher(2)))
    one.cache.get("total")
    one.clock.advance(0.1)
    invalidate(one.cache)
    hear(one, two)
    assert stale(two, "total")


def test_each_with_values_of_its_own_hears_as_well(make_world, fetcher):
    one, two = make_world(), make_world()
    for world in (one, two):
        world.cache.query("total", total(world, fetcher(2)))
    one.clock.advance(0.1)
    one.cache.set("price", 3)
    hear(one, two)
    assert stale(one, "total")
    assert stale(two, "total")


def test_a_value_read_from_the_store_later_remembers_what_it_was_computed_from(
    workers, make_world, store, fetcher
):
    one, two = workers
    one.cache.query("total", total(one, fetcher(2)))
    one.clock.advance(0.1)
    two.cache.invalidate(tags=["prices"])
    hear(one, two)
    third = make_world(store=store)
    for world in (two, third):
        world.cache.get("total")
        assert stale(world, "total")


def test_an_entry_of_the_store_tells_that_it_was_computed_from_a_stale_one(workers, fetcher):
    one, two = workers
    price = fetcher(2)
    one.cache.query("price", price)
    one.clock.advance(11)
    one.cache.query("total", total(one, price))
    two.cache.get("total")
    assert stale(two, "total")
    assert not two.cache._entries["total"].is_fresh(two.clock.monotonic(), 1000)
