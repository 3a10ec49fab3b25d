"""The WSGI engine: apps of every manner, asked without a network."""

from __future__ import annotations

import flask
import pytest
from flask import Flask, Response, jsonify, request

from om_plugins import OpenManager
from om_plugins.builtin.engines.proxy_app import StreamedBody
from om_plugins.builtin.engines.wsgi import WsgiEngine
from om_plugins.errors import (
    AttemptTimeout,
    CallerDeadline,
    ConfigError,
    InvalidRequest,
    Misconfigured,
    RateLimited,
    Transient,
    Unsupported,
)
from om_plugins.testing import EngineContract
from om_plugins.types import Call, HttpRequest


def app_of(body, status="200 OK", headers=(("X-A", "1"), ("X-A", "2")), seen=None):
    def app(environ, start_response):
        if seen is not None:
            seen.update(environ, body=environ["wsgi.input"].read())
        start_response(status, list(headers))
        return body

    return app


def whole(engine, *args, stream=False, **options):
    return engine.call(Call(HttpRequest(*args, **options), stream=stream))


@pytest.fixture
def host():
    app = Flask("host")

    @app.post("/ask")
    def ask():
        return jsonify(answer=request.get_json()["question"], agent=request.headers.get("X-Mine"))

    @app.route("/error")
    def error():
        flask.abort(503, response=Response("later", 503, {"Retry-After": "7"}))

    @app.get("/stream")
    def stream():
        return Response(iter(["one", "two"]), mimetype="text/event-stream")

    @app.put("/up")
    def up():
        return str(len(request.get_data()))

    return app


class TestContract(EngineContract):
    @pytest.fixture
    def engine(self, host):
        return WsgiEngine("host", host, path="/ask")


def test_a_json_payload_gets_the_apps_json(host):
    engine = WsgiEngine("host", host, path="/ask", headers={"X-Mine": "yes"})
    answer = engine.call(Call({"question": "how?"}))
    assert (answer.payload, answer.status) == ({"answer": "how?", "agent": "yes"}, 200)


@pytest.mark.parametrize("body", [b'\xef\xbb\xbf{"a": "\xc3\xa9"}', '{"a": "é"}'.encode("utf-16")])
def test_the_apps_json_is_read_as_most_readers_do(body):
    assert WsgiEngine("app", app_of([body])).call(Call({})).payload == {"a": "é"}


def test_get_puts_the_payload_into_the_query():
    seen = {}
    engine = WsgiEngine("a", app_of([b"{}"], seen=seen), method="get", path="/x?a=1")
    engine.call(Call({"b": "c d"}))
    assert (seen["PATH_INFO"], seen["QUERY_STRING"], seen["body"]) == ("/x", "a=1&b=c+d", b"")


def test_the_app_finds_the_call_and_what_is_passed_on():
    seen = {}
    call = Call({}, headers={"accept-language": "ko", "cookie": "secret"})
    WsgiEngine("a", app_of([b"{}"], seen=seen), url="https://inner:8443").call(call)
    assert seen["om_plugins.call"] is call
    assert seen["HTTP_ACCEPT_LANGUAGE"] == "ko"
    assert "HTTP_COOKIE" not in seen
    assert seen["HTTP_IDEMPOTENCY_KEY"] == call.idempotency_key
    assert (seen["wsgi.url_scheme"], seen["SERVER_NAME"], seen["SERVER_PORT"]) == (
        "https", "inner", "8443",
    )  # fmt: skip


def test_a_whole_request_comes_back_whole(host):
    seen = {}
    headers = [
        ("Host", "h"), ("Cookie", "a"), ("Cookie", "b"), ("X_Real_IP", "1"), ("X", "1"),
        ("X", "2"), ("Content-Length", "99"), ("Connection", "X-Hop"), ("X-Hop", "1"),
    ]  # fmt: skip
    answer = whole(
        WsgiEngine("a", app_of([b"he", b"", b"llo"], "299 Odd", seen=seen)),
        "PATCH", "/%7ea%2F?q=%20", headers, b"body",
    )  # fmt: skip
    assert (answer.status, answer.payload.headers) == (299, [("X-A", "1"), ("X-A", "2")])
    assert answer.payload.body == b"hello"
    assert (seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/~a/", "q=%20")
    assert (seen["CONTENT_LENGTH"], seen["body"]) == ("4", b"body")
    assert (seen["HTTP_HOST"], seen["HTTP_COOKIE"], seen["HTTP_X"]) == ("h", "a; b", "1, 2")
    assert not {"HTTP_X_REAL_IP", "HTTP_X_HOP", "HTTP_CONTENT_LENGTH"} & seen.keys()


def test_bodies_are_streamed_both_ways_and_closed(host):
    engine = WsgiEngine("host", host)
    pieces = iter([b"y" * 90_000, b""])
    body = StreamedBody(b"x" * 10, lambda size: next(pieces), 10**6)
    answer = whole(engine, "PUT", "/up", body=body, length=90_010)
    assert answer.payload.body == b"90010"
    with pytest.raises(Unsupported, match="is gone"):
        whole(engine, "PUT", "/up", body=body, length=90_010)

    answer = whole(engine, "GET", "/stream", stream=True)
    assert ("Content-Type", "text/event-stream; charset=utf-8") in answer.payload.headers
    assert list(answer.chunks) == [b"one", b"two"]


@pytest.mark.parametrize("read", ["all", "some", "none"])
def test_the_app_is_closed_once_however_much_was_read(read):
    class Body:
        closed = 0

        def __init__(self):
            self.pieces = iter([b"1", b"2"])

        def __iter__(self):
            return self.pieces

        def close(self):
            self.closed += 1

    body = Body()
    answer = whole(WsgiEngine("a", app_of(body)), stream=True)
    if read == "some":
        next(answer.chunks)
    elif read == "all":
        assert list(answer.chunks) == [b"1", b"2"]
    answer.close()
    answer.close()
    assert body.closed == 1


def test_start_response_may_come_late_twice_and_with_write():
    def late(environ, start_response):
        yield b""
        start_response("200 OK", [])
        yield b"late"

    def twice(environ, start_response):
        start_response("200 OK", [("A", "1")])
        try:
            raise ValueError
        except ValueError:
            import sys

            start_response("404 Not Found", [("B", "2")], sys.exc_info())
        return [b"sorry"]

    def writes(environ, start_response):
        write = start_response("200 OK", [])
        write(b"writ")
        write(b"ten")
        return [b"!"]

    assert whole(WsgiEngine("a", late)).payload.body == b"late"
    answer = whole(WsgiEngine("a", twice))
    assert (answer.status, answer.payload.headers) == (404, [("B", "2")])
    for stream in (True, False):
        answer = whole(WsgiEngine("a", writes), stream=stream)
        assert (b"".join(answer.chunks) if stream else answer.payload.body) == b"written!"


def test_an_error_after_the_first_piece_comes_through():
    def breaks(environ, start_response):
        start_response("200 OK", [])
        yield b"first"
        try:
            raise LookupError("lost")
        except LookupError:
            import sys

            start_response("500 Oops", [], sys.exc_info())
        yield b"never"

    answer = whole(WsgiEngine("a", breaks), stream=True)
    assert next(answer.chunks) == b"first"
    with pytest.raises(LookupError, match="lost"):
        next(answer.chunks)


@pytest.mark.parametrize(
    ("app", "error"),
    [
        (app_of([b"x"], "503 Later", [("Retry-After", "7")]), RateLimited),
        (app_of([b"x"], "500 Oops"), Transient),
        (app_of([b"x"], "nonsense"), AssertionError),
        (lambda environ, start_response: [b"no head"], Transient),
        (lambda environ, start_response: [], Transient),
        (lambda environ, start_response: 1 / 0, ZeroDivisionError),
    ],
)
def test_a_failure_is_one_of_the_table(app, error):
    for payload in ({}, HttpRequest()):
        with pytest.raises(error):
            WsgiEngine("a", app).call(Call(payload))


def test_a_failed_status_keeps_the_answer_and_others_are_answers(host):
    with pytest.raises(RateLimited) as caught:
        whole(WsgiEngine("host", host), "GET", "/error")
    assert caught.value.retry_after == 7
    assert caught.value.response.body == b"later"
    assert whole(WsgiEngine("host", host), "GET", "/nowhere").status == 404
    assert whole(WsgiEngine("host", host, fail_on=[]), "GET", "/error").status == 503
    with pytest.raises(Misconfigured):
        WsgiEngine("host", host, path="/nowhere").call(Call({}))


def test_an_answer_is_bounded_and_must_be_json():
    def endless(environ, start_response):
        start_response("200 OK", [])
        while True:
            yield b"x" * 1000

    with pytest.raises(Transient, match="larger than 5000"):
        WsgiEngine("a", endless, max_answer=5000).call(Call({}))
    with pytest.raises(Transient, match="not JSON"):
        WsgiEngine("a", app_of([b"<p>"])).call(Call({}))
    with pytest.raises(InvalidRequest):
        WsgiEngine("a", app_of([])).call(Call(object()))


@pytest.mark.parametrize("body", [[], [b""], [b"\r\n"]])
@pytest.mark.parametrize("status", [200, 201, 202, 203, 204, 205])
def test_done_without_a_body_is_an_answer(status, body):
    answer = WsgiEngine("a", app_of(body, f"{status} Done")).call(Call({}))
    assert (answer.payload, answer.status) == (None, status)


@pytest.mark.parametrize(
    ("status", "kind", "body", "payload"),
    [
        (201, "text/plain", b"created\n", "created"),
        (202, "text/plain; charset=latin1", b"angenommen f\xfcr Sie", "angenommen für Sie"),
        (202, "text/plain", b"7", "7"),
        (201, "application/json", b'{"id": 7}', {"id": 7}),
        (200, "application/json; charset=latin1", b'["\xe9"]', ["é"]),
    ],
)
def test_what_was_done_is_an_answer_with_its_address(status, kind, body, payload):
    def app(environ, start_response):
        start_response(f"{status} Done", [("Content-Type", kind), ("Location", "/jobs/7")])
        return [body]

    answer = WsgiEngine("a", app).call(Call({}))
    assert (answer.payload, answer.status) == (payload, status)
    assert answer.metadata == {"location": "/jobs/7"}


@pytest.mark.parametrize(("status", "kind"), [(200, "text/plain"), (201, "text/html"), (202, "")])
def test_other_texts_are_no_answer(status, kind):
    def app(environ, start_response):
        start_response(f"{status} Done", [("Content-Type", kind)])
        return [b"<p>done"]

    with pytest.raises(Transient, match="not JSON"):
        WsgiEngine("a", app).call(Call({}))


def test_head_and_204_have_no_body():
    for method, status in (("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Same")):
        answer = whole(WsgiEngine("a", app_of([b"body"], status)), method, stream=True)
        assert answer.payload.body == b""
        assert not answer.streamed


def test_time_is_kept_between_the_pieces():
    now = [0.0]

    def slow(environ, start_response):
        start_response("200 OK", [])
        for _ in range(100):
            now[0] += 1
            yield b"x"

    call = Call(HttpRequest(), deadline=50, monotonic=lambda: now[0])
    call.attempt_deadline = 5
    with pytest.raises(AttemptTimeout):
        WsgiEngine("a", slow).call(call)
    now[0] = 60
    with pytest.raises(CallerDeadline):
        WsgiEngine("a", slow).call(call)


def test_an_app_that_asks_itself_is_stopped():
    engine = WsgiEngine("a", lambda environ, start_response: engine.call(Call({})))
    with pytest.raises(Misconfigured, match="asks this engine again"):
        engine.call(Call({}))


def test_the_host_app_may_be_an_engine_of_its_own_chain(host):
    inner = host.wsgi_app
    host.config["TESTING"] = True
    om = OpenManager(host)
    om.add_engine(WsgiEngine("self", inner, path="/ask"), chain="c")

    @host.get("/outer")
    def outer():
        return om.chain("c").call({"question": "inside?"}).payload

    assert host.test_client().get("/outer").get_json()["answer"] == "inside?"


@pytest.mark.parametrize(
    "options",
    [{"app": None}, {"url": "ftp://x"}, {"path": "x"}, {"headers": {"X": "a\nb"}}],
)
def test_a_wrong_argument_is_a_config_error(options):
    with pytest.raises(ConfigError):
        WsgiEngine("a", **{"app": app_of([]), **options})


class AsgiApp:
    async def __call__(self, scope, receive, send):
        pass


async def asgi_app(scope, receive, send):
    pass


@pytest.mark.parametrize("app", [AsgiApp(), asgi_app, AsgiApp().__call__, lambda environ: [], None])
def test_what_is_no_wsgi_app_is_refused(app):
    with pytest.raises(ConfigError, match=r"engine 'x': app.*must be a WSGI app: "):
        WsgiEngine("x", app)
