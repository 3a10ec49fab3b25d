"""Variants: which response of an address a request selects."""

from __future__ import annotations

import pytest

from om_plugins.core.inputs import EnvironReader, InputRules
from om_plugins.http_cache.variants import (
    VariantIndex,
    is_selecting,
    preferred_language,
    variant_key,
)

RULES = InputRules()


def of(names, environ, generation="g"):
    return variant_key("k", generation, names, EnvironReader(environ), RULES)


def same(name, one, other, kind="vary"):
    field = "HTTP_" + name.upper().replace("-", "_")
    names = (f"{kind}:{name}",)
    return of(names, {field: one}) == of(names, {field: other})


def test_variants_are_told_apart_by_the_values_of_their_fields():
    assert same("foo", "1", "1")
    assert not same("foo", "1", "2")
    assert of(("vary:foo",), {}) != of(("vary:foo",), {"HTTP_FOO": ""})
    assert of(("vary:a",), {}) != of(("vary:a",), {}, "h")


def test_values_are_brought_to_one_form():
    assert same("foo", "1,2", " 1 , 2 ")
    assert same("accept-encoding", "gzip, br", "br,gzip;q=0.5, zstd;q=0")
    assert same("accept-language", "en, de", "DE,eN")
    assert not same("accept-language", "en, de;q=0.5", "de, en;q=0.5")
    assert not same("foo", "A", "a")


def test_the_preferred_language_is_the_one_above_all_others():
    assert preferred_language("fr;q=0.5, de;q=1.0") == "de"
    assert preferred_language("fr, de") == ""
    assert preferred_language("fr;q=0") == ""
    assert preferred_language("") == ""


def test_an_address_keeps_four_sets_newest_first():
    index = VariantIndex([], "g")
    for number in range(6):
        index = index.add(f"key{number}", (f"header:x-{number}",), "")
    assert index.names == [(f"header:x-{number}",) for number in (5, 4, 3, 2)]
    index = index.add("again", ("header:x-3",), "")
    assert index.names[0] == ("header:x-3",)
    assert len(index.names) == 4


def test_a_set_whose_inputs_cannot_be_compared_selects_nothing():
    asked = "accept:accept-language:best_match:[[1, 2], null]"
    index = VariantIndex([(asked,), ("header:x-a",)], "g")
    found = list(index.candidates("k", {"HTTP_ACCEPT_LANGUAGE": "de", "HTTP_X_A": "1"}, RULES))
    assert found == [of(("header:x-a",), {"HTTP_X_A": "1"})]
    assert of(("session:u",), {}) == ""


def test_only_accept_fields_are_remembered_as_sent():
    index = VariantIndex([("vary:accept-encoding",), ("header:x-key",), ("cookie:u",)], "g")
    environ = {"HTTP_ACCEPT_ENCODING": "gzip", "HTTP_X_KEY": "secret", "HTTP_COOKIE": "u=secret"}
    first = list(index.candidates("k", environ, RULES))
    assert list(index.candidates("k", environ, RULES)) == first
    assert len(set(first)) == 3
    assert [value for _, value in index.memo] == ["gzip"]


def test_the_digest_is_keyed_and_names_count():
    other = InputRules(lambda: b"another secret")
    reader = EnvironReader({"HTTP_A": "1", "HTTP_B": "1"})
    keys = {
        variant_key("k", "g", ("header:a",), reader, RULES),
        variant_key("k", "g", ("header:b",), reader, RULES),
        variant_key("k", "g", ("header:a",), reader, other),
    }
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("cookie:u", True),
        ("cookies", True),
        ("header:x-a", True),
        ("vary:accept", True),
        ('accept:accept-language:best_match:[["de"], null]', True),
        ("accept:accept-language:__class__:[]", False),
        ("accept:accept-language:clear:[]", False),
        ('accept:x-other:best_match:[["de"]]', False),
        ("accept:accept:quality:{", False),
        ("address", False),
        ("environ:REMOTE_ADDR", False),
        ("session:u", False),
        ("header:", False),
        ("", False),
    ],
)
def test_names_from_a_store_are_checked(name, known):
    assert is_selecting(name) is known
