"""When a copy is due: for each kind of visitor, once at a time, within bounds."""

from __future__ import annotations

import threading

import pytest

from om_plugins.core.inputs import EnvironReader, InputRules
from om_plugins.fallback.copy_inputs import CopyInputs
from om_plugins.fallback.copy_schedule import CopySchedule, merge_sets
from om_plugins.fallback.options import FallbackOptions
from om_plugins.testing.fakes import FakeClock
from tests.patience import PATIENCE_S, join

KEY = ("https", "a.example", "", "/p", "", "")
SAME = CopyInputs("observed")
BY_A = CopyInputs("observed", (), ("header:x-a",))
BY_COOKIE = CopyInputs("observed", ("session",))


class Schedule(CopySchedule):
    def __init__(self, **options):
        super().__init__(FallbackOptions(**options), InputRules(lambda: b"k"), FakeClock())

    def begin(self, key=KEY, **brought):
        return self.claim(key, brought)[0]

    def copy(self, inputs, key=KEY, **brought):
        claim = self.begin(key, **brought)
        assert claim is not None
        ident = inputs.identify(brought, EnvironReader(brought), self.rules)
        return self.settle(claim, inputs, ident)


@pytest.fixture
def schedule():
    return Schedule(copy_every=60)


def test_the_first_request_is_copied_and_while_it_runs_no_other(schedule):
    claim = schedule.begin()
    assert schedule.begin() is None
    assert not schedule.is_due(KEY, {"HTTP_X_A": "1"})
    schedule.release(claim)
    assert schedule.is_due(KEY, {})


def test_another_address_or_client_has_a_turn_of_its_own(schedule):
    schedule.begin()
    assert schedule.begin((*KEY[:-1], "ann")) is not None
    assert schedule.begin(("http", *KEY[1:])) is not None


def test_a_copy_for_everybody_is_due_again_after_its_time(schedule):
    schedule.copy(SAME)
    for brought in ({}, {"HTTP_COOKIE": "session=1"}, {"HTTP_X_A": "1"}):
        assert not schedule.is_due(KEY, brought)
    schedule.clock.advance(60)
    assert schedule.is_due(KEY, {})
    claim = schedule.begin()
    assert claim.at - claim.before == 60


def test_each_value_has_a_turn_of_its_own(schedule):
    schedule.copy(BY_A, HTTP_X_A="1")
    assert not schedule.is_due(KEY, {"HTTP_X_A": "1", "HTTP_X_B": "2"})
    assert schedule.is_due(KEY, {"HTTP_X_A": "2"})
    schedule.copy(BY_A, HTTP_X_A="2")
    assert not schedule.is_due(KEY, {"HTTP_X_A": "2"})
    assert schedule.is_due(KEY, {})


def test_who_agrees_with_a_copy_in_any_set_is_not_copied(schedule):
    schedule.copy(BY_A, HTTP_X_A="1")
    both = CopyInputs("observed", (), ("header:x-a", "header:x-b"))
    schedule.copy(both, HTTP_X_A="2", HTTP_X_B="1")
    assert not schedule.is_due(KEY, {"HTTP_X_A": "1", "HTTP_X_B": "9"})
    assert not schedule.is_due(KEY, {"HTTP_X_A": "2", "HTTP_X_B": "1"})
    assert schedule.is_due(KEY, {"HTTP_X_A": "2", "HTTP_X_B": "2"})


def test_who_brings_a_cookie_that_was_looked_at_is_not_copied_and_stops_nobody(schedule):
    schedule.refuse(schedule.begin(HTTP_COOKIE="session=1"), BY_COOKIE)
    assert not schedule.is_due(KEY, {"HTTP_COOKIE": "session=2"})
    assert schedule.is_due(KEY, {"HTTP_COOKIE": "other=1"})
    schedule.copy(BY_COOKIE)
    assert not schedule.is_due(KEY, {})


def test_a_refusal_of_a_known_address_gives_the_claim_back(schedule):
    schedule.copy(SAME)
    schedule.clock.advance(60)
    schedule.refuse(schedule.begin(HTTP_COOKIE="session=1"), BY_COOKIE)
    assert schedule.is_due(KEY, {})
    assert not schedule.is_due(KEY, {"HTTP_COOKIE": "session=1"})


def test_a_claim_that_is_given_back_does_not_end_a_later_one(schedule):
    first = schedule.begin()
    schedule.clock.advance(60)
    second = schedule.begin()
    assert second is not None
    schedule.release(first)
    assert not schedule.is_due(KEY, {})


def test_what_was_claimed_as_another_copy_is_due_again(schedule):
    schedule.copy(BY_A, HTTP_X_A="1")
    schedule.clock.advance(60)
    claim = schedule.begin(HTTP_X_A="1")  # it turns out to depend on nothing
    settled, dropped = schedule.settle(claim, SAME, "observed")
    assert (settled.ident, dropped) == ("observed", [])
    assert not schedule.is_due(KEY, {"HTTP_X_A": "1"})
    schedule.release(settled)
    assert schedule.is_due(KEY, {"HTTP_X_A": "1"})


def test_copies_are_bounded_and_the_oldest_goes_when_it_is_due():
    schedule = Schedule(copies=2, copy_every=60)
    schedule.copy(BY_A, HTTP_X_A="1")
    schedule.clock.advance(1)
    schedule.copy(BY_A, HTTP_X_A="2")
    assert schedule.begin(HTTP_X_A="3") is None
    schedule.clock.advance(59)
    claim, dropped = schedule.claim(KEY, {"HTTP_X_A": "3"})
    assert claim is not None
    assert len(dropped) == 1
    assert schedule.is_in_use(KEY)
    assert not schedule.is_due(KEY, {"HTTP_X_A": "2"})


def test_the_last_copy_of_an_address_takes_what_is_known_of_it_along():
    schedule = Schedule(copies=1, copy_every=0)
    schedule.copy(SAME)
    _, dropped = schedule.claim(("http", *KEY[1:]), {})
    assert dropped == [(KEY, "observed")]
    assert not schedule.is_in_use(KEY)
    schedule.learn(KEY, [BY_A])  # another worker's, of an address that is not in use here
    assert not schedule.is_in_use(KEY)


def test_a_copy_of_another_kind_than_was_claimed_pushes_the_oldest_out():
    schedule = Schedule(copies=1, copy_every=60)
    schedule.copy(BY_A, HTTP_X_A="1")
    schedule.clock.advance(60)
    _, dropped = schedule.copy(SAME, HTTP_X_A="1")
    ((key, ident),) = dropped
    assert (key, ident) == (
        KEY,
        BY_A.identify({}, EnvironReader({"HTTP_X_A": "1"}), schedule.rules),
    )
    assert not schedule.is_due(KEY, {})


def test_renewing_a_copy_drops_none():
    schedule = Schedule(copies=1, copy_every=60)
    schedule.copy(SAME)
    schedule.clock.advance(60)
    claim, dropped = schedule.claim(KEY, {})
    assert (claim is not None, dropped) == (True, [])


@pytest.mark.parametrize(("given_back", "gone"), [(False, "2"), (True, "1")])
def test_the_oldest_is_the_one_whose_copy_is_oldest(given_back, gone):
    schedule = Schedule(copies=2, copy_every=60)
    for value in "12":
        schedule.copy(BY_A, HTTP_X_A=value)
        schedule.clock.advance(1)
    schedule.clock.advance(60)
    claim = schedule.begin(HTTP_X_A="1")
    if given_back:
        schedule.release(claim)
    else:
        schedule.settle(claim, BY_A, claim.ident)
    _, ((_, ident),) = schedule.claim(KEY, {"HTTP_X_A": "3"})
    assert ident == BY_A.identify({}, EnvironReader({"HTTP_X_A": gone}), schedule.rules)


def test_a_cookie_of_an_older_set_still_counts(schedule):
    schedule.refuse(schedule.begin(HTTP_COOKIE="session=1"), BY_COOKIE)
    schedule.copy(SAME)
    schedule.clock.advance(60)
    assert not schedule.is_due(KEY, {"HTTP_COOKIE": "session=1"})
    assert schedule.is_due(KEY, {})


def test_a_request_is_taken_for_one_of_the_newest_set(schedule):
    schedule.copy(SAME)
    schedule.clock.advance(60)
    schedule.copy(BY_A, HTTP_X_A="1")
    schedule.clock.advance(60)
    claim = schedule.begin(HTTP_X_A="2")
    assert claim.ident == BY_A.identify({}, EnvironReader({"HTTP_X_A": "2"}), schedule.rules)


def test_what_other_workers_saw_is_known_here(schedule):
    schedule.copy(BY_A, HTTP_X_A="1")
    schedule.learn(KEY, [BY_COOKIE, BY_A])
    assert not schedule.is_due(KEY, {"HTTP_X_A": "2", "HTTP_COOKIE": "session=1"})


def test_the_newest_four_sets_are_known():
    sets = [CopyInputs("observed", (), (f"header:x-{n}",)) for n in range(6)]
    assert merge_sets(sets[:1], sets) == tuple(sets[:4])
    assert merge_sets([sets[5]], sets[:4]) == (sets[5], *sets[:3])


def test_of_many_at_once_one_has_the_claim(schedule):
    found = []
    start = threading.Barrier(8)

    def ask():
        start.wait(PATIENCE_S)
        found.append(schedule.begin())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        join(thread)
    assert sum(claim is not None for claim in found) == 1


def test_a_child_process_begins_anew(schedule):
    schedule.begin()
    schedule.after_fork()
    assert schedule.begin() is not None
