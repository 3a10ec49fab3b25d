from __future__ import annotations

import os
import threading

import pytest

from om_plugins.cache.entry import Record
from om_plugins.cache.keys import identify
from om_plugins.cache.responses import input_sets
from om_plugins.cache.responses.input_sets import MOST_SETS, InputSets, find_coarsest
from om_plugins.cache.values import encode
from om_plugins.testing.fakes import FakeClock
from tests.patience import HANG_S, PATIENCE_S

PAGE = ("view", "/page")


NOW = FakeClock().time()


@pytest.fixture
def shared(make_world, store):
    """The store of one worker."""
    return make_world(store=store).cache.internals.here().tiers.shared


def test_an_unknown_address_has_no_sets():
    assert InputSets().read(PAGE, "") == ()


def test_sets_are_read_newest_first_and_the_oldest_go():
    sets = InputSets()
    for number in range(MOST_SETS + 2):
        sets.add(PAGE, "", (f"header:{number}",), None, 0.0)
    newest = MOST_SETS + 1
    assert sets.read(PAGE, "") == tuple((f"header:{newest - n}",) for n in range(MOST_SETS))


def test_a_known_set_is_kept_once():
    sets = InputSets()
    for names in (("a",), ("b",), ("a",)):
        sets.add(PAGE, "", names, None, 0.0)
    assert sets.read(PAGE, "") == (("b",), ("a",))


def test_no_names_are_a_set_beside_others_alone():
    sets = InputSets()
    sets.add(PAGE, "", (), None, 0.0)
    assert sets.read(PAGE, "") == ()  # who knows no set tries no names
    sets.add(PAGE, "", ("cookie:a",), None, 0.0)
    sets.add(PAGE, "", (), None, 0.0)
    assert sets.read(PAGE, "") == ((), ("cookie:a",))


def test_addresses_and_scopes_have_sets_of_their_own():
    sets = InputSets()
    keys = [
        (PAGE, ""),
        (PAGE, 1),
        (PAGE, True),
        (("view", "/other"), ""),
        (("view", "/page", 1), ""),
    ]
    for number, (address, scope) in enumerate(keys):
        sets.add(address, scope, (str(number),), None, 0.0)
    found = [sets.read(address, scope) for address, scope in keys]
    assert found[0] == (("0",),)
    assert found[3:] == [(("3",),), (("4",),)]
    assert len(set(found)) == len(keys)


def test_as_many_addresses_are_remembered_as_there_is_room_for(monkeypatch):
    monkeypatch.setattr(input_sets, "_MOST_ADDRESSES", 3)
    sets = InputSets()
    for number in range(5):
        sets.add(("view", number), "", ("a",), None, 0.0)
    known = [bool(sets.read(("view", number), "")) for number in range(5)]
    assert known == [False, False, True, True, True]


def test_workers_learn_of_each_others_sets(shared):
    first, second = InputSets(), InputSets()
    first.add(PAGE, "", ("a",), shared, NOW)
    assert second.read(PAGE, "") == ()
    assert second.load(PAGE, "", shared)
    assert second.read(PAGE, "") == (("a",),)
    assert not second.load(PAGE, "", shared)  # nothing new
    assert not second.load(PAGE, "other", shared)


def test_what_two_workers_add_at_once_stays(shared):
    first, second, third = InputSets(), InputSets(), InputSets()
    first.add(PAGE, "", ("a",), shared, NOW)
    second.add(PAGE, "", ("b", "c"), shared, NOW)
    assert third.load(PAGE, "", shared)
    assert set(third.read(PAGE, "")) == {("a",), ("b", "c")}


@pytest.mark.parametrize(
    "body", [b"", b"\x00damaged", encode(None), encode(7), encode([7]), encode([[1, 2], None])]
)
def test_a_damaged_record_is_none(shared, body):
    sets = InputSets()
    ident = input_sets._identify(PAGE, "")
    shared.save(ident, Record(NOW, NOW, 9.0, 9.0, (), body))
    sets.load(PAGE, "", shared)
    sets.add(PAGE, "", ("a",), shared, NOW)
    assert ("a",) in sets.read(PAGE, "")


def test_without_its_store_a_worker_keeps_its_own(shared, store):
    store.down = True
    sets = InputSets()
    sets.add(PAGE, "", ("a",), shared, NOW)
    assert not sets.load(PAGE, "", shared)
    assert sets.read(PAGE, "") == (("a",),)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_process_has_a_lock_that_nobody_holds():
    sets = InputSets()
    held, done = threading.Event(), threading.Event()

    def hold():
        with sets._lock:
            held.set()
            done.wait(HANG_S)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(PATIENCE_S)
    lock = sets._lock
    sets.after_fork()  # what a fork calls in the child
    assert sets._lock is not lock
    sets.add(PAGE, "", ("a",), None, 0.0)
    assert sets.read(PAGE, "") == (("a",),)
    done.set()
    thread.join()


@pytest.mark.parametrize(
    ("sets", "coarsest"),
    [
        ((), ()),
        ((("a", "b"), ("a",)), ("a",)),
        ((("b",), ("a",)), ("a",)),
        ((("a",), ()), ()),
    ],
)
def test_the_coarsest_set_has_the_fewest_names_in_any_order(sets, coarsest):
    assert find_coarsest(sets) == coarsest
    assert find_coarsest(reversed(sets)) == coarsest


def test_what_the_last_making_looked_at_is_remembered_by_its_values():
    sets = InputSets()
    ann, bob = identify(("ann",)), identify(("bob",))
    sets.learn_finer(ann, ("a", "b"))
    assert (sets.recall_finer(ann), sets.recall_finer(bob)) == (("a", "b"), None)
    sets.learn_finer(ann, None)
    assert sets.recall_finer(ann) is None


def test_as_many_finer_sets_are_remembered_as_there_is_room_for(monkeypatch):
    monkeypatch.setattr(input_sets, "_MOST_FINER", 2)
    sets = InputSets()
    idents = [identify((number,)) for number in range(4)]
    for ident in idents:
        sets.learn_finer(ident, ("a",))
    assert [bool(sets.recall_finer(ident)) for ident in idents] == [False, False, True, True]
