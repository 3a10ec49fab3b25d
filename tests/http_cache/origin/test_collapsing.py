"""One trip for all who wait: what they get, and what happens when it goes wrong."""

from __future__ import annotations

import threading

import pytest

from om_plugins.http_cache.origin.collapsing import (
    ABANDONED_S,
    BYPASS_S,
    CollapsedRequest,
    CollapseOutcome,
    CutOffError,
    RequestCollapser,
)
from om_plugins.http_cache.rfc9111 import CacheVerdict
from om_plugins.http_cache.stored_response import StoredResponse
from om_plugins.testing.fakes import FakeClock
from tests.patience import join

HEAD = StoredResponse(200, "200 OK", [], b"", CacheVerdict(), 0.0, 0.0)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def collapser(clock):
    return RequestCollapser(100, clock)


def elsewhere(function):
    """What ``function`` returns in another thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    join(thread)
    return found[0]


def test_the_first_goes_and_the_others_wait(collapser):
    request, leads = collapser.enter("a")
    assert leads
    assert elsewhere(lambda: collapser.enter("a")) == (request, False)
    assert elsewhere(lambda: collapser.enter("b"))[1]


def test_an_application_that_asks_itself_does_not_wait_for_itself(collapser):
    collapser.enter("a")
    assert collapser.enter("a") == (None, True)


def test_after_a_private_response_nobody_waits_for_a_minute(collapser, clock):
    request, _ = collapser.enter("a")
    collapser.finish("a", request, private=True)
    assert elsewhere(lambda: collapser.enter("a")) == (None, True)
    clock.advance(BYPASS_S + 1)
    assert elsewhere(lambda: collapser.enter("a"))[0] is not None


def test_what_was_stored_is_worth_waiting_for_again(collapser):
    collapser.bypass("a")
    assert collapser.enter("a") == (None, True)
    collapser.allow("a")
    assert collapser.enter("a")[0] is not None


def test_a_trip_that_never_ends_is_not_joined(collapser, clock):
    request, _ = collapser.enter("a")
    clock.advance(ABANDONED_S + 1)
    other, leads = elsewhere(lambda: collapser.enter("a"))
    assert leads
    assert other is not request


def test_in_a_forked_child_no_trip_is_under_way(collapser):
    collapser.enter("a")
    collapser.after_fork()
    assert elsewhere(lambda: collapser.enter("a"))[1]


def test_passes_are_bounded(collapser):
    for number in range(10_050):
        collapser.bypass(str(number))
    assert len(collapser._bypassed) == 10_000


def test_chunks_are_sent_along_from_the_beginning():
    request = CollapsedRequest(100)
    request.start_streaming(HEAD, "")
    request.add(b"one")
    along = request.stream()
    request.add(b"two")
    request.end(HEAD)
    assert list(along) == [b"one", b"two"]
    assert request.wait(0) is CollapseOutcome.STORED


def test_one_that_breaks_off_cuts_those_who_send_along():
    request = CollapsedRequest(100)
    request.start_streaming(HEAD, "")
    request.add(b"one")
    along = request.stream()
    assert next(along) == b"one"
    request.end(None, failed=True)
    with pytest.raises(CutOffError):
        next(along)


def test_who_waits_is_told_when_it_is_private():
    request = CollapsedRequest(100)
    request.end(None)
    assert request.wait(0) is CollapseOutcome.PRIVATE
    assert CollapsedRequest(100).wait(0) is CollapseOutcome.PENDING


def test_a_body_over_the_limit_goes_on_in_step_with_those_who_send_it():
    request = CollapsedRequest(10)
    request.start_streaming(HEAD, "")
    along = request.stream()
    sizes = []

    def read():
        return b"".join(along)

    found = []
    reader = threading.Thread(target=lambda: found.append(read()))
    reader.start()
    for _ in range(100):
        request.add(b"12345678")
        sizes.append(request._size)
    request.end(None)
    join(reader)
    assert found == [b"12345678" * 100]
    assert max(sizes) <= 10 + 8
    assert request.stream() is None


def test_one_who_is_stuck_is_cut_and_does_not_hold_the_others(monkeypatch):
    monkeypatch.setattr("om_plugins.http_cache.origin.collapsing.STALL_S", 0.05)
    request = CollapsedRequest(10)
    request.start_streaming(HEAD, "")
    stuck = request.stream()
    for _ in range(5):
        request.add(b"12345678")
    with pytest.raises(CutOffError):
        next(stuck)
    stuck.close()
    assert not request.followed
