"""A function whose value is cached for everybody is seen when it looks at the request."""

from __future__ import annotations

import pytest
from flask import Flask, current_app, g, render_template_string, request, session, url_for

from om_plugins import OpenManager
from om_plugins.flask.observation.fetch import run_observed


@pytest.fixture
def app():
    app = Flask("shop")
    app.secret_key = "of the test"
    app.testing = True
    app.add_url_rule("/page", "page", lambda: "x")
    return app


LOOKS = {
    "header": lambda: request.headers.get("X-User"),
    "cookie": lambda: request.cookies.get("user"),
    "host": lambda: request.host,
    "path": lambda: request.path,
    "argument": lambda: request.args.get("q"),
    "method": lambda: request.method,
    "address": lambda: request.remote_addr,
    "the request itself": lambda: request._get_current_object().url,
    "session key": lambda: session.get("user"),
    "session in": lambda: "user" in session,
    "session all": lambda: dict(session),
    "session truth": lambda: bool(session),
    "url_for": lambda: url_for("page"),
    "url_for outside": lambda: url_for("page", _external=True),
    "template request": lambda: render_template_string("{{ request.path }}"),
    "template session": lambda: render_template_string("{{ session.user }}"),
}


def test_what_a_hook_put_into_g_is_a_look_but_no_connection(app):
    class Connection:
        def execute(self, text):
            return text

    with app.test_request_context("/page"):
        g.user, g.db = "ann", Connection()
        for look in (
            lambda: g.user,
            lambda: g.get("user"),
            lambda: "user" in g,
            lambda: list(g),
            lambda: getattr(g, "user", None),
        ):
            assert run_observed(look)[1] == "g.user"
        assert run_observed(lambda: g.db.execute("x")) == ("x", "")
        assert run_observed(lambda: "db" in g) == (True, "")
        assert run_observed(lambda: g.get("other")) == (None, "")

        def own():
            g.found = 1
            return g.found

        assert run_observed(own) == (1, "")
        assert sorted(g) == ["db", "found", "user"]
        assert type(g._get_current_object()).__name__ == "_AppCtxGlobals"
        outer = run_observed(lambda: run_observed(lambda: g.user))
        assert outer == (("ann", "g.user"), "g.user")


NO_LOOKS = {
    "nothing": lambda: 1,
    "the app": lambda: current_app.name,
    "template": lambda: render_template_string("{{ 1 + 1 }}"),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_look_at_the_request_is_seen(app, look):
    with app.test_request_context("/page?q=1"):
        value, looked = run_observed(look)
        assert looked
        assert value == look()


@pytest.mark.parametrize("look", NO_LOOKS.values(), ids=NO_LOOKS)
def test_what_looks_at_nothing_of_the_request_is_not(app, look):
    with app.test_request_context("/page?q=1"):
        assert run_observed(look) == (look(), "")


def test_outside_of_a_request_nothing_is_observed(app):
    assert run_observed(lambda: 7) == (7, "")


def test_the_request_is_as_before_afterwards(app):
    with app.test_request_context("/page"):
        kinds = type(request._get_current_object()), type(session._get_current_object())
        with pytest.raises(ZeroDivisionError):
            run_observed(lambda: 1 / 0 if request.path else None)
        assert kinds == (
            type(request._get_current_object()),
            type(session._get_current_object()),
        )
        assert run_observed(lambda: 1) == (1, "")


def test_a_function_inside_of_a_function_is_seen_by_both(app):
    inner = []
    with app.test_request_context("/page"):
        _, outer = run_observed(lambda: inner.append(run_observed(lambda: request.host)))
        assert outer == inner[0][1] == "request.host"
        _, outer = run_observed(lambda: run_observed(lambda: 1))
        assert outer == ""


@pytest.mark.parametrize("name", ["header", "session key", "url_for"])
def test_such_a_value_is_for_its_caller_only_and_one_warning_names_the_way_out(app, name, caplog):
    om = OpenManager(app)
    runs = []

    @om.memoize(stale_time=60)
    def value():
        runs.append(1)
        return [str(LOOKS[name]()), len(runs)]

    app.add_url_rule("/value", "value", lambda: value())
    client = app.test_client()
    assert [client.get("/value").json[1] for _ in range(3)] == [1, 2, 3]
    assert om.cache.refusals() == {"request": 3}
    assert caplog.text.count("say whose value it is with scope=") == 1


def test_a_scope_says_by_hand_whose_value_it_is(app):
    om = OpenManager(app)
    runs = []

    @om.memoize(stale_time=60, scope=lambda: request.headers["X-User"])
    def value():
        runs.append(1)
        return request.headers["X-User"]

    app.add_url_rule("/value", "value", lambda: value())
    client = app.test_client()
    users = ["ann", "bob", "ann", "bob"]
    assert [client.get("/value", headers={"X-User": u}).text for u in users] == users
    assert len(runs) == 2


def test_a_view_around_depends_on_what_the_function_looks_at(app):
    om = OpenManager(app)
    app.add_url_rule(
        "/p",
        "p",
        om.cached(stale_time=60)(
            lambda: om.cache.query("k", lambda: request.headers.get("X-User", "-"))
        ),
    )
    client = app.test_client()
    for user in ("ann", "bob", "ann"):
        assert client.get("/p", headers={"X-User": user}).text == user
