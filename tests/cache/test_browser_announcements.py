"""Browsers hear of changed keys: ``BrowserAnnouncements`` of ``cache/subscriptions.py``."""

from __future__ import annotations

import pytest

from om_plugins.cache.subscriptions import BrowserAnnouncer
from om_plugins.notifications.audience import check_address


@pytest.fixture
def said():
    return []


@pytest.fixture
def make_live(make_world, said):
    publishing = BrowserAnnouncer(lambda key, to: said.append((key, *sorted(to))), check_address)
    return lambda **options: make_world(announcer=publishing, **options)


@pytest.fixture
def world(make_live):
    return make_live()


def hear(*worlds):
    """Twice, for what one says after another has listened."""
    for _ in range(2):
        worlds[0].clock.advance(1.2)
        for world in worlds:
            world.scheduler.run_due()


def test_nobody_is_told_of_a_key_that_is_not_live(world, fetcher, said):
    world.cache.query("private", fetcher(1), tags=["t"])
    world.cache.set("private", 2)
    world.cache.invalidate(tags=["t"])
    world.cache.remove("private")
    world.cache.clear()
    assert said == []


def test_browsers_are_told_when_a_live_value_changes(world, fetcher, said):
    world.cache.query("k", fetcher(1), live=True)
    assert said == [("k", "everyone")]
    for change in (
        lambda: world.cache.set("k", 2),
        lambda: world.cache.invalidate("k"),
        lambda: world.cache.remove("k"),
    ):
        world.clock.advance(0.001)
        change()
    assert said == [("k", "everyone")] * 4


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: cache.set("k", 2),
        lambda cache: cache.invalidate("k"),
        lambda cache: cache.invalidate(tags=["t"]),
        lambda cache: cache.purge("k"),
        lambda cache: cache.remove("k"),
        lambda cache: cache.clear(),
        lambda cache: cache.set("part", 9),
    ],
    ids=["set", "invalidate", "tag", "purge", "remove", "clear", "what it was computed from"],
)
def test_every_kind_of_change_is_told(world, fetcher, said, change):
    world.cache.set("part", 1)
    world.cache.query("k", lambda: world.cache.get("part"), tags=["t"], live=True)
    world.clock.advance(1)
    said.clear()
    change(world.cache)
    assert said == [("k", "everyone")]


def test_a_refresh_that_brings_the_same_value_is_no_change(world, fetcher, said):
    fetch = fetcher([1], [1], [2])
    for _ in range(3):
        world.cache.query("k", fetch, live=True)
        world.run()
        world.clock.advance(11)
    world.cache.query("k", fetch, live=True)
    world.run()
    assert fetch.calls == 4
    assert len(said) == 2


def test_it_is_said_to_whom_and_to_nobody_else(world, fetcher, said):
    world.cache.query(("inbox", 7), fetcher(1), scope="7", live="user:7")
    world.cache.query("load", fetcher(1), live=["operators", "role:editor"])
    assert said == [(["inbox", 7], "user:7"), ("load", "operators", "role:editor")]


def test_what_belongs_to_a_scope_is_not_named_to_everyone(world, fetcher):
    fetch = fetcher(1)
    with pytest.raises(ValueError, match="user:7"):
        world.cache.query("inbox", fetch, scope="7", live=True)
    with pytest.raises(ValueError, match="would name it to everyone"):
        world.cache.query("inbox", fetch, scope=0, live=True)
    with pytest.raises(ValueError, match="would name it to everyone"):
        world.cache.publish("inbox", scope=0)
    assert fetch.calls == 0


def test_what_is_no_address_is_refused(world, fetcher):
    with pytest.raises(ValueError, match="everybody"):
        world.cache.query("k", fetcher(1), live="everybody")


def test_a_key_that_no_browser_can_have_is_refused(world, fetcher):
    with pytest.raises(TypeError, match="bytes"):
        world.cache.publish(("k", b"1"))


def test_a_key_can_be_made_live_and_left_again(world, said):
    stop = world.cache.publish("k")
    world.cache.set("k", 1)
    world.clock.advance(0.001)
    stop()
    stop()
    world.cache.set("k", 2)
    assert said == [("k", "everyone")]


def test_a_change_in_a_worker_that_does_not_know_is_told_by_one_that_does(make_live, store, said):
    one, two, three = (make_live(store=store) for _ in range(3))
    for world in (two, three):
        world.cache.publish("k", tags=["t"])
    one.cache.stats()
    hear(one, two, three)
    for change in (
        lambda: one.cache.set("k", 1, tags=["t"]),
        lambda: one.cache.invalidate(tags=["t"]),
        lambda: one.cache.remove("k"),
        lambda: one.cache.clear(),
    ):
        said.clear()
        change()
        hear(one, two, three)
        assert said == [("k", "everyone")]


def test_when_several_know_it_is_told_once(make_live, store, said):
    one, two = make_live(store=store), make_live(store=store)
    for world in (one, two):
        world.cache.publish("k")
    hear(one, two)
    one.cache.set("k", 1)
    hear(one, two)
    one.cache.invalidate("k")
    hear(one, two)
    assert said == [("k", "everyone")] * 2


def test_another_worker_finds_the_new_value_once_it_heard(make_live, store):
    one, two = make_live(store=store), make_live(store=store)
    for world in (one, two):
        world.cache.publish("k")
    one.cache.set("k", 1)
    two.cache.get("k")
    hear(one, two)
    one.cache.set("k", 2)
    hear(one, two)
    assert two.cache.get("k") == 2


def test_telling_may_fail_and_nothing_happens(make_world, fetcher):
    def fail(key, to):
        raise OSError("no hub")

    world = make_world(announcer=BrowserAnnouncer(fail, check_address))
    assert world.cache.query("k", fetcher(1), live=True) == 1
