"""Records: what is written for a store is read back, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from om_plugins.http_cache.records import decode_stored, encode_stored
from om_plugins.http_cache.stored_response import StoredResponse, split_at_nonce
from om_plugins.http_cache.variants import Looks, VariantIndex
from tests.http_cache.test_stored_response import NONCE, OTHER, private, stored


@pytest.mark.parametrize("nonced", [False, True])
def test_it_is_written_for_a_store_and_read_back(nonced):
    one = stored(
        NONCE.encode() * 2,
        ("ETag", '"a"'),
        tags=("t",),
        marks={"m": 1},
        fetch_s=0.5,
        names=("cookie:a", "header:b"),
        cookies=("u",),
        looks=Looks(("cookie:u",), ("address",), "s"),
        sent_headers=[("Vary", "B")],
    )
    if nonced:
        one = split_at_nonce(one, NONCE, private)
    found = decode_stored(encode_stored(one, lambda marks: b"m"), lambda data: {"m": 1})
    assert found == one
    assert found.render(OTHER) == one.render(OTHER)


def test_variants_are_written_without_what_is_only_remembered():
    one = VariantIndex([("cookie:a", "header:b")], "gen", ["i"], {"de": "i"}, {("x",): "i"})
    found = decode_stored(encode_stored(one, lambda marks: b""), lambda data: {})
    assert (found.names, found.generation, found.keys) == (one.names, one.generation, one.keys)
    assert found.languages == one.languages
    assert found.memo == {}


@given(st.binary(max_size=60), st.sampled_from([b"", b"S", b"W", b"R", b"X"]))
def test_what_is_not_ours_is_nothing(data, kind):
    found = decode_stored(kind + data, lambda marks: {})
    assert found is None or isinstance(found, StoredResponse | VariantIndex)


@pytest.mark.parametrize("names", [("session:u",), ("address",), ("accept:accept:clear:[]",)])
def test_a_record_with_an_input_that_cannot_select_is_nothing(names):
    for one in (stored(names=names), VariantIndex([names], "gen")):
        assert decode_stored(encode_stored(one, lambda marks: b""), lambda data: {}) is None
