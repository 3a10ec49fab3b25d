"""What is told of a response, as ``Cache-Status`` writes it (RFC 9211)."""

from __future__ import annotations

import pytest

from om_plugins.cache.responses.decisions import (
    REPORT,
    CacheDecision,
    ResponseReport,
    describe_look,
    find_report,
    quote_detail,
)
from om_plugins.core.inputs import EnvironReader, InputRules
from om_plugins.core.observed import ObservedInputs


@pytest.fixture
def inputs():
    found = ObservedInputs(EnvironReader({"HTTP_COOKIE": "a=1"}), InputRules())
    found.note("cookie:a")
    found.note("header:accept")
    found.count("cookie:b")
    return found


def decide(**values):
    return CacheDecision(cache="view", **values)


def test_a_hit_says_no_more(inputs):
    assert decide(kept=True, hit=True, names=("cookie:a",)).list_status(inputs) == [("hit", True)]


def test_a_page_that_is_stored_for_everybody_has_no_detail(inputs):
    assert decide(kept=True, forward="uri-miss").list_status(inputs) == [
        ("fwd", "uri-miss"), ("stored", True),
    ]  # fmt: skip
    assert ("stored", True) in decide(kept=True, names=("header:accept",)).list_status(inputs)
    assert len(decide(kept=True, names=("header:accept",)).list_status(inputs)) == 2


def test_a_page_of_one_visitor_names_the_input_that_made_it_so(inputs):
    found = dict(decide(kept=True, names=("header:accept", "cookie:a")).list_status(inputs))
    assert found["detail"].startswith(f'"cookie:a, {__name__}.inputs, line ')


def test_a_page_that_is_not_stored_names_the_cause_or_the_reason(inputs):
    found = decide(kept=False, reason="public", detail="words", cause="cookie:a")
    assert dict(found.list_status(inputs))["detail"].startswith('"cookie:a, ')
    found = decide(kept=False, reason="cookie", detail="it sets a cookie")
    assert found.list_status(inputs) == [("fwd", "miss"), ("detail", '"it sets a cookie"')]
    assert ("detail", '"status"') in decide(kept=False, reason="status").list_status(inputs)


def test_an_input_whose_reader_is_not_known_is_named_alone(inputs):
    assert describe_look(inputs, "cookie:b") == "cookie:b"
    assert describe_look(inputs, "") == ""


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain", '"plain"'),
        ('a "b" \\ c', '"a \\"b\\" \\\\ c"'),
        ("차\r\nX: y\x7f", '"???X: y?"'),
        ("x" * 300, '"' + "x" * 200 + '"'),
        ('"' * 300, '"' + '\\"' * 200 + '"'),
    ],
)
def test_a_detail_is_a_string_of_structured_fields(text, quoted):
    assert quote_detail(text) == quoted


def test_a_report_is_found_only_where_somebody_asked():
    report = ResponseReport()
    assert find_report({}) is None
    assert find_report({REPORT: "text of a client"}) is None
    assert find_report({REPORT: report}) is report
