"""Which inputs a copy is kept under, and in a Flask app: whose page a visitor gets in an outage."""

from __future__ import annotations

import flask
import msgspec
import pytest
from flask import request, session

from om_plugins import OpenManager
from om_plugins.core.inputs import EnvironReader, InputRules
from om_plugins.core.observed import ObservedInputs
from om_plugins.fallback.copy_inputs import (
    SHARED,
    CopyInputs,
    read_key,
    select_observed,
    select_unobserved,
)
from tests.opening import needs_new_flask

RULES = InputRules(lambda: b"a secret for tests")


def environ(**more):
    return {
        "REQUEST_METHOD": "GET", "wsgi.url_scheme": "https", "HTTP_HOST": "a.example",
        "SERVER_NAME": "inner", "SERVER_PORT": "80", "SCRIPT_NAME": "", "PATH_INFO": "/p",
        "QUERY_STRING": "", **more,
    }  # fmt: skip


def identify(inputs, rules=RULES, **more):
    brought = environ(**more)
    return inputs.identify(brought, EnvironReader(brought), rules)


class Reader(EnvironReader):
    """Reads the session as well, which is empty."""

    def read(self, name):
        return b"" if name.startswith("session") else super().read(name)


def observe(*names, saw=None, session_cookie="session", **more):
    brought = environ(**more)
    inputs = ObservedInputs(Reader(brought), RULES)
    inputs.address, inputs.session_cookie = RULES.read_address(brought), session_cookie
    for name in names:
        inputs.count(name)
    return inputs, saw or brought


# --- the key --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("wsgi.url_scheme", "http"),
        ("HTTP_HOST", "b.example"),
        ("SCRIPT_NAME", "/x"),
        ("PATH_INFO", "/q"),
        ("QUERY_STRING", "a=1"),
        ("REMOTE_USER", "ann"),
        ("HTTP_AUTHORIZATION", "Bearer x"),
        ("SSL_CLIENT_CERT", "pem"),
    ],
)
def test_the_key_has_the_address_and_who_asks(name, value):
    assert read_key(environ(**{name: value}), RULES) != read_key(environ(), RULES)
    assert value not in read_key(environ(**{name: value}), RULES)[-1]


def test_head_has_the_key_of_get_and_other_methods_have_none():
    assert read_key(environ(REQUEST_METHOD="HEAD"), RULES) == read_key(environ(), RULES)
    for method in ("POST", "OPTIONS", "get", ""):
        assert read_key(environ(REQUEST_METHOD=method), RULES) is None


def test_without_a_host_the_servers_own_name_counts():
    one = environ()
    del one["HTTP_HOST"]
    assert read_key(one, RULES)[1] == "inner:80"
    assert read_key({**one, "SERVER_PORT": "81"}, RULES) != read_key(one, RULES)


# --- comparing ------------------------------------------------------------------------------------


def test_what_depends_on_nothing_is_for_everybody():
    for more in ({}, {"HTTP_COOKIE": "session=1"}, {"HTTP_X_A": "1"}):
        assert identify(CopyInputs("observed"), **more) == SHARED


def test_values_and_names_and_their_absence_tell_copies_apart():
    one, other = (CopyInputs("observed", (), (f"header:x-{n}",)) for n in "ab")
    found = [
        identify(one), identify(one, HTTP_X_A=""), identify(one, HTTP_X_A="1"),
        identify(other), identify(other, HTTP_X_B="1"),
    ]  # fmt: skip
    assert len({*found}) == 5
    assert identify(one, HTTP_X_A="1") == identify(one, HTTP_X_A="1", HTTP_X_B="2")
    assert identify(one, HTTP_X_A="1") != identify(one, InputRules(lambda: b"other"), HTTP_X_A="1")


def test_a_value_that_cannot_be_compared_has_no_copy():
    assert identify(CopyInputs("observed", (), ("header:x-a",)), HTTP_X_A=object()) is None
    assert identify(CopyInputs("observed", (), ("session:user",))) is None


@pytest.mark.parametrize("cookies", [("a",), ("a", "b"), ("",)])
@pytest.mark.parametrize("audience", ["observed", "anonymous", "public"])
def test_who_brings_a_cookie_that_was_looked_at_has_no_copy(audience, cookies):
    assert identify(CopyInputs(audience, cookies), HTTP_COOKIE="c=1; a=2") is None
    assert identify(CopyInputs(audience, cookies)) is not None


def test_sets_of_cookies_tell_copies_apart():
    sets = [(), ("a",), ("b",), ("a", "b"), ("",)]
    assert len({identify(CopyInputs("observed", one)) for one in sets}) == len(sets)
    assert identify(CopyInputs("public", ("a",))) != identify(CopyInputs("observed", ("a",)))


def test_other_cookies_do_not_matter():
    for other in ("aa=1", "ba=1; ab=2", "b=a", 'b="a=1"'):
        assert identify(CopyInputs("observed", ("a",)), HTTP_COOKIE=other) is not None


# --- choosing -------------------------------------------------------------------------------------


def test_what_was_looked_at_is_what_the_copy_is_kept_under():
    inputs, saw = observe(
        "cookie:a", "session:user", "header:x-key", "accept:accept:best_match:[[]]"
    )
    assert select_observed(inputs, saw, "", RULES) == CopyInputs(
        "observed", ("a", "session"), ("accept:accept:best_match:[[]]", "header:x-key")
    )


def test_what_was_handed_out_to_the_last_byte_counts():
    inputs, saw = observe(HTTP_ACCEPT_LANGUAGE="de")
    inputs.hand_out("header:accept-language")
    assert select_observed(inputs, saw, "", RULES).names == ("header:accept-language",)


@pytest.mark.parametrize("name", ["address", "environ:wsgi.run", "session:user"])
def test_what_cannot_be_compared_in_front_is_not_copied(name):
    cookie = "" if name == "session:user" else "session"
    assert select_observed(*observe(name, session_cookie=cookie), "", RULES) is None


def test_a_changed_session_a_refusal_and_another_address_are_not_copied():
    for change in (
        {"session_changed": True}, {"refused": "all headers"}, {"address": ("elsewhere",)},
    ):  # fmt: skip
        inputs, saw = observe()
        for name, value in change.items():
            setattr(inputs, name, value)
        assert select_observed(inputs, saw, "", RULES) is None


def test_a_value_that_middleware_changed_is_not_copied():
    inputs, _ = observe("header:x-tenant", HTTP_X_TENANT="a")
    assert select_observed(inputs, environ(), "", RULES) is None
    assert select_observed(inputs, environ(HTTP_X_TENANT="a"), "", RULES) is not None


def test_vary_of_the_response_counts_as_well():
    found = select_observed(*observe("header:x-a"), "X-A, Accept-Encoding , ", RULES)
    assert found.names == ("header:x-a", "vary:accept-encoding")
    assert select_observed(*observe(), "X-A, *", RULES) is None


def test_vary_with_cookie_means_the_cookies_that_were_looked_at():
    for name, cookies in (
        ("session:user", ("session",)), ("session?", ("session",)), ("cookie:a", ("a",)),
        ("header:x-a", ("",)), ("cookies", ("",)),
    ):  # fmt: skip
        assert select_observed(*observe(name), "Cookie", RULES).cookies == cookies


def test_what_only_known_readers_looked_at_does_not_explain_a_vary():
    inputs, saw = observe()
    inputs.known = {"session?": None}
    assert select_observed(inputs, saw, "cookie", RULES).cookies == ("",)


@pytest.mark.parametrize("public", [False, True])
def test_of_what_nobody_observed_vary_is_all_that_is_known(public):
    found = select_unobserved(environ(), environ(), "Accept, Cookie", public, RULES)
    audience = "public" if public else "anonymous"
    assert found == CopyInputs(audience, ("",), ("vary:accept",))
    assert select_unobserved(environ(), environ(), "*", public, RULES) is None


def test_an_override_or_an_identity_is_not_copied_unobserved():
    for name in ("HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED", "HTTP_X_ORIGINAL_URL"):
        brought = environ(**{name: "x"})
        assert select_unobserved(brought, brought, "", True, RULES) is None
    ann = environ(REMOTE_USER="ann")
    for saw, now in ((ann, ann), (environ(), ann), (ann, environ())):
        assert select_unobserved(saw, now, "", False, RULES) is None
        assert select_unobserved(saw, now, "", True, RULES) is not None


# --- in a Flask app -------------------------------------------------------------------------------


@pytest.fixture
def shop():
    app = flask.Flask("shop")
    app.config.update(
        TESTING=True, PROPAGATE_EXCEPTIONS=False, SECRET_KEY="k" * 32,
        OM_FALLBACK={"/": {"answers": ["stale"], "copy_every": 0}},
    )  # fmt: skip
    app.logger.disabled = True
    app.broken = False
    OpenManager(app)

    def page(path):
        def add(view):
            def shown():
                if app.broken:
                    raise KeyError("a bug")
                return view()

            app.add_url_rule(path, path, shown)
            return view

        return add

    app.page = page

    @app.get("/in/<who>")
    def enter(who):
        session["user"] = who
        return "in"

    return app


def get(app, path="/p", client=None, **headers):
    client = client or app.test_client(use_cookies=False)  # else it drops a Cookie header
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = client.get(path, headers=named)
    text = reply.get_data(as_text=True)
    reply.close()
    return text if reply.status_code == 200 else reply.status_code


def signed_in(app, who):
    client = app.test_client()
    get(app, f"/in/{who}", client)
    return client


def test_an_api_key_has_a_copy_of_its_own(shop):
    @shop.page("/p")
    def show():
        return "for " + request.headers.get("X-API-Key", "nobody")

    for key in ("ann", "bob"):
        get(shop, X_API_Key=key)
    get(shop)
    shop.broken = True
    assert get(shop, X_API_Key="ann") == "for ann"
    assert get(shop, X_API_Key="bob") == "for bob"
    assert get(shop) == "for nobody"
    assert get(shop, X_API_Key="carol") == 503


def test_a_page_that_looks_at_nobody_is_for_everybody(shop):
    @shop.page("/p")
    def show():
        return flask.render_template_string("hello")

    get(shop, Cookie="_ga=1; session=junk")
    shop.broken = True
    for headers in ({}, {"Cookie": "_ga=2"}, {"User_Agent": "x"}, {"X_API_Key": "k"}):
        assert get(shop, **headers) == "hello"
    assert get(shop, Authorization="Bearer x") == 503  # who says who he is has pages of his own
    assert get(shop, client=signed_in(shop, "ann")) == "hello"


def test_a_page_for_who_signed_in_is_copied_for_strangers_alone(shop):
    @shop.page("/p")
    def show():
        return "hello " + session.get("user", "stranger")

    ann = signed_in(shop, "ann")
    assert get(shop, client=ann) == "hello ann"
    shop.broken = True
    assert get(shop) == 503
    shop.broken = False
    get(shop, Cookie="_ga=1")
    shop.broken = True
    assert get(shop, Cookie="_ga=2") == "hello stranger"
    assert get(shop, client=ann) == 503
    assert get(shop, client=signed_in(shop, "bob")) == 503


def test_who_is_signed_in_keeps_no_stranger_from_a_copy(shop):
    shop.config["OM_FALLBACK"] = {"/": {"answers": ["stale"], "copy_every": 60}}

    @shop.page("/p")
    def show():
        return "hello " + session.get("user", "stranger")

    ann = signed_in(shop, "ann")
    for client in (ann, None, ann):
        get(shop, client=client)
    shop.broken = True
    assert get(shop) == "hello stranger"


def test_a_session_that_is_only_renewed_is_no_obstacle_and_its_cookie_goes_to_nobody(shop):
    shop.config["OM_FALLBACK"] = {"/": {"answers": ["stale"], "copy_every": 60}}

    @shop.page("/p")
    def show():
        return "the same for all"

    @shop.get("/stay")
    def stay():
        session["user"], session.permanent = "ann", True
        return "in"

    ann = shop.test_client()
    get(shop, "/stay", ann)
    assert "Set-Cookie" in ann.get("/p", buffered=True).headers
    shop.broken = True
    reply = shop.test_client().get("/p")
    assert (reply.status_code, reply.text) == (200, "the same for all")
    assert "Set-Cookie" not in reply.headers


def test_a_private_page_of_who_is_signed_in_keeps_no_stranger_from_a_copy(shop):
    shop.config["OM_FALLBACK"] = {"/": {"answers": ["stale"], "copy_every": 60}}

    @shop.page("/p")
    def show():
        if "user" in session:
            return flask.Response("mine", headers={"Cache-Control": "private"})
        return "hello stranger"

    assert get(shop, client=signed_in(shop, "ann")) == "mine"
    get(shop)
    shop.broken = True
    assert get(shop) == "hello stranger"


@pytest.mark.parametrize(
    ("look", "headers"),
    [
        (lambda: request.cookies.get("plan", "free"), {"Cookie": "plan=gold"}),
        (lambda: str(sorted(request.cookies)), {"Cookie": "plan=gold"}),
        (lambda: request.headers.get("Cookie", "none"), {"Cookie": "plan=gold"}),
        (lambda: request.environ.get("HTTP_X_FORWARDED_HOST", "none"), {"X_Forwarded_Host": "e"}),
        (lambda: request.headers.get("x-original-url", "none"), {"X_Original_URL": "/e"}),
        (lambda: str(request.remote_user), {"Authorization": "Basic YTpi"}),
        (lambda: str(request.authorization), {"Authorization": "Basic YTpi"}),
        (lambda: str(request.accept_languages.best_match(["en", "ko"])), {"Accept_Language": "ko"}),
        (lambda: str(dict(request.headers)), {"X_A": "1"}),
        (lambda: str(request.user_agent), {"User_Agent": "evil"}),
    ],
)
def test_what_one_visitor_brings_reaches_no_other(shop, look, headers):
    shop.page("/p")(look)
    theirs = get(shop, **headers)
    shop.broken = True
    assert get(shop) == 503
    shop.broken = False
    own = get(shop)
    shop.broken = True
    assert get(shop) in (own, 503)
    assert get(shop, **headers) in (theirs, 503)


@pytest.mark.parametrize(
    "look",
    [
        lambda: str(request.remote_addr),
        lambda: request.environ["REMOTE_ADDR"],
        lambda: str(request.access_route),
        lambda: str(session.setdefault("token", "t")),
        lambda: (flask.flash("x"), "flashed")[1],
    ],
)
def test_what_only_the_application_can_compare_is_not_copied(shop, look):
    shop.page("/p")(look)
    get(shop)
    shop.broken = True
    assert get(shop) == 503


def test_a_streamed_page_counts_to_its_last_byte(shop):
    @shop.page("/p")
    def show():
        def parts():
            yield "hello "
            yield request.headers.get("X-API-Key", "nobody")

        return flask.Response(flask.stream_with_context(parts()))

    assert get(shop, X_API_Key="ann") == "hello ann"
    shop.broken = True
    assert get(shop) == 503
    assert get(shop, X_API_Key="ann") == "hello ann"


@needs_new_flask
def test_a_session_that_an_encoder_in_c_reads_in_a_stream_counts(shop):
    @shop.page("/p")
    def show():
        def parts():
            yield b"hello "
            yield msgspec.json.encode(session._get_current_object())

        return flask.Response(flask.stream_with_context(parts()))

    ann = signed_in(shop, "ann")
    assert "ann" in get(shop, client=ann)
    shop.broken = True
    assert [get(shop), get(shop, client=ann)] == [503, 503]


def test_a_request_that_a_stranger_makes_fail_gets_what_fits_him(shop):
    @shop.before_request
    def version():
        request.version = int(request.headers.get("X-Client-Version", "1"))

    @shop.page("/p")
    def show():
        return "for " + request.headers.get("X-API-Key", "nobody")

    @shop.page("/same")
    def same():
        return "the same for all"

    get(shop, X_API_Key="ann", X_Client_Version="2")
    get(shop, "/same")
    assert get(shop, X_Client_Version="x") == 503
    assert get(shop, X_Client_Version="x", X_API_Key="ann") == 503
    assert get(shop, "/same", X_Client_Version="x") == 503


def test_a_page_whose_path_depends_on_a_header_answers_by_its_own_set(shop):
    @shop.page("/p")
    def show():
        if request.headers.get("X-Mode") == "own":
            return "own " + request.headers.get("X-API-Key", "")
        return "common"

    get(shop, X_Mode="own", X_API_Key="ann")
    get(shop)
    shop.broken = True
    assert get(shop, X_API_Key="bob") == "common"
    assert get(shop, X_Mode="own", X_API_Key="ann") == "own ann"
    assert get(shop, X_Mode="own", X_API_Key="bob") == 503


def test_a_views_own_fallback_is_observed_as_well():
    app = flask.Flask("views")
    app.config.update(TESTING=True, PROPAGATE_EXCEPTIONS=False, SECRET_KEY="k" * 32)
    app.logger.disabled = True
    app.broken = False
    om = OpenManager(app)

    @app.get("/p")
    @om.fallback("stale")
    def show():
        if app.broken:
            raise KeyError("a bug")
        return "for " + request.headers.get("X-API-Key", "nobody")

    get(app, X_API_Key="ann")
    app.broken = True
    assert get(app, X_API_Key="ann") == "for ann"
    assert get(app) == 503


def test_who_the_server_says_he_is_has_a_copy_of_his_own(shop):
    @shop.page("/p")
    def show():
        return "hello " + str(request.remote_user)

    reply = shop.test_client().get("/p", environ_overrides={"REMOTE_USER": "ann"})
    assert reply.get_data(as_text=True) == "hello ann"
    reply.close()
    shop.broken = True
    assert get(shop) == 503
    again = shop.test_client().get("/p", environ_overrides={"REMOTE_USER": "ann"})
    assert again.get_data(as_text=True) == "hello ann"
    again.close()


# --- what a request is stays what it was ----------------------------------------------------------


@pytest.mark.parametrize("sent", ["a=\xff", "a=1; \xc3\xa9=2", "\xc2\xa0session=1; a=1", 'a="b'])
def test_cookies_of_any_bytes_are_shown_as_without_observation(shop, sent):
    plain = flask.Flask("plain")
    for app in (shop, plain):
        app.add_url_rule("/shown", "shown", lambda: ascii(sorted(request.cookies.items())))
    found = [
        app.test_client(use_cookies=False).get("/shown", environ_overrides={"HTTP_COOKIE": sent})
        for app in (shop, plain)
    ]
    assert [one.status_code for one in found] == [200, 200]
    assert found[0].get_data() == found[1].get_data()
    for one in found:
        one.close()


@pytest.fixture
def behind():
    """An app behind middleware that tells who asks, which the layer in front does not see."""
    app = flask.Flask("behind")
    app.config.update(
        TESTING=True, PROPAGATE_EXCEPTIONS=False, SECRET_KEY="k" * 32,
        OM_FALLBACK={"/": {"answers": ["stale"], "copy_every": 0}},
    )  # fmt: skip
    app.logger.disabled = True
    app.broken = app.gate_broken = False
    inner = app.wsgi_app

    def gate(environ, start_response):
        user = environ.get("HTTP_X_TICKET")
        if user and app.in_place:
            environ["REMOTE_USER"] = user
        elif user:
            environ = {**environ, app.tells: user}
        if app.gate_broken:
            start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"the gate is broken"]
        return inner(environ, start_response)

    app.wsgi_app = gate
    OpenManager(app)

    @app.before_request
    def look():
        request.tenant = request.headers.get("X-Tenant")

    @app.get("/p")
    def show():
        if app.broken:
            raise KeyError("a bug")
        return f"hello {request.remote_user} of {request.tenant}"

    return app


@pytest.mark.parametrize("tells", ["REMOTE_USER", "HTTP_X_TENANT", "HTTP_HOST"])
def test_what_middleware_told_the_application_counts_in_an_outage(behind, tells):
    behind.in_place, behind.tells = False, tells
    assert get(behind) == "hello None of None"
    assert get(behind, X_Ticket="ann.example") != 503
    behind.broken = True
    assert get(behind) == "hello None of None"
    assert get(behind, X_Ticket="ann.example") == 503


def test_who_asks_counts_when_the_middleware_fails_itself(behind):
    behind.in_place, behind.tells = True, "REMOTE_USER"
    assert get(behind, X_Ticket="ann") == "hello ann of None"
    get(behind)
    behind.gate_broken = True
    assert get(behind) == "hello None of None"
    assert get(behind, X_Ticket="ann") == 503
