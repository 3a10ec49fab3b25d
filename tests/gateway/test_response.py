"""Answers of engine routes: failures as problem documents, streams as events."""

from __future__ import annotations

import logging

import pytest

from om_plugins.errors import (
    CallerDeadline,
    Cancelled,
    ChainExhausted,
    EngineUnavailable,
    InvalidRequest,
    Misconfigured,
    RateLimited,
    TooLong,
    Transient,
    Unsupported,
)
from om_plugins.types import Answer
from tests.gateway.conftest import EVENTS, AChain, Chunks, Client


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (ChainExhausted("x", [Transient("s3cret")]), 503, "5"),
        (ChainExhausted("x", [RateLimited()], "c", [], 2.1), 503, "3"),
        (ChainExhausted("x", [EngineUnavailable("e", "offline")], "c", [], 9e9), 503, "3600"),
        (ChainExhausted("x", [Transient()], "c", [], 0.0), 503, "1"),
        (ChainExhausted("x", [TooLong(), TooLong()]), 413, None),
        (ChainExhausted("x", [TooLong(), Unsupported()]), 400, None),
        (ChainExhausted("x", [Unsupported("s3cret")]), 400, None),
        (ChainExhausted("x", [Misconfigured(concerns_caller=True)]), 400, None),
        (ChainExhausted("x", [ChainExhausted("y", [Unsupported()])]), 400, None),
        (ChainExhausted("x", [RateLimited(concerns_caller=True)], "c", [], 2.1), 503, "3"),
        (ChainExhausted("x", [Unsupported(), Transient()]), 503, "5"),
        (ChainExhausted("x", [Unsupported(), EngineUnavailable("e", "offline")]), 503, "5"),
        (ChainExhausted("x", [Misconfigured("s3cret")]), 503, "5"),
        (InvalidRequest("s3cret"), 400, None),
        (CallerDeadline("s3cret"), 504, None),
        (Cancelled("s3cret"), 503, "1"),
        (ZeroDivisionError("s3cret"), 500, None),
    ],
)
def test_failure_becomes_a_problem_in_plain_words(error, status, retry_after):
    reply = Client(AChain(error)).ask()
    assert reply.status == reply.json["status"] == status
    assert reply.headers.get("retry-after") == retry_after
    assert reply.headers["content-type"] == "application/problem+json"
    assert b"s3cret" not in reply.body
    assert b"Traceback" not in reply.body
    assert reply.json["instance"].startswith("urn:uuid:")


def test_unknown_error_is_logged_under_the_id_that_the_client_sees(caplog):
    with caplog.at_level(logging.ERROR, "om_plugins"):
        reply = Client(AChain(ZeroDivisionError("s3cret"))).ask()
    assert reply.json["instance"] in caplog.text
    assert "ZeroDivisionError: s3cret" in caplog.text


def test_answer_that_is_not_json_is_500_and_closed():
    chunks = Chunks(object())
    assert Client(AChain(Answer(chunks=chunks, engine="e"))).ask().status == 500
    assert chunks.closed


def test_stream_is_sent_as_events():
    chunks = Chunks("a\nb", "디".encode(), {"k": 1})
    client = Client(AChain(Answer(chunks=chunks, engine="e", tier=2, degraded=True)))
    reply = client.ask(headers=EVENTS)
    assert client.chain.calls[0][1]["stream"] is True
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.headers["om-tier"] == "2"
    meta = {"engine": "e", "tier": 2, "attempts": 1, "degraded": True, "stale": False}
    assert reply.events == [
        ("meta", meta), ("chunk", "a\nb"), ("chunk", "디"), ("chunk", {"k": 1}), ("done", {})
    ]  # fmt: skip
    assert chunks.closed


def test_answer_without_chunks_is_one_event():
    reply = Client(AChain(Answer({"answer": "x"}, engine="e"))).ask(headers=EVENTS)
    assert reply.events[1:] == [("chunk", {"answer": "x"}), ("done", {})]


@pytest.mark.parametrize(
    ("error", "status"),
    [(Transient("s3cret"), 502), (CallerDeadline(), 504), (ValueError("s3cret"), 500)],
)
def test_failure_in_the_middle_is_an_error_event(error, status):
    chunks = Chunks("a", error, "never")
    reply = Client(AChain(Answer(chunks=chunks, engine="e"))).ask(headers=EVENTS)
    assert [name for name, _ in reply.events] == ["meta", "chunk", "error"]
    assert reply.events[-1][1]["status"] == status
    assert b"s3cret" not in reply.body
    assert chunks.closed


def test_failure_before_the_first_chunk_is_a_problem_document():
    reply = Client(AChain(ChainExhausted("x", [Transient()]))).ask(headers=EVENTS)
    assert (reply.status, reply.headers["content-type"]) == (503, "application/problem+json")


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_client_that_leaves_closes_the_answer(taken):
    chunks = Chunks("a", "b", "c")
    iterable, _ = Client(AChain(Answer(chunks=chunks, engine="e"))).open(headers=EVENTS)
    iterator = iter(iterable)
    for _ in range(taken):
        next(iterator)
    iterator.close()
    assert chunks.closed


@pytest.mark.parametrize(
    ("accept", "streams"),
    [
        (None, False), ("*/*", False), ("text/*", False), ("application/json", False),
        ("text/event-stream", True), ("TEXT/Event-Stream", True),
        ("text/event-stream;q=0", False), ("text/event-stream, application/json", True),
        ("text/event-stream;q=0.5, application/json", False),
        ("text/event-stream;q=0.5, */*;q=0.1", True), ("text/event-stream;q=0.5, */*", False),
        ("application/json;q=0.9, text/event-stream", True), (";;,,q=text/event-stream", False),
    ],
)  # fmt: skip
def test_events_are_sent_only_to_who_prefers_them(accept, streams):
    client = Client(AChain())
    reply = client.ask(headers={} if accept is None else {"Accept": accept})
    assert client.chain.calls[0][1]["stream"] is streams
    assert reply.headers["content-type"].startswith("text/event-stream") is streams
