"""An alert waits, fires once, holds on, and ends below a threshold of its own."""

from __future__ import annotations

import msgspec
import pytest

from om_plugins.monitoring.alert_rules import AlertRule, Reading
from om_plugins.monitoring.alerts import HISTORY, MAX_ACTIVE, AlertStates, decode_alerts

RULE = AlertRule("load", 10.0, 8.0, 60, 60, "error", "Load is {value:g} (limit {limit:g})")


@pytest.fixture
def alerts():
    return AlertStates([RULE], repeat_s=3600)


def at(alerts, now, value, subject="", silenced=None):
    crossed = (lambda limit: False) if value is None else lambda limit: value > limit
    happened = alerts.update([Reading("load", subject, value, crossed)], now, silenced)
    return [(what, alert.state, alert.value) for what, alert in happened]


def test_the_whole_life_of_an_alert(alerts):
    assert at(alerts, 1000, 20) == []
    assert at(alerts, 1050, 20) == []
    assert at(alerts, 1060, 21) == [("fired", "firing", 21)]
    assert at(alerts, 1070, 22) == []
    assert at(alerts, 1080, 5) == []
    assert at(alerts, 1130, 5) == []
    assert at(alerts, 1140, 4) == [("resolved", "resolved", 4)]
    assert at(alerts, 1150, 4) == []
    (past,) = decode_alerts(alerts.encode())["history"]
    assert (past["since"], past["fired_at"], past["resolved_at"]) == (1000, 1060, 1140)
    assert past["message"] == "Load is 22 (limit 10)"


def test_a_short_peak_fires_nothing(alerts):
    at(alerts, 1000, 20)
    at(alerts, 1030, 5)
    assert at(alerts, 1070, 20) == []
    assert at(alerts, 1129, 20) == []
    assert at(alerts, 1130, 20) == [("fired", "firing", 20)]


def test_a_value_between_clear_and_limit_keeps_it_firing(alerts):
    at(alerts, 0, 20)
    at(alerts, 60, 20)
    for now in range(70, 1000, 10):
        assert at(alerts, now, 9) == []
    at(alerts, 1000, 7)
    at(alerts, 1030, 9)
    assert at(alerts, 1060, 7) == [], "the time below must be in one piece"
    assert at(alerts, 1120, 7) == [("resolved", "resolved", 7)]


def test_no_data_clears_as_a_low_value_does(alerts):
    at(alerts, 0, 20)
    at(alerts, 60, 20)
    at(alerts, 70, None)
    assert at(alerts, 130, None) == [("resolved", "resolved", None)]


def test_a_subject_that_is_gone_clears(alerts):
    at(alerts, 0, 20, "engine")
    at(alerts, 60, 20, "engine")
    assert alerts.update([], 70) == []
    ((what, alert),) = alerts.update([], 130)
    assert (what, alert.subject) == ("resolved", "engine")


def test_people_are_told_again_after_the_repeat_interval_only(alerts):
    at(alerts, 0, 20)
    at(alerts, 60, 20)
    told = [now for now in range(70, 8000, 10) if at(alerts, now, 20)]
    assert told == [3660, 7260]


def test_subjects_are_alerts_of_their_own(alerts):
    both = [Reading("load", name, 20.0, lambda limit: True) for name in ("a", "b")]
    alerts.update(both, 0)
    assert [(w, a.subject) for w, a in alerts.update(both, 60)] == [("fired", "a"), ("fired", "b")]


def test_a_silenced_alert_lives_and_is_marked(alerts):
    at(alerts, 0, 20)
    ((_, alert),) = alerts.update(
        [Reading("load", "", 20.0, lambda limit: True)], 60, {"load": 100.0}
    )
    assert alert.silenced
    ended = [Reading("load", "", 1.0, lambda limit: False)]
    alerts.update(ended, 110, {"load": 100.0})
    ((_, alert),) = alerts.update(ended, 170, {"load": 100.0})
    assert not alert.silenced


def test_another_process_goes_on_where_this_one_was(alerts):
    at(alerts, 0, 20)
    at(alerts, 60, 20)
    at(alerts, 61, 20, "second")
    data = msgspec.msgpack.decode(msgspec.msgpack.encode(alerts.encode()))
    other = AlertStates([RULE], repeat_s=3600)
    other.load(data)
    assert at(other, 70, 20) == [], "not fired again"
    at(other, 80, 1)
    assert at(other, 140, 1) == [("resolved", "resolved", 1)]
    (past,) = decode_alerts(other.encode())["history"]
    assert past["state"] == "resolved"


def test_the_history_keeps_the_newest_hundred(alerts):
    now = 0
    for number in range(130):
        for value, wait in ((20, 0), (20, 60), (1, 1), (1, 60)):
            now += wait
            at(alerts, now, value, f"s{number}")
    past = decode_alerts(alerts.encode())["history"]
    assert len(past) == HISTORY >= 50
    assert past[-1]["subject"] == "s129"


def test_a_flood_of_subjects_is_bounded(alerts):
    many = [Reading("load", f"s{n}", 20.0, lambda limit: True) for n in range(1000)]
    alerts.update(many, 0)
    assert len(alerts.encode()["active"]) == MAX_ACTIVE


def test_an_alert_without_its_rule_is_dropped(alerts):
    at(alerts, 0, 20)
    at(alerts, 60, 20)
    other = AlertStates([])
    other.load(alerts.encode())
    assert other.update([], 70) == []
    assert other.encode()["active"] == []


@pytest.mark.parametrize("hostile", [None, [], {"active": 1}, {"active": [], "history": [{}]}])
def test_what_is_no_state_is_refused_and_shown_as_nothing(alerts, hostile):
    with pytest.raises(ValueError):
        alerts.load(hostile)
    assert decode_alerts(hostile) == {"active": [], "history": []}
