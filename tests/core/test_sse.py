"""Events are encoded as browsers read them."""

from __future__ import annotations

import json

from om_plugins.core.sse import HEADERS, encode_event, encode_heartbeat, encode_retry


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
