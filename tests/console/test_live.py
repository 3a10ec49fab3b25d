"""The console's stream."""

from __future__ import annotations

import json

import pytest

from om_plugins.console.live import ROTATE_S, Streams
from om_plugins.testing.fakes import FakeClock

THREADED = {"wsgi.multithread": True}


@pytest.fixture
def clock():
    return FakeClock()


def streams(clock, limit="auto", ending=lambda: False):
    return Streams(
        lambda span: {"span": span, "at": clock.time()}, clock=clock, limit=limit, is_ending=ending
    )


def data(event):
    return json.loads(event.partition(b"data: ")[2])


def test_it_tells_at_once_and_then_every_second_until_it_is_rotated(clock):
    began = clock.monotonic()
    found = [data(event) for event in streams(clock).open(THREADED, "hour")]
    assert len(found) == ROTATE_S
    assert {one["span"] for one in found} == {"hour"}
    assert found[1]["at"] - found[0]["at"] == pytest.approx(1.0)
    assert clock.monotonic() - began == ROTATE_S


def test_there_is_one_place_and_it_is_given_back(clock):
    all_of_them = streams(clock)
    first = all_of_them.open(THREADED, "")
    assert all_of_them.open(THREADED, "") is None
    first.close()
    first.close()
    assert all_of_them.open(THREADED, "") is not None


def test_there_is_none_where_a_server_has_one_thread_or_is_told_so(clock):
    assert streams(clock).open({"wsgi.multithread": False}, "") is None
    assert streams(clock, 0).open(THREADED, "") is None


def test_a_server_that_stops_does_not_wait_for_it(clock):
    over = False
    stream = streams(clock, ending=lambda: over).open(THREADED, "")
    next(stream)
    over = True
    assert list(stream) == []
    assert streams(clock, ending=lambda: True).open(THREADED, "") is None


def test_a_page_that_asks_again_gives_up_the_stream_it_had(clock):
    all_of_them = streams(clock)
    first = all_of_them.open(THREADED, "minutes", "one page")
    assert all_of_them.open(THREADED, "hour", "another page") is None
    second = all_of_them.open(THREADED, "hour", "one page")
    assert list(first) == []
    assert data(next(second))["span"] == "hour"
    assert all_of_them.open(THREADED, "hour") is None
