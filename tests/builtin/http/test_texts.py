"""Which streams are an answer; ``engines/test_http.py`` reads them over a connection."""

from __future__ import annotations

import itertools

import pytest

from om_plugins.builtin.http.texts import is_text_stream, read_charset, read_texts
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


@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain"])
@pytest.mark.parametrize(
    "piece", [b"data:\n\n", b"data: [DONE]\n\n", b" \n" * 1_000 + b"data:\n\n"]
)
def test_endless_white_space_is_no_answer(kind, piece):
    pieces = itertools.repeat(b"\n" * len(piece) if kind == "text/plain" else piece)
    with pytest.raises(Transient, match="streamed no word"):
        read(pieces, kind)


def test_after_endless_white_space_the_status_still_says_what_was_done():
    pieces = itertools.repeat(b" ")
    texts = read_texts(pieces, "text/plain", {}, lambda *args: Transient(), may_be_empty=True)
    assert list(texts) == []


@pytest.mark.parametrize(
    ("name", "reports"),
    [
        ("error", True), ("ERROR", True), ("stream_error", True), ("response.error", True),
        ("response.failed", True), ("exception", True), ("failure", True),
        ("thread.run.failed", True), ("server-error", True), ("internal_error", True),
        ("errors", True), ("fatal", True), ("Fatal-Error", True), ("aborted", True), ("err", True),
        ("model.error", True), ("job_aborted", False), ("errand", False), ("fatality", False),
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


@pytest.mark.parametrize("name", ["ping", "Ping", "pong", "heartbeat", "keepalive", "keep-alive",
                                  "noop", "no-op"])  # fmt: skip
def test_events_that_only_keep_the_connection_open_are_left_out(name):
    pieces = [b"data: a\n\nevent: " + name.encode() + b"\ndata: {}\n\ndata: b\n\n"]
    assert read(pieces) == [("message", "a"), ("message", "b")]


@pytest.mark.parametrize(
    "data", [b"data: [DONE]\n\n", b"data:[DONE] ", b"data: \n\ndata: [DONE]\n\ndata: [DONE]\n\n"]
)
def test_the_end_of_a_stream_is_no_word_of_it(data):
    with pytest.raises(Transient, match="streamed no word"):
        read([data])
    assert read([b"data: a\n\n", data])[0] == ("message", "a")
    assert read([b"[DONE]"], "text/plain") == [(None, "[DONE]")]


def test_a_stream_that_may_be_empty_ends():
    for pieces in ([], [b" "], [b": x\n\n"], [b"event: ping\ndata: x\n\n"]):
        texts = read_texts(pieces, "text/event-stream", {}, Transient, may_be_empty=True)
        assert list(texts) == []
    failed = read_texts([b"event: error\n\n"], "text/event-stream", {}, lambda *args: Transient(),
                        may_be_empty=True)  # fmt: skip
    with pytest.raises(Transient):
        list(failed)


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/plain", "é".encode(), "é"),
        ("text/plain", b"\xef\xbb\xbf\xc3\xa9", "é"),
        ("text/plain; charset=UTF-8", "é".encode(), "é"),
        ("text/plain; charset=us-ascii", "é".encode(), "é"),
        ("text/plain;charset=iso-8859-1", b"\xe9", "é"),
        ("text/csv; header=present; charset=ISO-8859-15", b"\xa4", "€"),
        ('text/plain; charset="windows-1252"; x=y', b"\x80", "€"),
        ("text/markdown; CHARSET=latin1", b"\xe9", "é"),
        ("text/plain; charset=utf-16", "é가".encode("utf-16"), "é가"),
        ("text/plain; charset=utf-16le", "é".encode("utf-16-le"), "é"),
        ("text/plain; charset=euc-kr", "디스크".encode("euc-kr"), "디스크"),
        ("text/plain; charset=Shift_JIS", "日本".encode("shift-jis"), "日本"),
        ("text/plain; charset=gb18030", "汉字".encode("gb18030"), "汉字"),
        ("text/plain; charset=cp999", "é".encode(), "é"),
        ("text/plain; charset=utf-16x", "é".encode(), "é"),
        ("text/plain; charset=unicode_escape", b"\\x41", "\\x41"),
        ("text/plain; charset=hex", b"41", "41"),
        ("text/html; charset=latin1, text/plain; charset=koi8-r", "я".encode("koi8-r"), "я"),
    ],
)
def test_a_text_is_read_in_the_encoding_that_its_type_says(kind, body, text):
    charset = read_charset({"content-type": kind})
    pieces = [body[start : start + 1] for start in range(len(body))]
    assert "".join(read_texts(pieces, "text/plain", {}, Transient, charset=charset)) == text
