import pytest

from om_plugins.security.nonce import (
    NONCE,
    PLAIN,
    SENT,
    header_nonce,
    nonce,
    sent_plain,
    stays_plain,
    stitched_nonce,
    tag_nonce,
    used_nonce,
)
from om_plugins.security.override import override


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
