from __future__ import annotations

import threading

import pytest

from om_plugins.cache.responses.deferred import DeferredFetch, begin_fetch
from om_plugins.cache.responses.kept import StoredInputs
from om_plugins.cache.singleflight import FetchOutcome, InFlight
from om_plugins.cache.values import decode
from tests.cache.responses.conftest import Asker
from tests.patience import PATIENCE_S, join


def options_of(world, address=("view", "/page"), **more):
    return Asker(world, address=address, **more).query.options(StoredInputs())


def look(world, options):
    entry = world.cache.internals.here().tiers.look(options.ident)
    return None if entry is None else decode(entry.data)


def begin(world, options, **more):
    return begin_fetch(world.cache.internals.here(), options, **more)


def test_what_is_committed_is_stored_and_counted(world):
    options = options_of(world)
    data, deferred = begin(world, options)
    assert data == b""
    assert deferred.run(lambda: "made") == "made"
    assert look(world, options) is None  # not before the answer is whole
    assert deferred.commit("stored", options)
    assert look(world, options) == "stored"
    stats = world.cache.stats()
    assert (stats.misses, stats.fetches, stats.entries) == (1, 1, 1)


def test_it_may_be_stored_under_another_key_than_that_of_the_miss(world):
    missed, stored = options_of(world), options_of(world, ("view", "/page", "ann"))
    _, deferred = begin(world, missed)
    deferred.run(lambda: "made")
    deferred.commit("of ann", stored)
    assert look(world, missed) is None
    assert look(world, stored) == "of ann"


def test_what_is_given_up_is_not_stored_and_nobody_waits_for_the_key_for_a_while(world):
    options = options_of(world)
    _, deferred = begin(world, options)
    deferred.run(lambda: "made")
    deferred.give_up()
    assert deferred.fetch.outcome is FetchOutcome.NOTHING
    assert look(world, options) is None
    first, second = (begin(world, options)[1] for _ in range(2))
    assert first is not None
    assert second is not None
    deferred.give_up()  # once more changes nothing
    for one in (first, second):
        one.give_up()


def test_after_a_commit_others_wait_for_the_key_again(world):
    options = options_of(world)
    begin(world, options)[1].give_up()
    _, deferred = begin(world, options)
    deferred.run(lambda: "made")
    deferred.commit("made", options)
    world.cache.internals.here().tiers.remove(options.ident)
    _, leader = begin(world, options)
    assert not leader.fetch.alone
    leader.give_up()


@pytest.mark.parametrize("ends", ["commit", "give_up"])
def test_who_waits_gets_the_value_or_makes_his_own(world, ends):
    options = options_of(world)
    _, leader = begin(world, options)
    found, started = [], threading.Event()

    def follow():
        started.set()
        data, own = begin(world, options)
        found.append((data, own))

    threads = [threading.Thread(target=follow) for _ in range(3)]
    for thread in threads:
        thread.start()
    started.wait(PATIENCE_S)
    leader.run(lambda: "made")
    if ends == "commit":
        leader.commit("made", options)
    else:
        leader.give_up()
    for thread in threads:
        join(thread)
    for data, own in found:
        if own is None:
            assert ends == "commit"
            assert decode(data) == "made"
        else:
            own.give_up()
    assert len(found) == 3


def test_a_thread_does_not_wait_for_itself(world):
    options = options_of(world)
    _, outer = begin(world, options)
    data, inner = begin(world, options)
    assert data == b""
    assert inner.fetch.alone
    inner.give_up()
    outer.give_up()


def test_alone_it_waits_for_nobody(world):
    options = options_of(world)
    _, leader = begin(world, options)
    _, own = begin(world, options, alone=True)
    assert own.fetch.alone
    own.run(lambda: "own")
    own.commit("own", options)
    assert look(world, options) == "own"
    leader.give_up()


@pytest.mark.parametrize("when", ["while it is made", "after that"])
@pytest.mark.parametrize("what", [{"tags": ["rows"]}, {"key": ("view", "/page", "")}])
def test_what_was_invalidated_meanwhile_is_not_served_as_fresh(world, when, what):
    options = options_of(world, tags=("rows",))
    _, deferred = begin(world, options)

    def invalidate():
        arguments = [what["key"]] if "key" in what else []
        world.cache.invalidate(*arguments, **({"tags": what["tags"]} if "tags" in what else {}))

    deferred.run(invalidate if when == "while it is made" else lambda: None)
    world.clock.advance(1)
    if when == "after that":
        invalidate()
    deferred.commit("old", options)
    entry = world.cache.internals.here().tiers.look(options.ident)
    assert entry is None or not entry.is_fresh(world.clock.time(), 10.0)


@pytest.mark.parametrize("when", ["while it is made", "after that"])
def test_what_it_was_made_of_is_a_dependency(world, when):
    options = options_of(world)
    _, deferred = begin(world, options)
    deferred.run(lambda: world.cache.query("rows", lambda: [1], tags=["rows"]))
    if when == "after that":
        deferred.commit("made of rows", options)
    world.clock.advance(1)
    assert world.cache.invalidate(tags=["rows"]) >= 1
    if when == "while it is made":
        deferred.commit("made of rows", options)
    entry = world.cache.internals.here().tiers.look(options.ident)
    assert entry is None or not entry.is_fresh(world.clock.time(), 10.0)


def test_a_value_that_cannot_be_encoded_or_is_too_large_is_not_stored(world):
    options = options_of(world)
    _, deferred = begin(world, options)
    deferred.run(lambda: None)
    assert not deferred.commit(object(), options)
    assert deferred.fetch.outcome is FetchOutcome.NOTHING
    _, deferred = begin(world, options)
    deferred.run(lambda: None)
    deferred.commit("x" * 20_000, options)
    assert look(world, options) is None


def test_what_was_never_run_is_not_stored(world):
    options = options_of(world)
    _, deferred = begin(world, options)
    deferred.commit("x", options)
    assert look(world, options) is None
    assert deferred.fetch.outcome is FetchOutcome.VALUE


def test_a_fetch_beside_another_shares_its_dependencies(world):
    outer, inner = options_of(world), options_of(world, ("view", "/page", "ann"))
    _, deferred = begin(world, outer)

    def make():
        beside = DeferredFetch.begin(world.cache.internals.here(), inner)
        world.cache.query("rows", lambda: [1], tags=["rows"])
        beside.commit("of ann", inner)

    deferred.run(make)
    deferred.give_up()
    assert look(world, inner) == "of ann"
    world.clock.advance(1)
    world.cache.invalidate(tags=["rows"])
    entry = world.cache.internals.here().tiers.look(inner.ident)
    assert entry is None or not entry.is_fresh(world.clock.time(), 10.0)


def test_another_worker_finds_it(make_world, store):
    first, second = make_world(store=store), make_world(store=store)
    options = options_of(first)
    _, deferred = begin(first, options)
    deferred.run(lambda: "made")
    deferred.commit("made", options)
    data, own = begin(second, options_of(second))
    assert own is None
    assert decode(data) == "made"


class HeldLease:
    """Another process, which fetches until this one has asked for the lease a few times."""

    def __init__(self, world, hub, options, at_work):
        self.leases = world.cache.internals.here().leases
        self.lease = hub.lease(self.leases._name("fetch", options.ident), 60.0)
        self.left = 2
        self.at_work = at_work
        self.sleep = world.clock.sleep
        world.clock.sleep = self.go_on

    def go_on(self, seconds):
        self.sleep(seconds)
        self.left -= 1
        if self.left == 1:
            self.at_work()
        if self.left == 0:
            self.lease.release()


@pytest.fixture
def after_another(make_world, store, hub):
    """Return a world, and a function that begins a fetch after another process's in vain."""
    world = make_world(store=store)

    def begin_after(options, at_work=lambda: None):
        HeldLease(world, hub, options, at_work)
        return begin(world, options)[1]

    return world, begin_after


def test_who_waited_for_another_process_in_vain_lets_its_followers_go(after_another, monkeypatch):
    world, begin_after = after_another
    options = options_of(world)
    followers, found = [], []
    waits, wait = threading.Event(), InFlight.wait

    def wait_and_say(fetch, seconds):
        waits.set()
        return wait(fetch, seconds)

    monkeypatch.setattr(InFlight, "wait", wait_and_say)

    def follow():
        data, own = begin(world, options)
        found.append((data, own.fetch.alone, own.waited))
        own.give_up()

    def at_work():
        followers.append(threading.Thread(target=follow))
        followers[0].start()
        assert waits.wait(PATIENCE_S)

    deferred = begin_after(options, at_work)
    join(followers[0])  # while the fetch still runs
    assert found == [(b"", True, True)]
    assert deferred.fetch.alone
    assert deferred.waited
    deferred.run(lambda: "made")
    assert deferred.commit("made", options)
    assert look(world, options) == "made"


def test_who_waited_in_vain_keeps_the_lease(after_another, hub):
    world, begin_after = after_another
    options = options_of(world)
    deferred = begin_after(options)
    assert deferred.fetch.lease is not None
    name = world.cache.internals.here().leases._name("fetch", options.ident)
    assert hub.lease(name, 1.0) is None
    deferred.give_up()
    assert hub.lease(name, 1.0) is not None


@pytest.mark.parametrize("when", ["while it waits", "while it is made", "after that"])
def test_who_waited_in_vain_learns_of_invalidations_since_the_beginning(after_another, when):
    world, begin_after = after_another
    options = options_of(world, tags=("rows",))

    def invalidate():
        world.cache.invalidate(tags=["rows"])
        world.clock.advance(0.1)

    deferred = begin_after(options, invalidate if when == "while it waits" else lambda: None)
    deferred.run(invalidate if when == "while it is made" else lambda: None)
    if when == "after that":
        invalidate()
    deferred.commit("old", options)
    entry = world.cache.internals.here().tiers.look(options.ident)
    assert entry is None or not entry.is_fresh(world.clock.monotonic(), 10.0)


def test_who_did_not_wait_is_followed(make_world, store):
    world = make_world(store=store)
    _, deferred = begin(world, options_of(world))
    assert not (deferred.fetch.alone or deferred.waited)
    deferred.give_up()
