import os
import threading

import pytest

from om_plugins.core.request_state import KEY, RequestState
from om_plugins.csp.nonce import Nonces, nonce, tag_nonce
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


# --- many at once ---------------------------------------------------------------------------------


def test_nonces_made_ahead_are_as_long_and_never_the_same():
    nonces = Nonces()
    taken = [nonces.take() for _ in range(1000)]
    assert len(set(taken)) == 1000
    assert {len(bytes.fromhex(one)) for one in taken} == {16}


def test_threads_never_get_the_same_nonce():
    nonces = Nonces()
    taken = []

    def take():
        taken.extend([nonces.take() for _ in range(2000)])

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == 8 * 2000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_sends_none_of_its_parent_s_nonces():
    nonces = Nonces()
    nonces.take()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, "".join(nonces.take() for _ in range(64)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, encoding="ascii") as pipe:
        said = pipe.read()
    theirs = {said[at : at + 32] for at in range(0, len(said), 32)}
    assert len(theirs) == 64
    assert theirs.isdisjoint(nonces.take() for _ in range(64))


@pytest.mark.parametrize(
    "ask", [RequestState.nonce_for_page, RequestState.nonce_for_header, lambda s: nonce({KEY: s})]
)
def test_page_and_header_take_theirs_from_those_of_the_layer(ask, monkeypatch):
    nonces = Nonces()
    nonces.take()
    monkeypatch.setattr(os, "urandom", lambda size: pytest.fail("asked the system for one"))
    taken = {ask(RequestState(None, nonces.take)) for _ in range(20)}
    assert len(taken) == 20
