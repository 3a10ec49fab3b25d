"""What a sent form asks for, and what is wrong with it in plain words."""

from __future__ import annotations

import pytest

from om_plugins.chains.options import BALANCES, ChainPolicy, EngineOptions
from om_plugins.console.engine_forms import (
    BREAKER,
    CALLS,
    CHAOS,
    PLACE,
    SWITCH,
    explain_error,
    fill_choices,
    format_value,
    read_changes,
    read_chaos,
)
from om_plugins.errors import ConfigError


def test_every_field_is_an_option_that_a_chain_or_an_engine_has():
    assert {one.name for one in (*CALLS, *BREAKER)} <= ChainPolicy.keys().keys()
    assert all(hasattr(ChainPolicy(), one.name) for one in (*CALLS, *BREAKER))
    assert {one.name for one in (*PLACE, *SWITCH)} <= EngineOptions.keys().keys()


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (10.0, "10"), (0.2, "0.2"), (1e-3, "0.001"), (True, "true"), (3, "3")],
)
def test_a_setting_is_shown_as_people_write_it(value, text):
    assert format_value(value) == text


def test_only_what_somebody_changed_is_asked_for():
    form = {"timeout": "3", "was:timeout": "10", "retries": "3", "was:retries": "3"}
    assert read_changes(form, CALLS, {"timeout": 10.0, "retries": 3}) == {"timeout": 3}


@pytest.mark.parametrize("said", ["", "  ", "10", "10.0"])
def test_an_empty_field_or_the_old_value_takes_a_change_back(said):
    form = {"timeout": said, "was:timeout": "3"}
    assert read_changes(form, CALLS, {"timeout": 10.0}) == {"timeout": None}


def test_switches_are_read_as_such():
    assert read_changes({"enabled": "false"}, SWITCH, {"enabled": True}) == {"enabled": False}
    assert read_changes({"enabled": "true"}, SWITCH, {"enabled": False}) == {"enabled": True}
    assert read_changes({"breaker": "auto"}, SWITCH, {"breaker": "auto"}) == {"breaker": None}


def test_chaos_is_checked_and_empty_fields_take_back():
    asked = read_chaos({"rate": "0.5", "error": "Transient", "seed": "7"})
    assert asked == {
        "rate": 0.5, "latency": None, "error": "Transient", "garble": None, "seed": 7
    }  # fmt: skip
    with pytest.raises(ConfigError, match="rate"):
        read_chaos({"rate": "2"})


@pytest.mark.parametrize("said", ["-3", "soon", "nan", "1e999"])
def test_what_cannot_work_is_told_beside_its_field_in_plain_words(said):
    with pytest.raises(ConfigError) as caught:
        ChainPolicy.from_mapping({"timeout": said}, where="chain 'a': ")
    assert explain_error(caught.value, CALLS) == {
        "timeout": "Must be a number of seconds from 0.001 to 3600."
    }


def test_what_belongs_to_no_field_is_told_of_the_form_as_a_whole():
    error = ConfigError("chain", "b", "no engine belongs to it")
    assert explain_error(error, CHAOS) == {"": "Chain: no engine belongs to it."}


def test_the_choices_of_a_field_are_those_that_its_setting_allows():
    fields = {one.name: one for one in fill_choices(CALLS, ChainPolicy)}
    assert fields["balance"].choices == BALANCES
    assert fields["timeout"].choices == ()
