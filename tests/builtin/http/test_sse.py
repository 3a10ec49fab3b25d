"""Events are encoded as browsers read them, and read however they are cut."""

from __future__ import annotations

import json

import pytest

from om_plugins.builtin.http.sse import (
    HEADERS,
    ServerEvent,
    encode_event,
    encode_heartbeat,
    encode_retry,
    read_events,
)
from om_plugins.errors import Transient


def read(*chunks, **options):
    return list(read_events(chunks, **options))


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: one\n\ndata: two\n\n", [("message", "one"), ("message", "two")]),
        (b"event: x\ndata: one\n\ndata: two\n\n", [("x", "one"), ("message", "two")]),
        (b"data: one\ndata:two\ndata:  three\n\n", [("message", "one\ntwo\n three")]),
        (b"data: one\r\rdata: two\r\n\r\n", [("message", "one"), ("message", "two")]),
        (b": a comment\nid: 7\nretry: 5\nunknown\ndata\n\n", [("message", "")]),
        (b"event: no data\n\n", []),
        (
            b"event: error\n\ndata: a\n\nevent: error\n",
            [("error", ""), ("message", "a"), ("error", "")],
        ),
        (b"\xef\xbb\xbfdata: after a mark\n\n", [("message", "after a mark")]),
        (b"data: \xff\n\n", [("message", "\ufffd")]),
        (b"data: no blank line", [("message", "no blank line")]),
        (b"", []),
    ],
)
def test_a_stream_is_read_as_the_standard_says(stream, events):
    assert read(stream) == [ServerEvent(*event) for event in events]
    assert read(*(stream[i : i + 1] for i in range(len(stream)))) == read(stream)


@pytest.mark.parametrize(
    "stream", [b"data: " + b"x" * 50, b"data: " + b"x" * 50 + b"\n\n", b"data: xxxxxxxx\n" * 5]
)
def test_a_line_or_an_event_that_is_too_large_ends_the_stream(stream):
    with pytest.raises(Transient, match="than 40 bytes") as caught:
        read(stream, max_event=40)
    assert caught.value.sent == "yes"


def test_a_line_without_an_end_is_not_collected():
    chunks = iter([b"x" * 10] * 100)
    with pytest.raises(Transient, match="longer than 40 bytes"):
        list(read_events(chunks, max_event=40))
    assert len(list(chunks)) == 95


def test_an_event_is_its_data():
    assert encode_event({"a": 1}) == b'data: {"a":1}\n\n'


def test_an_event_has_a_name_and_an_id_when_they_are_given():
    assert encode_event({}, event="ready", id="7-0") == b"event: ready\nid: 7-0\ndata: {}\n\n"
    assert encode_event([], event="changed") == b"event: changed\ndata: []\n\n"
    assert encode_event(1, id="8") == b"id: 8\ndata: 1\n\n"


def test_line_breaks_in_the_data_do_not_end_the_event():
    text = "one\ntwo\r\n\r\nid: 9\u2028"
    block = encode_event(text)
    assert block.count(b"\n") == 2
    assert b"\r" not in block
    assert json.loads(block.removeprefix(b"data: ")) == text


def test_a_heartbeat_moves_the_id_and_has_no_data():
    assert encode_heartbeat("12") == b": \nid: 12\n\n"


def test_the_time_until_a_browser_connects_again_is_a_block_of_its_own():
    assert encode_retry(2000) == b"retry: 2000\n\n"


def test_a_stream_is_not_stored_and_not_held_back_by_a_proxy():
    headers = dict(HEADERS)
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Accel-Buffering"] == "no"
