"""Times that contradict each other are an error, which names both."""

from __future__ import annotations

import pytest
from flask import Flask

from om_plugins import OpenManager
from om_plugins.chains.options import ChainPolicy
from om_plugins.errors import ConfigError
from om_plugins.fallback.options import FallbackOptions


def bind(**config):
    app = Flask("shop")
    app.config.update({"OM_HUB_URL": "memory://", **config})
    return OpenManager(app)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (
            {"OM_CACHE_STALE_TIME": 60, "OM_CACHE_TIME": 10},
            ["OM_CACHE_STALE_TIME 60", "OM_CACHE_TIME 10"],
        ),
        (
            {"OM_CHAIN_DEFAULTS": {"timeout": 5, "attempt_timeout": 6}},
            ["OM_CHAIN_DEFAULTS.attempt_timeout 6", "5 seconds", "timeout"],
        ),
        (
            {"OM_CHAINS": {"chat": {"timeout": 5, "attempt_timeout": 6}}},
            ["chat", "attempt_timeout", "6", "5"],
        ),
        (
            {"OM_FALLBACK": {"/": {"keep": 10, "copy_every": 60}}},
            ["OM_FALLBACK", "copy_every", "60", "keep", "10"],
        ),
        (
            {"OM_CACHE_STALE_TIME": "60", "OM_CACHE_TIME": "10"},
            ["OM_CACHE_STALE_TIME", "OM_CACHE_TIME"],
        ),
    ],
)
def test_both_times_are_named_with_the_way_out(config, names):
    with pytest.raises(ConfigError, match=r"is longer than .* leave (one|it) out") as caught:
        bind(**config)
    for name in names:
        assert name in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"OM_CACHE_STALE_TIME": 10, "OM_CACHE_TIME": 10},
        {"OM_CACHE_STALE_TIME": 86_400},  # the default of the other gives way
        {"OM_CACHE_TIME": 1},
        {"OM_CHAIN_DEFAULTS": {"attempt_timeout": 10}},
        {"OM_CHAIN_DEFAULTS": {"breaker_cooldown": 100}},  # the default of the other gives way
        {"OM_CHAINS": {"chat": {"timeout": 5, "attempt_timeout": 5}}},
    ],
)
def test_equal_times_and_one_time_alone_are_allowed(config):
    bind(**config)


def test_a_table_alone_names_its_own_keys():
    with pytest.raises(ConfigError, match=r"breaker_cooldown 9\.0: is longer than breaker_coo"):
        ChainPolicy.from_mapping({"breaker_cooldown": 9, "breaker_cooldown_max": 5})
    with pytest.raises(ConfigError, match=r"fallback: copy_every .* fallback: keep"):
        FallbackOptions.from_mapping({"keep": 5, "copy_every": 9}, where="fallback: ")
