from __future__ import annotations

import pytest
from flask import Flask, request
from werkzeug.http import parse_cookie
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.middleware.profiler import ProfilerMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from om_plugins import OpenManager
from om_plugins.console.doctor import examine
from om_plugins.flask.app_state import runtime_of
from om_plugins.flask.inner_middleware import find_unknown_middleware


def greet(inner):
    def call(environ, start_response):
        name = parse_cookie(environ).get("u", "all").ljust(4)[:4].encode()
        return [chunk.replace(b"USER", name) for chunk in inner(environ, start_response)]

    return call


class Greeting:
    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        return greet(self.app)(environ, start_response)


class GreetingProxyFix(ProxyFix):
    pass


class OwnFlask(Flask):
    def wsgi_app(self, environ, start_response):
        return greet(super().wsgi_app)(environ, start_response)


def whitenoise(inner):
    made = type("WhiteNoise", (Greeting,), {"__module__": "whitenoise.base"})
    return made(inner)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: inner,
        ProxyFix,
        ProfilerMiddleware,
        LintMiddleware,
        whitenoise,
        lambda inner: LintMiddleware(ProxyFix(ProfilerMiddleware(inner))),
    ],
)
def test_what_is_known_to_be_harmless_is_no_unknown_middleware(wrap):
    app = Flask("app")
    assert find_unknown_middleware(app, wrap(app.wsgi_app), ()) == ""


@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (greet, "greet"),
        (Greeting, "Greeting"),
        (GreetingProxyFix, "GreetingProxyFix"),
        (lambda inner: ProxyFix(greet(inner)), "greet"),
        (lambda inner: Greeting(ProxyFix(inner)), "Greeting"),
    ],
)
def test_other_middleware_is_found_and_can_be_named(wrap, name):
    app = Flask("app")
    wsgi_app = wrap(app.wsgi_app)
    full = f"{__name__}:{name}"
    assert find_unknown_middleware(app, wsgi_app, ()) == full
    assert find_unknown_middleware(app, wsgi_app, (full,)) == ""


def test_middleware_that_holds_itself_is_found():
    app = Flask("app")
    outer = ProxyFix(Greeting(app.wsgi_app))
    outer.app.outer = outer
    outer.handlers = [outer.app]
    assert find_unknown_middleware(app, outer, ()) == f"{__name__}:Greeting"


@pytest.mark.parametrize(
    ("wrap", "config", "said"),
    [
        (Greeting, {}, True),
        (Greeting, {"OM_CACHE_READERS": [f"{__name__}:Greeting"]}, False),
        (ProxyFix, {}, False),
    ],
)
def test_the_doctor_names_it(wrap, config, said):
    app, _ = make_site(wrap, **config)
    text = str(list(examine(runtime_of(app).kit)))
    assert (f"{__name__}:Greeting" in text) is said


def test_a_flask_of_ones_own_that_answers_itself_is_found():
    app = OwnFlask("app")
    assert find_unknown_middleware(app, app.wsgi_app, ()).endswith(":OwnFlask.wsgi_app")


def make_site(wrap, **config):
    app = Flask("site")
    app.secret_key = "s" * 32
    app.testing = True
    app.config.update(config)
    app.wsgi_app = wrap(app.wsgi_app)
    om = OpenManager(app)
    app.config["runs"] = runs = []

    @app.get("/shared")
    @om.cached(shared=True, stale_time=60)
    def shared():
        runs.append(1)
        return "Hi USER"

    @app.get("/kept")
    def kept():
        runs.append(1)
        return "Hi USER", 200, {"Cache-Control": "max-age=60"}

    @app.get("/copied")
    def copied():
        if app.config.get("DOWN"):
            raise RuntimeError("down")
        return "Hi USER"

    return app, om


def ask(app, path, user=""):
    client = app.test_client()
    if user:
        client.set_cookie("u", user)
    return client.get(path, buffered=True)


@pytest.mark.parametrize("wrap", [greet, Greeting, lambda inner: ProxyFix(greet(inner))])
@pytest.mark.parametrize("cookies", [False, True])
@pytest.mark.parametrize("path", ["/shared", "/kept"])
@pytest.mark.parametrize("first", ["anna", ""])
def test_what_middleware_inside_adds_reaches_no_other_visitor(wrap, cookies, path, first):
    app, _ = make_site(wrap, OM_HTTP_CACHE={"all": True, "cookies": cookies})
    ask(app, path, first)
    found = [ask(app, path, name) for name in ("anna", "bobo", "", "")]
    assert [one.text for one in found] == ["Hi anna", "Hi bobo", "Hi all ", "Hi all "]
    assert "public" not in found[0].headers["Cache-Control"]
    assert len(app.config["runs"]) < 5  # who brings nothing is still answered from the cache


def test_named_middleware_is_trusted():
    app, _ = make_site(Greeting, OM_CACHE_READERS=[f"{__name__}:Greeting"])
    assert [ask(app, "/shared", name).text for name in ("anna", "bobo")] == ["Hi anna"] * 2


@pytest.mark.parametrize(("wrap", "status"), [(greet, 503), (lambda inner: inner, 200)])
@pytest.mark.parametrize("first", ["anna", ""])
def test_the_fallback_gives_nobody_what_middleware_inside_adds(wrap, status, first):
    app, _ = make_site(wrap, OM_FALLBACK={"/copied": ["stale"]}, PROPAGATE_EXCEPTIONS=False)
    app.logger.disabled = True
    ask(app, "/copied", first)
    app.config["DOWN"] = True
    found = ask(app, "/copied", "bobo")
    assert found.status_code == status
    assert "anna" not in found.text
    if not first:  # who brings nothing gets what somebody got who brought nothing
        assert ask(app, "/copied").status_code == 200


def tell_user(inner):
    def call(environ, start_response):
        return inner({**environ, "REMOTE_USER": environ.get("HTTP_X_TICKET", "")}, start_response)

    return call


def test_what_flask_looked_at_counts_as_well():
    app, om = make_site(tell_user, OM_HTTP_CACHE=True)

    @app.get("/user")
    @om.cached(shared=True, stale_time=60)
    def user():
        return f"Hi {request.environ['REMOTE_USER']}"

    client = app.test_client()
    found = [client.get("/user", headers={"X-Ticket": name}).text for name in ("ann", "bob", "")]
    assert found == ["Hi ann", "Hi bob", "Hi "]
