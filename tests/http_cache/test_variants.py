"""Variants: which response of an address a request selects."""

from __future__ import annotations

from om_plugins.core.inputs import EnvironReader, InputRules
from om_plugins.http_cache.variants import (
    preferred_language,
    variant_key,
)


def of(names, environ, generation="g"):
    return variant_key("k", generation, names, EnvironReader(environ), InputRules())


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
