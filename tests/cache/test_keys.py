from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from itertools import combinations
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from om_plugins.cache.keys import (
    DefaultTimes,
    UnsupportedKey,
    check_options,
    encode,
    encode_body,
    encode_scope,
    find_group,
    identify,
    make_store_key,
    split,
)
from om_plugins.errors import CacheError


class Colour(Enum):
    RED = 1


class Number(IntEnum):
    ONE = 1


class Role(StrEnum):
    ADMIN = "admin"


class Member:
    def __init__(self, number: int) -> None:
        self.number = number

    def __cache_key__(self) -> int:
        return self.number


def test_values_that_look_alike_are_different_keys():
    alike = [
        1, True, "1", 1.0, b"1", Decimal(1), Number.ONE, (1,), ("1",), ((1,),), None, "None", "",
        b"", (), frozenset(), 0, False, 0.0, -0.0, Colour.RED, "Colour.RED",
        date(2024, 1, 1), datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01",
        UUID(int=1), timedelta(seconds=1), Decimal("1.0"),
    ]  # fmt: skip
    for one, other in combinations([(value,) for value in alike], 2):
        assert identify(one, "") != identify(other, ""), (one, other)


def test_members_cannot_run_into_each_other():
    assert identify(("ab", "c"), "") != identify(("a", "bc"), "")
    assert identify(("a", ("b", "c")), "") != identify((("a", "b"), "c"), "")
    assert identify(("a", "b"), "c") != identify(("a",), "bc")


atoms = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False)
    | st.uuids() | st.dates() | st.datetimes() | st.decimals(allow_nan=False),
    lambda inner: st.tuples(inner, inner) | st.tuples(inner),
    max_leaves=6,
)  # fmt: skip


def typed(value: object) -> object:
    if isinstance(value, tuple):
        return (tuple, *map(typed, value))
    return (type(value), repr(value))


@given(atoms, atoms)
def test_two_atoms_have_the_same_encoding_only_if_they_are_the_same(one, other):
    assert (encode(one) == encode(other)) == (typed(one) == typed(other))


texts = st.text().filter(lambda text: not text.startswith("\0"))


@given(texts, st.text() | st.tuples(atoms, atoms))
def test_scope_and_body_can_be_told_apart_again(scope, key):
    assert split(identify(key, scope)) == (scope, encode_body(key))


def test_a_tuple_prefix_begins_the_bodies_of_its_keys_and_of_no_others():
    assert encode_body(("users", 1, "mail")).startswith(encode_body(("users", 1)))
    assert not encode_body(("users", 12)).startswith(encode_body(("users", 1)))
    assert not encode_body("users").startswith(encode_body(("users",)))


@pytest.mark.parametrize("value", [[1], {"a": 1}, object(), bytearray(b"x"), 1j])
def test_an_unsupported_type_is_named_with_the_way_out(value):
    with pytest.raises(UnsupportedKey, match=type(value).__name__) as found:
        identify(("key", value), "")
    assert "__cache_key__" in str(found.value)
    assert isinstance(found.value, TypeError)
    assert isinstance(found.value, CacheError)


def test_a_subclass_of_text_is_not_taken_for_text():
    class Marked(str):
        __slots__ = ()

    with pytest.raises(UnsupportedKey, match="Marked"):
        identify(Marked("x"), "")


def test_a_class_is_known_by_the_name_that_its_module_has_for_it():
    namesake = type("Member", (), {"__module__": __name__})
    assert identify((Member,)) == identify((Member,)) != identify((Colour,))
    assert identify((int,)) != identify(("int",))
    for cls in (namesake, type("Local", (), {})):
        with pytest.raises(UnsupportedKey, match=f"{cls.__name__}, which its module does not have"):
            identify((cls,))


def test_an_object_can_name_itself():
    class User:
        def __init__(self, number: int) -> None:
            self.number = number

        def __cache_key__(self) -> int:
            return self.number

    assert identify((User(1),), "") == identify((User(1),), "")
    assert identify((User(1),), "") != identify((User(2),), "")
    assert identify((User(1),), "") != identify((1,), "")


@pytest.mark.parametrize(
    ("scope", "text"),
    [
        (7, "7"), (0, "0"), (-1, "-1"), (True, "True"), (1.5, "1.5"), (Decimal("1.10"), "1.10"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"), (date(2024, 1, 2), "2024-01-02"),
        (Number.ONE, "1"), (Role.ADMIN, "admin"), ("ann", "ann"), ("", ""), (None, ""),
    ],
)  # fmt: skip
def test_a_scope_that_has_one_text_is_the_same_as_that_text(scope, text):
    assert encode_scope(scope) == encode_scope(text) == text
    assert identify("key", scope) == identify("key", text)
    assert identify(("key", 1), scope) == identify(("key", 1), text)


def test_a_number_in_a_tuple_is_the_same_scope_as_its_text():
    assert encode_scope(("team", 7)) == encode_scope(("team", "7"))
    assert encode_scope(("team", (UUID(int=7),))) == encode_scope(("team", (str(UUID(int=7)),)))


def test_scopes_that_look_alike_are_kept_apart():
    alike = [
        7, "07", "7.0", ("7",), (("7",),), b"7", frozenset({"7"}), frozenset({("7",)}), Member(7),
        Colour.RED, "Colour.RED", (), "()", b"", (None,), ("",), ("", ""), ("7", ""), False, 0, "",
        "None", Member(8), ("a", "bc"), ("ab", "c"),
    ]  # fmt: skip
    for one, other in combinations(alike, 2):
        assert encode_scope(one) != encode_scope(other), (one, other)
        assert identify("key", one) != identify("key", other), (one, other)


def simplified(scope: object) -> object:
    """What a person takes for the same user: the text of an id, or of the ids in a tuple."""
    if isinstance(scope, tuple):
        return tuple(map(simplified, scope))
    return scope if isinstance(scope, str | bytes) or scope is None else str(scope)


scopes = texts | atoms.filter(lambda atom: not (isinstance(atom, str) and atom.startswith("\0")))


@given(scopes, scopes)
def test_two_scopes_are_one_only_if_their_ids_have_the_same_text(one, other):
    same = (simplified(one) or "") == (simplified(other) or "")
    assert (encode_scope(one) == encode_scope(other)) == (
        same and (one in ("", None)) == (other in ("", None))
    )


@given(scopes, st.text() | st.tuples(atoms, atoms))
def test_the_text_of_a_scope_can_be_told_from_the_body(scope, key):
    assert split(identify(key, scope)) == (encode_scope(scope), encode_body(key))
    encode_scope(scope).encode()  # a message can hold it


@pytest.mark.parametrize(
    "scope",
    [[1], {"a": 1}, object(), ("team", [7]), type("Text", (str,), {})("x")],
    ids=["list", "dict", "object", "list in a tuple", "subclass of text"],
)
def test_a_scope_of_an_unsupported_type_is_named_with_the_way_out(scope):
    with pytest.raises(UnsupportedKey, match=r"scope=: .*cannot hold.*__cache_key__"):
        identify("key", scope)


def test_a_text_cannot_pass_for_a_scope_of_another_type():
    tuple_scope = encode_scope(("team", 7))
    with pytest.raises(UnsupportedKey, match="begins with a NUL character"):
        identify("key", tuple_scope)
    with pytest.raises(UnsupportedKey, match="give the scope itself"):
        identify("key", "\0")


def test_another_process_derives_the_same_store_key():
    code = (
        "from om_plugins.cache.keys import identify, make_store_key\n"
        "print(make_store_key(identify(('a', 1), 'me'), 'app'))"
    )
    environment = {"PYTHONHASHSEED": "77"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert out.stdout.decode().strip() == make_store_key(identify(("a", 1), "me"), "app")
    assert make_store_key("x", "app") != make_store_key("x", "other")


@pytest.mark.parametrize(
    ("key", "group"),
    [
        ("servers", "servers"),
        ("panel:cpu", "panel"),
        ("users/7/mail", "users"),
        (("user", 7), "user"),
        ((7, "user"), "other"),
        ((), "other"),
        (("memoize", "shop.price", 7), "shop.price"),
        (("view", "/report", "http", "localhost", "report", "app.report"), "view report"),
        (("view", 1), "view"),
        ("", ""),
        ("x" * 200, "x" * 80),
    ],
)
def test_a_group_is_the_part_of_a_key_that_names_a_kind(key, group):
    assert find_group(identify(key)) == group
    assert find_group(identify(key, "a scope")) == group


@pytest.mark.parametrize(
    ("asked", "times"),
    [
        ((None, None), (300, 1800)),
        ((60, None), (60, 1800)),
        ((86_400, None), (86_400, 86_400)),  # kept as long as it is fresh
        ((None, 60), (60, 60)),  # fresh no longer than it is kept
        ((None, 3600), (300, 3600)),
        ((60, 60), (60, 60)),
        ((0, 0), (0, 0)),
    ],
)
def test_a_default_time_gives_way_to_a_time_that_a_caller_gave(asked, times):
    assert DefaultTimes(300, 1800).fill(*asked) == times


@pytest.mark.parametrize(
    ("stale_time", "cache_time"), [(60, 10), (0.2, 0.1), (1, 0), (math.inf, 1), (61, 60.5)]
)
def test_a_value_cannot_be_fresh_after_it_is_gone(stale_time, cache_time):
    with pytest.raises(ValueError, match=r"stale_time=\S+ is longer than cache_time=") as caught:
        check_options(stale_time=stale_time, cache_time=cache_time)
    assert repr(cache_time) in str(caught.value)
    assert "leave it out" in str(caught.value)


@pytest.mark.parametrize(("stale_time", "cache_time"), [(60, 60), (60, None), (None, 1), (0, 0)])
def test_times_that_do_not_contradict_are_allowed(stale_time, cache_time):
    check_options(stale_time=stale_time, cache_time=cache_time)
