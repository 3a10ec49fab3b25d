"""Explanations: bounded, and safe in a header."""

from __future__ import annotations

from om_plugins.http_cache.origin.explanations import (
    Explanation,
    Explanations,
    describe,
    quote_detail,
)


def test_the_newest_explanation_of_a_path_counts_and_the_oldest_paths_go():
    found = Explanations()
    for number in range(1200):
        found.add(Explanation(f"/{number}", 200, True))
    found.add(Explanation("/1199", 200, False, "no-store"))
    assert found.find("/1199").reason == "no-store"
    assert found.find("/0") is None
    assert len(found._found) == 1000
    found.after_fork()
    assert found.find("/1199") is None


def test_a_sentence_names_function_and_line():
    assert describe("it depends on address", ("shop.views", "show", 12)) == (
        "it depends on address: shop.views.show, line 12"
    )
    assert describe("why", None) == describe("why", ("", "", 0)) == "why"


def test_a_detail_is_a_string_of_structured_fields():
    assert quote_detail('a "b" \\ c') == '"a \\"b\\" \\\\ c"'
    assert quote_detail("a\r\nSet-Cookie: x\x7f ü") == '"a??Set-Cookie: x? ?"'
    assert len(quote_detail("x" * 900)) == 202
