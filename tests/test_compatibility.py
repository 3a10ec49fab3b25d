"""An existing app of every habit, with the one line and without: nobody can tell the difference."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import io
import re
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path
from wsgiref.validate import validator

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    after_this_request,
    copy_current_request_context,
    current_app,
    flash,
    get_flashed_messages,
    make_response,
    redirect,
    render_template,
    render_template_string,
    request,
    send_file,
    send_from_directory,
    session,
    stream_template,
    stream_with_context,
    url_for,
)
from flask.cli import FlaskGroup
from flask.views import MethodView
from jinja2 import BytecodeCache, Environment, nodes
from jinja2.ext import Extension
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from om_plugins import OpenManager, OpenManagerMiddleware, Settings
from om_plugins.errors import ConfigError
from tests.patience import PATIENCE_S

MODES = ["adopt", "enforce", "learn", "off", "disabled"]

TEMPLATES = {
    "base.html": """<!doctype html><title>{% block title %}{% endblock %}</title>
{% block head %}<script>base()</script>{% endblock %}{% include "part.html" %}
{%- block body %}{% endblock %}""",
    "part.html": "<script src='/x.js'></script>",
    "macros.html": """{% macro script(x) -%}
<script>{{ x }}</script>{{ caller() if caller }}{%- endmacro %}""",
    "page.html": """{% extends "base.html" %}
{% from "macros.html" import script with context %}{% import "macros.html" as macros %}
{% block title %}T{% endblock %}
{% block head %}{{ super() }}<style>p { color: teal }</style>{% endblock %}
{% block body %}{{ script(1) }}{{ macros.script(2) }}
{% call script(3) %}<script>called()</script>{% endcall %}
{% set kept %}<script>kept()</script>{% endset %}{{ kept }}
{% filter upper %}<script>loud</script>{% endfilter %}
{% if x %}<script>{% else %}<script defer>{% endif %}1</script>
{% raw %}<script>{{ raw }}</script>{% endraw %}
{% for n in range(3) %}<link rel=stylesheet href=/{{ n }}.css>{% endfor %}{% endblock %}""",
    "mail.txt": "<script>mail</script>",
}


class Inner:
    """WSGI apps that a view may return."""

    @staticmethod
    def plain(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"<script>inner</script>"]

    @staticmethod
    def writing(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "text/html")])
        write(b"in")
        return [b"ner"]


def host(folder, mode=None, **config):
    """The app; ``mode`` None is the app as it was before the line."""
    folder = Path(folder)
    if not (folder / "templates").exists():
        for name, source in TEMPLATES.items():
            (folder / "templates").mkdir(exist_ok=True)
            (folder / "templates" / name).write_text(source)
        (folder / "static").mkdir()
        (folder / "static" / "f.bin").write_bytes(bytes(range(256)) * 40)
        (folder / "static" / "p.html").write_text("<script>1</script>")
    app = Flask("host", root_path=str(folder), instance_path=str(folder / "instance"))
    app.config.update(SECRET_KEY="only for tests", PROPAGATE_EXCEPTIONS=False, **config)
    if mode is not None:
        app.config["OM_HUB_URL"] = "memory://"
        app.config.update({"OM_ENABLED": False} if mode == "disabled" else {"OM_CSP_MODE": mode})
        OpenManager(app)
    app.happened = happened = []

    @app.before_request
    def before():
        happened.append("before")
        if request.args.get("stop"):
            abort(403)
        return "answered early" if request.args.get("early") else None

    @app.after_request
    def after(response):
        happened.append(("after", response.status_code))
        response.headers["X-After"] = "1"
        return response

    @app.teardown_request
    def teardown(error):
        happened.append(("teardown", type(error).__name__))

    @app.teardown_appcontext
    def teardown_app(error):
        happened.append("teardown app")

    @app.errorhandler(404)
    def not_found(error):
        return render_template_string("<script>nf()</script>"), 404

    @app.errorhandler(ValueError)
    def value_error(error):
        return {"error": str(error)}, 422

    @app.get("/")
    def hello():
        return "hi"

    @app.get("/page")
    def page():
        return render_template("page.html")

    @app.get("/login")
    def login():
        session["a"] = 1
        flash("welcome")
        return "ok"

    @app.get("/me")
    def me():
        return {"a": session.get("a"), "flashed": get_flashed_messages()}

    @app.get("/file")
    def file():
        return send_file(folder / "static" / "f.bin", conditional=True)

    @app.get("/dir/<path:name>")
    def directory(name):
        return send_from_directory(folder / "static", name)

    @app.get("/bytes")
    def bytes_():
        return send_file(io.BytesIO(b"x" * 100), mimetype="text/plain")

    @app.get("/stream")
    def stream():
        @stream_with_context
        def chunks():
            yield "<script>"
            yield request.path
            happened.append("streamed")

        return chunks()

    @app.get("/broken-stream")
    def broken_stream():
        def chunks():
            yield "a"
            raise ValueError("late")

        return Response(chunks())

    @app.get("/streamed-template")
    def streamed_template():
        return stream_template("page.html")

    @app.get("/direct")
    def direct():
        return Response(iter([b"a", b"b"]), direct_passthrough=True)

    @app.get("/etag")
    def etag():
        response = make_response(render_template("page.html"))
        response.add_etag()
        return response.make_conditional(request)

    @app.get("/value-error")
    def raises_value_error():
        raise ValueError("v")

    @app.get("/broken")
    def broken():
        raise RuntimeError("meant")

    class Both(MethodView):
        def get(self):
            return "got"

        def post(self):
            return request.get_data()

    app.add_url_rule("/class", view_func=Both.as_view("both"))
    part = Blueprint("part", __name__, url_prefix="/part")

    @part.get("/page")
    def part_page():
        return render_template("page.html", x=1)

    @part.errorhandler(KeyError)
    def key_error(error):
        return "key", 400

    @part.get("/key")
    def key():
        raise KeyError

    app.register_blueprint(part)

    @app.get("/threads")
    def threads():
        found = []
        the_app = current_app._get_current_object()

        @copy_current_request_context
        def with_request():
            found.append(render_template("part.html"))

        def with_app():
            with the_app.app_context():
                found.append(render_template("part.html"))

        for work in (with_request, with_app):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        return "|".join(found)

    @app.get("/status/<int:code>")
    def status(code):
        return "", code

    @app.get("/redirect")
    def elsewhere():
        return redirect("/")

    @app.get("/cookies")
    def cookies():
        response = make_response("c")
        response.set_cookie("a", "b")
        response.set_cookie("c", "d")
        return response

    @app.get("/mail")
    def mail():
        return render_template("mail.txt")

    @app.post("/upload")
    def upload():
        return {"size": len(request.files["f"].read()), "text": request.form["text"]}

    @app.get("/after-this")
    def after_this():
        @after_this_request
        def more(response):
            response.headers["X-This"] = "1"
            return response

        return "x"

    @app.get("/urls")
    def urls():
        return f"{url_for('hello', _external=True)} {request.script_root} {request.url}"

    @app.get("/own-headers")
    def own_headers():
        return "x", {"Content-Security-Policy": "default-src 'self'", "Referrer-Policy": "origin"}

    @app.get("/wsgi/<name>")
    def wsgi(name):
        return getattr(Inner, name)

    return app


def file_upload():
    return {"f": (io.BytesIO(b"1" * 70_000), "f.bin"), "text": "später"}


REQUESTS = {
    path: {"path": path}
    for path in (
        *("/", "/page", "/login", "/me", "/file", "/dir/p.html", "/dir/nope", "/dir/../x"),
        *("/bytes", "/stream", "/broken-stream", "/streamed-template", "/direct", "/etag"),
        *("/value-error", "/broken", "/class", "/part/page", "/part/key", "/threads"),
        *("/status/204", "/status/304", "/status/205", "/redirect", "/cookies", "/mail"),
        *("/after-this", "/urls", "/own-headers", "/wsgi/plain", "/wsgi/writing", "/nowhere"),
        *("/?stop=1", "/?early=1", "/static/f.bin", "/static/p.html", "/part/page/"),
        *("/%EA%B0%80", "//", "/page%00"),
    )
} | {
    "range": {"path": "/file", "headers": {"Range": "bytes=10-19"}},
    "unsatisfiable range": {"path": "/file", "headers": {"Range": "bytes=999999-"}},
    "not modified": {"path": "/static/f.bin", "headers": {"If-None-Match": "*"}},
    "head": {"path": "/page", "method": "HEAD"},
    "head of a file": {"path": "/file", "method": "HEAD"},
    "options": {"path": "/page", "method": "OPTIONS"},
    "wrong method": {"path": "/page", "method": "DELETE"},
    "post": {"path": "/class", "method": "POST", "data": b"\x00\xff"},
    "upload": {"path": "/upload", "method": "POST", "data": file_upload},
    "below a root": {"path": "/urls", "base_url": "https://host.example/sub"},
    "unknown method": {"path": "/", "method": "BREW"},
}


def seen(app, asked):
    """All that a client and the app's own functions notice of one request."""
    app.happened.clear()
    asked = {name: value() if callable(value) else value for name, value in asked.items()}
    client = app.test_client()
    try:
        with client.open(**asked) as response:
            body = response.data
        status, headers = response.status, list(response.headers)
    except ValueError as error:  # raised while the body was read
        status, headers, body = "raised", [], repr(error).encode()
    return status, headers, body, list(app.happened)


def without_nonces(body):
    return re.sub(rb""" nonce=(["'])[0-9a-f]{32}\1""", b"", body)


VARIES = {"Date", "Last-Modified", "Set-Cookie", "Content-Length", "ETag"}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """The bare app, and one for each mode."""
    folder = tmp_path_factory.mktemp("host")
    # no page is drawn to ask for reports: what is drawn differs, and has a test of its own
    apps = {mode: host(folder, mode, OM_CSP_REPORT_SAMPLE=0) for mode in (None, *MODES)}
    yield apps
    for mode in MODES:
        apps[mode].extensions["om_plugins"].close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_answered_as_before(hosts, mode, name):
    asked = REQUESTS[name]
    status, headers, body, happened = seen(hosts[None], asked)
    ours = seen(hosts[mode], asked)
    assert ours[0] == status
    assert ours[3] == happened
    assert without_nonces(ours[2]) == body
    for header in headers:
        if header[0] not in VARIES:
            assert header in ours[1]
    if mode in ("adopt", "off", "disabled"):
        assert ours[2] == body
        assert dict(headers).get("ETag") == dict(ours[1]).get("ETag")
        assert dict(headers).get("Content-Length") == dict(ours[1]).get("Content-Length")
    if mode in ("adopt", "disabled"):  # nothing is added either
        assert [one for one, _ in ours[1]] == [one for one, _ in headers]


@pytest.mark.parametrize("mode", ["adopt", "off", "disabled"])
def test_an_app_that_computes_etags_still_answers_not_modified(tmp_path, mode):
    app = host(tmp_path, mode, TESTING=True)
    client = app.test_client()
    etag = client.get("/etag").headers["ETag"]
    answer = client.get("/etag", headers={"If-None-Match": etag})
    assert (answer.status_code, answer.data) == (304, b"")
    assert "Content-Security-Policy-Report-Only" not in answer.headers


def test_by_default_one_page_in_a_hundred_differs_and_all_others_keep_their_etag(tmp_path):
    client = host(tmp_path, "adopt").test_client()
    answers = [client.get("/etag") for _ in range(300)]
    plain = [one for one in answers if b" nonce=" not in one.data]
    assert len({one.headers["ETag"] for one in plain}) == 1
    assert len(plain) >= 250
    for one in answers:
        reported = one.headers.get("Content-Security-Policy-Report-Only", "")
        assert ("report-uri" in reported) is (one not in plain)


@pytest.mark.parametrize("mode", MODES)
def test_the_session_goes_round_a_whole_visit(tmp_path, mode):
    client = host(tmp_path, mode).test_client()
    client.get("/login")
    assert client.get("/me").get_json() == {"a": 1, "flashed": ["welcome"]}
    with client.session_transaction() as stored:
        stored["a"] = 2
    assert client.get("/me").get_json() == {"a": 2, "flashed": []}
    with client:
        client.get("/me")
        assert session["a"] == 2  # the context is kept for the test


@pytest.mark.parametrize("mode", MODES)
def test_templates_render_outside_of_a_request_too(tmp_path, mode):
    bare, ours = host(tmp_path), host(tmp_path, mode)
    for context in ("app_context", "test_request_context"):
        with getattr(bare, context)():
            plain = render_template("page.html")
        with getattr(ours, context)():
            html = render_template("page.html")
        assert without_nonces(html.encode()) == plain.encode()
        assert mode == "enforce" or html == plain


@pytest.mark.parametrize("mode", MODES)
def test_async_views_work(tmp_path, mode):
    pytest.importorskip("asgiref")
    app = host(tmp_path, mode)

    @app.get("/async")
    async def view():
        await asyncio.sleep(0)
        return "async"

    assert app.test_client().get("/async").text == "async"


# --- how the app is put together ------------------------------------------------------------------


@pytest.mark.parametrize("line_first", [True, False])
def test_the_line_may_stand_before_or_after_the_app_s_own_middleware(tmp_path, line_first):
    undrawn = {"OM_CSP_REPORT_SAMPLE": 0}
    app = host(tmp_path, "adopt" if line_first else None, **undrawn)
    inner = host(tmp_path, "enforce")
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/sub": inner})
    if not line_first:
        OpenManager(app)
    client = app.test_client()
    answer = client.get("/sub/page")
    nonce = re.search(r' nonce="([^"]+)"', answer.text)[1]
    (policy,) = answer.headers.getlist("Content-Security-Policy")
    assert f"'nonce-{nonce}'" in policy
    assert client.get("/sub/urls").text == "http://localhost/sub/ /sub http://localhost/sub/urls"
    assert client.get("/sub/_om/static/om.js").status_code == 200
    assert b" nonce=" not in client.get("/page").data


def test_fifty_apps_of_one_factory_do_not_mix_and_are_let_go(tmp_path):
    om = OpenManager()
    apps = []
    for number in range(50):
        app = Flask("made", instance_path=str(tmp_path))
        app.config.update(TESTING=True, OM_CSP_MODE="enforce" if number % 2 else "off")
        app.add_url_rule("/", view_func=lambda n=number: f"<p>{n}")
        om.init_app(app)
        answer = app.test_client().get("/")
        assert answer.text == f"<p>{number}"
        assert ("Content-Security-Policy" in answer.headers) is bool(number % 2)
        apps.append(weakref.ref(app))
    del app, answer
    gc.collect()
    assert [one() for one in apps] == [None] * 50


@pytest.mark.server  # counts threads: what other tests left behind must have ended
def test_apps_that_are_dropped_leave_no_thread_and_no_file_open(tmp_path):
    # not under TESTING, as in many test suites that make an app for each test
    opened = Path("/proc/self/fd")
    gc.collect()  # what other tests dropped
    before = threading.active_count(), len(list(opened.iterdir()))
    for _ in range(5):
        app = Flask("dropped", instance_path=str(tmp_path))
        om = OpenManager(app)
        app.add_url_rule("/", view_func=lambda: "<p>")
        assert app.test_client().get("/").text == "<p>"
        om.hub.put("a", 1, ttl=5)
        om.runtime.scheduler.submit(lambda: None)
    assert threading.active_count() > before[0]
    del app, om
    gc.collect()
    until = time.monotonic() + PATIENCE_S
    while threading.active_count() > before[0] and time.monotonic() < until:
        time.sleep(0.01)
        gc.collect()  # a job that was running held its application until now
    assert (threading.active_count(), len(list(opened.iterdir()))) <= before


def test_many_apps_look_for_installed_plugins_once(tmp_path, monkeypatch):
    looked = []
    found = list(importlib.metadata.distributions())

    def distributions():
        looked.append(1)
        return found

    monkeypatch.setattr(importlib.metadata, "distributions", distributions)
    for _ in range(3):
        OpenManager(Flask("one of many", instance_path=str(tmp_path)))
    assert len(looked) == 1
    installed = tmp_path / "just_installed"
    installed.mkdir()
    monkeypatch.syspath_prepend(installed)
    OpenManager(Flask("one more", instance_path=str(tmp_path)))
    assert len(looked) == 2


def test_the_line_may_come_after_the_first_request(tmp_path):
    app = host(tmp_path)
    client = app.test_client()
    assert b"<script>base()" in client.get("/page").data
    app.config["OM_CSP_MODE"] = "enforce"
    OpenManager(app)
    answer = client.get("/page")
    assert re.search(rb'<script nonce="[0-9a-f]{32}">base\(\)', answer.data)
    assert "'nonce-" in answer.headers["Content-Security-Policy"]


def test_settings_come_from_prefixed_environment_variables(monkeypatch, tmp_path):
    for name, value in {
        "MODE": "enforce",
        "REPORT_SAMPLE": "0.5",
    }.items():
        monkeypatch.setenv(f"FLASK_OM_CSP_{name}", value)
    monkeypatch.setenv("FLASK_OM_PROXIES", "1")
    monkeypatch.setenv("FLASK_OM_ENABLED", "true")
    monkeypatch.setenv("FLASK_OM_ROUTES", '{"/ask": {"chain": "c"}}')
    monkeypatch.setenv("FLASK_OM_CSP", '{"img-src": ["\'self\'"]}')
    app = Flask("env", instance_path=str(tmp_path))
    app.config.from_prefixed_env()
    settings = OpenManager(app).runtime.settings
    assert (settings.csp_mode, settings.csp_report_sample) == ("enforce", 0.5)
    assert (settings.proxies["x_for"], settings.routes["/ask"].chain) == (1, "c")
    assert settings.csp == {"img-src": ("'self'",)}


class Shout(Extension):
    """A tag of the app's own, and a change of the source."""

    tags = {"shout"}

    def preprocess(self, source, name, filename=None):
        return source.replace("@@", "!")

    def parse(self, parser):
        line = next(parser.stream).lineno
        return nodes.Output([nodes.TemplateData("<script>shout@@</script>")]).set_lineno(line)


class Memory(BytecodeCache):
    def __init__(self):
        self.kept = {}

    def load_bytecode(self, bucket):
        if bucket.key in self.kept:
            bucket.bytecode_from_string(self.kept[bucket.key])

    def dump_bytecode(self, bucket):
        self.kept[bucket.key] = bucket.bytecode_to_string()


def odd_templates(app, early):
    app.jinja_options = {
        "extensions": ["jinja2.ext.do", "jinja2.ext.loopcontrols", "jinja2.ext.i18n", Shout],
        "variable_start_string": "[[",
        "variable_end_string": "]]",
        "line_statement_prefix": "%%",
        "line_comment_prefix": "##",
        "trim_blocks": True,
        "lstrip_blocks": True,
    }
    if early:
        app.jinja_env.globals["own"] = "early"
    else:
        app.jinja_env.globals["own"] = "late"
    app.jinja_env.install_null_translations()


ODD = """<!doctype html>
%% for n in [1, 2]
    <script>[[ n ]]@@</script>  ## a comment
%% endfor
{% do own.upper() %}{% trans %}<b>hi</b>{% endtrans %}{% shout %}
    {% if true %}
<style>p {}</style>
    {% endif %}[[ own ]]
"""


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_an_app_s_own_jinja_set_up_stays(tmp_path, mode, early):
    pages = []
    for ours in (False, True):
        app = Flask("odd", instance_path=str(tmp_path))
        app.config.update(TESTING=True)
        if ours:
            app.config.update(
                {"OM_ENABLED": False} if mode == "disabled" else {"OM_CSP_MODE": mode}
            )
        if early:
            odd_templates(app, early)
        if ours:
            OpenManager(app)
        if not early:
            odd_templates(app, early)
        app.add_url_rule("/", view_func=lambda: render_template_string(ODD))
        pages.append(app.test_client().get("/").data)
    assert without_nonces(pages[1]) == pages[0]
    if mode == "enforce":
        assert pages[1].count(b" nonce=") == 3


@pytest.mark.parametrize("late", [False, True])
def test_a_bytecode_cache_that_was_filled_before_the_line_is_no_trap(tmp_path, late):
    cache = Memory()
    for mode in (None, "enforce", "off", "enforce"):
        app = host(tmp_path, mode)
        if late:
            app.jinja_env.bytecode_cache = cache
        else:
            app.jinja_options = {"bytecode_cache": cache}
        body = app.test_client().get("/page").data
        assert (b" nonce=" in body) is (mode == "enforce")


def test_an_app_may_bring_its_own_environment_class(tmp_path):
    class Own(Flask.jinja_environment):
        pass

    class OwnFlask(Flask):
        jinja_environment = Own

        def create_jinja_environment(self):
            environment = super().create_jinja_environment()
            environment.globals["own"] = "mine"
            return environment

    app = OwnFlask("own", instance_path=str(tmp_path))
    app.config.update(TESTING=True, OM_CSP_MODE="enforce")
    OpenManager(app)
    app.add_url_rule("/", view_func=lambda: render_template_string("<script></script>{{ own }}"))
    assert re.fullmatch(
        r'<script nonce="[0-9a-f]{32}"></script>mine', app.test_client().get("/").text
    )
    assert isinstance(app.jinja_env, Environment)


# --- beside other extensions ----------------------------------------------------------------------


def test_flask_caching_keeps_whole_pages_by_default(tmp_path):
    caching = pytest.importorskip("flask_caching")
    app = host(tmp_path, "adopt", TESTING=True, CACHE_TYPE="SimpleCache")
    cache = caching.Cache(app)
    runs = []

    @app.get("/kept")
    @cache.cached(timeout=60)
    def kept():
        runs.append(1)
        return render_template("page.html")

    client = app.test_client()
    first, second = client.get("/kept"), client.get("/kept")
    assert first.data == second.data
    assert b" nonce=" not in first.data
    assert len(runs) == 1


@pytest.mark.parametrize("mode", MODES)
def test_talisman_s_policy_and_nonces_stay_in_charge(tmp_path, mode):
    talisman = pytest.importorskip("flask_talisman")
    app = host(tmp_path, mode)
    talisman.Talisman(
        app,
        force_https=False,
        content_security_policy={"script-src": "'self'"},
        content_security_policy_nonce_in=["script-src"],
    )
    app.add_url_rule(
        "/t",
        endpoint="t",
        view_func=lambda: render_template_string('<script nonce="{{ csp_nonce() }}">1</script>'),
    )
    answer = app.test_client().get("/t")
    (policy,) = answer.headers.getlist("Content-Security-Policy")
    nonce = re.fullmatch(r'<script nonce="([^"]+)">1</script>', answer.text)[1]
    assert f"'nonce-{nonce}'" in policy
    assert len(answer.headers.getlist("X-Content-Type-Options")) == 1
    assert len(answer.headers.getlist("Referrer-Policy")) == 1


# --- the command line -----------------------------------------------------------------------------


def test_commands_run_and_open_nothing(tmp_path, threads_begun):
    app = host(tmp_path, "adopt")

    @app.cli.command("own")
    def own():
        with app.app_context():
            print("own command")

    runner = app.test_cli_runner()
    assert runner.invoke(args=["own"]).output == "own command\n"
    flask = FlaskGroup(create_app=lambda: app)
    for command, says in (("own", "own command"), ("routes", "/page"), ("om plugins", "active")):
        result = runner.invoke(flask, command.split())
        assert result.exit_code == 0, result.output
        assert says in result.output
    with app.app_context():
        assert app.make_shell_context()["app"] is app
    assert threads_begun == []
    assert not (tmp_path / "instance").exists()


# --- what a person reads --------------------------------------------------------------------------


def engine_with_async_auth():
    async def auth(request):
        return True

    return auth


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"OM_ROUTES": {"/a": {}}}, r"OM_ROUTES\['/a'\]\.chain '': must name a chain"),
        ({"OM_ROUTES": {"a": {"chain": "c"}}}, r"OM_ROUTES\['a'\].*must begin with '/'"),
        ({"OM_ROUTES": {"/a/<x>": {"chain": "c"}}}, r"'/a/<x>'.*letter by letter"),
        ({"OM_ROUTES": {"/_om/x": {"chain": "c"}}}, r"'/_om/x'.*below OM_PREFIX '/_om'"),
        ({"OM_ROUTES": {"/a": {"chian": "c"}}}, r"\['/a'\]\.chian 'c'.*did you mean 'chain'"),
        ({"OM_CACHE_URL": "redsi://x"}, r"OM_CACHE_URL 'redsi://x': unknown scheme 'redsi'"),
        ({"OM_CACHE_URL": "memroy://"}, r"OM_CACHE_URL 'memroy://'.*did you mean 'memory'"),
        ({"OM_HUB_URL": "sqlte:///x"}, r"OM_HUB_URL 'sqlte:///x'.*did you mean 'sqlite'"),
        ({"OM_CSP_MODE": "Enforce"}, r"OM_CSP_MODE 'Enforce'.*did you mean 'enforce'"),
        (
            {"OM_CHAIN_DEFAULTS": {"timeout": "10s"}},
            r"OM_CHAIN_DEFAULTS\.timeout '10s': must be a number of seconds from",
        ),
        ({"OM_SECRET_KEY": "short"}, r"OM_SECRET_KEY '…': must be text or bytes of at least"),
        ({"OM_CHAIN_DEFAULTS": {"retry": 1}}, r"retry 1: unknown key; did you mean 'retr"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_names_key_value_and_way_out(tmp_path, config, says):
    app = Flask("wrong", instance_path=str(tmp_path))
    app.config.update(config)
    with pytest.raises(ConfigError, match=says):
        OpenManager(app)


def test_an_async_auth_is_refused_when_the_app_is_bound(tmp_path):
    app = Flask("wrong", instance_path=str(tmp_path))
    app.config["OM_ROUTES"] = {"/a": {"chain": "c", "auth": engine_with_async_auth()}}
    with pytest.raises(ConfigError, match=r"OM_ROUTES\['/a'\]\.auth .* plain def"):
        OpenManager(app)


def test_the_plain_middleware_checks_its_routes_at_once():
    with pytest.raises(ConfigError, match="must begin with '/'"):
        OpenManagerMiddleware(Inner.plain, Settings(routes={"a": {"chain": "c"}}))


def test_a_missing_extra_names_what_to_install():
    code = """
    import sys
    sys.modules["h11"] = None  # as if it were not installed
    from om_plugins import HttpEngine
    from om_plugins.errors import MissingExtra
    try:
        HttpEngine("upstream", "http://127.0.0.1:1/")
    except MissingExtra as error:
        print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=30
    )
    assert "pip install 'om-plugins[http]'" in done.stdout, done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_the_head_helper_asks_for_nothing_when_the_switch_is_off(tmp_path, mode):
    app = host(tmp_path, mode, TESTING=True)
    app.add_url_rule("/h", view_func=lambda: render_template_string("<p>{{ om_head() }}"))
    client = app.test_client()
    source = re.search(r'src="([^"]+)"', client.get("/h").text)
    assert (source is None) is (mode == "disabled")
    if source:
        assert client.get(source[1]).status_code == 200


# --- without Flask --------------------------------------------------------------------------------


def bottle_like(environ, start_response):
    """As small frameworks do: a list, a generator, a file, an early refusal."""
    path = environ["PATH_INFO"]
    if path == "/list":
        start_response("200 OK", [("Content-Type", "text/html; charset=UTF-8")])
        return [b"<p>", b"list"]
    if path == "/generator":

        def late():
            start_response("200 OK", [("Content-Type", "text/html")])
            yield b"<p>"
            yield b"late"

        return late()
    if path == "/empty":
        start_response("204 No Content", [])
        return []
    start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"no"]


@pytest.mark.parametrize("mode", ["adopt", "enforce", "learn", "off"])
@pytest.mark.parametrize("path", ["/list", "/generator", "/empty", "/other", "/_om/static/om.js"])
def test_a_plain_app_keeps_the_rules_of_wsgi_on_both_sides(mode, path):
    app = OpenManagerMiddleware(
        validator(bottle_like), Settings(csp_mode=mode, hub_url="memory://")
    )
    with Client(validator(app)).get(path) as answer:
        status, body = answer.status, answer.data
    bare = Client(bottle_like).get(path)
    if not path.startswith("/_om"):
        assert (status.split()[0], body) == (bare.status.split()[0], bare.data)
    else:
        assert status == "200 OK"


def test_the_simple_server_serves_a_plain_app_without_importing_flask():
    code = """
    import sys, threading, urllib.request
    from wsgiref.simple_server import WSGIRequestHandler, make_server
    from wsgiref.validate import validator
    from om_plugins import OpenManagerMiddleware, Settings

    class Quiet(WSGIRequestHandler):
        def log_message(self, *args): pass

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        return [environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"<p>ok"]

    served = validator(OpenManagerMiddleware(
        validator(app),
        Settings(csp_mode="enforce", hub_url="memory://"),
    ))
    with make_server("127.0.0.1", 0, served, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        for data in (None, b"posted"):
            with urllib.request.urlopen(url, data) as answer:
                assert answer.read() == (data or b"<p>ok")
                assert "'nonce-" in answer.headers["Content-Security-Policy"]
        server.shutdown()
        thread.join()
    assert "flask" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
