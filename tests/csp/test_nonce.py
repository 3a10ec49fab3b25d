import pytest

from om_plugins.core.request_state import RequestState
from om_plugins.csp.nonce import nonce, note_question, renew_notes, tag_nonce
from om_plugins.csp.override import Override, add_override


@pytest.fixture
def state():
    return RequestState(None)


def test_nonce_has_128_bits_in_characters_that_need_no_escaping():
    value = nonce({})
    assert len(bytes.fromhex(value)) == 16


def test_nonce_is_the_same_for_one_response_and_another_for_the_next():
    environ = {}
    assert nonce(environ) == nonce(environ) == nonce(environ.copy())
    assert len({nonce({}) for _ in range(1000)}) == 1000


def test_a_tag_of_a_response_without_policy_is_left_alone(state):
    add_override(state, Override(exempt=True))
    assert tag_nonce(state) is None
    assert state.page_nonce is None
    asked = state.nonce_for_page()  # for a header of the application's own
    assert tag_nonce(state) == asked


def test_a_tag_is_left_alone_while_nothing_asks_for_the_nonce(state):
    state.plain = False
    assert tag_nonce(state) is None
    assert state.plain is True
    assert state.page_nonce is None


@pytest.mark.parametrize(
    "ask",
    [
        RequestState.nonce_for_page,
        RequestState.nonce_for_header,
        lambda state: add_override(state, Override(report_only=False)),
    ],
)
def test_a_tag_gets_the_nonce_once_something_asked_for_it(state, ask):
    state.plain = False
    ask(state)
    assert tag_nonce(state) == state.nonce_for_page()
    assert state.plain is False


def test_a_tag_gets_the_nonce_where_nothing_may_stay_plain(state):
    assert tag_nonce(state) == state.nonce_for_page()


QUESTION = f"script-src-attr 'sha256-{'A' * 43}='"


@pytest.mark.parametrize(
    ("state", "noted"),
    [
        (RequestState(None), {QUESTION: None}),
        (RequestState(None, hashes={"script-src A": None}),
         {"script-src A": None, QUESTION: None}),
        (RequestState(None, plain=False), None),
        (RequestState(None, overrides=(Override(exempt=True),)), None),
        # its headers are sent
        (RequestState(None, hashes=()), ()),
    ],
)  # fmt: skip
def test_a_question_is_noted_where_the_page_has_a_policy(state, noted):
    note_question(state, QUESTION)
    assert state.hashes == noted
    assert state.plain is not True


def test_a_stored_page_brings_its_questions_back():
    state = RequestState(None)
    renew_notes(state, [QUESTION])
    assert state.hashes == {QUESTION: None}
    listing = RequestState(None, hashes={})
    renew_notes(listing, ["script-src A", QUESTION])
    assert list(listing.hashes) == ["script-src A", QUESTION]
    other = RequestState(None)
    renew_notes(other, ["script-src A"])
    assert other.hashes is None
