import pytest

from om_plugins.core.request_state import RequestState
from om_plugins.headers.report_turns import EVERY_S, ReportTurns, can_be_reported_on
from tests.opening import ACCEPT


def make(start=0.0):
    seconds = [start]
    return seconds, ReportTurns(lambda: seconds[0])


def test_a_page_has_one_turn_a_minute():
    seconds, turns = make()
    taken = []
    for _ in range(10):
        taken.append(turns.take("/a"))
        seconds[0] += EVERY_S / 4
    assert taken == [True, False, False, False] * 2 + [True, False]


def test_each_page_has_turns_of_its_own():
    _, turns = make()
    assert [turns.take(page) for page in ("/a", "/b", "/a")] == [True, True, False]


def test_many_pages_do_not_fill_the_memory():
    _, turns = make()
    for number in range(5000):
        assert turns.take(f"/{number}")
    assert len(turns._taken) <= 1024


def test_a_response_whose_turn_it_is_goes_past_all_caches():
    _, turns = make()
    state = RequestState(None, take_report_turn=turns.take, asks_for_reports=True)
    assert state.goes_past_caches({"PATH_INFO": "/a"})
    assert state.goes_past_caches({"PATH_INFO": "/a"})  # a cache further in asks as well
    assert (state.plain, state.asks_for_reports) == (None, True)


def test_a_response_whose_turn_it_is_not_stays_plain_and_asks_for_nothing():
    _, turns = make()
    turns.take("/a")
    state = RequestState(None, take_report_turn=turns.take, asks_for_reports=True)
    assert not state.goes_past_caches({"PATH_INFO": "/a"})
    assert not state.goes_past_caches({"PATH_INFO": "/b"})
    assert (state.plain, state.asks_for_reports) == (False, False)


def test_a_response_that_has_its_nonce_goes_past_the_caches():
    _, turns = make()
    turns.take("/a")
    state = RequestState(None, take_report_turn=turns.take, asks_for_reports=True)
    state.nonce_for_page()
    assert state.goes_past_caches({"PATH_INFO": "/a"})


def test_other_responses_are_answered_by_caches():
    assert not RequestState(None).goes_past_caches({"PATH_INFO": "/a"})
    assert not RequestState(None, plain=False, asks_for_reports=True).goes_past_caches(
        {"PATH_INFO": "/a"}
    )


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("GET", {}, False),  # a program
        ("GET", {"SEC_FETCH_DEST": "document", "ACCEPT": ACCEPT}, True),
        ("GET", {"SEC_FETCH_DEST": "iframe"}, True),
        ("GET", {"SEC_FETCH_DEST": "object"}, True),
        ("GET", {"ACCEPT": ACCEPT}, True),
        ("GET", {"ACCEPT": "Text/HTML"}, True),
        ("GET", {"ACCEPT": "*/*"}, False),  # a script fetches it
        ("GET", {"SEC_FETCH_DEST": "empty", "ACCEPT": ACCEPT}, False),
        ("GET", {"SEC_FETCH_DEST": "script"}, False),
        ("GET", {"SEC_FETCH_DEST": ""}, False),
        ("GET", {"ACCEPT": "application/json"}, False),
        ("HEAD", {"ACCEPT": ACCEPT}, False),
        ("POST", {"SEC_FETCH_DEST": "document", "ACCEPT": ACCEPT}, False),
        ("PUT", {}, False),
    ],
)
def test_only_what_a_browser_opens_can_be_reported_on(method, headers, expected):
    environ = {f"HTTP_{name}": value for name, value in headers.items()}
    assert can_be_reported_on({"REQUEST_METHOD": method, **environ}) is expected
