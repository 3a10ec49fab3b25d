"""The cache as its callers see it; covers ``cache/miss.py`` and ``cache/tiers.py`` as well."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from unittest.mock import Mock
from uuid import UUID

import pytest

from om_plugins.cache.memoize.memoized import memoize
from om_plugins.errors import CacheError
from om_plugins.flask.views import cached

from .conftest import DictStore


def names(world):
    return [name for name, _ in world.signals]


# --- fresh, stale, missing ----------------------------------------------------------------------


def test_a_missing_value_is_fetched_once_and_then_fresh(world, fetcher):
    fetch = fetcher({"n": 1})
    assert world.cache.query("k", fetch) == {"n": 1}
    assert world.cache.query("k", fetch) == {"n": 1}
    assert fetch.calls == 1
    stats = world.cache.stats()
    assert (stats.misses, stats.fetches, stats.fresh) == (1, 1, 1)
    assert names(world) == ["cache_missed", "cache_hit"]


def test_stale_value_is_returned_while_one_refresh_runs(world, fetcher):
    fetch = fetcher("old", "new")
    world.cache.query("k", fetch)
    world.clock.advance(11)
    assert [world.cache.query("k", fetch) for _ in range(3)] == ["old"] * 3
    assert world.run() == 1
    assert world.cache.query("k", fetch) == "new"
    assert fetch.calls == 2
    stats = world.cache.stats()
    assert (stats.stale, stats.refreshes, stats.fetches, stats.fresh) == (3, 1, 1, 1)
    details = dict(world.signals)
    assert details["cache_stale_served"]["age_s"] == 11
    assert details["cache_refreshed"]["key"] == "k"


def test_a_value_is_gone_after_its_cache_time(world, fetcher):
    fetch = fetcher("old", "new")
    world.cache.query("k", fetch)
    world.clock.advance(100)
    assert world.cache.get("k") is None
    assert world.cache.query("k", fetch) == "new"


@pytest.mark.parametrize("store", [False, True])
def test_a_value_is_kept_as_long_as_it_is_asked_to_be_fresh(make_world, fetcher, store):
    def make():
        return make_world(store=shared) if store else make_world()

    shared, fetch, world = DictStore(), fetcher("old", "new"), None
    world = make()
    world.cache.query("k", fetch, stale_time=150)
    world.cache.set("m", "set", stale_time=150)
    price = memoize(lambda: world.cache, stale_time=150)(lambda: fetch.calls)
    assert price() == 1
    world.clock.advance(140)  # the default cache time is 100
    if store:
        world = make()  # from the store alone
    assert world.cache.query("k", fetch, stale_time=150) == "old"
    assert world.cache.get("m") == "set"
    fetch.calls = 2
    assert price() == 1
    world.clock.advance(20)
    assert world.cache.get("k") is None
    assert world.cache.get("m") is None


def test_the_caller_says_how_old_a_value_may_be(world, fetcher):
    world.cache.set("k", "value", stale_time=50)
    world.clock.advance(20)
    fetch = fetcher("new")
    assert world.cache.query("k", fetch) == "value"
    assert world.run() == 0
    assert world.cache.query("k", fetch, stale_time=5) == "value"
    assert world.run() == 1
    assert world.cache.query("k", fetch, stale_time=5) == "new"


def test_with_a_stale_time_of_zero_every_value_is_stale(world, fetcher):
    fetch = fetcher(1, 2, 3)
    assert world.cache.query("k", fetch, stale_time=0) == 1
    world.clock.advance(1)
    assert world.cache.query("k", fetch, stale_time=0) == 1
    world.run()
    assert world.cache.query("k", fetch, stale_time=0) == 2


def test_with_a_cache_time_of_zero_nothing_is_kept(world, fetcher):
    fetch = fetcher(1, 2)
    assert world.cache.query("k", fetch, cache_time=0) == 1
    assert world.cache.query("k", fetch, cache_time=0) == 2
    assert world.cache.stats().entries == 0


def test_no_second_fetch_begins_within_the_dedupe_time(world, fetcher):
    fetch = fetcher(1, 2)
    world.cache.query("k", fetch, stale_time=0, dedupe_time=5)
    world.clock.advance(4.9)
    world.cache.query("k", fetch, stale_time=0, dedupe_time=5)
    assert world.run() == 0
    world.clock.advance(0.2)
    world.cache.query("k", fetch, stale_time=0, dedupe_time=5)
    assert world.run() == 1


def test_the_caller_may_change_what_it_gets(world, fetcher):
    fetch = fetcher({"list": [1]})
    world.cache.query("k", fetch)["list"].append(2)
    world.cache.query("k", fetch)["list"].append(3)
    assert world.cache.get("k") == {"list": [1]}


def test_none_is_a_value_like_any_other(world, fetcher):
    fetch = fetcher(None)
    assert world.cache.query("k", fetch) is None
    assert world.cache.query("k", fetch) is None
    assert fetch.calls == 1
    assert world.cache.get("k", "default") is None
    assert world.cache.get("other", "default") == "default"


def test_scopes_and_kinds_of_keys_are_kept_apart(world):
    for number, (key, scope) in enumerate(
        [("k", ""), ("k", "ann"), ("k", "bob"), (("k",), ""), (("k",), "ann"), (1, ""), (True, "")]
    ):
        assert world.cache.query(key, lambda n=number: n, scope=scope) == number
    assert world.cache.get("k", scope="ann") == 1
    assert world.cache.get("k", scope="eve") is None


# --- failures -----------------------------------------------------------------------------------


def test_a_miss_is_retried_and_sleeps_at_most_one_second_in_all(world, fetcher):
    fetch = fetcher(OSError("1"), OSError("2"), OSError("3"), "value")
    assert world.cache.query("k", fetch) == "value"
    assert fetch.calls == 4
    assert len(world.clock.slept) == 3
    assert sum(world.clock.slept) <= 1
    stats = world.cache.stats()
    assert (stats.fetches, stats.failures, stats.misses) == (4, 3, 1)


def test_the_last_error_of_a_miss_reaches_the_caller(world, fetcher):
    fetch = fetcher(ValueError("first"), KeyError("last"))
    with pytest.raises(KeyError, match="last"):
        world.cache.query("k", fetch, retries=1)
    assert fetch.calls == 2


def test_a_failed_miss_is_not_fetched_again_within_the_dedupe_time(world, fetcher):
    fetch = fetcher(OSError("down"), "value")
    with pytest.raises(OSError, match="down") as first:
        world.cache.query("k", fetch, retries=0)
    with pytest.raises(OSError, match="down") as second:
        world.cache.query("k", fetch, retries=0)
    assert fetch.calls == 1
    assert second.value is not first.value  # each raises its own, so no traceback grows
    assert world.cache.stats().negative == 1
    world.clock.advance(1)
    assert world.cache.query("k", fetch, retries=0) == "value"


def test_a_remembered_error_is_forgotten_when_the_key_is_invalidated_or_set(world, fetcher):
    fetch = fetcher(OSError("down"), "value")
    with pytest.raises(OSError, match="down"):
        world.cache.query("k", fetch, retries=0)
    world.cache.invalidate("k")
    assert world.cache.query("k", fetch) == "value"


def test_an_exit_is_not_retried_and_not_remembered(world, fetcher):
    fetch = fetcher(KeyboardInterrupt(), "value")
    with pytest.raises(KeyboardInterrupt):
        world.cache.query("k", fetch)
    assert world.cache.query("k", fetch) == "value"


def test_a_failed_refresh_keeps_the_stale_value_backs_off_and_cools_down(world, fetcher, caplog):
    fetch = fetcher("good", OSError("down"))
    world.cache.query("k", fetch, cache_time=10_000)
    world.clock.advance(11)
    begun = []
    for _ in range(200):
        assert world.cache.query("k", fetch) == "good"
        if world.run():
            begun.append(world.clock.monotonic())
        world.clock.advance(0.5)
    pauses = [later - earlier for earlier, later in pairwise(begun)]
    assert len(begun) == 7
    assert all(
        1 <= pause <= longest + 0.5 for pause, longest in zip(pauses, [1, 2, 4], strict=False)
    )
    assert pauses[3:] == [30.0] * len(pauses[3:])  # the cooldown
    assert world.cache.stats().failures == 7
    assert "the stale value stays" in caplog.text
    assert names(world).count("cache_refresh_failed") == 7


def test_a_refresh_that_succeeds_again_ends_the_back_off(world, fetcher):
    fetch = fetcher(1, OSError("down"), 2, OSError("down"), 3)
    world.cache.query("k", fetch, stale_time=5, cache_time=1000)
    for expected in (1, 2, 2, 3):
        world.clock.advance(6)
        world.cache.query("k", fetch, stale_time=5, cache_time=1000)
        assert world.run() == 1
        assert world.cache.get("k") == expected


def test_a_full_queue_drops_the_refresh_and_still_serves(make_world, fetcher):
    world = make_world(queue_size=1)
    fetch = fetcher("v")
    for key in ("a", "b"):
        world.cache.query(key, fetch)
    world.clock.advance(11)
    assert world.cache.query("a", fetch) == "v"
    assert world.cache.query("b", fetch) == "v"
    assert world.cache.stats().dropped == 1
    world.run()
    assert world.cache.query("b", fetch) == "v"
    assert world.run() == 1  # what was dropped is not forgotten


def test_who_needs_a_value_does_not_wait_for_a_queued_refresh_of_it(world, fetcher):
    fetch = fetcher(1, 2, 3)
    world.cache.query("k", fetch)
    world.clock.advance(99)
    world.cache.query("k", fetch)  # stale: a refresh is queued
    world.clock.advance(2)  # and now the entry is gone
    assert world.cache.query("k", fetch) == 2
    world.run()
    assert fetch.calls == 2


# --- taking back --------------------------------------------------------------------------------


def test_an_invalidated_value_is_served_until_its_refresh_is_there(world, fetcher):
    fetch = fetcher("old", "new")
    world.cache.query("k", fetch)
    assert world.cache.invalidate("k") == 1
    assert world.cache.query("k", fetch, stale_time=1000) == "old"
    world.run()
    assert world.cache.query("k", fetch) == "new"
    assert dict(world.signals)["cache_invalidated"] == {"prefix": "k", "tags": (), "count": 1}


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ({"prefix": "user/1"}, {"user/1", "user/10"}),
        ({"prefix": ("user", 1)}, {("user", 1), ("user", 1, "mail")}),
        ({"prefix": ("user",)}, {("user", 1), ("user", 1, "mail"), ("user", 10)}),
        ({"tags": ["red"]}, {"user/1", ("user", 10)}),
        ({"tags": ["red", "blue"]}, {"user/1", ("user", 10), "user/2"}),
        ({"prefix": "user/2", "tags": ["red"]}, {"user/1", ("user", 10), "user/2"}),
        ({"tags": ["none"]}, set()),
        ({"prefix": "usher"}, set()),
    ],
)
def test_invalidation_reaches_what_it_names_and_nothing_else(world, what, expected):
    tags = {"user/1": ["red"], ("user", 10): ["red"], "user/2": ["blue"]}
    keys = ["user/1", "user/10", "user/2", ("user", 1), ("user", 1, "mail"), ("user", 10)]
    for key in keys:
        world.cache.set(key, "v", tags=tags.get(key, ()))
    assert world.cache.invalidate(**what) == len(expected)
    for key in keys:
        world.cache.query(key, lambda: "new")
    world.run()
    assert {key for key in keys if world.cache.get(key) == "new"} == expected


class Tenant:
    def __cache_key__(self) -> int:
        return 7

    def __repr__(self) -> str:
        return "tenant 7"


SCOPES = [
    7, 0, UUID(int=7), ("team", 7), (), b"7", True, False, Decimal("1.5"), date(2024, 1, 2),
    frozenset({"a"}), Tenant(), "7", "\u0107",
]  # fmt: skip


@pytest.mark.parametrize("scope", SCOPES, ids=repr)
@pytest.mark.parametrize("key", ["inbox", ("inbox", 1)])
def test_a_scope_of_any_type_is_stored_found_and_taken_back(world, fetcher, scope, key):
    cache = world.cache
    cache.set(key, "everybody's")
    fetch = fetcher("mail")
    assert [cache.query(key, fetch, scope=scope) for _ in range(2)] == ["mail", "mail"]
    assert fetch.calls == 1
    assert cache.get(key, scope=scope) == "mail"
    for take_back in (cache.invalidate, cache.purge):
        cache.set(key, "mail", scope=scope, tags=["mail"])
        assert take_back(scope=scope) == 1
        cache.set(key, "mail", scope=scope, tags=["mail"])
        assert take_back(key, scope=scope) == 1
        cache.set(key, "mail", scope=scope, tags=["mail"])
        assert take_back(tags=["mail"], scope=scope) == 1
        assert take_back(key, scope="somebody else") == 0
    cache.set(key, "mail", scope=scope)
    cache.remove(key, scope=scope)
    assert cache.get(key, scope=scope) is None
    assert cache.get(key) == "everybody's"


@pytest.mark.parametrize("scope", [7, 0, UUID(int=7), True, Decimal("1.5")], ids=repr)
def test_a_number_and_its_text_are_one_scope(world, scope):
    world.cache.set("inbox", "mail", scope=scope)
    assert world.cache.get("inbox", scope=str(scope)) == "mail"
    assert world.cache.invalidate(scope=str(scope)) == 1
    world.cache.set("inbox", "mail", scope=str(scope))
    assert world.cache.purge(scope=scope) == 1
    world.cache.set(("inbox", 1), "mail", scope=("team", scope))
    assert world.cache.invalidate(scope=("team", str(scope))) == 1


@pytest.mark.parametrize("scope", [7, ("team", 7), b"\xff", Tenant()], ids=repr)
def test_another_worker_hears_of_a_scope_of_any_type(make_world, scope):
    one, other = make_world(), make_world()
    for world in (one, other):
        for owner in (scope, "somebody else"):
            world.cache.set("inbox", "mail", scope=owner)
    one.clock.advance(0.1)
    assert one.cache.purge(scope=scope) == 1
    one.clock.advance(1)
    other.scheduler.run_due()
    assert other.cache.get("inbox", scope=scope) is None
    assert other.cache.get("inbox", scope="somebody else") == "mail"


def test_nobody_as_a_scope_stores_for_all_but_takes_nothing_back(world):
    world.cache.set("page", "public", scope=None)
    assert world.cache.get("page") == world.cache.get("page", scope=None) == "public"
    for take_back in (world.cache.invalidate, world.cache.purge):
        for nobody in (None, ""):
            for more in ({}, {"prefix": "page"}, {"tags": ["pages"]}):
                words = f"scope={nobody!r} names nobody: leave the argument out"
                with pytest.raises(TypeError, match=words):
                    take_back(**more, scope=nobody)
    assert world.cache.get("page") == "public"


def test_a_key_of_scope_zero_is_not_everybodys(world):
    world.cache.set("inbox", "everybody's")
    assert world.cache.query("inbox", lambda: "mail", scope=0) == "mail"
    assert world.cache.query("inbox", lambda: "mail", scope=()) == "mail"


def test_a_scope_narrows_an_invalidation(world):
    for scope in ("", "ann", "bob"):
        world.cache.set("k", "v", scope=scope, tags=["t"])
    assert world.cache.invalidate("k", scope="ann") == 1
    assert world.cache.invalidate(tags=["t"], scope="bob") == 1
    assert world.cache.invalidate(scope="bob") == 1
    assert world.cache.invalidate("k") == 3
    assert world.cache.invalidate() == 3


def test_a_fetch_during_which_the_key_was_invalidated_does_not_make_it_fresh(world, fetcher):
    def fetch_while_it_changes():
        world.cache.invalidate(tags=["t"])
        return "read before the change"

    assert world.cache.query("k", fetch_while_it_changes, tags=["t"]) == "read before the change"
    after = fetcher("after")
    assert world.cache.query("k", after, tags=["t"]) == "read before the change"
    world.run()
    assert world.cache.query("k", after, tags=["t"]) == "after"


def test_a_refresh_during_which_the_key_was_invalidated_does_not_make_it_fresh(world, fetcher):
    def fetch_while_it_changes():
        world.cache.invalidate("k")
        return "outdated"

    world.cache.set("k", "first")
    world.clock.advance(11)
    world.cache.query("k", fetch_while_it_changes)
    world.run()
    after = fetcher("after")
    assert world.cache.query("k", after) == "outdated"
    assert world.run() == 1
    assert world.cache.query("k", after) == "after"


def test_what_was_set_during_a_fetch_is_not_overwritten_by_it(world):
    def fetch_while_it_is_set():
        world.cache.set("k", "set")
        return "fetched"

    assert world.cache.query("k", fetch_while_it_is_set) == "fetched"
    assert world.cache.get("k") == "set"


@pytest.mark.parametrize("how", ["remove", "clear"])
def test_what_was_removed_during_a_fetch_does_not_come_back(world, how):
    def fetch_while_it_is_removed():
        world.cache.remove("k") if how == "remove" else world.cache.clear()
        return "fetched"

    assert world.cache.query("k", fetch_while_it_is_removed) == "fetched"
    assert world.cache.get("k") is None


def test_remove_forgets_one_entry_and_clear_all(world):
    for key in "abc":
        world.cache.set(key, key)
    world.cache.remove("a")
    world.cache.remove("never there")
    assert world.cache.get("a") is None
    assert world.cache.get("b") == "b"
    assert world.cache.clear() == 2
    assert world.cache.stats().entries == 0


# --- bounds -------------------------------------------------------------------------------------


def test_a_value_over_the_limit_is_returned_but_not_kept_with_one_warning(world, fetcher, caplog):
    fetch = fetcher("x" * 20_000)
    for _ in range(3):
        assert len(world.cache.query("k", fetch)) == 20_000
    assert fetch.calls == 3
    assert world.cache.refusals() == {"size": 3}
    assert len(caplog.records) == 1
    assert "OM_CACHE_MAX_VALUE" in caplog.text


def test_setting_a_value_over_the_limit_removes_the_outdated_one(world):
    world.cache.set("k", "old")
    world.cache.set("k", "x" * 20_000)
    assert world.cache.get("k") is None


def test_an_object_is_returned_uncached_with_one_warning_that_names_it(world, caplog):
    class Server:
        pass

    values = [world.cache.query("k", Server) for _ in range(3)]
    assert len(set(map(id, values))) == 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "Server" in caplog.text
    assert world.cache.refusals() == {"type": 3}
    with pytest.raises(CacheError, match="Server"):
        world.cache.set("k", Server())


def test_memory_stays_within_its_bound(make_world):
    world = make_world(l1_bytes=50_000)
    for number in range(500):
        world.cache.set(f"k{number}", "x" * (number % 900))
    stats = world.cache.stats()
    assert stats.entries + stats.evictions == 500
    assert 0 < stats.size_bytes < 50_000


def test_the_sweep_removes_what_is_expired_every_ten_minutes(world):
    world.cache.set("short", 1)
    world.cache.set("long", 1, cache_time=5000)
    world.clock.advance(599)
    world.scheduler.run_due()
    assert world.cache.stats().entries == 2
    world.clock.advance(1)
    world.scheduler.run_due()
    assert world.cache.stats().entries == 1


def test_nothing_is_registered_or_read_before_the_first_use(make_world, store):
    world = make_world(store=store)
    world.clock.advance(1000)
    assert world.scheduler.run_due() == 0
    world.cache.get("k")
    world.clock.advance(1000)
    assert world.scheduler.run_due() == 3  # sweep, exchange, reader of the bus


def test_a_closed_cache_stops_its_jobs_and_can_be_used_again(world):
    world.cache.set("k", 1)
    world.cache.internals.close()
    world.clock.advance(1000)
    assert world.scheduler.run_due() == 0
    world.cache.set("k", 2)
    assert world.cache.get("k") == 2


# --- kinds of fetchers --------------------------------------------------------------------------


async def fetch_async():
    await asyncio.sleep(0)
    return "async"


def test_an_async_fetcher_is_run_to_its_end(world):
    assert world.cache.query("k", fetch_async) == "async"
    assert world.cache.query("other", lambda: fetch_async()) == "async"


def test_an_async_fetcher_inside_a_loop_is_a_clear_error(world):
    async def main():
        return world.cache.query("k", fetch_async)

    with pytest.raises(TypeError, match=r"fetch_async is async .* asyncio\.to_thread"):
        asyncio.run(main())


def test_a_generator_is_refused(world):
    def rows():
        yield 1

    with pytest.raises(TypeError, match="rows is a generator function: return a list"):
        world.cache.query("k", rows)
    with pytest.raises(TypeError, match="returned a generator"):
        world.cache.query("k", lambda: rows())
    with pytest.raises(TypeError, match="must be callable, not int"):
        world.cache.query("k", 5)


def test_a_fetcher_that_asks_for_its_own_key_is_told_so(world):
    with pytest.raises(CacheError, match="asks for 'k' itself"):
        world.cache.query("k", lambda: world.cache.query("k", lambda: 1), retries=0)


WRONG_ARGUMENTS = [
    ({"tags": "report"}, TypeError, "tags must be a list of texts, not the text 'report'"),
    ({"tags": 5}, TypeError, "tags=5 must be a list of texts"),
    ({"tags": [5]}, TypeError, r"tags=\[5\] must be a list of texts"),
    ({"tags": b"report"}, TypeError, "tags=b'report' must be a list of texts"),
    ({"stale_time": "5"}, TypeError, "stale_time='5' must be a number of seconds, or None"),
    ({"stale_time": True}, TypeError, "stale_time=True must be a number of seconds"),
    ({"stale_time": timedelta(1)}, TypeError, "stale_time=datetime.timedelta"),
    ({"cache_time": Decimal(5)}, TypeError, "cache_time=Decimal"),
    ({"stale_time": -5}, ValueError, "stale_time=-5 must be .* at least 0"),
    ({"cache_time": -0.1}, ValueError, "cache_time=-0.1 must be .* at least 0"),
    ({"cache_time": float("nan")}, ValueError, "cache_time=nan must be"),
]
"""For all that store values; each with its error."""

WRONG_IN_QUERIES = [
    *WRONG_ARGUMENTS,
    ({"negative_time": "5"}, TypeError, "negative_time='5' must be a number of seconds, or None"),
    ({"negative_time": -1}, ValueError, "negative_time=-1 must be"),
]
WRONG_FETCHES = [
    *WRONG_IN_QUERIES,
    ({"dedupe_time": None}, TypeError, "dedupe_time=None must be a number of seconds$"),
    ({"dedupe_time": -1}, ValueError, "dedupe_time=-1 must be"),
    ({"retries": "3"}, TypeError, "retries='3' must be a whole number"),
    ({"retries": 1.5}, TypeError, "retries=1.5 must be a whole number"),
    ({"retries": -1}, ValueError, "retries=-1 must be at least 0"),
]


@pytest.mark.parametrize(("given", "kind", "words"), WRONG_ARGUMENTS)
def test_set_refuses_a_wrong_argument_and_stores_nothing(world, given, kind, words):
    with pytest.raises(kind, match=words):
        world.cache.set("k", 1, **given)
    assert world.cache.get("k") is None


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [*WRONG_FETCHES, ({"retry_delay": "1"}, TypeError, "retry_delay='1' must be a number")],
)
def test_query_refuses_a_wrong_argument_and_fetches_nothing(world, given, kind, words):
    fetched = []
    with pytest.raises(kind, match=words):
        world.cache.query("k", lambda: fetched.append(1), **given)
    assert fetched == []


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [*WRONG_FETCHES, ({"name": 5}, TypeError, "name=5 must be a text")],
)
def test_memoize_refuses_a_wrong_argument_at_decoration(world, given, kind, words):
    with pytest.raises(kind, match=words):
        memoize(lambda: world.cache, **given)


@pytest.mark.parametrize(("given", "kind", "words"), WRONG_IN_QUERIES)
def test_cached_refuses_a_wrong_argument_at_decoration(world, given, kind, words):
    with pytest.raises(kind, match=words):
        cached(lambda: world.cache, **given)


@pytest.mark.parametrize("wrong", ["5", timedelta(1), Decimal(5)])
def test_a_time_of_a_wrong_type_is_refused_where_the_value_is_there(world, wrong):
    world.cache.set("k", 1)
    with pytest.raises(TypeError, match="stale_time="):
        world.cache.query("k", lambda: 2, stale_time=wrong)


def test_times_of_zero_without_end_and_of_any_real_type_are_right(world):
    for time in (0, 0.0, float("inf"), Fraction(1, 2)):
        assert world.cache.query(("k", str(time)), lambda: 1, stale_time=time, cache_time=time) == 1
        world.cache.set("k", 1, stale_time=time, cache_time=time)


def test_a_background_fetch_runs_inside_the_given_context(make_world):
    inside = []

    class Context:
        def __enter__(self):
            inside.append(True)

        def __exit__(self, *exc):
            inside.pop()

    world = make_world(context=Context)
    seen = []
    world.cache.query("k", lambda: seen.append(bool(inside)))
    world.clock.advance(11)
    world.cache.query("k", lambda: seen.append(bool(inside)))
    world.run()
    assert seen == [False, True]


# --- "there is none" ----------------------------------------------------------------------------


def test_an_absence_is_kept_for_its_own_time(world, fetcher):
    fetch = fetcher(None, None, "there")
    assert world.cache.query("k", fetch, negative_time=5) is None
    assert world.cache.query("k", fetch, negative_time=5) is None
    assert fetch.calls == 1
    world.clock.advance(5)
    assert world.cache.query("k", fetch, negative_time=5) is None  # never stale: asked anew
    assert fetch.calls == 2
    world.clock.advance(5)
    assert world.cache.query("k", fetch, negative_time=5) == "there"
    stats = world.cache.stats()
    assert (stats.negative, stats.misses, stats.fresh) == (1, 3, 0)


async def later(value=None):
    return True


@pytest.mark.parametrize(
    "said",
    [None, 1, "yes", [0], Mock(), later, lambda v: (one for one in v), re.compile("v").match],
)
def test_only_true_says_that_a_value_means_there_is_none(world, fetcher, said, caplog):
    def negative(value):
        return said("v") if said is not None and inspect.isroutine(said) else said

    fetch = fetcher("value", "value")
    world.cache.query("k", fetch, negative_time=1, stale_time=60, negative=negative)
    world.clock.advance(5)
    world.cache.query("k", fetch, negative_time=1, stale_time=60, negative=negative)
    assert fetch.calls == 1
    assert "negative= of" in caplog.text
    assert "only True is a yes" in caplog.text


@pytest.mark.parametrize("answer", [True, False])
def test_true_and_false_are_taken_at_their_word(world, fetcher, answer, caplog):
    fetch = fetcher("value", "value")
    for _ in range(2):
        world.cache.query("k", fetch, negative_time=1, stale_time=60, negative=lambda v: answer)
        world.clock.advance(5)
    assert fetch.calls == (2 if answer else 1)
    assert not caplog.records


@pytest.mark.parametrize(
    "wrong",
    [
        {"negative": later},
        {"negative": lambda: True},
        {"negative": True},
        {"background": later},
        {"background": lambda key: None},
    ],
)
def test_functions_that_cannot_be_asked_are_refused_before_the_fetch(world, fetcher, wrong):
    fetch = fetcher("value")
    (name,) = wrong
    with pytest.raises(TypeError, match=f"{name}=.* cannot be called"):
        world.cache.query("k", fetch, negative_time=1, **wrong)
    assert fetch.calls == 0


def test_without_a_time_of_its_own_none_is_a_value(world, fetcher):
    fetch = fetcher(None)
    world.cache.query("k", fetch)
    world.clock.advance(9)
    assert world.cache.query("k", fetch) is None
    assert (fetch.calls, world.cache.stats().fresh) == (1, 1)


def test_an_error_that_means_there_is_none_is_not_retried_and_kept(world, fetcher):
    fetch = fetcher(KeyError("k"))
    for _ in range(3):
        with pytest.raises(KeyError):
            world.cache.query("k", fetch, negative_time=30)
    world.clock.advance(29)
    with pytest.raises(KeyError):
        world.cache.query("k", fetch, negative_time=30)
    assert (fetch.calls, world.cache.stats().negative) == (1, 3)
    assert world.clock.slept == []


def test_other_errors_are_failures_still(world, fetcher):
    fetch = fetcher(OSError("down"))
    with pytest.raises(OSError, match="down"):
        world.cache.query("k", fetch, negative_time=30, retries=1)
    assert fetch.calls == 2
    world.clock.advance(2)
    with pytest.raises(OSError, match="down"):
        world.cache.query("k", fetch, negative_time=30, retries=0)
    assert fetch.calls == 3


@pytest.mark.parametrize("answer", [None, KeyError("gone")], ids=["None", "an error"])
def test_an_absence_takes_the_place_of_a_value(world, fetcher, answer):
    fetch = fetcher("there", answer)

    def look():
        try:
            return world.cache.query("k", fetch, negative_time=30)
        except KeyError:
            return None

    assert look() == "there"
    world.clock.advance(11)
    assert look() == "there"
    world.run()
    assert look() is None
    assert fetch.calls == 2
    assert world.cache.stats().negative == 1
    assert world.cache.stats().failures == 0


@pytest.mark.parametrize("answer", [None, KeyError("gone")], ids=["None", "an error"])
def test_an_absence_can_be_taken_back(world, fetcher, answer):
    fetch = fetcher(answer, "there", "there", "there")

    def look():
        try:
            return world.cache.query("k", fetch, negative_time=30, tags=["t"])
        except KeyError:
            return None

    assert look() is None
    world.clock.advance(1)
    world.cache.invalidate(tags=["t"])
    assert look() == "there"


def test_an_absence_is_shared_and_counted_there(make_world, store, fetcher):
    one, two = make_world(store=store), make_world(store=store)
    one.cache.query("k", fetcher(None), negative_time=30)
    assert two.cache.query("k", fetcher("never"), negative_time=30) is None
    assert two.cache.query("k", fetcher("never"), negative_time=30) is None
    assert two.cache.stats().negative == 2


# --- taking back for good -----------------------------------------------------------------------


def test_purge_forgets_at_once_by_prefix_or_tag(world, fetcher):
    for key, tags in (("a:1", []), ("a:2", []), ("b:1", ["t"]), ("b:2", [])):
        world.cache.set(key, 1, tags=tags)
    world.clock.advance(1)
    assert world.cache.purge("a:", tags=["t"]) == 3
    assert [world.cache.get(key) for key in ("a:1", "a:2", "b:1", "b:2")] == [None, None, None, 1]


def test_purge_reaches_the_store_and_other_workers(make_world, store, fetcher):
    one, two, three = (make_world(store=store) for _ in range(3))
    one.cache.query("k", fetcher("old"), tags=["t"])
    two.cache.get("k")
    three.cache.stats()
    one.clock.advance(0.1)
    three.cache.purge(tags=["t"])  # it never had the entry itself
    one.clock.advance(1.5)
    for world in (one, two):
        world.scheduler.run_due()
    assert [world.cache.get("k") for world in (one, two, three)] == [None] * 3
    assert two.cache.query("k", fetcher("new")) == "new"
    assert three.cache.get("k") == "new"


def test_what_is_on_its_way_when_it_is_purged_is_not_kept(world):
    def fetch():
        world.clock.advance(0.1)
        world.cache.purge("k")
        return "old"

    assert world.cache.query("k", fetch) == "old"
    assert world.cache.get("k") is None


# --- jitter -------------------------------------------------------------------------------------


def test_what_was_stored_together_does_not_end_together(make_world):
    world = make_world(jitter=0.1)
    for n in range(200):
        world.cache.set(("k", n), n)
    entries = world.cache._entries.values()
    now = world.clock.monotonic()
    fresh = sorted(entry.fresh_until - now for entry in entries)
    gone = sorted(entry.gone_at - now for entry in entries)
    assert 9 <= fresh[0] < 9.3 < 9.7 < fresh[-1] <= 10
    assert 90 <= gone[0] < 93 < 97 < gone[-1] <= 100


def test_jitter_is_a_share_of_the_time_that_the_caller_asked_for(make_world, fetcher):
    world = make_world(jitter=0.5)
    for n in range(50):
        world.cache.query(("k", n), fetcher(n), stale_time=3600, cache_time=7200)
    world.clock.advance(2)
    before = world.cache.stats().fresh
    for n in range(50):
        world.cache.query(("k", n), fetcher(n), stale_time=5)
    assert world.cache.stats().fresh == before + 50
    world.clock.advance(1.5)
    for n in range(50):
        world.cache.query(("k", n), fetcher(n), stale_time=5)
    assert 0 < world.cache.stats().stale < 50


def test_endless_times_have_no_jitter(make_world):
    world = make_world(jitter=0.1)
    world.cache.set("k", 1, stale_time=float("inf"), cache_time=float("inf"))
    world.clock.advance(1e9)
    assert world.cache.query("k", lambda: 2) == 1
    assert world.run() == 0
