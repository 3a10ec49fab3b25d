"""A chain's policy: its own options over those of all chains.

The tests of chains cover ``om_plugins.chains.snapshot``, which each call of theirs reads.
"""

from __future__ import annotations

import pytest

from om_plugins import OpenManagerMiddleware, Settings
from om_plugins.chains.options import ChainPolicy
from om_plugins.errors import ConfigError


def policy_of(name, **settings):
    app = OpenManagerMiddleware(lambda environ, start: [], Settings.from_mapping(settings))
    policy = app.runtime.part_of("chains").live.get_policy(name)
    app.runtime.close()
    return policy


def test_a_chains_own_options_come_before_those_of_all_chains():
    settings = {
        "OM_CHAIN_DEFAULTS": {"timeout": 7, "retries": 2, "breaker_slow": 3},
        "OM_CHAINS": {"a": {"timeout": 1, "retries": 0, "at_most_once": True}},
    }
    own = policy_of("a", **settings)
    assert (own.timeout, own.retries, own.at_most_once, own.breaker_slow) == (1, 0, True, 3)
    other = policy_of("b", **settings)
    assert (other.timeout, other.retries, other.at_most_once) == (7, 2, False)


def test_none_of_a_chain_is_its_default_where_none_means_nothing_else():
    settings = {"OM_CHAIN_DEFAULTS": {"timeout": 7, "attempt_timeout": 2}}
    own = policy_of("a", OM_CHAINS={"a": {"timeout": None, "attempt_timeout": None}}, **settings)
    assert (own.timeout, own.attempt_timeout) == (7, None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"OM_CHAINS": {"a": {"attempt_timeout": 20}}},
         r"OM_CHAINS\['a'\]\.attempt_timeout 20\.0: is longer .* 10 seconds, .* set timeout"),
        ({"OM_CHAIN_DEFAULTS": {"attempt_timeout": 20}},
         r"OM_CHAIN_DEFAULTS\.attempt_timeout 20\.0: is longer .* 10 seconds"),
        ({"OM_CHAIN_DEFAULTS": {"timeout": 3}, "OM_CHAINS": {"a": {"attempt_timeout": 4}}},
         r"OM_CHAINS\['a'\]\.attempt_timeout 4\.0: is longer .* 3 seconds"),
        ({"OM_CHAIN_DEFAULTS": {"breaker_cooldown": 100, "breaker_cooldown_max": 50}},
         r"breaker_cooldown 100\.0: is longer than .*breaker_cooldown_max 50\.0"),
    ],
)  # fmt: skip
def test_times_that_the_deadline_of_the_chain_ends_are_an_error(settings, words):
    with pytest.raises(ConfigError, match=words):
        policy_of("a", **settings)


def test_a_chain_with_a_shorter_deadline_goes_on_with_the_attempts_of_all():
    own = policy_of("a", OM_CHAIN_DEFAULTS={"attempt_timeout": 4}, OM_CHAINS={"a": {"timeout": 2}})
    assert (own.timeout, own.attempt_timeout) == (2, 4)


def test_without_settings_a_chain_has_the_defaults():
    assert policy_of("any") == ChainPolicy()


def test_the_defaults_are_read_from_the_environment_key_by_key(monkeypatch):
    from flask import Flask

    from om_plugins import OpenManager

    monkeypatch.setenv("FLASK_OM_CHAIN_DEFAULTS__timeout", "3")
    monkeypatch.setenv("FLASK_OM_CHAIN_DEFAULTS__retry_on", '"Transient"')
    app = Flask("app")
    app.config.from_prefixed_env()
    policy = OpenManager(app).runtime.part_of("chains").live.get_policy("any")
    assert policy.timeout == 3.0
    assert [one.__name__ for one in policy.retry_on] == ["Transient"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"OM_TIMEOUT": 3}, r"OM_TIMEOUT 3: renamed to OM_CHAIN_DEFAULTS = \{'timeout': …\}"),
        ({"OM_BREAKER_SLOW_S": 3}, r"OM_CHAIN_DEFAULTS = \{'breaker_slow': …\}"),
        ({"OM_CHAIN_DEFAULTS": {"timeuot": 3}}, r"OM_CHAIN_DEFAULTS\.timeuot .*'timeout'"),
        ({"OM_CHAIN_DEFAULTS": {"timeout": 0}}, r"OM_CHAIN_DEFAULTS\.timeout 0: must be"),
        ({"OM_CHAIN_DEFAULTS": 3}, r"OM_CHAIN_DEFAULTS 3: must be a dict"),
        ({"OM_CHAINS": {"a": {"retires": 3}}}, r"OM_CHAINS\['a'\]\.retires 3: .*'retries'"),
        ({"OM_CHAINS": {"a": {"retries": -1}}}, r"OM_CHAINS\['a'\]\.retries -1: must be"),
        ({"OM_CHAINS": {"a": 3}}, r"OM_CHAINS\['a'\] 3: must be a dict"),
        ({"OM_CHAIN_DEFAULTS": {"delays": [1, "x"]}}, r"delays .*: must be a list of numbers"),
    ],
)
def test_what_cannot_be_names_the_key_and_the_way_out(settings, words):
    with pytest.raises(ConfigError, match=words):
        Settings.from_mapping(settings)


def test_the_breaker_of_a_policy_has_its_settings():
    breaker = ChainPolicy(breaker_slow=2, breaker_min_calls=7, breaker_cooldown=3).breaker()
    assert (breaker.slow_s, breaker.min_calls, breaker.cooldown_s) == (2, 7, 3)
