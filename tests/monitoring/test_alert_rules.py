"""Thresholds: settings apply, and a few samples set nothing off."""

from __future__ import annotations

import pytest

from om_plugins import Settings
from om_plugins.errors import ConfigError
from om_plugins.monitoring.alert_rules import RULES, build_rules, take_readings, wilson_lower
from om_plugins.monitoring.feature import AlertOptions
from om_plugins.monitoring.windows import Slot
from om_plugins.types import EngineHealth, Health

NOW = 1_700_000_000.0


def slot(**values):
    made = Slot(int(NOW))
    for duration in values.pop("durations", ()):
        made.durations.record(duration)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def readings(seconds=(), hour=(), engines=()):
    return {(r.rule, r.subject): r for r in take_readings(seconds, hour, engines, NOW)}


def health(engine, tier, samples, state=Health.HEALTHY, failure_rate=0.0):
    return EngineHealth(engine, "c", tier, state, failure_rate, 0.0, samples, 0.0)


def test_the_wilson_bound_is_the_books():
    assert wilson_lower(50, 100) == pytest.approx(0.4038, abs=1e-4)
    assert wilson_lower(0, 100) == 0.0
    assert wilson_lower(10, 10) == 0.0, "too few to tell"


def test_a_few_failures_of_a_few_requests_are_no_error_rate():
    reading = readings([slot(requests=10, errors=5)])["error_rate", ""]
    assert reading.value == 0.5
    assert not reading.crossed(0.05)
    assert not readings([slot(requests=30, errors=3)])["error_rate", ""].crossed(0.05)
    assert readings([slot(requests=200, errors=30)])["error_rate", ""].crossed(0.05)


def test_the_95th_percentile_needs_enough_slow_requests():
    few = readings([slot(durations=[0.1] * 10 + [9.0] * 2)])["response_time", ""]
    assert few.value == pytest.approx(9.0, rel=0.02)
    assert not few.crossed(2.0)
    many = readings([slot(durations=[0.1] * 80 + [9.0] * 20)])["response_time", ""]
    assert many.crossed(2.0)
    assert not many.crossed(10.0)


def test_a_fallback_rate_is_answers_of_later_tiers_per_answer():
    engines = [
        health("first", 1, 100, Health.OFFLINE, failure_rate=0.4),
        health("second", 2, 40),
    ]
    found = readings(engines=engines)
    assert found["fallback_rate", "c"].value == pytest.approx(0.4)
    assert found["fallback_rate", "c"].crossed(0.10)
    assert found["engine_offline", "c/first"].crossed(0.5)
    assert not found["engine_offline", "c/second"].crossed(0.5)


def test_an_engine_that_an_operator_forced_open_is_no_alert():
    one = health("first", 1, 0, Health.OFFLINE)
    one.forced = "open"
    found = readings(engines=[one])
    assert not found["engine_offline", "c/first"].crossed(0.5)
    one.forced = "closed"
    assert readings(engines=[one])["engine_offline", "c/first"].crossed(0.5)


def test_a_hit_rate_collapses_against_its_own_past_only():
    past = Slot(int(NOW) // 10 - 60)
    past.cache_hits, past.cache_misses = 900, 100
    fallen = readings([slot(cache_hits=10, cache_misses=90)], [past])["cache_hits", ""]
    assert fallen.value == pytest.approx(1 - 0.1 / 0.9)
    assert fallen.crossed(0.5)
    few = readings([slot(cache_hits=0, cache_misses=5)], [past])["cache_hits", ""]
    assert not few.crossed(0.5)
    past.cache_hits, past.cache_misses = 100, 900
    assert not readings([slot(cache_hits=10, cache_misses=90)], [past])["cache_hits", ""].crossed(
        0.5
    )


def test_without_traffic_nothing_is_measured():
    found = readings()
    assert {key: r.value for key, r in found.items()} == dict.fromkeys(
        [("response_time", ""), ("error_rate", ""), ("memory", ""), ("cache_hits", "")]
    )
    assert not any(r.crossed(0.0) for r in found.values())


def test_settings_change_a_rule_and_keep_its_proportion():
    rules = {r.name: r for r in build_rules({"response_time": AlertOptions(limit=1.0)})}
    assert (rules["response_time"].limit, rules["response_time"].clear) == (1.0, 0.8)
    assert len(rules) == len(RULES)
    off = build_rules(Settings(alerts={"memory": {"enabled": False}}).alerts)
    assert "memory" not in {rule.name for rule in off}


def test_a_wrong_setting_is_named():
    with pytest.raises(ConfigError, match=r"OM_ALERTS\['eror_rate'\].*did you mean 'error_rate'"):
        build_rules({"eror_rate": AlertOptions()})
    with pytest.raises(ConfigError, match=r"clear.*must not be above the limit"):
        build_rules({"memory": AlertOptions(limit=0.5, clear=0.7)})
