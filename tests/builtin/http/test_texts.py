"""Which streams are an answer; ``engines/test_http.py`` reads them over a connection."""

from __future__ import annotations

import pytest

from om_plugins.builtin.http.texts import is_text_stream, read_texts
from om_plugins.errors import Transient


def read(pieces, kind="text/event-stream"):
    metadata = {}
    texts = read_texts(pieces, kind, metadata, lambda what, data: Transient(f"{what}: {data}"))
    return [(metadata.get("event"), text) for text in texts]


@pytest.mark.parametrize(
    ("kind", "streams"),
    [
        ("text/event-stream", True), ("text/plain", True), ("text/markdown", True),
        ("text/csv", True), ("text/html", False), ("text/xml", False), ("text/css", False),
        ("application/json", False), ("", False), ("text/", False),
    ],
)  # fmt: skip
def test_a_page_is_no_text_to_stream(kind, streams):
    assert is_text_stream(kind) is streams


def test_white_space_waits_for_the_first_word():
    pieces = iter([b"data: \n\n", b"event: x\ndata\n\n", b"data: a\n\n", b"data:  \n\n"])
    assert read(pieces) == [("message", ""), ("x", ""), ("message", "a"), ("message", " ")]
    assert read([b" ", b"\n", b"a", b" "], "text/plain") == [
        (None, " "), (None, "\n"), (None, "a"), (None, " "),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain"])
@pytest.mark.parametrize("pieces", [[], [b""], [b"\n", b"\n\n"], [b"\xef", b"\xbb\xbf"]])
def test_a_stream_without_a_word_fails(kind, pieces):
    with pytest.raises(Transient, match="streamed no word"):
        read(pieces, kind)


def test_marks_that_print_nothing_are_no_word():
    for pieces, kind in (
        ([b"data: \xe2\x80\x8b\n\n"], "text/event-stream"),
        ([b"\0"], "text/plain"),
    ):
        with pytest.raises(Transient, match="streamed no word"):
            read(pieces, kind)


def test_endless_white_space_is_not_collected():
    texts = read_texts(iter([b" "] * 5_000), "text/plain", {}, lambda *args: Transient())
    assert len(list(texts)) == 5_000


@pytest.mark.parametrize(
    ("name", "reports"),
    [
        ("error", True), ("ERROR", True), ("stream_error", True), ("response.error", True),
        ("response.failed", True), ("exception", True), ("failure", True),
        ("thread.run.failed", True), ("server-error", True),
        ("payment.failed", False), ("job_failed", False), ("no error", False),
        ("terror", False), ("errors_fixed", False), ("message", False), ("delta", False),
    ],
)  # fmt: skip
def test_an_event_that_reports_an_error_ends_the_stream(name, reports):
    pieces = [b"data: a\n\nevent: " + name.encode() + b"\ndata: boom\n\n"]
    if reports:
        with pytest.raises(Transient, match="reports an error: boom"):
            read(pieces)
    else:
        assert read(pieces) == [("message", "a"), (name, "boom")]


@pytest.mark.parametrize("name", ["ping", "Ping", "pong", "heartbeat", "keepalive", "keep-alive"])
def test_events_that_only_keep_the_connection_open_are_left_out(name):
    pieces = [b"data: a\n\nevent: " + name.encode() + b"\ndata: {}\n\ndata: b\n\n"]
    assert read(pieces) == [("message", "a"), ("message", "b")]
