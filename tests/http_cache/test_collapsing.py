"""One trip for all who wait: what they get, and what happens when it goes wrong."""

from __future__ import annotations

import threading

import pytest

from om_plugins.http_cache.collapsing import (
    LOST_S,
    PASS_S,
    CollapsedRequest,
    CollapseOutcome,
    CutOffError,
    RequestCollapser,
)
from om_plugins.http_cache.rfc9111 import CacheVerdict
from om_plugins.http_cache.stored_response import StoredResponse
from om_plugins.testing.fakes import FakeClock

HEAD = StoredResponse(200, "200 OK", [], b"", CacheVerdict(), 0.0, 0.0)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def board(clock):
    return RequestCollapser(100, clock)


def elsewhere(function):
    """What ``function`` returns in another thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join(10)
    return found[0]


def test_the_first_goes_and_the_others_wait(board):
    flight, leads = board.board("a")
    assert leads
    assert elsewhere(lambda: board.board("a")) == (flight, False)
    assert elsewhere(lambda: board.board("b"))[1]


def test_an_application_that_asks_itself_does_not_wait_for_itself(board):
    board.board("a")
    assert board.board("a") == (None, True)


def test_after_a_private_response_nobody_waits_for_a_minute(board, clock):
    flight, _ = board.board("a")
    board.leave("a", flight, private=True)
    assert elsewhere(lambda: board.board("a")) == (None, True)
    clock.advance(PASS_S + 1)
    assert elsewhere(lambda: board.board("a"))[0] is not None


def test_what_was_stored_is_worth_waiting_for_again(board):
    board.pass_by("a")
    assert board.board("a") == (None, True)
    board.forget("a")
    assert board.board("a")[0] is not None


def test_a_trip_that_never_ends_is_not_joined(board, clock):
    flight, _ = board.board("a")
    clock.advance(LOST_S + 1)
    other, leads = elsewhere(lambda: board.board("a"))
    assert leads
    assert other is not flight


def test_in_a_forked_child_no_trip_is_under_way(board):
    board.board("a")
    board.after_fork()
    assert elsewhere(lambda: board.board("a"))[1]


def test_passes_are_bounded(board):
    for number in range(10_050):
        board.pass_by(str(number))
    assert len(board._passes) == 10_000


def test_chunks_are_sent_along_from_the_beginning():
    flight = CollapsedRequest(100)
    flight.open(HEAD, "")
    flight.add(b"one")
    along = flight.follow()
    flight.add(b"two")
    flight.end(HEAD)
    assert list(along) == [b"one", b"two"]
    assert flight.wait(0) is CollapseOutcome.WHOLE


def test_one_that_breaks_off_cuts_those_who_send_along():
    flight = CollapsedRequest(100)
    flight.open(HEAD, "")
    flight.add(b"one")
    along = flight.follow()
    assert next(along) == b"one"
    flight.end(None, failed=True)
    with pytest.raises(CutOffError):
        next(along)


def test_who_waits_is_told_when_it_is_private():
    flight = CollapsedRequest(100)
    flight.end(None)
    assert flight.wait(0) is CollapseOutcome.PRIVATE
    assert CollapsedRequest(100).wait(0) is CollapseOutcome.UNDER_WAY


def test_a_body_over_the_limit_goes_on_in_step_with_those_who_send_it():
    flight = CollapsedRequest(10)
    flight.open(HEAD, "")
    along = flight.follow()
    sizes = []

    def read():
        return b"".join(along)

    found = []
    reader = threading.Thread(target=lambda: found.append(read()))
    reader.start()
    for _ in range(100):
        flight.add(b"12345678")
        sizes.append(flight._size)
    flight.end(None)
    reader.join(10)
    assert found == [b"12345678" * 100]
    assert max(sizes) <= 10 + 8
    assert flight.follow() is None


def test_one_who_is_stuck_is_cut_and_does_not_hold_the_others(monkeypatch):
    monkeypatch.setattr("om_plugins.http_cache.collapsing.STALL_S", 0.05)
    flight = CollapsedRequest(10)
    flight.open(HEAD, "")
    stuck = flight.follow()
    for _ in range(5):
        flight.add(b"12345678")
    with pytest.raises(CutOffError):
        next(stuck)
    stuck.close()
    assert not flight.followed
