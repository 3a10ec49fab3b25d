from __future__ import annotations

import pytest

from om_plugins.cache.responses.kept import KeptResponses, StoredInputs
from tests.cache.responses.conftest import Asker


def test_a_response_that_looked_at_nothing_is_for_all(asker):
    assert asker(x_user="ann").ask("page") == "page"
    for name in ("ann", "bob", "cyd"):
        assert asker(x_user=name).find() == "page"
    assert asker().find() == "page"


def test_a_response_is_for_those_who_bring_the_values_that_its_making_looked_at(asker):
    for name in ("ann", "bob"):
        assert asker(x_user=name).ask(f"of {name}", "x-user") == f"of {name}"
    for name in ("ann", "bob"):
        assert asker(x_user=name, x_other=name).find() == f"of {name}"
    assert asker().find() is None
    assert asker(x_user="").find() is None  # an empty value is another one than none


def test_no_value_of_a_visitor_is_in_a_key(asker, world):
    secret = "a-very-secret-value"
    one = asker(x_user=secret)
    one.ask("page", "x-user")
    stored = one.query.observe(frozenset())
    assert secret not in str(one.query.key(stored))
    assert secret not in str(stored)


def test_what_a_response_that_is_found_depends_on_counts_as_looked_at(asker):
    asker(x_user="ann").ask("of ann", "x-user")
    one = asker(x_user="ann")
    assert one.find() == "of ann"
    assert one.inputs.names() == ("header:x-user",)


def test_what_was_compared_in_vain_counts_for_the_parts_around_alone(asker):
    asker(x_user="ann").ask("of ann", "x-user")
    one = asker(x_user="bob")
    before = one.inputs.compared
    assert one.find() is None
    assert one.inputs.names() == ()
    assert one.query.observe(one.inputs.compared).names == ()  # its own response
    assert one.query.observe(before).names == ("header:x-user",)  # one that it is a part of


def test_sets_are_tried_newest_first_and_each_entry_is_valid_for_its_own(asker, world):
    asker(x_user="ann").ask("all")  # looked at nothing, so it is for all
    assert asker(x_user="bob").find() == "all"
    one = asker(x_user="bob")
    one.responses.here().tiers.remove(one.query.options(StoredInputs()).ident)
    asker(x_user="bob").ask("of bob", "x-user")
    assert asker(x_user="bob").find() == "of bob"
    assert asker(x_user="ann").find() is None


def test_a_making_on_another_path_is_found_beside_the_first(asker):
    asker(x_mode="mine", x_user="ann").ask("ann's", "x-mode", "x-user")
    asker(x_mode="all").ask("all", "x-mode")
    assert asker(x_mode="all", x_user="bob").find() in (None, "all")
    assert asker(x_mode="mine", x_user="ann").find() == "ann's"
    assert asker(x_mode="mine", x_user="bob").find() is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"address": ("view", "/a")}, {"address": ("view", "/b")}),
        ({"scope": "ann"}, {"scope": "bob"}),
        ({"scope": ("a", 1)}, {"scope": ("a", 2)}),
    ],
)
def test_addresses_and_scopes_are_told_apart(asker, one, other):
    assert asker(**one).ask("one") == "one"
    assert asker(**other).ask("other") == "other"
    assert asker(**one).find() == "one"


def test_inputs_that_do_not_count_are_left_out(asker):
    def compares(name):
        return name != "header:x-user"

    asker(x_user="ann", x_unit="km", compares=compares).ask("km", "x-user", "x-unit")
    assert asker(x_user="bob", x_unit="km", compares=compares).find() == "km"
    assert asker(x_user="ann", x_unit="mi", compares=compares).find() is None


def test_what_cannot_be_compared_is_neither_observed_nor_found(asker):
    asker(x_user="ann").ask("of ann", "x-user")
    one = asker(x_user=object())
    assert one.find() is None
    one.inputs.refuse("all variables of the environ")
    assert one.query.observe(frozenset()) is None


def test_a_stale_response_is_found_and_made_again_once(asker, world):
    asker().ask("page")
    world.clock.advance(11)
    askers = [asker() for _ in range(3)]
    assert [one.find() for one in askers] == ["page"] * 3
    world.run()
    assert sum(len(one.refreshed) for one in askers) == 1
    world.clock.advance(100)
    assert asker().find() is None


def test_who_misses_begins_and_the_answer_is_for_those_who_agree(asker):
    leader = asker(x_user="ann")
    assert leader.begin() is None
    assert leader.deferred is not None
    leader.store("of ann", "x-user")
    assert asker(x_user="ann").begin() == "of ann"
    other = asker(x_user="bob")
    assert other.begin() is None
    other.deferred.give_up()


def test_where_the_names_are_known_nobody_waits_for_a_request_that_differs(asker):
    asker(x_user="ann").ask("of ann", "x-user")
    bob, cyd = asker(x_user="bob"), asker(x_user="cyd")
    assert bob.begin() is None
    assert cyd.begin() is None  # does not wait, though bob's fetch is under way
    assert bob.deferred.fetch is not cyd.deferred.fetch
    bob.store("of bob", "x-user")
    cyd.store("of cyd", "x-user")
    assert [asker(x_user=name).find() for name in ("bob", "cyd")] == ["of bob", "of cyd"]


def test_one_visitor_whose_response_depends_on_more_does_not_tell_the_others_apart(asker, world):
    asker(x_agent="a").ask("anonymous", "x-user")
    asker(x_agent="b", x_user="ann").ask("ann's", "x-user", "x-agent")
    world.cache.purge(prefix=("view",))
    leader = asker(x_agent="c")
    assert leader.begin() is None
    other = asker(x_agent="d")
    assert other.begin() is None
    assert other.deferred.fetch.alone  # a thread does not wait for itself: one fetch for both
    other.deferred.give_up()
    leader.store("anonymous again", "x-user")
    assert asker(x_agent="e").find() == "anonymous again"


def test_whose_response_depended_on_more_waits_only_for_who_agrees_in_it(asker, world):
    asker(x_agent="a").ask("anonymous", "x-user")
    asker(x_agent="b", x_user="ann").ask("ann's", "x-user", "x-agent")
    world.cache.purge(prefix=("view",))
    one, other = asker(x_agent="b", x_user="ann"), asker(x_agent="c", x_user="ann")
    assert one.begin() is None
    assert other.begin() is None  # does not wait, though the other fetch is under way
    assert not (one.deferred.fetch.alone or other.deferred.fetch.alone)
    one.store("b", "x-user", "x-agent")
    other.store("c", "x-user", "x-agent")


def test_whose_response_does_not_depend_on_more_any_longer_waits_with_all(asker, world):
    asker(x_agent="a").ask("anonymous", "x-user")
    for names in (("x-user", "x-agent"), ("x-user",)):
        world.cache.purge(prefix=("view",))
        asker(x_agent="b", x_user="ann").ask("ann's", *names)
    world.cache.purge(prefix=("view",))
    one, other = asker(x_agent="b", x_user="ann"), asker(x_agent="c", x_user="ann")
    assert one.begin() is None
    assert other.begin() is None
    assert other.deferred.fetch.alone  # a thread does not wait for itself: one fetch for both
    other.deferred.give_up()
    one.deferred.give_up()


def test_a_request_that_cannot_be_compared_waits_for_nobody(asker):
    asker(x_user="ann").ask("of ann", "x-user")
    one = asker(x_user=object())
    assert one.begin() is None
    assert one.deferred.fetch.alone
    one.deferred.give_up()


@pytest.mark.parametrize("variants", [1, 3])
def test_as_many_responses_of_an_address_are_kept_as_allowed(world, variants):
    responses = KeptResponses(world.cache.internals.here, variants)
    world.cache.internals.responses = responses
    for number in range(variants + 2):
        Asker(world, x_user=str(number)).ask(f"of {number}", "x-user")
    found = [Asker(world, x_user=str(n)).find() is not None for n in range(variants + 2)]
    assert found == [False, False] + [True] * variants
    Asker(world, address=("view", "/other")).ask("other")
    assert Asker(world, x_user=str(variants + 1)).find() is not None  # another address counts apart


def test_a_response_that_was_made_again_is_the_newest(world):
    world.cache.internals.responses = KeptResponses(world.cache.internals.here, 2)
    for name in ("ann", "bob"):
        Asker(world, x_user=name).ask(name, "x-user")
    again = Asker(world, x_user="ann")
    world.cache.purge(prefix=("view",))
    again.ask("ann", "x-user")
    Asker(world, x_user="bob").ask("bob", "x-user")
    Asker(world, x_user="cyd").ask("cyd", "x-user")
    found = [Asker(world, x_user=name).find() for name in ("ann", "bob", "cyd")]
    assert found == [None, "bob", "cyd"]


def test_as_many_responses_of_a_view_are_kept_as_allowed(world):
    world.cache.internals.responses = responses = KeptResponses(world.cache.internals.here, 1)
    for number in range(25):
        Asker(world, address=("view", f"/{number}")).ask(str(number))
    found = [Asker(world, address=("view", f"/{n}")).find() is not None for n in range(25)]
    assert found == [False] * 5 + [True] * 20
    Asker(world, address=("view", "/x"), view="other").ask("x")
    assert Asker(world, address=("view", "/5")).find() is not None  # another view counts apart
    assert sum(map(len, responses._views.values())) == 21  # what is counted goes with them
    assert responses._addresses == {}  # one response that looked at nobody needs no count


def test_workers_find_what_others_made_for_the_same_visitor(make_world, store):
    first, second = make_world(store=store), make_world(store=store)
    for name in ("ann", "bob"):
        Asker(first, x_user=name).ask(f"of {name}", "x-user")
    for name in ("bob", "ann"):
        assert Asker(second, x_user=name).begin() == f"of {name}"
    other = Asker(second, x_user="cyd")
    assert other.begin() is None
    other.store("of cyd", "x-user")
    assert Asker(first, x_user="cyd").begin() == "of cyd"


def test_a_worker_that_lost_its_store_makes_its_own(make_world, store):
    first, second = make_world(store=store), make_world(store=store)
    Asker(first, x_user="ann").ask("of ann", "x-user")
    store.down = True
    assert Asker(second, x_user="ann").ask("again", "x-user") == "again"
    assert Asker(second, x_user="ann").begin() == "again"
    assert Asker(first, x_user="ann").begin() == "of ann"


def test_a_tag_reaches_all_responses_that_have_it(asker, world):
    for name in ("ann", "bob"):
        asker(x_user=name, tags=("report",)).ask(name, "x-user")
    assert world.cache.purge(tags=["report"]) == 2
    assert asker(x_user="ann").find() is None
