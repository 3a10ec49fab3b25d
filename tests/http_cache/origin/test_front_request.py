"""Under which inputs a response is kept in front: what the application looked at decides."""

from __future__ import annotations

import pytest

from om_plugins.http_cache.cache import RouteRule
from tests.http_cache.world import World, refusals_of, status_of


def observed(*looks, **rules):
    world = World(observes=True, **rules)
    world.origin.looks = looks
    return world


# --- headers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", ["X-Api-Key", "X-Forwarded-Port", "Forwarded", "HX-Request", "User-Agent", "Accept"]
)
def test_a_header_that_code_looked_at_selects_the_response(header):
    world = observed(f"header:{header.lower()}")

    def number(**fields):
        return int(world.client.get("/", headers=fields, buffered=True).headers["X-Number"])

    assert number(**{header: "one"}) == 1
    assert number(**{header: "two"}) == 2
    assert number() == 3
    assert number(**{header: "one"}) == 1
    assert number(**{header: "one, "}) == 4  # exactly as sent


def test_headers_that_nobody_looked_at_do_not_matter():
    world = observed()
    assert world.number(X_Api_Key="a", User_Agent="b") == 1
    assert world.number(X_Api_Key="c", User_Agent="d", Accept_Language="de") == 1
    assert world.number(environ={"REMOTE_ADDR": "10.0.0.7"}) == 1


def test_an_accept_header_is_compared_by_its_answer():
    world = observed('accept:accept-language:best_match:[["de", "en"], null]')
    assert world.number(Accept_Language="de, en;q=0.5") == 1
    assert world.number(Accept_Language="de-AT, fr;q=0.3, de;q=0.9") == 1
    assert world.number(Accept_Language="en") == 2
    assert world.number(Accept_Language="fr") == 3


def test_what_vary_names_is_compared_besides_what_was_looked_at():
    world = observed("header:x-one")
    world.origin.headers.append(("Vary", "X-Two"))
    assert world.number(X_One="1", X_Two="a, b") == 1
    assert world.number(X_One="1", X_Two="a,b") == 1  # normalized
    assert world.number(X_One="1", X_Two="c") == 2
    assert world.number(X_One="2", X_Two="a, b") == 3


def test_an_entry_is_valid_for_the_set_of_its_own_making():
    world = World(observes=True)
    # who sends X-Beta is looked at more closely
    world.origin.looks = lambda environ: (
        ("header:x-beta", "header:x-group") if "HTTP_X_BETA" in environ else ("header:x-beta",)
    )
    assert world.number() == 1
    assert world.number(X_Group="a") == 1
    assert world.number(X_Beta="1", X_Group="a") == 2
    assert world.number(X_Beta="1", X_Group="b") == 3
    assert [world.number(X_Beta="1", X_Group=one) for one in "ab"] == [2, 3]
    assert world.number(X_Group="b") == 1


def test_sets_with_the_same_values_are_apart():
    world = World(observes=True)
    world.origin.looks = lambda environ: ("header:x-switch", environ["HTTP_X_SWITCH"])
    assert world.number(X_Switch="header:x-a", X_A="1") == 1
    assert world.number(X_Switch="header:x-b", X_B="1") == 2
    assert world.number(X_Switch="header:x-b", X_A="1") == 3


def test_nothing_of_a_visitor_is_kept_in_clear():
    world = observed("header:x-api-key", cookies=True)
    world.get(X_Api_Key="very-secret")
    world.origin.looks = ("cookie:token",)
    world.get("/two", Cookie="token=other-secret")
    for key, entry in world.part.store.entries.items():
        index = getattr(entry.content, "memo", {})
        assert "secret" not in f"{key} {index} {getattr(entry.content, 'names', ())}"


# --- cookies and the session --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("look", "cookie"),
    [
        ("cookie:u", "u=1"),
        ("session:u", "session=abc"),
        ("session?", "session=abc"),
        ("cookies", "any=1"),
        ("cookie:u", "a=1; u=2"),
    ],
)
def test_a_request_passes_by_that_brings_a_cookie_which_the_page_looked_at(look, cookie):
    world = observed(look)
    assert world.number() == 1
    passed = world.get(Cookie=cookie)
    assert passed.headers["X-Number"] == "2"
    assert "fwd=bypass" in status_of(passed)
    assert look in status_of(passed)
    assert world.number() == 1
    assert world.cache.stats().passed == 1
    assert refusals_of(world) == {"cookie-read": 1}


@pytest.mark.parametrize("cookie", ["_ga=1", "uu=1", "x=u", "_ga=session; theme=dark"])
def test_cookies_that_nobody_looked_at_do_not_matter(cookie):
    world = observed("cookie:u", "session:u")
    assert world.number(Cookie=cookie) == 1
    assert world.number() == 1
    assert world.number(Cookie=cookie + "; _gid=2") == 1


def test_a_response_is_not_kept_from_a_request_that_brought_such_a_cookie():
    world = observed("cookie:u")
    assert world.number(Cookie="u=alice") == 1
    assert world.number() == 2
    assert world.number(Cookie="u=alice") == 3


def test_with_the_option_a_cookie_is_a_variant():
    world = observed("cookie:u", cookies=True)
    assert world.number(Cookie="u=alice; _ga=1") == 1
    assert world.number(Cookie="u=bob") == 2
    assert world.number() == 3
    assert world.number(Cookie="_ga=2; u=alice") == 1
    assert world.number(Cookie="u=bob") == 2


def test_with_the_option_the_session_is_compared_as_its_cookie():
    world = observed("session:u", "session:cart", cookies=True)
    assert world.number(Cookie="session=a") == 1
    assert world.number(Cookie="session=b") == 2
    assert world.number(Cookie="session=a") == 1


def test_a_header_beside_a_cookie_is_compared_too():
    world = observed("cookie:u", "header:x-one")
    assert world.number(X_One="1") == 1
    assert world.number(X_One="1", Cookie="u=1") == 2
    assert world.number(X_One="2") == 3
    assert world.number(X_One="1") == 1


# --- what cannot be compared in front -------------------------------------------------------------


@pytest.mark.parametrize("look", ["address", "environ:myapp.tenant", "environ:REMOTE_PORT"])
def test_a_page_that_depends_on_what_this_layer_cannot_compare_is_not_kept(look):
    world = observed(look)
    response = world.get()
    assert f"it depends on {look}" in response.headers["Cache-Status"]
    assert world.number() == 2
    assert refusals_of(world) == {"input": 2}


def test_a_session_that_was_changed_or_cannot_be_compared_keeps_nothing():
    world = World(observes=True)
    world.origin.change = lambda inputs: setattr(inputs, "session_changed", True)
    world.get()
    world.origin.change = lambda inputs: inputs.refuse("flashed messages")
    world.get()
    world.origin.change = lambda inputs: None
    assert world.number() == 3
    assert refusals_of(world) == {"session": 1, "input": 1}


def change_header(app):
    def inner(environ, start_response):
        environ["HTTP_X_TENANT"] = environ.get("HTTP_X_FORWARDED_USER", "nobody")
        return app(environ, start_response)

    return inner


def change_host(app):
    def inner(environ, start_response):
        environ["HTTP_HOST"] = environ.get("HTTP_X_FORWARDED_SERVER", "inner.example")
        return app(environ, start_response)

    return inner


def change_session(app):
    def inner(environ, start_response):
        environ = {**environ, "HTTP_COOKIE": f"session={environ.get('HTTP_X_FORWARDED_USER')}"}
        return app(environ, start_response)

    return inner


@pytest.mark.parametrize(
    ("middleware", "look"),
    [
        (change_header, "header:x-tenant"),
        (change_host, "header:x-other"),
        (change_session, "session:u"),
        (change_session, "cookie:session"),
    ],
)
def test_a_value_that_inner_middleware_changed_is_not_compared(middleware, look):
    world = World(observes=True, middleware=middleware)
    world.origin.looks = (look,)
    for user in ("alice", "bob"):
        assert "middleware changed" in world.get(X_Forwarded_User=user).headers["Cache-Status"]
    assert len(world.origin.asked) == 2


# --- identities and bodies ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"REMOTE_USER": "alice"}, {"REMOTE_USER": "bob"}),
        ({"SSL_CLIENT_S_DN": "CN=alice"}, {"SSL_CLIENT_S_DN": "CN=bob"}),
        ({"HTTP_AUTHORIZATION": "Basic a"}, {"HTTP_AUTHORIZATION": "Basic b"}),
        ({"HTTP_PROXY_AUTHORIZATION": "a"}, {"HTTP_PROXY_AUTHORIZATION": "b"}),
        ({"HTTP_X_FORWARDED_USER": "a"}, {"HTTP_X_FORWARDED_USER": "b"}),
        ({"REMOTE_USER": "x", "AUTH_TYPE": "Basic"}, {"REMOTE_USER": "x", "AUTH_TYPE": "Digest"}),
    ],
)
def test_each_client_who_says_who_he_is_has_pages_of_his_own(one, other):
    world = World(observes=True, identities=["HTTP_X_FORWARDED_USER"])
    world.origin.headers = [("Cache-Control", "public, max-age=60")]
    assert world.number(environ=one) == 1
    assert world.number(environ=other) == 2
    assert world.number() == 3
    assert [world.number(environ=one), world.number(environ=other)] == [1, 2]
    assert not any("alice" in key for key in world.part.store.entries)


@pytest.mark.parametrize(
    "body",
    [
        {"CONTENT_LENGTH": "5"},
        {"HTTP_TRANSFER_ENCODING": "chunked"},
        {"CONTENT_LENGTH": "5", "CONTENT_TYPE": "application/json"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("observes", [True, False])
def test_a_request_with_a_body_is_neither_kept_nor_answered(body, method, observes):
    world = World(observes=observes)
    assert world.number(method=method, environ=body) == 1
    assert world.number() == 2
    assert world.number(method=method, environ=body) == 3
    assert world.number(environ={"CONTENT_LENGTH": "0"}) == 2
    assert world.number(environ={"CONTENT_LENGTH": ""}) == 2


# --- a host that cannot be observed ---------------------------------------------------------------

WHO = [
    {"HTTP_COOKIE": "u=alice"},
    {"REMOTE_USER": "alice"},
    {"HTTP_AUTHORIZATION": "Basic a"},
    {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_S_DN": "CN=alice"},
]


@pytest.mark.parametrize("who", WHO)
def test_behind_an_unknown_host_a_client_with_an_identity_passes_by(who):
    world = World()
    assert world.number(environ=who) == 1
    assert world.number() == 2
    assert world.number(environ=who) == 3
    assert world.number() == 2


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("word", ["public", "s-maxage=60"])
def test_behind_an_unknown_host_what_is_for_everybody_is_for_everybody(who, word):
    world = World()
    world.origin.headers = [("Cache-Control", f"max-age=60, {word}")]
    assert world.number(environ=who) == 1
    assert world.number() == 1
    assert world.number(environ=who) == 1


def test_what_servers_always_set_is_no_identity():
    world = World()
    nobody = {"REMOTE_USER": "", "SSL_CLIENT_VERIFY": "NONE"}
    assert world.number(environ=nobody) == 1
    assert world.number() == 1
    assert world.number(environ=nobody) == 1


def test_an_observed_host_that_did_not_observe_a_request_is_an_unknown_one():
    world = World(observes=True)

    def unseen(environ, start_response):
        start_response("200 OK", [*world.origin.headers, ("X-Number", str(len(asked)))])
        return [b"static"]

    asked = []
    world.layer._context.app = lambda environ, start: asked.append(1) or unseen(environ, start)
    assert world.number(Cookie="u=1") == 1
    assert world.number() == 2
    assert world.number(Cookie="u=1") == 3
    assert world.number() == 2


# --- the query ----------------------------------------------------------------------------------


def test_a_query_that_is_left_out_and_looked_at_keeps_nothing():
    world = World(observes=True, routes=(RouteRule("/landing", query=False),))
    world.origin.change = lambda inputs: setattr(inputs, "parameters", frozenset({"q"}))
    assert "no part of the key, and code looked at it: 'q'" in status_of(world.get("/landing?q=1"))
    assert world.number("/landing?q=2") == 2
    world.origin.change = lambda inputs: None
    assert world.number("/landing?q=1") == 3
    assert world.number("/landing?utm_source=x") == 3
    assert refusals_of(world) == {"query": 2}


def test_an_unknown_host_does_not_see_a_query_that_is_left_out():
    world = World(routes=(RouteRule("/landing", query=False),))
    world.get("/landing?q=1")
    world.get("/other?q=1")
    left, kept = world.origin.asked
    assert (left["QUERY_STRING"], left["RAW_URI"], left["REQUEST_URI"]) == ("", *["/landing"] * 2)
    assert (kept["QUERY_STRING"], kept["RAW_URI"]) == ("q=1", "/other?q=1")
    assert world.number("/landing?q=2") == 1
