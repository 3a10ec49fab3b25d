"""Calls whose pieces are hard to tell apart; ``test_completion.py`` reads them in answers."""

from __future__ import annotations

import pytest

from om_plugins.builtin.openai.tool_calls import ToolCallJoiner


def read_calls(*calls):
    joiner = ToolCallJoiner()
    for call in calls:
        joiner.add({"tool_calls": [call]})
    return [(call.id, call.name, call.arguments) for call in joiner.end()]


def call_of(call_id, name, arguments, index=0):
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([call_of("a", "f", "{}"), call_of("b", "g", "[]")], [("a", "f", "{}"), ("b", "g", "[]")]),
        ([call_of("a", "f", "{"), call_of("b", "f", "{}"), call_of("", "", " ")],
         [("a", "f", "{"), ("b", "f", "{} ")]),
        ([call_of("", "f", "{}"), call_of("", "f", "[]")], [("", "f", "{}"), ("", "f", "[]")]),
        ([call_of(None, "f", "{"), call_of(None, "f", "}")], [("", "f", "{}")]),
        ([call_of("a", "f", "{"), call_of("a", "f", "}")], [("a", "f", "{}")]),
        ([call_of("a", "f", ""), call_of("", "f", "{"), call_of("", "f", "}")],
         [("a", "f", "{}")]),
        ([call_of("a", "f", "{"), call_of("b", None, "}")], [("a", "f", "{}")]),
    ],
)  # fmt: skip
def test_calls_that_share_an_index_stay_apart(calls, expected):
    assert read_calls(*calls) == expected


def test_letters_and_calls_are_counted():
    joiner = ToolCallJoiner()
    assert joiner.add({"tool_calls": [call_of("a", "f", "{}"), call_of("b", "g", ""), 5]}) == 6
    assert joiner.add({"function_call": {"name": "h", "arguments": {"x": 1}}}) == 8
    assert joiner.add({"tool_calls": None}) == 0
    assert len(joiner) == 3
