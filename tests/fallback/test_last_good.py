"""Copies of good answers, of a host that nobody observes: for whom they are, and how many.

What is observed is in ``test_in_an_app.py``, which inputs count in ``test_copy_inputs.py``.
"""

from __future__ import annotations

import io

import pytest

from om_plugins.core.inputs import IDENTITIES, InputRules
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
        [("Vary", "*")],
        [("Vary", ", ".join(f"X-{n}" for n in range(9)))],
        [("Vary", "no field name")],
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
    assert fallback.cache.stats().entries == 4  # each copy with the index of its address
    fallback.clock.advance(61)
    fallback.ask(query="2")
    fallback.ask(query="3")  # takes the place of 1, which nobody asked for since
    assert fallback.cache.stats().entries == 4
    fallback.app = raises()
    assert [fallback.ask(query=q).status for q in "123"] == [503, 200, 200]


def test_the_copy_is_stored_off_the_request(house):
    fallback = house(answers())
    body = fallback.layer(fallback.environ(), lambda *a: lambda data: None)
    assert list(body) == [b"the report"]
    assert fallback.cache.stats().entries == 0
    fallback.scheduler.run_pending()
    assert fallback.cache.stats().entries == 2  # the copy, and the index of its address


@pytest.mark.parametrize(
    "index",
    [
        "text",
        {"observed": 1},
        [["observed"]],
        [["observed", [], [1]]],
        [["observed", [], ["accept:accept:__class__:[]"]]],
        [["observed", [], ["accept:nothing"]]],
        [["observed", [], ["what:else"]]],
    ],
)
def test_a_planted_index_finds_nothing(house, index):
    fallback = house(raises())
    fallback.cache.set(("fallback", "2", *key()), index)
    assert fallback.ask().status == 503


@pytest.mark.parametrize(
    "copy", ["text", {"headers": "x"}, {"headers": [["a", 1]], "body": b"", "nonce": "", "at": 0}]
)
def test_a_planted_copy_is_none(house, copy):
    fallback = house(raises())
    fallback.cache.set(("fallback", "2", *key()), [["observed", [], []]])
    fallback.cache.set(("fallback", "2", *key(), "observed"), copy)
    assert fallback.ask().status == 503


def test_a_copy_in_the_format_of_an_earlier_version_is_not_read(house):
    fallback = house(raises())
    old = {"headers": [], "vary": [], "body": b"old", "nonce": "", "at": 0.0}
    fallback.cache.set(("fallback", "/reports/day", "", "app.example", "", "http"), old)
    assert fallback.ask().status == 503


def key(path="/reports/day"):
    return "http", "app.example", "", path, "", ""


# --- whose copy it is -----------------------------------------------------------------------------

BOB = {"cookie": "session=bob"}


@pytest.mark.parametrize(
    "ask",
    [
        {"cookie": "session=1"},
        {"cookie": "om_sid=x; session=1"},
        {"cookie": "xom_sid=x"},
        {"cookie": "om_sid"[:-1]},
        {"authorization": "Bearer x"},
        {"proxy_authorization": "Basic x"},
    ],
)
def test_who_says_who_he_is_gets_no_copy_of_what_nobody_observed(fallback, ask):
    assert good_then_failing(fallback, **ask).status == 503
    assert fallback.ask().status == 200


@pytest.mark.parametrize(
    "variable", ["REMOTE_USER", "AUTH_TYPE", "SSL_CLIENT_S_DN", "HTTP_X_OUR_USER"]
)
def test_a_variable_that_says_who_asks_keeps_copies_apart(house, variable):
    rules = InputRules(lambda: b"k", IDENTITIES | {"HTTP_X_OUR_USER"})
    fallback = house(answers(), rules=rules)
    ann = {**fallback.environ(), variable: "ann"}
    fallback.ask(environ=dict(ann))
    fallback.app = raises()
    assert fallback.ask().status == 503
    assert fallback.ask(environ=dict(ann)).status == 503
    fallback.app = answers()
    fallback.ask()
    fallback.app = raises()
    assert fallback.ask().status == 200
    assert fallback.ask(environ=dict(ann)).status == 503


@pytest.mark.parametrize("control", ["public", "max-age=5, Public", "s-maxage=60"])
@pytest.mark.parametrize("other", [{}, BOB, {"authorization": "Bearer bob"}])
def test_what_says_that_it_is_public_is_for_everybody(fallback, control, other):
    app = answers(headers=[("Cache-Control", control)])
    assert good_then_failing(fallback, app, {"cookie": "session=ann"}).status == 200
    assert fallback.ask(**other).status == 200


@pytest.mark.parametrize("control", ["publicity", "x-public", "max-age=60", "s-maxages=1"])
def test_what_does_not_quite_say_so_is_not(fallback, control):
    app = answers(headers=[("Cache-Control", control)])
    assert good_then_failing(fallback, app, BOB).status == 503


def test_public_and_varying_with_cookies_is_for_those_without(fallback):
    app = answers(headers=[("Cache-Control", "public"), ("Vary", "Cookie")])
    assert good_then_failing(fallback, app, BOB).status == 503
    assert good_then_failing(fallback, app).status == 200
    assert fallback.ask(**BOB).status == 503


@pytest.mark.parametrize(
    "name",
    ["x_forwarded_host", "x_forwarded_for", "forwarded", "x_original_url", "x_rewrite_url",
     "x_http_method_override", "x_forwarded_proto", "x_original_host"],
)  # fmt: skip
def test_a_header_that_says_another_address_poisons_nothing(fallback, name):
    for control in ("max-age=1", "public"):
        app = answers(headers=[("Cache-Control", control)], body=b"from evil")
        assert good_then_failing(fallback, app, {name: "evil"}).status == 503
        assert fallback.ask().status == 503
    fallback.app = answers()
    fallback.ask()  # and it keeps nobody else from a copy
    fallback.app = raises()
    assert fallback.ask().body == b"the report"


@pytest.mark.parametrize(
    "more",
    [{"CONTENT_LENGTH": "5"}, {"HTTP_TRANSFER_ENCODING": "chunked"}, {"CONTENT_LENGTH": "x"}],
)
def test_a_get_with_a_body_is_neither_copied_nor_answered(fallback, more):
    fat = {**fallback.environ(), **more, "wsgi.input": io.BytesIO(b"hello")}
    fallback.ask(environ=dict(fat), checked=False)
    fallback.app = raises()
    assert fallback.ask().status == 503
    fallback.app = answers()
    fallback.ask()
    fallback.app = raises()
    assert fallback.ask().status == 200
    assert fallback.ask(environ=dict(fat), checked=False).status == 503


@pytest.mark.parametrize("length", ["", "0"])
def test_an_empty_body_is_none(fallback, length):
    fallback.ask(environ={**fallback.environ(), "CONTENT_LENGTH": length})
    fallback.app = raises()
    assert fallback.ask().status == 200


def test_vary_is_compared_in_its_normal_form(fallback):
    app = answers(headers=[("Vary", "Accept-Encoding, X-A")])
    ask = {"accept_encoding": "gzip, br", "x_a": "1,  2"}
    assert good_then_failing(fallback, app, ask, accept_encoding="br,gzip", x_a="1,2").status == 200
    assert fallback.ask(accept_encoding="br", x_a="1,2").status == 503
    assert fallback.ask(accept_encoding="br,gzip").status == 503


def test_each_kind_of_visitor_has_a_copy_of_his_own(fallback):
    fallback.app = speaks
    for language in ("de", "ko", "en"):
        fallback.ask(accept_language=language)
    fallback.app = raises()
    for language in ("de", "ko", "en"):
        assert fallback.ask(accept_language=language).body == language.encode()
    assert fallback.ask(accept_language="fr").status == 503


def speaks(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html"), ("Vary", "Accept-Language")])
    return [environ.get("HTTP_ACCEPT_LANGUAGE", "none").encode()]


def test_the_kinds_of_visitors_count_as_copies(house):
    fallback = house(speaks, copies=3, copy_every=60)
    languages = ["de", "ko", "en", "fr", "it"]
    for language in languages:
        fallback.ask(accept_language=language)
    fallback.app = raises()
    assert [fallback.ask(accept_language=one).status for one in languages] == [200] * 3 + [503] * 2
    fallback.app = speaks
    fallback.clock.advance(61)
    fallback.ask(accept_language="it")
    fallback.app = raises()
    assert [fallback.ask(accept_language=one).status for one in languages] == [
        503, 200, 200, 503, 200,
    ]  # fmt: skip


def test_the_index_of_an_address_has_the_newest_four_sets(house):
    fallback = house(answers(), copy_every=0)
    for number in range(5):
        fallback.app = answers(headers=[("Vary", f"X-{number}")], body=b"%d" % number)
        fallback.ask(**{f"x_{n}": "1" for n in range(5)})
    (sets,) = [fallback.cache.get(("fallback", "2", *key()))]
    assert [list(names) for _, _, names in sets] == [[f"vary:x-{n}"] for n in (4, 3, 2, 1)]
    fallback.app = raises()
    assert fallback.ask(**{f"x_{n}": "1" for n in range(5)}).body == b"4"
    assert fallback.ask(x_1="1").body == b"1"  # valid for the set of its own making
    assert fallback.ask(x_0="1").status == 503


def test_nothing_of_a_visitor_can_be_read_in_the_cache(house):
    stored = []
    fallback = house(answers(headers=[("Vary", "X-Api-Key")]))
    keep = fallback.cache.set
    fallback.cache.set = lambda name, value, **o: (
        stored.append((name, value)) or keep(name, value, **o)
    )
    fallback.ask(x_api_key="the-secret-of-ann")
    assert len(stored) == 2
    assert "the-secret-of-ann" not in repr(stored)


def test_copies_that_another_worker_made_are_found(house):
    one = house(speaks)
    two = house(raises(), clock=one.clock)
    two.cache.get = one.cache.get
    one.ask(accept_language="de")
    assert two.ask(accept_language="de").body == b"de"
    assert two.ask(accept_language="ko").status == 503


def test_middleware_that_tells_who_asks_stops_copies(fallback):
    """It is between the layer and the application, so the layer does not see who asks."""

    def app(environ, start_response):
        user = environ.pop("HTTP_X_TICKET", "")
        if user:
            environ["REMOTE_USER"] = user
        return answers(body=user.encode() or b"nobody")(environ, start_response)

    assert good_then_failing(fallback, app, {"x_ticket": "ann"}).status == 503
    assert good_then_failing(fallback, app).status == 200

    def fails(environ, start_response):
        app(environ, lambda *a: None)
        raise KeyError("a bug")

    fallback.app = fails
    assert fallback.ask(x_ticket="bob").status == 503
    assert fallback.ask().status == 200


def test_middleware_that_moves_the_path_finds_its_copies_again(fallback):
    def app(environ, start_response):
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/reports", "/day"
        if broken:
            raise KeyError("a bug")
        return answers()(environ, start_response)

    fallback.app, broken = app, False
    fallback.ask()
    broken = True
    assert fallback.ask().status == 200


def test_middleware_that_changes_a_header_that_counts_stops_copies(fallback):
    def app(environ, start_response):
        environ["HTTP_X_TENANT"] = environ.get("HTTP_X_TICKET", "")
        return answers(headers=[("Vary", "X-Tenant")])(environ, start_response)

    assert good_then_failing(fallback, app, {"x_ticket": "1"}).status == 503
    assert fallback.ask(x_tenant="1").status == 503


def test_one_copy_is_made_of_many_requests_at_once(house):
    fallback = house(answers(body=Body(b"first")))
    environ = fallback.environ()
    first = fallback.layer(environ, lambda *a: lambda data: None)
    fallback.app = answers(body=Body(b"second"))
    second = fallback.layer(fallback.environ(), lambda *a: lambda data: None)
    for body in (second, first):
        list(body)
        body.close()
    fallback.scheduler.run_pending()
    fallback.app = raises()
    assert fallback.ask().body == b"first"


def test_the_response_to_head_is_not_copied(fallback):
    fallback.app = answers(body=[])
    fallback.ask(method="HEAD")
    assert good_then_failing(fallback).body == b"the report"


def test_a_copy_that_another_kind_pushed_out_is_removed(house):
    fallback = house(answers(headers=[("Vary", "X-A")]), copies=1, copy_every=0)
    fallback.ask(x_a="1")
    fallback.app = answers()
    fallback.ask(x_a="1")
    assert fallback.cache.stats().entries == 2
    assert fallback.cache.get(("fallback", "2", *key(), "anonymous")) is not None


def test_what_another_worker_saw_of_an_address_is_known_once_a_copy_is_made(house):
    fallback = house(answers(headers=[("Cache-Control", "public")]), copy_every=0)
    fallback.cache.set(("fallback", "2", *key()), [["public", ["session"], []]])
    fallback.ask()
    ((_, guard),) = fallback.layer._below
    assert guard.copies.is_due(key(), fallback.environ())
    assert not guard.copies.is_due(key(), fallback.environ(cookie="session=1"))


def test_a_full_queue_frees_the_copy(fallback):
    submit, fallback.scheduler.submit = fallback.scheduler.submit, lambda *a, **o: False
    fallback.ask()
    fallback.scheduler.submit = submit
    assert good_then_failing(fallback).status == 200
