"""Checked tables: how one kind of value is read, whatever the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from om_plugins.errors import ConfigError
from om_plugins.settings import kinds as checks
from om_plugins.settings.kinds import BOOL, MAPPING, VARIABLES, choice, integer, number, text
from om_plugins.settings.table import Check, Table, key

CHECKS = {name: one for name, one in vars(checks).items() if isinstance(one, Check)} | {
    "number": number(0, 10),
    "integer": integer(0, 10),
    "choice": choice("a", "b"),
    "text": text("[a-z]+", "letters"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Colours(Table):
    PREFIX: ClassVar[str] = "C_"

    ink: str = key("black", choice("black", "blue"), "for writing")
    width: float = key(1.0, number(0.1, 5, "millimetres"), "of the line")
    papers: dict[str, Any] = key({}, MAPPING, "to write on")
    lid: bool | None = key(None, BOOL, "on or off")


def test_values_are_read_and_others_keep_their_default() -> None:
    assert Colours.from_mapping({"C_WIDTH": "2"}) == Colours(width=2.0)


def test_none_is_kept_where_it_is_the_default() -> None:
    assert Colours.from_mapping({"C_LID": None}).lid is None
    with pytest.raises(ConfigError, match="C_WIDTH None: must be a number of millimetres"):
        Colours.from_mapping({"C_WIDTH": None})


def test_a_default_that_can_change_is_not_shared() -> None:
    assert Colours().papers is not Colours().papers


def test_where_stands_before_the_key() -> None:
    with pytest.raises(ConfigError, match=r"^box\.C_INK 'red': must be 'black' or 'blue'$"):
        Colours.from_mapping({"C_INK": "red"}, where="box.")


def test_a_near_choice_is_proposed() -> None:
    with pytest.raises(ConfigError, match="did you mean 'black'"):
        Colours(ink="Blak")


def test_whole_numbers_are_not_booleans_and_booleans_not_numbers() -> None:
    for check, value in ((integer(), True), (number(), False), (BOOL, 2), (BOOL, 1.0)):
        with pytest.raises(ValueError):
            check.read(value)


@pytest.mark.parametrize(
    ("value", "result"),
    [(1, True), (0, False), ("1", True), ("0", False), ("yes", True), ("OFF", False)],
)
def test_one_and_zero_are_booleans_as_numbers_and_as_words(value: object, result: bool) -> None:
    assert BOOL.read(value) is result


def test_bounds_are_told() -> None:
    assert integer(1, 5, "bytes").allowed == "a whole number of bytes from 1 to 5"
    assert number(2).allowed == "a number of at least 2"


def test_text_must_match_to_its_end() -> None:
    with pytest.raises(ValueError):
        CHECKS["text"].read("abc\n")


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("name", CHECKS)
@given(value=anything)
def test_any_value_is_read_or_refused_with_a_value_error(name: str, value: object) -> None:
    check = CHECKS[name]
    try:
        result = check.read(value)
    except (ValueError, TypeError):
        return
    if result is not None:
        assert check.read(result) == result, "what was read is not read as itself"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("http_x_forwarded_user", "HTTP_X_FORWARDED_USER"),
        ("Http_X_User", "HTTP_X_USER"),
        ("remote_user", "REMOTE_USER"),
    ],
)
def test_a_variable_that_no_environ_can_have_is_refused_with_its_right_form(
    wrong: str, right: str
) -> None:
    with pytest.raises(ValueError, match=f"no WSGI environ has '{wrong}'.* written '{right}'"):
        VARIABLES.read([wrong])
    assert VARIABLES.read([right]) == (right,)


@pytest.mark.parametrize("name", ["eppn", "SSL_CLIENT_S_DN_Email", "myapp.user", "displayName"])
def test_variables_of_servers_and_middleware_may_be_in_small_letters(name: str) -> None:
    assert VARIABLES.read(name) == (name,)
