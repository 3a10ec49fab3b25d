import os
import threading

import pytest

from om_plugins.csp.nonce import (
    NONCE,
    NONCES,
    PLAIN,
    SENT,
    STITCHED,
    Nonces,
    header_nonce,
    nonce,
    sent_plain,
    stays_plain,
    stitched_nonce,
    tag_nonce,
    used_nonce,
)
from om_plugins.csp.override import override


def test_nonce_has_128_bits_in_characters_that_need_no_escaping():
    value = nonce({})
    assert len(bytes.fromhex(value)) == 16


def test_nonce_is_the_same_for_one_response_and_another_for_the_next():
    environ = {}
    assert nonce(environ) == nonce(environ)
    assert len({nonce({}) for _ in range(1000)}) == 1000


def test_nothing_is_kept_before_somebody_asks():
    environ = {}
    header_nonce(environ)
    assert NONCE not in environ
    assert environ[SENT]


def test_page_that_asks_after_the_header_gets_the_header_s_nonce():
    environ = {}
    sent = header_nonce(environ)
    assert nonce(environ) == sent
    assert environ[NONCE] == sent


def test_header_gets_the_nonce_that_the_page_asked_for():
    environ = {}
    asked = nonce(environ)
    assert header_nonce(environ) == asked
    assert SENT not in environ


def test_a_tag_of_a_response_without_policy_is_left_alone():
    environ = {}
    override(environ, exempt=True)
    assert tag_nonce(environ) is None
    assert NONCE not in environ
    asked = nonce(environ)  # for a header of the application's own
    assert tag_nonce(environ) == asked


def test_a_tag_is_left_alone_while_nothing_asks_for_the_nonce():
    environ = {PLAIN: False}
    assert tag_nonce(environ) is None
    assert environ == {PLAIN: True}


@pytest.mark.parametrize(
    "ask", [nonce, header_nonce, lambda environ: override(environ, report_only=False)]
)
def test_a_tag_gets_the_nonce_once_something_asked_for_it(ask):
    environ = {PLAIN: False}
    ask(environ)
    assert tag_nonce(environ) == nonce(environ)
    assert environ[PLAIN] is False


def test_a_tag_gets_the_nonce_where_nothing_may_stay_plain():
    environ = {}
    assert tag_nonce(environ) == nonce(environ)


# --- for a cache of pages -------------------------------------------------------------------------


def test_a_nonce_is_used_once_the_page_asked_for_it():
    environ = {}
    header_nonce(environ)
    assert used_nonce(environ) is None
    asked = nonce(environ)
    assert used_nonce(environ) == asked


def test_a_stitched_page_and_its_header_have_the_same_fresh_nonce():
    environ = {}
    value = stitched_nonce(environ)
    assert header_nonce(environ) == value == used_nonce(environ)
    assert stitched_nonce({}) != value


def test_the_nonce_of_a_stitched_page_can_be_set_once():
    environ = {}
    assert stitched_nonce(environ, "0" * 32) == "0" * 32 == header_nonce(environ)
    assert stitched_nonce(environ, "0" * 32) == "0" * 32
    with pytest.raises(ValueError, match="one only"):
        stitched_nonce(environ, "1" * 32)
    with pytest.raises(ValueError, match="hexadecimal"):
        stitched_nonce({}, "x';script-src *")


def test_a_stored_page_without_nonces_is_blamed_for_nothing():
    environ = {PLAIN: False}
    assert stays_plain(environ)
    sent_plain(environ)
    assert environ[PLAIN] is True
    reporting = {}
    assert not stays_plain(reporting)
    sent_plain(reporting)
    assert reporting == {}


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


def test_a_page_stitched_with_one_of_them_has_the_header_s_nonce():
    nonces = Nonces()
    environ = {}
    value = nonces.stitched(environ)
    assert nonces.stitched(environ) == header_nonce(environ) == used_nonce(environ) == value
    assert environ[STITCHED] is True
    sent = {NONCES: nonces}
    assert header_nonce(sent) == nonces.stitched(sent)


@pytest.mark.parametrize("ask", [nonce, header_nonce])
def test_page_and_header_take_theirs_from_those_of_the_layer(ask, monkeypatch):
    nonces = Nonces()
    nonces.take()
    monkeypatch.setattr(os, "urandom", lambda size: pytest.fail("asked the system for one"))
    taken = {ask({NONCES: nonces}) for _ in range(20)}
    assert len(taken) == 20
