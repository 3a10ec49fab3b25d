"""The console's cookie: signed, bound to the token, over after twelve hours."""

from __future__ import annotations

import pytest
from werkzeug.http import parse_cookie

from om_plugins.console.access__session import COOKIE, LASTS_S, Sessions
from om_plugins.testing.fakes import FakeClock

ENVIRON = {"SCRIPT_NAME": "/app/_om", "wsgi.url_scheme": "http"}


def made(sessions, *, signed_in=True, **environ):
    return sessions.made({**ENVIRON, **environ}, signed_in=signed_in)


def asking(cookie):
    return {"HTTP_COOKIE": cookie.partition(";")[0]}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def sessions(clock):
    return Sessions(lambda: b"secret", clock, "the token of today")


def test_a_cookie_is_known_again(sessions):
    session, cookie = made(sessions)
    assert sessions.found(asking(cookie)) == session
    assert session.signed_in


def test_the_cookie_is_for_the_prefix_alone_and_no_script_reads_it(sessions):
    _, cookie = made(sessions)
    assert {"HttpOnly", "SameSite=Strict", "Path=/app/_om", f"Max-Age={LASTS_S}"} <= set(
        cookie.split("; ")
    )
    assert "Secure" not in cookie
    assert "; Secure" in made(sessions, **{"wsgi.url_scheme": "https"})[1]


def test_it_runs_out_after_twelve_hours_whatever_the_browser_does(sessions, clock):
    _, cookie = made(sessions)
    clock.advance(LASTS_S - 1)
    assert sessions.found(asking(cookie))
    clock.advance(1)
    assert sessions.found(asking(cookie)) is None


def test_a_longer_life_or_a_sign_in_cannot_be_written_into_it(sessions):
    _, cookie = made(sessions, signed_in=False)
    value = parse_cookie(cookie.partition(";")[0])[COOKIE]
    sid, until, flag, signature = value.split(".")
    for forged in (
        f"{sid}.{int(until) + 1}.{flag}.{signature}",
        f"{sid}.{until}.1.{signature}",
        f"{'A' * 22}.{until}.{flag}.{signature}",
        f"{sid}.{until}.{flag}.{'A' * 43}",
        "nonsense",
    ):
        assert sessions.found({"HTTP_COOKIE": f"{COOKIE}={forged}"}) is None


def test_another_token_signs_everybody_out(sessions, clock):
    _, cookie = made(sessions)
    other = Sessions(lambda: b"secret", clock, "the token of tomorrow")
    assert other.found(asking(cookie)) is None


def test_a_form_token_belongs_to_one_session(sessions):
    one, other = made(sessions)[0], made(sessions)[0]
    assert sessions.is_form_token(one, sessions.form_token(one))
    assert not sessions.is_form_token(other, sessions.form_token(one))
    assert not sessions.is_form_token(one, "ünsinn")
