"""A chain's policy: its own options over the application's settings."""

from __future__ import annotations

from om_plugins import Settings
from om_plugins.chains.feature import ChainKeys
from om_plugins.chains.snapshot import ChainPolicy


def test_a_chains_own_options_come_before_the_general_ones():
    settings = Settings.from_mapping(
        {
            "OM_TIMEOUT": 7,
            "OM_RETRIES": 2,
            "OM_BREAKER_SLOW_S": 3,
            "OM_CHAINS": {"a": {"timeout": 1, "retries": 0, "at_most_once": True}},
        }
    )
    own = ChainPolicy.from_settings(settings.of(ChainKeys), "a")
    assert (own.timeout, own.retries, own.at_most_once, own.breaker_slow_s) == (1, 0, True, 3)
    other = ChainPolicy.from_settings(settings.of(ChainKeys), "b")
    assert (other.timeout, other.retries, other.at_most_once) == (7, 2, False)


def test_the_policys_defaults_are_those_of_the_settings():
    assert ChainPolicy.from_settings(Settings().of(ChainKeys), "any") == ChainPolicy()


def test_the_breaker_of_a_policy_has_its_settings():
    breaker = ChainPolicy(breaker_slow_s=2, breaker_min_calls=7, breaker_cooldown_s=3).breaker()
    assert (breaker.slow_s, breaker.min_calls, breaker.cooldown_s) == (2, 7, 3)
