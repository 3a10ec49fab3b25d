"""Copies of good answers: only what is the same for everybody, in the background, bounded."""

from __future__ import annotations

import pytest

from om_plugins.csp.nonce import nonce

from .conftest import Body, answers, raises


@pytest.fixture
def fallback(house):
    return house(answers())


def good_then_failing(fallback, app=None, ask=None, **then):
    """Ask once while the app works, then again when it fails."""
    fallback.app = app or answers()
    first = fallback.ask(**(ask or {}))
    assert first.status == 200
    fallback.app = raises()
    fallback.clock.advance(1)
    return fallback.ask(**{**(ask or {}), **then})


def test_the_last_good_answer_stands_in(fallback):
    fallback.clock.advance(5)
    app = answers(headers=[("X-Own", "1"), ("ETag", '"1"'), ("Cache-Control", "max-age=60")])
    reply = good_then_failing(fallback, app)
    assert (reply.status, reply.body) == (200, b"the report")
    assert reply.headers["om-engine"] == "stale"
    assert reply.headers["om-stale"] == "?1"
    assert reply.headers["age"] == "1"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-own"] == "1"
    assert "etag" not in reply.headers
    assert reply.headers["content-length"] == str(len(b"the report"))


def test_only_that_very_address_is_answered(fallback):
    good_then_failing(fallback)
    assert fallback.ask(query="page=2").status == 503
    assert fallback.ask("/reports/night").status == 503
    assert fallback.ask(host="other.example").status == 503


def test_head_is_answered_from_the_copy_and_post_is_not(fallback):
    good_then_failing(fallback)
    reply = fallback.ask(method="HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert fallback.ask(method="POST").status == 503


def test_a_streamed_body_is_copied_as_it_passes(fallback):
    reply = good_then_failing(fallback, answers(body=Body(b"a", b"", b"b")))
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
    fallback = house(answers())
    fallback.app = answers(headers=headers)
    fallback.ask(checked=False)
    fallback.app = raises()
    assert fallback.ask().status == 503


@pytest.mark.parametrize(
    "ask",
    [
        {"authorization": "Bearer x"},
        {"cookie": "session=1"},
        {"cookie": "session=\xfc"},  # bytes that are not UTF-8
        {"range": "bytes=0-1"},
    ],
)
def test_a_request_that_says_who_asks_is_not_copied(fallback, ask):
    assert good_then_failing(fallback, ask=ask).status == 503


def test_a_request_of_somebody_whom_the_server_knows_is_not_copied(fallback):
    fallback.app = answers()
    fallback.ask(environ={**fallback.environ("/reports/day"), "REMOTE_USER": "ann"})
    fallback.app = raises()
    assert fallback.ask().status == 503


def test_the_cookie_of_our_own_toasts_does_not_count(fallback):
    assert good_then_failing(fallback, ask={"cookie": "om_sid=x"}).status == 200


def test_what_varies_answers_only_the_same(fallback):
    app = answers(headers=[("Vary", "Accept-Language")])
    ask = {"accept_language": "ko"}
    assert good_then_failing(fallback, app, ask).status == 200
    assert fallback.ask(accept_language="en").status == 503


def test_what_is_encoded_answers_only_who_can_read_it(fallback):
    app = answers(headers=[("Content-Encoding", "gzip")])
    assert good_then_failing(fallback, app, accept_encoding="br, gzip").status == 200
    assert fallback.ask().status == 503


def test_a_nonce_is_never_sent_twice(fallback):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b'<script nonce="' + nonce(environ).encode() + b'">1</script>']

    environ = fallback.environ()
    fallback.app = app
    old = fallback.ask(environ=environ).body
    fallback.app = raises()
    environ = fallback.environ()
    new = fallback.ask(environ=environ).body
    assert nonce(environ).encode() in new
    assert new != old
    assert len(new) == len(old)


def test_a_page_whose_nonce_cannot_be_found_is_not_copied(fallback):
    def app(environ, start_response):
        nonce(environ)
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Encoding", "gzip")])
        return [b"packed"]

    assert good_then_failing(fallback, app, accept_encoding="gzip").status == 503


def test_a_nonce_that_the_page_does_not_show_is_not_copied(fallback):
    def app(environ, start_response):
        nonce(environ)
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"it stands in here reversed, or in pieces"]

    assert good_then_failing(fallback, app).status == 503


def test_a_body_over_the_size_is_not_copied(house):
    fallback = house(answers(), max_copy=4)
    assert good_then_failing(fallback, answers(body=Body(b"abc", b"de"))).status == 503
    reply = good_then_failing(fallback, answers(body=[b"abcd"]), {"path": "/reports/b"})
    assert reply.status == 200


def test_a_body_that_broke_off_is_not_copied_and_the_next_one_is(fallback):
    fallback.app = answers(body=Body(b"half", ValueError("cut")))
    with pytest.raises(ValueError, match="cut"):
        fallback.ask()
    assert good_then_failing(fallback).body == b"the report"


def test_a_client_that_left_leaves_no_copy(fallback):
    fallback.app = answers(body=Body(b"half", b"rest"))
    body = fallback.layer(fallback.environ(), lambda *a: lambda data: None)
    assert next(iter(body)) == b"half"
    body.close()
    fallback.scheduler.run_pending()
    fallback.app = raises()
    assert fallback.ask().status == 503


def test_a_copy_is_renewed_no_sooner_than_said(house):
    fallback = house(answers(), copy_every=60)
    fallback.ask()
    fallback.app = answers(body=b"newer")
    fallback.ask()
    fallback.app = raises()
    assert fallback.ask().body == b"the report"
    fallback.clock.advance(61)
    fallback.app = answers(body=b"newer")
    fallback.ask()
    fallback.app = raises()
    assert fallback.ask().body == b"newer"


def test_a_copy_that_is_too_old_does_not_answer(house):
    fallback = house(answers(), keep=100)
    fallback.ask()
    fallback.app = raises()
    fallback.clock.advance(99)
    assert fallback.ask().status == 200
    fallback.clock.advance(2)
    assert fallback.ask().status == 503


def test_recovery_that_marks_everything_stale_leaves_the_copies(fallback):
    good_then_failing(fallback)
    fallback.cache.invalidate()
    assert fallback.ask().status == 200


def test_the_number_of_copies_is_bounded_and_those_in_use_stay(house):
    fallback = house(answers(), copies=2, copy_every=60)
    for query in ("1", "2", "3"):
        fallback.ask(query=query)
    assert fallback.cache.stats().entries == 2
    fallback.clock.advance(61)
    fallback.ask(query="2")
    fallback.ask(query="3")  # takes the place of 1, which nobody asked for since
    assert fallback.cache.stats().entries == 2
    fallback.app = raises()
    assert [fallback.ask(query=q).status for q in "123"] == [503, 200, 200]


def test_the_copy_is_stored_off_the_request(house):
    fallback = house(answers())
    body = fallback.layer(fallback.environ(), lambda *a: lambda data: None)
    assert list(body) == [b"the report"]
    assert fallback.cache.stats().entries == 0
    fallback.scheduler.run_pending()
    assert fallback.cache.stats().entries == 1


def test_a_planted_copy_is_none(house):
    fallback = house(raises())
    name = ("fallback", "/reports/day", "", "app.example", "", "http")
    for planted in ("text", {"headers": "x"}, {"headers": [["a", 1]], "body": b"", "vary": []}):
        fallback.cache.set(name, planted)
        assert fallback.ask().status == 503
