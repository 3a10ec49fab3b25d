"""Breakers by name, one for each engine or one for all that share a key; and bulkheads."""

from __future__ import annotations

from om_plugins.policies.breaker import Breaker
from om_plugins.policies.registry import BreakerRegistry


def test_each_engine_has_its_own_breaker():
    breakers = BreakerRegistry()
    one = breakers.get("chain", "one", "", Breaker)
    assert breakers.get("chain", "one", "", Breaker) is one
    assert breakers.get("chain", "two", "", Breaker) is not one
    assert breakers.get("other", "one", "", Breaker) is not one


def test_a_key_is_shared_over_chains_and_engines():
    breakers = BreakerRegistry()
    one = breakers.get("chain", "one", "api.example", Breaker)
    assert breakers.get("other", "two", "api.example", Breaker) is one


def test_two_applications_share_nothing():
    one, two = BreakerRegistry(), BreakerRegistry()
    assert one.get("c", "e", "host", Breaker) is not two.get("c", "e", "host", Breaker)


def test_who_watches_is_told_of_those_there_are_and_those_to_come():
    breakers, told = BreakerRegistry(), []
    assert breakers.empty
    first = breakers.get("chain", "one", "", Breaker)
    breakers.watch(lambda key, breaker: told.append((key, breaker)))
    second = breakers.get("chain", "two", "host", Breaker)
    breakers.get("other", "three", "host", Breaker)
    assert told == breakers.pairs() == [(("chain", "one"), first), (("", "host"), second)]
    assert breakers.find(("", "host")) is second
    assert breakers.find(("chain", "two")) is None
    assert not breakers.empty


class Engine:
    pass


def test_an_engine_has_one_bulkhead_in_all_its_chains():
    registry, one, two = BreakerRegistry(), Engine(), Engine()
    bulkhead = registry.bulkhead(one, "chain", 5)
    assert registry.bulkhead(one, "other", 5) is bulkhead
    assert registry.bulkhead(two, "chain", 5) is not bulkhead


def test_the_least_limit_of_its_chains_holds_for_all_whoever_spoke_last():
    registry, one = BreakerRegistry(), Engine()
    bulkhead = registry.bulkhead(one, "strict", 3)
    registry.bulkhead(one, "generous", 8)
    assert bulkhead.max_concurrency == 3
    registry.bulkhead(one, "strict", 10)
    assert bulkhead.max_concurrency == 8
    assert registry.bulkhead(one, "generous", 0) is None
    assert bulkhead.max_concurrency == 10
