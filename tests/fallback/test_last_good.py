"""Copies of good answers: only what is the same for everybody, in the background, bounded."""

from __future__ import annotations

import pytest

from om_plugins.csp.nonce import NONCE, nonce

from .conftest import Body, answers, raises


@pytest.fixture
def shield(house):
    return house(answers())


def good_then_failing(shield, app=None, ask=None, **then):
    """Ask once while the app works, then again when it fails."""
    shield.app = app or answers()
    first = shield.ask(**(ask or {}))
    assert first.status == 200
    shield.app = raises()
    shield.clock.advance(1)
    return shield.ask(**{**(ask or {}), **then})


def test_the_last_good_answer_stands_in(shield):
    shield.clock.advance(5)
    app = answers(headers=[("X-Own", "1"), ("ETag", '"1"'), ("Cache-Control", "max-age=60")])
    reply = good_then_failing(shield, app)
    assert (reply.status, reply.body) == (200, b"the report")
    assert reply.headers["om-engine"] == "stale"
    assert reply.headers["om-stale"] == "?1"
    assert reply.headers["age"] == "1"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-own"] == "1"
    assert "etag" not in reply.headers
    assert reply.headers["content-length"] == str(len(b"the report"))


def test_only_that_very_address_is_answered(shield):
    good_then_failing(shield)
    assert shield.ask(query="page=2").status == 503
    assert shield.ask("/reports/night").status == 503
    assert shield.ask(host="other.example").status == 503


def test_head_is_answered_from_the_copy_and_post_is_not(shield):
    good_then_failing(shield)
    reply = shield.ask(method="HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert shield.ask(method="POST").status == 503


def test_a_streamed_body_is_copied_as_it_passes(shield):
    reply = good_then_failing(shield, answers(body=Body(b"a", b"", b"b")))
    assert reply.body == b"ab"


@pytest.mark.parametrize(
    "headers",
    [
        [("Set-Cookie", "a=b")],
        [("Cache-Control", "private")],
        [("Cache-Control", "max-age=1, No-Store")],
        [("Cache-Control", 'private="x-user"')],
        [("Vary", "Accept, Cookie")],
        [("Vary", "*")],
        [("Vary", "Authorization")],
        [("Content-Range", "bytes 0-1/2")],
        [("Content-Length", "9999")],
    ],
)
def test_what_may_be_personal_or_is_not_whole_is_never_copied(house, headers):
    shield = house(answers())
    shield.app = answers(headers=headers)
    shield.ask(checked=False)
    shield.app = raises()
    assert shield.ask().status == 503


@pytest.mark.parametrize(
    "ask", [{"authorization": "Bearer x"}, {"cookie": "session=1"}, {"range": "bytes=0-1"}]
)
def test_a_request_that_says_who_asks_is_not_copied(shield, ask):
    assert good_then_failing(shield, ask=ask).status == 503


def test_the_cookie_of_our_own_toasts_does_not_count(shield):
    assert good_then_failing(shield, ask={"cookie": "om_sid=x"}).status == 200


def test_what_varies_answers_only_the_same(shield):
    app = answers(headers=[("Vary", "Accept-Language")])
    ask = {"accept_language": "ko"}
    assert good_then_failing(shield, app, ask).status == 200
    assert shield.ask(accept_language="en").status == 503


def test_what_is_encoded_answers_only_who_can_read_it(shield):
    app = answers(headers=[("Content-Encoding", "gzip")])
    assert good_then_failing(shield, app, accept_encoding="br, gzip").status == 200
    assert shield.ask().status == 503


def test_a_nonce_is_never_sent_twice(shield):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b'<script nonce="' + nonce(environ).encode() + b'">1</script>']

    environ = shield.environ()
    shield.app = app
    old = shield.ask(environ=environ).body
    shield.app = raises()
    environ = shield.environ()
    new = shield.ask(environ=environ).body
    assert environ[NONCE].encode() in new
    assert new != old
    assert len(new) == len(old)


def test_a_page_whose_nonce_cannot_be_found_is_not_copied(shield):
    def app(environ, start_response):
        nonce(environ)
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Encoding", "gzip")])
        return [b"packed"]

    assert good_then_failing(shield, app, accept_encoding="gzip").status == 503


def test_a_nonce_that_the_page_does_not_show_is_not_copied(shield):
    def app(environ, start_response):
        nonce(environ)
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"it stands in here reversed, or in pieces"]

    assert good_then_failing(shield, app).status == 503


def test_a_body_over_the_size_is_not_copied(house):
    shield = house(answers(), max_copy=4)
    assert good_then_failing(shield, answers(body=Body(b"abc", b"de"))).status == 503
    assert good_then_failing(shield, answers(body=[b"abcd"]), {"path": "/reports/b"}).status == 200


def test_a_body_that_broke_off_is_not_copied_and_the_next_one_is(shield):
    shield.app = answers(body=Body(b"half", ValueError("cut")))
    with pytest.raises(ValueError, match="cut"):
        shield.ask()
    assert good_then_failing(shield).body == b"the report"


def test_a_client_that_left_leaves_no_copy(shield):
    shield.app = answers(body=Body(b"half", b"rest"))
    body = shield.shield(shield.environ(), lambda *a: lambda data: None)
    assert next(iter(body)) == b"half"
    body.close()
    shield.scheduler.run_pending()
    shield.app = raises()
    assert shield.ask().status == 503


def test_a_copy_is_renewed_no_sooner_than_said(house):
    shield = house(answers(), copy_every_s=60)
    shield.ask()
    shield.app = answers(body=b"newer")
    shield.ask()
    shield.app = raises()
    assert shield.ask().body == b"the report"
    shield.clock.advance(61)
    shield.app = answers(body=b"newer")
    shield.ask()
    shield.app = raises()
    assert shield.ask().body == b"newer"


def test_a_copy_that_is_too_old_does_not_answer(house):
    shield = house(answers(), keep_s=100)
    shield.ask()
    shield.app = raises()
    shield.clock.advance(99)
    assert shield.ask().status == 200
    shield.clock.advance(2)
    assert shield.ask().status == 503


def test_recovery_that_marks_everything_stale_leaves_the_copies(shield):
    good_then_failing(shield)
    shield.cache.invalidate()
    assert shield.ask().status == 200


def test_the_number_of_copies_is_bounded_and_those_in_use_stay(house):
    shield = house(answers(), copies=2, copy_every_s=60)
    for query in ("1", "2", "3"):
        shield.ask(query=query)
    assert shield.cache.stats().entries == 2
    shield.clock.advance(61)
    shield.ask(query="2")
    shield.ask(query="3")  # takes the place of 1, which nobody asked for since
    assert shield.cache.stats().entries == 2
    shield.app = raises()
    assert [shield.ask(query=q).status for q in "123"] == [503, 200, 200]


def test_the_copy_is_stored_off_the_request(house):
    shield = house(answers())
    body = shield.shield(shield.environ(), lambda *a: lambda data: None)
    assert list(body) == [b"the report"]
    assert shield.cache.stats().entries == 0
    shield.scheduler.run_pending()
    assert shield.cache.stats().entries == 1


def test_a_planted_copy_is_none(house):
    shield = house(raises())
    name = ("shield", "/reports/day", "", "app.example", "", "http")
    for planted in ("text", {"headers": "x"}, {"headers": [["a", 1]], "body": b"", "vary": []}):
        shield.cache.set(name, planted)
        assert shield.ask().status == 503
