"""Answers as JSON, seen through an engine route."""

from __future__ import annotations

import pytest

from om_plugins.chains.http_call import prefers, render_json
from om_plugins.types import Answer, ModelRefusal, ToolCall, ToolCalls
from tests.gateway.conftest import AChain, Chunks, Client


def test_post_is_answered_as_json_with_how_it_came_about():
    answer = Answer(
        {"a": "디스크"}, engine="big\r\nX-Evil: 1", tier=2, attempts=3, degraded=True, stale=True
    )
    reply = Client(AChain(answer)).ask(body={"q": "?"})
    assert reply.status == 200
    assert reply.json == {"a": "디스크"}
    expected = {
        "content-type": "application/json", "om-engine": "big--X-Evil--1", "om-tier": "2",
        "om-attempts": "3", "om-degraded": "?1", "om-stale": "?1", "cache-control": "no-store",
        "x-content-type-options": "nosniff", "content-length": str(len(reply.body)),
    }  # fmt: skip
    assert expected.items() <= reply.headers.items()


def test_plain_answer_has_no_marks():
    reply = Client(AChain()).ask()
    assert not {"om-degraded", "om-stale"} & set(reply.headers)


@pytest.mark.parametrize(
    ("payload", "body"),
    [("text", {"answer": "text"}), (None, None), ([1], [1]), (5, 5), (True, True)],
)
def test_every_json_payload_has_a_body(payload, body):
    assert Client(AChain(Answer(payload, engine="e"))).ask().json == body


def _loop():
    found = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("payload", "kind"),
    [(object(), "object"), ({"a": object()}, "dict"), (int, "type"), (_loop(), "list"),
     (ValueError("x"), "ValueError"), ({(1, 2): 3}, "dict")],
)  # fmt: skip
def test_an_answer_that_cannot_be_json_names_its_engine_and_the_way_out(payload, kind):
    with pytest.raises(TypeError, match=rf"engine 'e' answered .* {kind!r}, .* return a dict"):
        render_json(Answer(payload, engine="e"))


@pytest.mark.parametrize(
    ("payload", "document"),
    [
        (ModelRefusal("No.", model="m"), {"refusal": "No.", "answer": "", "model": "m"}),
        (ToolCalls((ToolCall("c1", "f", "{}"),), "Wait."),
         {"tool_calls": [{"id": "c1", "name": "f", "arguments": "{}"}], "answer": "Wait.",
          "model": ""}),
    ],
)  # fmt: skip
def test_what_a_model_answers_beside_text_is_json(payload, document):
    assert Client(AChain(Answer(payload, engine="e"))).ask().json == document


def test_streamed_answer_is_joined_for_a_client_without_streams():
    chunks = Chunks("a", "디".encode()[:1], "디".encode()[1:], "c")
    assert Client(AChain(Answer(chunks=chunks, engine="e"))).ask().json == {"answer": "a디c"}
    assert chunks.closed


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("text/event-stream", True),
        ("application/json;q=0.5, Text/Event-Stream;q=0.5", True),
        ("application/json, text/event-stream;q=0.9", False),
        ("text/event-stream;q=0", False),
        ("*/*", False),
        ("", False),
        (None, False),
    ],
)
def test_a_media_type_is_preferred_only_by_its_name_and_no_less_than_json(accept, wanted):
    assert prefers(accept, "text/event-stream") is wanted
