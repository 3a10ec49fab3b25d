"""Which responses are stored, ended or kept, by what was seen of their making."""

from __future__ import annotations

import pytest
from flask import Flask, request, session

from om_plugins import OpenManager
from om_plugins.cache.responses.decisions import REPORT, ResponseReport
from om_plugins.core.request_state import state_of
from om_plugins.http_cache.rfc9111 import StorageOptions
from tests.http_cache.test_stored_response import NONCE
from tests.http_cache.world import Store, World, refusals_of, status_of

SWR = [("Cache-Control", "max-age=60, stale-while-revalidate=600")]


def observed(*looks, **rules):
    world = World(observes=True, **rules)
    world.origin.looks = looks
    world.origin.headers = list(SWR)
    return world


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["500 Oh No", "503 No", "404 Not Found", "400 Bad Request"])
def test_an_error_is_stored_only_with_freshness_of_its_view(status):
    world = observed()
    world.origin.status = status
    world.get()
    assert world.number() == 2
    assert refusals_of(world) == {"error": 2}
    world.origin.fresh_errors = True
    assert world.number() == 3
    assert world.number() == 3


def test_an_error_of_an_unknown_host_is_stored_by_its_headers():
    world = World()
    world.origin.status = "404 Not Found"
    assert world.number() == 1
    assert world.number() == 1


def test_a_header_that_makes_a_page_fail_fails_it_for_nobody_else():
    app = Flask("cpdos")
    app.testing = True
    app.config.update(OM_HTTP_CACHE=True, PROPAGATE_EXCEPTIONS=False)
    OpenManager(app)

    @app.get("/page")
    def page():
        return str(int(request.headers.get("X-Page", "1")))

    @app.get("/gone")
    def gone():
        return "gone for a while", 410, {"Cache-Control": "max-age=60"}

    @app.after_request
    def add_freshness(response):
        response.headers.setdefault("Cache-Control", "public, max-age=60")
        return response

    client = app.test_client()
    assert client.get("/page", headers={"X-Page": "x"}).status_code == 500
    assert client.get("/page").text == "1"
    assert "hit" in client.get("/page").headers["Cache-Status"]
    for _ in range(2):
        answer = client.get("/gone")
    assert "hit" in answer.headers["Cache-Status"]


# --- a refresh is a making like any other ---------------------------------------------------------


def refreshed(world, **request):
    world.later(70)
    assert world.number(**request) == 1
    world.run()
    return world.origin.asked[-1]


def test_a_refresh_brings_what_anybody_looked_at_and_nothing_else():
    world = observed("header:x-one")
    rules = world.part.inputs
    world.origin.change = lambda inputs: setattr(
        inputs, "known", {"header:user-agent": None, "address": None, "session:_id": None}
    )
    world.get(X_One="1")
    brought = refreshed(
        world,
        X_One="1",
        X_Two="2",
        User_Agent="browser",
        Cookie="session=s; other=o",
        environ={"REMOTE_ADDR": "10.0.0.7"},
    )
    assert brought["HTTP_X_ONE"] == "1"
    assert brought["HTTP_USER_AGENT"] == "browser"
    assert brought["REMOTE_ADDR"] == "10.0.0.7"
    assert brought["HTTP_COOKIE"] == "session=s"
    assert "HTTP_X_TWO" not in brought
    assert rules.read_address(brought)
    assert world.number(X_One="1") == 2
    assert world.number(X_One="2") == 3


def test_the_fields_of_a_proxy_are_part_of_the_key_and_of_the_refresh():
    world = observed()
    fields = {"X_Forwarded_Host": "a.example", "X_Forwarded_Proto": "https"}
    world.get(**fields)
    brought = refreshed(world, **fields)
    assert brought["HTTP_X_FORWARDED_HOST"] == "a.example"
    assert brought["HTTP_X_FORWARDED_PROTO"] == "https"


def test_a_refresh_is_made_for_the_client_whose_page_it_is():
    world = observed()
    alice = {"REMOTE_USER": "alice"}
    world.get(environ=alice)
    assert refreshed(world, environ=alice)["REMOTE_USER"] == "alice"
    assert world.number(environ=alice) == 2
    assert world.number() == 3


def test_an_unknown_hosts_refresh_brings_no_cookie_and_no_credentials():
    world = World()
    world.origin.headers = [("Cache-Control", "public, max-age=60, stale-while-revalidate=600")]
    world.get()
    brought = refreshed(world, Cookie="a=b", Authorization="Basic x", User_Agent="b")
    assert "HTTP_COOKIE" not in brought
    assert "HTTP_AUTHORIZATION" not in brought
    assert brought["HTTP_USER_AGENT"] == "b"


@pytest.mark.parametrize(
    ("looks", "next_answer"),
    [
        (("header:x-two",), 2),
        (("header:x-one", "header:x-two"), 2),
        ((), 2),
        (("address",), 3),
        (("header:x-one", "cookie:session"), 3),
    ],
)
def test_a_refresh_that_looked_at_other_inputs_ends_the_old_page(looks, next_answer):
    world = observed("header:x-one")
    world.origin.change = lambda inputs: setattr(inputs, "known", {"session:_id": None})
    world.get(X_One="1")
    world.origin.looks = looks
    refreshed(world, X_One="1", Cookie="session=s")
    world.origin.looks = ("header:x-one",)
    assert world.number(X_One="1") == next_answer
    assert world.cache.stats().entries == 1


def test_a_refresh_that_sets_a_cookie_or_changes_the_session_ends_the_old_page():
    for change in ("cookie", "session"):
        world = observed()
        world.get()
        if change == "cookie":
            world.origin.headers.append(("Set-Cookie", "a=b"))
        else:
            world.origin.change = lambda inputs: setattr(inputs, "session_changed", True)
        refreshed(world)
        assert world.cache.stats().entries == 0


@pytest.mark.parametrize(
    "status",
    ["401 No", "403 No", "404 No", "410 Gone", "451 No", "301 Moved", "302 Found", "303 See"],
)
@pytest.mark.parametrize("observes", [True, False])
def test_a_refresh_that_takes_access_away_ends_the_old_page_at_once(status, observes):
    world = World(observes=observes)
    world.origin.headers = list(SWR)
    world.get()
    world.origin.status = status
    world.origin.headers = [("Location", "/login")]
    refreshed(world)
    assert world.cache.stats().entries == 0
    assert world.get().status == status


@pytest.mark.parametrize("status", ["429 Slow Down", "408 Late", "500 Oh", "502 Bad", "503 No"])
@pytest.mark.parametrize("observes", [True, False])
def test_a_refresh_that_fails_for_a_while_keeps_the_old_page(status, observes):
    world = World(observes=observes)
    world.origin.headers = list(SWR)
    world.get()
    world.origin.status = status
    world.origin.headers = [("Cache-Control", "no-store")]
    refreshed(world)
    assert world.number() == 1
    assert world.cache.stats().refreshes == 0


def test_a_304_keeps_the_page_under_what_both_requests_looked_at():
    world = observed("header:x-one")
    world.origin.headers.append(("ETag", '"a"'))
    world.get(X_One="1")
    world.later(700)
    world.origin.status, world.origin.body = "304 Not Modified", []
    world.origin.looks = ("header:x-two", "cookie:u")
    assert world.get(X_One="1", X_Two="2").data == b"hello"
    world.origin.status, world.origin.body = "200 OK", [b"new"]
    assert world.get(X_One="1", X_Two="2").data == b"hello"
    assert world.get(X_One="1", X_Two="3").data == b"new"
    assert world.get(X_One="2", X_Two="2").data == b"new"
    assert world.get(X_One="1", X_Two="2", Cookie="u=1").data == b"new"


def test_a_304_to_a_request_that_cannot_be_compared_ends_the_page():
    world = observed()
    world.origin.headers.append(("ETag", '"a"'))
    world.get()
    world.later(700)
    world.origin.status, world.origin.body = "304 Not Modified", []
    world.origin.looks = ("address",)
    assert world.get().data == b"hello"
    assert world.cache.stats().entries == 0


# --- the last byte ------------------------------------------------------------------------------


@pytest.mark.parametrize("look", ["cookie:u", "address", "header:x-late"])
def test_what_a_streamed_body_looks_at_counts(look):
    world = World(observes=True)

    def stream(environ, inputs):
        yield b"one,"
        inputs.note(look)
        yield b"two"

    world.origin.body = stream
    assert world.number(Cookie="u=1", X_Late="1") == 1
    assert world.number(Cookie="u=2", X_Late="2") == 2


# --- Vary: Cookie -------------------------------------------------------------------------------


def test_vary_cookie_that_comes_from_a_look_at_the_session_is_known():
    world = observed("session:u")
    world.origin.headers.append(("Vary", "Cookie"))
    assert world.number() == 1
    assert world.number(Cookie="_ga=1") == 1
    assert world.number(Cookie="session=x") == 2


def test_vary_cookie_of_the_application_is_refused_or_a_variant_by_the_whole_field():
    world = observed()
    world.origin.headers.append(("Vary", "Cookie"))
    world.get()
    assert refusals_of(world) == {"vary-cookie": 1}
    world = observed(cookies=True, options=StorageOptions(vary_cookie=True))
    world.origin.headers.append(("Vary", "Cookie"))
    assert [world.number(Cookie=one) for one in ("a=1", "a=2", "a=1")] == [1, 2, 1]


# --- what operators are told ----------------------------------------------------------------------


def explain(world, path, **headers):
    """What the cache tells of a request to who asks for it."""
    report = ResponseReport()
    world.get(path, environ={REPORT: report}, **headers)
    (told,) = report.decisions
    return told


def test_who_asks_with_a_request_is_told_what_became_of_the_response():
    world = observed("header:x-one", "cookie:u")
    found = explain(world, "/page?x=1", X_One="1")
    assert (found.cache, found.kept, found.reason) == ("http", True, "")
    assert (found.names, found.cookies) == (("header:x-one",), ("u",))
    found = explain(world, "/page?x=2", Cookie="u=visitors-secret")
    assert (found.kept, found.reason) == (False, "cookie-read")
    assert "the request brings cookie:u: tests.http_cache.world.__call__, line" in found.detail
    assert "secret" not in str(found)


def test_cache_status_names_input_function_and_line_unless_it_is_switched_off():
    world = observed("address")
    said = status_of(world.get())
    where = "tests.http_cache.world.__call__, line "
    assert said.startswith(f'fwd=uri-miss; detail="it depends on address: {where}')
    assert "/" not in said
    silent = observed("address", detail=False)
    assert status_of(silent.get()) == "fwd=uri-miss"


# --- stores and purges ----------------------------------------------------------------------------


def test_workers_share_what_was_looked_at():
    store, rules = Store(), {"observes": True}
    one = World(store=store, **rules)
    two = World(store=store, clock=one.clock, hub=one.hub, **rules)
    for world in (one, two):
        world.origin.looks = ("header:x-one", "cookie:u")
    assert one.number(X_One="1") == 1
    assert "uri-miss" not in status_of(two.get(X_One="1"))
    assert two.origin.asked == []
    two.get(X_One="1", Cookie="u=1")
    two.get(X_One="2")
    assert len(two.origin.asked) == 2


def test_a_change_of_a_page_ends_the_pages_of_all_clients():
    world = World(observes=True)
    world.origin.headers = [("Cache-Control", "public, max-age=60")]
    who = [{}, {"REMOTE_USER": "alice"}, {"HTTP_AUTHORIZATION": "Basic b"}]
    assert [world.number(environ=one) for one in who] == [1, 2, 3]
    world.get("/other", environ=who[1])
    world.get(method="POST", environ=who[1])
    assert [world.number(environ=one) for one in who] == [6, 7, 8]
    assert world.number("/other", environ=who[1]) == 4


def test_pages_of_clients_are_purged_by_url_and_query():
    world = World(observes=True)
    alice = {"REMOTE_USER": "alice"}
    for path in ("/a?x=1", "/a?x=2"):
        world.get(path, environ=alice)
    assert world.cache.purge("/a?x=1") == 1
    assert [entry["url"] for entry in world.cache.entries()] == ["http://localhost/a?x=2"]
    assert world.cache.purge("/a") == 1


# --- through Flask ------------------------------------------------------------------------------


def site(**config):
    app = Flask("site")
    app.testing = True
    app.secret_key = "s" * 32
    app.config.update({"OM_HTTP_CACHE": True, **config})
    return app, OpenManager(app)


def test_anonymous_visitors_share_a_page_that_greets_its_user():
    app, om = site()

    @app.get("/in/<name>")
    def sign_in(name):
        session["u"] = name
        return "ok"

    @app.get("/")
    def page():
        return f"hello {session.get('u')}", 200, {"Cache-Control": "max-age=60"}

    alice, bob, *others = (app.test_client() for _ in range(10))
    alice.get("/in/alice")
    bob.get("/in/bob")
    for number, other in enumerate(others):
        other.set_cookie("_ga", str(number))
        assert other.get("/", headers={"User-Agent": str(number)}).text == "hello None"
    assert [one.get("/").text for one in (alice, bob, alice)] == [
        "hello alice", "hello bob", "hello alice",
    ]  # fmt: skip
    assert others[0].get("/").text == "hello None"
    assert om.http_cache.stats().hits == len(others)
    report = ResponseReport()
    alice.get("/", environ_overrides={REPORT: report})
    (told,) = report.decisions
    assert told.reason == "cookie-read"
    assert f"session:u: {__name__}.page, line " in told.detail


def test_a_shared_page_that_looks_at_its_visitor_says_private():
    app, om = site(OM_HTTP_CACHE=False)

    @app.get("/")
    @om.cached(shared=True, stale_time=60)
    def page():
        return f"hello {session.get('u')}"

    for _ in range(2):
        answer = app.test_client().get("/")
        assert answer.headers["Cache-Control"] == "private, max-age=0"
        assert answer.headers["Vary"] == "Cookie"
    assert "hit" in answer.headers["Cache-Status"]


def test_a_page_with_nonces_tells_what_it_looked_at():
    world = World(observes=True)

    def looks(environ):
        state_of(environ).page_nonce = NONCE
        return "header:x-one", "cookie:u"

    world.origin.looks = looks
    world.origin.body = [b"<script nonce=%b></script>" % NONCE.encode()]
    assert world.number(X_One="1") == 1
    hit = world.get(X_One="1")
    assert hit.headers["X-Number"] == "1"
    assert hit.headers["Vary"] == "X-One, Cookie"
    assert NONCE.encode() not in hit.data
