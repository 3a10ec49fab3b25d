"""``flask om cache why``: what the caches did with a page, and which code made it so."""

from __future__ import annotations

import json
import re
import signal
import threading
from pathlib import Path

import flask
import pytest
from click.testing import CliRunner
from flask import Flask, Response, abort, redirect, render_template_string, request, session
from flask.cli import FlaskGroup

from om_plugins import OpenManager, OpenManagerMiddleware
from om_plugins.cache.responses import why
from om_plugins.cache.responses.why import build_request
from om_plugins.http_cache.feature import HttpCacheFeature


def make_shop(**config):
    app = Flask("shop")
    app.secret_key = "of the test"
    app.config.update(TESTING=True, PROPAGATE_EXCEPTIONS=False, **config)
    om = OpenManager(app)
    app.runs = 0

    @app.before_request
    def count():
        app.runs += 1

    @app.get("/about")
    @om.cached()
    def about():
        return "about us"

    @app.get("/inbox")
    @om.cached()
    def inbox():
        request.cookies.get("theme")
        return f"mail of {session.get('user_id')}"

    return app, om


def call(app, *arguments):
    group = FlaskGroup(create_app=lambda: app)
    return CliRunner().invoke(group, ["om", "cache", "why", *arguments])


def explain(app, *arguments):
    said = call(app, *arguments, "--json")
    assert said.exit_code == 0, said.output
    return json.loads(said.output[said.output.index("{") :])


def cache_of(said, name="view"):
    return next(one for one in said["caches"] if one["cache"] == name)


def line_of(function, text):
    """The line of a view that contains a text."""
    code = function.__wrapped__.__code__
    lines = Path(code.co_filename).read_text(encoding="utf-8").splitlines()
    at = code.co_firstlineno
    return next(n for n in range(at, at + 10) if text in lines[n - 1])


def test_a_page_that_looks_at_nobody_is_one_entry_for_everybody():
    app, _ = make_shop()
    said = call(app, "/about", "--cookie", "_ga=1", "--header", "User-Agent: me")
    assert said.exit_code == 0, said.output
    assert "GET /about: 200 OK" in said.output
    assert "@om.cached keeps it, one for everybody." in said.output
    assert "Nobody looked at anything else." in said.output


def test_each_input_is_told_with_the_module_function_and_line_that_looked_at_it_first():
    app, _ = make_shop()
    said = explain(app, "/inbox")
    line = line_of(app.view_functions["inbox"], "theme")
    assert cache_of(said)["kept"] is True
    assert cache_of(said)["names"] == ["cookie:theme", "session:user_id"]
    assert said["inputs"] == [
        {"name": "cookie:theme", "where": f"{__name__}.inbox, line {line}", "compared": True},
        {
            "name": "session:user_id",
            "where": f"{__name__}.inbox, line {line + 1}",
            "compared": True,
        },
    ]
    assert said["not_looked_at"] == [
        "request headers", "the client's address", "variables of the environ",
    ]  # fmt: skip


def test_plain_words_name_the_inputs_and_what_was_not_looked_at():
    app, _ = make_shop()
    said = call(app, "/inbox").output
    assert "one entry for each value of cookie:theme, session:user_id." in said
    assert re.search(r"session:user_id +\S+\.inbox, line \d+\n", said)
    assert "Not looked at: request headers, the client's address" in said


def test_no_value_of_a_visitor_and_no_path_of_a_file_is_told():
    app, _ = make_shop()
    for arguments in ([], ["--json"]):
        said = call(app, "/inbox", "--cookie", "theme=secret-one", *arguments).output
        assert "secret-one" not in said
        assert __file__ not in said
        assert "/tests/" not in said


def test_looks_of_known_readers_are_apart_with_the_reason():
    app, om = make_shop(OM_CACHE_READERS=[f"{__name__}:log_request"])

    @app.get("/logged")
    @om.cached()
    def logged():
        log_request()
        return "logged"

    said = explain(app, "/logged")
    assert said["inputs"] == []
    (known,) = said["known"]
    assert known["names"] == ["address", "header:user-agent"]
    assert known["reader"] == f"{__name__}.log_request"
    assert "OM_CACHE_READERS" in known["reason"]
    assert "one for everybody" in call(app, "/logged").output


def log_request():
    return request.remote_addr, request.headers.get("User-Agent")


def test_a_template_is_named():
    app, om = make_shop()
    app.jinja_loader = None
    app.jinja_env.loader = __import__("jinja2").DictLoader({"a.html": "{{ session.name }}"})

    @app.get("/named")
    @om.cached()
    def named():
        return flask.render_template("a.html")

    @app.get("/nameless")
    @om.cached()
    def nameless():
        return render_template_string("{{ session.name }}")

    (look,) = explain(app, "/named")["inputs"]
    assert look["where"] == "template a.html"
    (look,) = explain(app, "/nameless")["inputs"]
    assert look["where"] == "a template"


@pytest.mark.parametrize(
    ("body", "options", "reason", "words"),
    [
        (lambda: session.update(a=1) or "", {}, "session", "changes the session"),
        (lambda: str(dict(request.environ)), {}, "input", "all variables of the environ"),
        (lambda: request.args.get("page", ""), {"query": ["q"]}, "query", "page, which query="),
        (lambda: str(session.get("user")), {"public": True}, "public", "session:user"),
        (lambda: redirect("/about"), {}, "status", "status"),
        (lambda: ("no", 403), {}, "status", "status"),
        (lambda: Response("x", headers={"Cache-Control": "no-store"}), {}, "no-store", "no-store"),
        (lambda: 1 / 0, {}, "error", "its view raised ZeroDivisionError in"),
        (lambda: abort(404), {}, "error", "a response with the status 404, which is stored with"),
        (lambda: abort(401), {}, "error", "raised Unauthorized, a response with the status 401"),
        (lambda: "x" * 3000, {}, "size", "cannot hold it"),
    ],
)  # fmt: skip
def test_a_page_that_is_not_kept_says_why(body, options, reason, words):
    app, om = make_shop(OM_CACHE_MAX_VALUE=2000)
    app.add_url_rule("/page", "page", om.cached(**options)(body))
    found = cache_of(explain(app, "/page"))
    assert (found["kept"], found["reason"]) == (False, reason)
    assert words in found["detail"]
    said = call(app, "/page").output
    assert re.search(rf"@om\.cached does not keep it: .*{re.escape(words)}", said)


def test_what_cannot_be_compared_is_told_with_its_place():
    app, om = make_shop()

    @app.get("/all")
    @om.cached()
    def everything():
        return str(dict(request.environ))

    said = explain(app, "/all")
    assert said["refused"] == "all variables of the environ"
    line = line_of(app.view_functions["everything"], "dict(")
    assert said["refused_where"] == f"{__name__}.everything, line {line}"
    assert f"Not comparable with another request: {said['refused']} (" in call(app, "/all").output


def test_what_a_hook_looks_at_after_the_view_is_not_compared():
    app, _ = make_shop()

    @app.after_request
    def sign(response):
        request.cookies.get("lang")
        return response

    (look,) = explain(app, "/about")["inputs"]
    assert (look["name"], look["compared"]) == ("cookie:lang", False)
    said = call(app, "/about").output
    assert "(not compared)" in said
    assert "code that runs on each hit" in said


def test_an_input_that_vary_names_has_no_line():
    app, om = make_shop()

    @app.get("/varies")
    @om.cached(vary=["Accept-Language"])
    def varies():
        return "x"

    said = call(app, "/varies").output
    assert re.search(r"vary:accept-language +the response's Vary\n", said)


def test_a_path_that_takes_no_get_says_what_it_takes():
    app, _ = make_shop()
    app.add_url_rule("/save", "save", lambda: "", methods=["POST"])
    said = explain(app, "/save")
    assert said["status"].startswith("405")
    assert "POST" in said["allow"]
    assert cache_of(said)["kept"] is False
    assert "The path takes" in call(app, "/save").output


def test_nothing_found_is_told_as_such():
    app, _ = make_shop()
    said = call(app, "/nowhere")
    assert said.exit_code == 0
    assert "GET /nowhere: 404 NOT FOUND" in said.output
    assert "the view has none, or something answered in its place" in said.output


def test_a_redirect_says_where_it_leads_and_is_not_followed():
    app, _ = make_shop()
    app.add_url_rule("/old", "old", lambda: redirect("/about"))
    said = call(app, "/old").output
    assert "GET /old: 302 FOUND, to /about" in said
    assert app.runs == 1


def test_an_exception_that_leaves_the_app_is_named_with_its_place():
    app, om = make_shop()
    app.config["PROPAGATE_EXCEPTIONS"] = True

    @app.get("/broken")
    @om.cached()
    def broken():
        session.get("user_id")
        raise KeyError("the value of a visitor")

    said = call(app, "/broken")
    assert said.exit_code == 0
    assert re.search(rf"GET /broken: KeyError in {__name__}\.broken, line \d+\.", said.output)
    assert "the value of a visitor" not in said.output
    assert "session:user_id" in said.output
    found = explain(app, "/broken")
    assert cache_of(found)["reason"] == "error"


def test_a_query_and_a_path_of_any_language_are_asked_as_written():
    app, om = make_shop()

    @app.get("/가격/<name>")
    @om.cached()
    def price(name):
        return f"{name} {request.args['q']} {request.host} {request.scheme}"

    said = explain(app, "/가격/차?q=녹차", "--host", "https://shop.example")
    assert said["path"] == "/가격/차?q=녹차"
    assert "GET /가격/차?q=녹차: 200 OK" in call(app, "/가격/차?q=녹차").output
    assert said["status"] == "200 OK"
    assert cache_of(said)["kept"] is True


def test_headers_cookies_and_host_reach_the_app():
    app, om = make_shop()
    seen = []

    @app.get("/seen")
    @om.cached()
    def page():
        seen.append((
            request.headers.getlist("X-One"), dict(request.cookies), request.host, request.scheme,
            request.remote_addr,
        ))  # fmt: skip
        return ""

    call(
        app, "/seen", "--header", "X-One: a:b", "--header", "Cookie: c=3", "--cookie", "a=1",
        "--cookie", "b=x=2", "--host", "https://shop.example:444",
    )  # fmt: skip
    assert seen == [
        (["a:b"], {"a": "1", "b": "x=2", "c": "3"}, "shop.example:444", "https", "127.0.0.1")
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["about"], "must begin with one '/'"),
        (["//evil.example/"], "must begin with one '/'"),
        (["https://shop.example/about"], "must begin with one '/'"),
        (["/about", "--header", "no colon"], "is no header"),
        (["/about", "--header", "a b: c"], "is no header"),
        (["/about", "--header", "a: b\r\nX: y"], "is no header"),
        (["/about", "--cookie", "name"], "is no cookie"),
        (["/about", "--cookie", "a=1; b=2"], "is no cookie"),
        (["/about", "--host", "ftp://a"], "is no host"),
        (["/about", "--host", "a/b"], "is no host"),
    ],
)
def test_wrong_arguments_are_refused_with_the_form_that_is_right(arguments, words):
    app, _ = make_shop()
    said = call(app, *arguments)
    assert said.exit_code == 1
    assert words in said.output
    assert app.runs == 0


def test_a_body_is_closed_and_a_stream_of_events_is_not_waited_for():
    app, _ = make_shop()
    ended = []

    @app.get("/events")
    def events():
        def produce():
            try:
                while True:
                    yield "data: x\n\n"
            finally:
                ended.append(True)

        return Response(produce(), mimetype="text/event-stream")

    said = call(app, "/events").output
    assert "GET /events: 200 OK, a stream of events, closed at once\n" in said
    assert ended == [True]


@pytest.mark.parametrize("kind", ["text/plain", "multipart/x-mixed-replace; boundary=f", None])
@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        ("_LONGEST_S", 0.01, "closed after 0.01 s before"),
        ("_MOST_BYTES", 2**20, "after 1 MiB before"),
    ],
)
def test_a_stream_without_end_is_closed_and_named(monkeypatch, kind, limit, value, words):
    monkeypatch.setattr(why, limit, value)
    app, om = make_shop()
    ended = []

    @app.get("/camera")
    @om.cached()
    def camera():
        def produce():
            try:
                while True:
                    yield b"x" * 1000
            finally:
                ended.append(True)

        return Response(produce(), content_type=kind)

    said = explain(app, "/camera")
    assert words in said["stopped"]
    assert f"GET /camera: 200 OK, {said['stopped']}\n" in call(app, "/camera").output
    assert ended == [True, True]
    assert cache_of(said)["reason"] == "streamed"


def test_a_long_body_that_ends_is_read_to_its_end():
    app, om = make_shop(OM_CACHE_MAX_VALUE=30_000_000)
    app.add_url_rule("/long", "long", om.cached()(lambda: "x" * 20_000_000))
    said = explain(app, "/long")
    assert (said["stopped"], cache_of(said)["kept"]) == ("", True)


def test_an_exception_that_the_app_answers_is_named_with_its_place():
    app, _ = make_shop()

    @app.get("/broken")
    def broken():
        raise KeyError("the value of a visitor")

    said = call(app, "/broken").output
    place = rf"KeyError in {__name__}\.broken, line \d+"
    assert re.search(rf"GET /broken: 500 INTERNAL SERVER ERROR, after {place}\n", said)
    assert "the value of a visitor" not in said
    assert "@om.cached does not keep it" in said
    found = explain(app, "/broken")
    assert re.fullmatch(place, found["error"])
    assert found["left"] is False


def test_a_page_that_scope_keeps_apart_says_so():
    app, om = make_shop()

    @app.get("/mine")
    @om.cached(scope=lambda: request.args.get("user"))
    def mine():
        return f"{session.get('user_id')} {request.headers.get('X-Theme')}"

    @app.get("/only")
    @om.cached(scope=lambda: request.args.get("user"))
    def only():
        return f"{session.get('user_id')}"

    said = call(app, "/mine?user=1").output
    assert "keeps it, one entry for each scope (scope=) and each value of header:x-theme." in said
    said = call(app, "/only?user=1").output
    assert "keeps it, one entry for each scope (scope=)." in said
    assert cache_of(explain(app, "/only?user=1"))["scoped"] is True
    assert cache_of(explain(app, "/only"))["scoped"] is False


def test_a_shared_view_says_that_the_cache_in_front_keeps_its_page():
    app, om = make_shop()
    app.add_url_rule("/shared", "shared", om.cached(shared=True)(lambda: "page"))
    app.add_url_rule("/address", "address", om.cached(shared=True)(lambda: request.remote_addr))
    said = call(app, "/shared").output
    assert "does not keep it: its view is shared, so the cache in front keeps it." in said
    found = cache_of(explain(app, "/address"))
    assert found["detail"] == "its view is shared, so the cache in front decides"


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="the system has no SIGALRM")
def test_a_stream_that_waits_without_end_is_closed_and_named(monkeypatch):
    monkeypatch.setattr(why, "_LONGEST_S", 0.05)
    handler = signal.getsignal(signal.SIGALRM)
    app, _ = make_shop()
    ended = []

    @app.get("/log")
    def log():
        def produce():
            try:
                yield "line"
                threading.Event().wait(30)
            except Exception:  # as a careless application has it
                threading.Event().wait(30)
            finally:
                ended.append(True)

        return Response(produce(), mimetype="text/plain")

    said = call(app, "/log").output
    assert "GET /log: 200 OK, a stream, closed after 0.05 s before its end\n" in said
    assert ended == [True]
    assert signal.getsignal(signal.SIGALRM) is handler


def test_nothing_is_read_from_the_shared_store_or_written_there(tmp_path):
    shared = {"OM_CACHE_URL": f"file://{tmp_path}/cache", "OM_HUB_URL": f"sqlite:///{tmp_path}/hub"}
    served, _ = make_shop(**shared)
    client = served.test_client()
    client.get("/about")
    before = read_files(tmp_path)
    app, om = make_shop(**shared)
    said = explain(app, "/about")
    assert app.runs == 1  # made, although the server keeps it
    assert cache_of(said)["kept"] is True
    om.cache.query("value", lambda: 1)
    assert read_files(tmp_path) == before
    client.get("/about")
    assert served.runs == 2


def read_files(folder):
    return {one: one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_without_any_cache_it_says_under_which_inputs_a_page_could_be_kept():
    app = Flask("plain")
    app.testing = True
    OpenManager(app)
    app.add_url_rule("/page", "page", lambda: request.cookies.get("a", ""))
    said = call(app, "/page").output
    assert "@om.cached: not used in this app." in said
    assert "The shared HTTP cache in front: not used in this app." in said
    assert "The fallback's copies of good responses: not used in this app." in said
    assert re.search(r"cookie:a +\S+\.<lambda>, line \d+\n", said)


def test_a_response_that_no_view_gave_says_that_nothing_was_observed():
    app, _ = make_shop()
    inner = app.wsgi_app

    def teapot(environ, start_response):
        start_response("418 I'M A TEAPOT", [])
        return [b""]

    app.wsgi_app = lambda e, s: teapot(e, s) if e["PATH_INFO"] == "/tea" else inner(e, s)
    said = call(app, "/tea").output
    assert "418" in said
    assert "No view of the Flask app got the request, so nothing was observed." in said


def test_middleware_around_the_app_may_pass_a_copy_of_the_environ_on():
    app, _ = make_shop()
    inner = app.wsgi_app
    app.wsgi_app = lambda environ, start: inner(dict(environ), start)
    assert cache_of(explain(app, "/inbox"))["names"] == ["cookie:theme", "session:user_id"]


def test_an_app_that_is_not_flask_cannot_be_observed():
    application = OpenManagerMiddleware(lambda environ, start: [])
    (group,) = HttpCacheFeature().commands()
    said = CliRunner().invoke(group, ["why", "/page"], obj=application.runtime.kit)
    assert said.exit_code == 1
    assert "not a Flask app" in said.output.replace("\n", " ")


def test_a_package_that_is_switched_off_says_so():
    app, _ = make_shop(OM_ENABLED=False)
    said = call(app, "/about")
    assert said.exit_code == 1
    assert "OM_ENABLED is off" in said.output


def test_the_app_is_asked_again_in_the_same_process():
    app, _ = make_shop()
    app.test_client().get("/about")
    assert cache_of(explain(app, "/about"))["kept"] is True
    assert cache_of(explain(app, "/about"))["kept"] is True
    assert app.runs == 3


def test_the_environ_is_one_that_a_server_could_have_made():
    environ = build_request("/a%20b?x=1", headers=["Accept: text/html"], host="a.example")
    assert environ["PATH_INFO"] == "/a b"
    assert environ["QUERY_STRING"] == "x=1"
    assert environ["HTTP_HOST"] == "a.example"
    assert environ["REQUEST_METHOD"] == "GET"
    assert all(type(value) is str for name, value in environ.items() if "." not in name)


def make_front(body, *, shared=False, **config):
    app = Flask("front")
    app.secret_key = "of the test"
    app.config.update(TESTING=True, OM_HTTP_CACHE=not shared)
    app.config.update(config)
    om = OpenManager(app)
    app.add_url_rule("/page", "page", om.cached(shared=True)(body) if shared else body)
    return app


def say_public(body="page", **headers):
    return Response(body, headers={"Cache-Control": "public, max-age=60", **headers})


@pytest.mark.parametrize("shared", [True, False])
def test_the_cache_in_front_tells_under_which_headers_it_keeps_a_page(shared):
    def page():
        return say_public(request.headers.get("X-Theme", ""))

    found = cache_of(explain(make_front(page, shared=shared), "/page"), "http")
    assert (found["kept"], found["names"]) == (True, ["header:x-theme"])


def test_a_session_is_its_cookie_in_front():
    app = make_front(lambda: str(session.get("user")), shared=True)
    said = explain(app, "/page")
    assert cache_of(said, "http")["cookies"] == ["session"]
    (look,) = said["inputs"]
    assert (look["name"], look["compared"]) == ("session:user", True)
    said = call(app, "/page").output
    assert "in front keeps it, one for everybody, for requests without session." in said
    assert "(not compared)" not in said


def test_a_page_in_front_that_brought_the_cookie_names_the_line():
    def page():
        return say_public(request.cookies.get("theme", ""))

    found = cache_of(explain(make_front(page), "/page", "--cookie", "theme=dark"), "http")
    assert found["kept"] is False
    assert re.search(r"brings cookie:theme: \S+\.page, line \d+$", found["detail"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (lambda: say_public(request.remote_addr), "it depends on address"),
        (lambda: "page", "how long it is fresh"),
        (lambda: say_public(**{"Set-Cookie": "a=1"}), "sets a cookie"),
        (lambda: Response("x", headers={"Cache-Control": "private"}), "it is private"),
        (lambda: session.update(a=1) or say_public(), "sets a cookie"),
        (lambda: say_public("x" * 3_000_000), "too large"),
    ],
)
def test_a_page_that_is_not_kept_in_front_says_why(body, words):
    found = cache_of(explain(make_front(body), "/page"), "http")
    assert found["kept"] is False
    assert words in found["detail"]


def test_a_view_that_refuses_to_be_shared_gives_its_advice():
    def page():
        return Response("x", headers={"Cache-Control": "private"})

    found = cache_of(explain(make_front(page, shared=True), "/page"), "http")
    assert found["reason"] == "private"
    assert "without shared=True each user gets his own" in found["detail"]


def test_a_request_that_goes_past_the_cache_in_front_says_so():
    app = make_front(say_public, OM_TRUSTED_HOSTS=["shop.example"])
    found = cache_of(explain(app, "/page", "--host", "localhost"), "http")
    assert (found["on"], found["kept"]) == (True, False)
    assert "its host is not trusted" in found["detail"]
    found = cache_of(explain(app, "/page", "--host", "shop.example"), "http")
    assert found["kept"] is True


def test_a_view_that_is_not_shared_is_not_for_the_cache_in_front():
    app = make_front(say_public, shared=True)
    app.add_url_rule("/other", "other", say_public)
    found = cache_of(explain(app, "/other"), "http")
    assert (found["on"], found["kept"]) == (True, False)
    assert "no view with shared=True" in found["detail"]


def test_an_address_is_no_longer_among_what_nobody_looked_at():
    app, _ = make_shop()
    app.add_url_rule("/address", "address", lambda: str(request.remote_addr))
    assert "the client's address" not in explain(app, "/address")["not_looked_at"]


def test_an_input_that_somebody_else_looked_at_as_well_counts_and_is_named_once():
    app, om = make_shop(OM_CACHE_READERS=[f"{__name__}:log_request"])

    @app.get("/both")
    @om.cached()
    def both():
        log_request()
        return str(request.remote_addr)

    said = explain(app, "/both")
    assert [one["name"] for one in said["inputs"]] == ["address"]
    assert [one["names"] for one in said["known"]] == [["header:user-agent"]]


def make_guarded(body, **config):
    app = Flask("guarded")
    app.secret_key = "of the test"
    app.config.update(TESTING=True, PROPAGATE_EXCEPTIONS=False, OM_FALLBACK={"/": ["stale"]})
    app.config.update(config)
    OpenManager(app)
    app.add_url_rule("/page", "page", body)
    return app


def test_a_copy_for_the_fallback_is_told_with_whom_it_answers():
    app = make_guarded(lambda: request.cookies.get("theme", ""))
    found = cache_of(explain(app, "/page"), "fallback")
    assert (found["kept"], found["cookies"]) == (True, ["theme"])
    said = call(app, "/page").output
    assert (
        "copies of good responses keep it, one for everybody, for requests without theme." in said
    )
    assert "(not compared)" not in said


@pytest.mark.parametrize(
    ("body", "arguments", "reason"),
    [
        (lambda: request.cookies.get("theme", ""), ["--cookie", "theme=a"], "input"),
        (lambda: str(request.remote_addr), [], "input"),
        (lambda: Response("x", headers={"Cache-Control": "private"}), [], "headers"),
        (lambda: "x" * 600_000, [], "size"),
    ],
)
def test_a_response_that_is_not_copied_says_why(body, arguments, reason):
    app = make_guarded(body, OM_FALLBACK={"/": {"answers": ["stale"], "max_copy": 500_000}})
    found = cache_of(explain(app, "/page", *arguments), "fallback")
    assert (found["kept"], found["reason"]) == (False, reason)
    assert found["detail"]


def test_a_response_that_needs_no_copy_says_so():
    app = make_guarded(lambda: ("no", 404))
    found = cache_of(explain(app, "/page"), "fallback")
    assert (found["on"], found["kept"]) == (True, False)
    assert "is no 200" in call(app, "/page").output


def test_the_page_of_the_docs_shows_what_is_printed():
    page = Path(__file__).parents[3] / "docs" / "observed-vary.md"
    text = page.read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    command, shown = re.search(r"```console\n\$ (.*?)\n(.*?)```", text, re.DOTALL).groups()
    namespace = {"__name__": "shop"}
    exec(compile(code, "shop.py", "exec"), namespace)
    assert command == "flask --app shop om cache why /inbox"
    assert call(namespace["app"], "/inbox").output == shown
