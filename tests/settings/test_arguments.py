"""Arguments of decorators and constructors are checked as settings are."""

from __future__ import annotations

import datetime
import itertools
import math
from unittest.mock import Mock

import pytest

from om_plugins import (
    CallableEngine,
    EngineChain,
    HttpEngine,
    OpenAIEngine,
    ProxyApp,
    ProxyEngine,
    StaleEngine,
)
from om_plugins.errors import ConfigError
from om_plugins.settings.arguments import (
    amount,
    check_arguments,
    check_value,
    flag,
    seconds,
    whole,
)


@check_arguments(
    "@om.brew",
    usage="@om.brew('tea', minutes=3)",
    renamed={"ttl": "minutes="},
    minutes=seconds(0, 60),
    cups=whole(1, 9, none=True),
    strong=flag(),
)
def brew(name, *, minutes=3.0, cups=None, strong=False, on_ready=None):
    """Brew."""
    return name, minutes, cups, strong


def test_what_is_right_is_passed_on_as_it_is():
    assert brew("tea", minutes=3, cups=2, strong=True) == ("tea", 3, 2, True)
    assert brew(name="tea", on_ready=lambda pot: None) == ("tea", 3.0, None, False)
    assert brew.__doc__ == "Brew."


@pytest.mark.parametrize(
    ("arguments", "shown", "way_out"),
    [
        ({"minutes": "3"}, "'3'", "a number of seconds from 0 to 60"),
        ({"minutes": -1}, "-1", "from 0 to 60"),
        ({"minutes": 61}, "61", "from 0 to 60"),
        ({"minutes": math.nan}, "nan", "from 0 to 60"),
        ({"minutes": math.inf}, "inf", "from 0 to 60"),
        ({"minutes": True}, "True", "from 0 to 60"),
        ({"minutes": None}, "None", "from 0 to 60"),
        ({"minutes": datetime.timedelta(minutes=3)}, "timedelta", "total_seconds"),
        ({"cups": 1.5}, "1.5", "a whole number from 1 to 9, or None"),
        ({"cups": "2"}, "'2'", "text is no number"),
        ({"cups": False}, "False", "a whole number"),
        ({"strong": "yes"}, "'yes'", "True or False"),
        ({"strong": 1}, "1", "True or False"),
        ({"strong": None}, "None", "True or False"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_the_way_out(arguments, shown, way_out):
    (name,) = arguments
    with pytest.raises(ConfigError) as caught:
        brew("tea", **arguments)
    assert str(caught.value).startswith(f"@om.brew({name}) ")
    assert shown in str(caught.value)
    assert way_out in str(caught.value)


@check_arguments("Kettle", whistles=flag())
def heat(*, whistles: bool = True, locked: bool = False, safe: bool | None = None, name: str = ""):
    return whistles, locked, safe


def test_what_is_annotated_as_a_switch_is_one():
    assert heat(locked=True, safe=None) == (True, True, None)
    for name, wrong in itertools.product(
        ("whistles", "locked", "safe"), ("no", 1, 0, "", [], Mock())
    ):
        with pytest.raises(ConfigError, match=rf"Kettle\({name}\).*must be True or False"):
            heat(**{name: wrong})


ENGINES = {
    HttpEngine: (("x", "http://localhost"), ("idempotent", "pass_deadline", "streaming")),
    ProxyEngine: (("x", "http://localhost"), ("pass_deadline",)),
    OpenAIEngine: (("x", "http://localhost/v1", "model"), ("stream_usage", "pass_deadline")),
    StaleEngine: (("x",), ("learn_degraded",)),
    CallableEngine: (("x", print), ("interrupt",)),
    ProxyApp: ((EngineChain("c"),), ("trust_forwarded",)),
}


@pytest.mark.parametrize(
    ("made", "switch"),
    [(made, switch) for made, (_, switches) in ENGINES.items() for switch in switches],
)
def test_the_switches_of_shipped_engines_are_true_or_false(made, switch):
    for wrong in ("no", "yes", 1, 0):
        with pytest.raises(ConfigError, match=rf"\({switch}\) .*must be True or False"):
            made(*ENGINES[made][0], **{switch: wrong})


def test_a_positional_argument_is_checked_as_well():
    class Jar:
        @check_arguments("Jar", cups=whole(1))
        def __init__(self, cups):
            self.cups = cups

    with pytest.raises(ConfigError, match=r"Jar\(cups\) '2': must be a whole number"):
        Jar("2")


@pytest.mark.parametrize(
    ("keyword", "hint"),
    [
        ("minuts", "did you mean 'minutes'"),
        ("Minutes", "did you mean 'minutes'"),
        ("cup", "did you mean 'cups'"),
        ("ttl", "write minutes="),
        ("zzz", "known are name, minutes, cups, strong, on_ready"),
    ],
)
def test_an_unknown_keyword_names_the_nearest(keyword, hint):
    with pytest.raises(TypeError, match=f"@om.brew has no argument '{keyword}'; {hint}"):
        brew("tea", **{keyword: 1})


@pytest.mark.parametrize("arguments", [(), ("tea", 3)])
def test_a_missing_or_surplus_argument_shows_how_to_write_it(arguments):
    with pytest.raises(TypeError, match=r"write @om.brew\('tea', minutes=3\)"):
        brew(*arguments)


def test_a_method_is_checked_without_its_self():
    class Pot:
        @check_arguments("Pot", cups=whole(1))
        def __init__(self, cups):
            self.cups = cups

    assert Pot(2).cups == 2
    with pytest.raises(ConfigError, match=r"Pot\(cups\) 0: must be a whole number of at least 1"):
        Pot(0)
    with pytest.raises(TypeError, match="Pot has no argument 'cupz'; did you mean 'cups'"):
        Pot(cupz=1)


def test_keywords_that_go_on_to_another_function_are_known():
    @check_arguments("@om.all", keywords=("local", "idempotent"), local=flag())
    def register(name, **traits):
        return traits

    assert register("a", local=True) == {"local": True}
    with pytest.raises(TypeError, match="did you mean 'idempotent'"):
        register("a", idempotant=True)
    with pytest.raises(ConfigError, match=r"@om.all\(local\) 'no'"):
        register("a", local="no")


def test_a_single_value_is_checked_in_the_same_way():
    assert check_value("weight", 2, amount(0.1)) == 2.0
    with pytest.raises(ConfigError, match=r"weight .2.: must be a number of at least 0\.1"):
        check_value("weight", "2", amount(0.1))
