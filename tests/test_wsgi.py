"""Every kind of WSGI app passes through the whole stack unchanged, and stays valid WSGI."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

from om_plugins import OpenManagerMiddleware, Settings
from om_plugins.errors import ConfigError
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.types import EngineSpec


class Echo:
    """An engine that answers with the payload."""

    name = "echo"

    def __init__(self):
        from om_plugins.types import EngineTraits

        self.traits = EngineTraits(idempotent=True, local=True)

    def call(self, call):
        return {"you said": call.payload}


def stack(app, validated=True, **settings):
    settings.setdefault("routes", {"/ask": {"chain": "assistant"}})
    runtime = Runtime(Settings(**settings), host=Host(testing=True))
    runtime.add_engine(EngineSpec(Echo(), "assistant"))
    middleware = OpenManagerMiddleware(validator(app) if validated else app, runtime=runtime)
    return validator(middleware) if validated else middleware


def environ(path="/", method="GET", **kwargs):
    built = EnvironBuilder(path, method=method, **kwargs).get_environ()
    built["SERVER_PROTOCOL"] = "HTTP/1.1"
    return built


def get(app, path="/", method="GET", **kwargs):
    """What a server would send: status, headers and body; the iterable is closed."""
    started = []
    sent = []

    def start_response(status, headers, exc_info=None):
        started[:] = [status, Headers(headers)]
        return sent.append

    body = app(environ(path, method, **kwargs), start_response)
    try:
        sent.extend(body)
    finally:
        if hasattr(body, "close"):
            body.close()
    return *started, b"".join(sent)


def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Own", "1")])
    return [b"hello"]


def page(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [b"<p>hello</p>"]


def streamed(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    return (part for part in (b"one", b"two", b"three"))


def generator(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    yield b"late "
    yield b"start"


def written(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/html")])
    write(b"written ")
    return [b"and returned"]


def no_content(environ, start_response):
    start_response("204 No Content", [("X-Own", "1")])
    return []


def not_modified(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"x"')])
    return []


def second_start(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        raise ValueError("found out late")
    except ValueError:
        start_response(
            "500 Internal Server Error", [("Content-Type", "text/plain")], sys.exc_info()
        )
    return [b"sorry"]


MODES = ["adopt", "enforce", "learn", "off"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("app", "status", "body"),
    [
        (plain, "200 OK", b"hello"),
        (page, "200 OK", b"<p>hello</p>"),
        (streamed, "200 OK", b"onetwothree"),
        (generator, "200 OK", b"late start"),
        (written, "200 OK", b"written and returned"),
        (no_content, "204 No Content", b""),
        (not_modified, "304 Not Modified", b""),
        (second_start, "500 Internal Server Error", b"sorry"),
    ],
)
def test_an_app_passes_through_unchanged(app, status, body, mode):
    found, headers, data = get(stack(app, csp_mode=mode))
    assert (found, data) == (status, body)
    assert headers.getlist("X-Own") in (["1"], [])


def test_a_head_request_has_no_body():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "5")])
        return []

    status, headers, data = get(stack(app), method="HEAD")
    assert (status, data, headers["Content-Length"]) == ("200 OK", b"", "5")


def test_the_servers_file_wrapper_object_comes_back_itself():
    wrapper = FileWrapper(io.BytesIO(b"file"))

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return wrapper

    runtime = Runtime(Settings(csp_mode="enforce"))
    offered = environ()
    offered["wsgi.file_wrapper"] = FileWrapper
    got = OpenManagerMiddleware(app, runtime=runtime)(offered, lambda *a: lambda data: None)
    assert got is wrapper
    runtime.close()


def test_an_exception_of_the_app_reaches_the_server():
    def app(environ, start_response):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        get(stack(app, validated=False))


def test_the_iterables_close_is_called_once_also_when_the_client_leaves_early():
    closed = []

    class Body:
        def __iter__(self):
            yield b"one"
            yield b"two"

        def close(self):
            closed.append(1)

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        return Body()

    body = stack(app, validated=False)(environ(), lambda *a: lambda data: None)
    next(iter(body))
    body.close()
    assert closed == [1]


def test_a_page_gets_its_policy_and_json_only_the_companions():
    _, headers, _ = get(stack(page, csp_mode="enforce"))
    assert "'nonce-" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    _, headers, _ = get(stack(plain, csp_mode="enforce"))
    assert "Content-Security-Policy" not in headers
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_an_engine_answers_its_route_and_every_other_path_is_the_apps():
    app = stack(plain)
    _, _, data = get(app, "/ask", "POST", json={"n": 1})
    assert json.loads(data) == {"you said": {"n": 1}}
    assert get(app, "/other")[2] == b"hello"


def test_the_kill_switch_leaves_the_app_alone():
    app = OpenManagerMiddleware(plain, Settings(enabled=False, routes={"/ask": {"chain": "x"}}))
    status, headers, data = get(app, "/ask")
    assert (status, data, sorted(headers.keys())) == ("200 OK", b"hello", ["Content-Type", "X-Own"])


def test_unknown_pages_below_the_prefix_are_404_in_plain_words():
    status, headers, data = get(stack(plain), "/_om/nothing")
    assert status == "404 Not Found"
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(data)["status"] == 404
    assert get(stack(plain), "/_omnibus")[2] == b"hello"


def test_the_browser_module_is_served_and_revalidated():
    app = stack(plain)
    status, headers, data = get(app, "/_om/static/om.js")
    assert status == "200 OK"
    assert headers["Content-Type"].startswith(("text/javascript", "application/javascript"))
    assert b"export" in data
    status, _, data = get(app, "/_om/static/om.js", headers={"If-None-Match": headers["ETag"]})
    assert (status, data) == ("304 NOT MODIFIED", b"")
    assert get(app, "/_om/static/..%2f..%2fwsgi.py")[0] == "404 Not Found"


def test_forwarded_headers_count_only_when_a_proxy_is_declared():
    seen = []

    def app(environ, start_response):
        seen.append(environ["REMOTE_ADDR"])
        return plain(environ, start_response)

    forged = {"X-Forwarded-For": "9.9.9.9"}
    overrides = {"REMOTE_ADDR": "127.0.0.1"}
    get(stack(app), headers=forged, environ_overrides=overrides)
    get(stack(app, proxies=1), headers=forged, environ_overrides=overrides)
    assert seen == ["127.0.0.1", "9.9.9.9"]


def test_a_plain_wsgi_app_never_imports_flask():
    code = """
import sys
from om_plugins import OpenManagerMiddleware, Settings

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"ok"]

from werkzeug.test import Client
client = Client(OpenManagerMiddleware(app, Settings(csp_mode="enforce", hub_url="memory://")))
assert client.get("/").data == b"ok"
assert "'nonce-" in client.get("/").headers["Content-Security-Policy"]
assert client.get("/_om/static/om.js").status_code == 200
assert "flask" not in sys.modules, "flask was imported"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


async def asgi_app(scope, receive, send):
    pass


class AsgiApp:
    async def __call__(self, scope, receive, send):
        pass


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((None,), {}, ConfigError, r"\(app\) None: must be a WSGI application"),
        ((Settings(), plain), {}, ConfigError, "must be a WSGI application"),
        ((asgi_app,), {}, ConfigError, "must be a WSGI application: an async function"),
        ((AsgiApp(),), {}, ConfigError, "must be a WSGI application: an async function"),
        ((lambda environ: [],), {}, ConfigError, "must be a WSGI application: must take 2"),
        ((plain, {"secret_key": "hunter2hunter2"}), {}, ConfigError, r"must be Settings; write Op"),
        ((plain,), {"csp_mode": "enforce"}, TypeError, r"'csp_mode'; .*Settings\(csp_mode="),
        ((), {}, TypeError, r"'app'; write OpenManagerMiddleware\(app"),
    ],
)
def test_a_wrong_argument_of_the_middleware_is_named_with_the_way_out(
    arguments, options, error, words
):
    with pytest.raises(error, match=words) as caught:
        OpenManagerMiddleware(*arguments, **options)
    assert "hunter2" not in str(caught.value)


def test_a_class_may_be_the_application():
    class Answer:
        def __init__(self, environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])

        def __iter__(self):
            return iter([b"from a class"])

    assert get(stack(Answer, validated=False))[2] == b"from a class"
