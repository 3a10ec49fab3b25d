"""Events are read from bytes however they are cut (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import pytest

from om_plugins.builtin.http.sse import ServerEvent, read_events
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
