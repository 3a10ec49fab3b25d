"""The proxy app: from a WSGI request to an upstream and back."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
from werkzeug.serving import make_server
from werkzeug.test import EnvironBuilder, run_wsgi_app

from om_plugins.builtin.engines.callable import CallableEngine
from om_plugins.builtin.engines.proxy import ProxyEngine
from om_plugins.builtin.engines.proxy_app import (
    ProxyApp,
    RefusedRequest,
    StreamedBody,
    read_request,
)
from om_plugins.builtin.engines.static import StaticEngine
from om_plugins.chains.chain import EngineChain
from om_plugins.chains.options import ChainPolicy
from om_plugins.errors import Misconfigured, RateLimited, TooLong, Transient, Unsupported
from om_plugins.types import Answer, EngineSpec, EngineTraits, HttpRequest, HttpResponse
from tests.patience import HANG_S, PATIENCE_S


class Fake:
    """An engine that says ``reply(request)``; one that is raised is raised."""

    def __init__(self, reply, name="fake"):
        self.name = name
        self.traits = EngineTraits(streaming=True)
        self.reply = reply
        self.calls = []

    def call(self, call):
        self.calls.append(call)
        answer = self.reply(call.payload) if callable(self.reply) else self.reply
        if isinstance(answer, Exception):
            raise answer
        return answer


def environ(path="/", **options):
    extra = options.pop("extra", {})
    return {**EnvironBuilder(path, **options).get_environ(), **extra}


def run(app, given):
    body, status, headers = run_wsgi_app(app, given, buffered=True)
    return int(status.split()[0]), headers, b"".join(body)


def chain_of(*engines, **policy):
    chain = EngineChain("web", ChainPolicy(delays=(0.001,), **policy))
    for tier, engine in enumerate(engines, 1):
        chain.add(EngineSpec(engine, "web", tier))
    return chain


# --- the request ----------------------------------------------------------------------------------


def test_a_request_is_taken_whole():
    request = read_request(
        environ(
            "/a", method="PATCH", data=b"hello", content_type="text/x", query_string="x=1&y",
            headers={"X-Twice": "1,2", "Connection": "close, X-Hop", "X-Hop": "1"},
            environ_base={"REMOTE_ADDR": "9.9.9.9"},
        )
    )  # fmt: skip
    assert (request.method, request.target) == ("PATCH", "/a?x=1&y")
    assert (request.body, request.length) == (b"hello", None)
    assert sorted(request.headers) == [
        ("Content-Type", "text/x"),
        ("Forwarded", "for=9.9.9.9;host=localhost;proto=http"),
        ("Host", "localhost"),
        ("X-Forwarded-For", "9.9.9.9"),
        ("X-Forwarded-Host", "localhost"),
        ("X-Forwarded-Proto", "http"),
        ("X-Twice", "1,2"),
    ]


@pytest.mark.parametrize(
    ("raw", "path", "prefix", "target"),
    [
        ("/%7euser/a%2Fb?x=%zz", "/~user/a/b", "", "/%7euser/a%2Fb?q=%zz"),
        ("http://host/a?b", "/a", "", "/a?q=%zz"),
        ("/app/%7ea", "/~a", "/app", "/%7ea?q=%zz"),
        ("/app", "", "/app", "/?q=%zz"),
        ("/seen", "/changed inside", "", "/changed%20inside?q=%zz"),
        ("/apple", "/x", "/app", "/x?q=%zz"),
        ("", "/\xea\xb0\x80", "", "/%EA%B0%80?q=%zz"),
        ("/\xea\xb0\x80", "/\xea\xb0\x80", "", "/%EA%B0%80?q=%zz"),
        ("*", "*", "", "*"),
    ],
)
def test_the_target_is_what_was_sent_unless_somebody_changed_it(raw, path, prefix, target):
    given = environ()
    given.update(RAW_URI=raw, PATH_INFO=path, SCRIPT_NAME=prefix, QUERY_STRING="q=%zz")
    assert read_request(given).target == target


def test_an_empty_query_stays():
    given = environ()
    given.update(RAW_URI="/a?", PATH_INFO="/a", QUERY_STRING="")
    assert read_request(given).target == "/a?"


def test_a_client_cannot_have_what_the_gateway_tells_taken_away():
    request = read_request(environ(headers={"Connection": "X-Forwarded-For, Forwarded"}))
    names = [name for name, _ in request.headers]
    assert {"X-Forwarded-For", "Forwarded"} <= set(names)


def test_what_a_client_tells_counts_only_from_a_trusted_peer():
    given = environ(headers={"X-Forwarded-For": "1.1.1.1"}, environ_base={"REMOTE_ADDR": "9.9.9.9"})
    told = dict(read_request(given).headers)
    assert told["X-Forwarded-For"] == "9.9.9.9"
    told = dict(read_request(given, trust_forwarded=True).headers)
    assert told["X-Forwarded-For"] == "1.1.1.1, 9.9.9.9"


@pytest.mark.parametrize(
    ("extra", "status"),
    [
        ({"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": "5"}, 400),
        ({"HTTP_TRANSFER_ENCODING": "gzip, chunked", "CONTENT_LENGTH": ""}, 501),
        ({"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}, 411),
        ({"CONTENT_LENGTH": "-1"}, 400),
        ({"CONTENT_LENGTH": "5, 5"}, 400),
        ({"CONTENT_LENGTH": "999999999"}, 413),
        ({"CONTENT_LENGTH": "5", "wsgi.input": io.BytesIO(b"hell")}, 400),
        ({"HTTP_CONNECTION": "Upgrade", "HTTP_UPGRADE": "websocket"}, 501),
    ],
)
def test_a_body_framed_in_two_ways_or_too_large_is_refused(extra, status):
    with pytest.raises(RefusedRequest) as caught:
        read_request(environ(extra=extra))
    assert caught.value.status == status
    engine = Fake(HttpResponse())
    assert run(ProxyApp(engine), environ(extra=extra))[0] == status
    assert engine.calls == []


def test_a_short_body_can_be_sent_again_and_a_long_one_is_streamed():
    for data, kind in ((b"x" * 65_536, bytes), (b"x" * 65_537, bytes), (b"x" * 70_000, None)):
        request = read_request(environ(method="POST", data=data))
        if kind is bytes:
            assert request.body == data
        else:
            assert isinstance(request.body, StreamedBody)
            assert request.length == len(data)
            assert b"".join(request.body) == data
            assert request.body.started


def chunked_environ(data):
    extra = {
        "HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": "",
        "wsgi.input_terminated": True, "wsgi.input": io.BytesIO(data),
    }  # fmt: skip
    return environ(method="POST", extra=extra)


def test_a_body_without_a_length_is_bounded():
    assert read_request(chunked_environ(b"short")).body == b"short"
    request = read_request(chunked_environ(b"x" * 70_000))
    assert request.length is None
    assert b"".join(request.body) == b"x" * 70_000
    engine = Fake(lambda request: HttpResponse(200, [], b"".join(request.body)))
    assert run(ProxyApp(engine, max_body=69_999), chunked_environ(b"x" * 70_000))[0] == 413
    assert run(ProxyApp(engine, max_body=10), chunked_environ(b"x" * 11))[0] == 413


def test_no_more_is_read_than_was_declared():
    stream = io.BytesIO(b"helloGET /next")
    given = environ(extra={"CONTENT_LENGTH": "5", "wsgi.input": stream})
    assert read_request(given).body == b"hello"
    assert stream.read() == b"GET /next"


@pytest.mark.parametrize(
    ("method", "data", "again"),
    [("GET", None, True), ("PUT", b"x", True), ("PUT", b"x" * 70_000, False),
     ("POST", b"x", False), ("PATCH", b"x", False), ("DELETE", None, True)],
)  # fmt: skip
def test_the_method_and_the_body_say_whether_it_may_be_asked_again(method, data, again):
    engine = Fake(HttpResponse())
    run(ProxyApp(chain_of(engine)), environ(method=method, data=data))
    assert engine.calls[0].idempotent is again


# --- the answer -----------------------------------------------------------------------------------


def test_head_and_body_are_served_as_they_are():
    head = HttpResponse(299, [("Set-Cookie", "a"), ("X-Empty", ""), ("Set-Cookie", "b")], b"body")
    status, headers, body = run(ProxyApp(Fake(head)), environ())
    assert (status, list(headers), body) == (299, head.headers, b"body")


@pytest.mark.parametrize(
    ("answer", "kind", "body"),
    [
        ("text", "text/plain; charset=utf-8", b"text"),
        (b"data", "application/octet-stream", b"data"),
        ({"a": 1}, "application/json", b'{"a":1}'),
        (Answer(chunks=iter(["a", b"b", {"c": 1}])), "application/octet-stream", b'ab{"c":1}\n'),
    ],
)
def test_an_engine_of_another_kind_may_answer(answer, kind, body):
    status, headers, sent = run(ProxyApp(Fake(answer)), environ())
    assert (status, headers["Content-Type"], sent) == (200, kind, body)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Transient("x"), 502),
        (RateLimited("x", retry_after=7), 503),
        (Misconfigured("x"), 502),
        (Unsupported("x"), 501),
        (TooLong("x"), 413),
    ],
)
def test_a_failure_is_a_problem_document_that_tells_nothing_of_the_upstream(error, status):
    app = ProxyApp(chain_of(Fake(error), retries=0))
    found, headers, body = run(app, environ(method="POST"))
    assert found == status
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Cache-Control"] == "no-store"
    assert json.loads(body)["status"] == status
    assert b"fake" not in body
    assert headers.get("Retry-After") == ("7" if status == 503 else None)
    assert run(app, environ(method="HEAD"))[2] == b""


def test_the_last_upstreams_own_refusal_is_passed_on_when_nobody_answers(raw_upstream):
    def busy(connection, number):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 503 Busy\r\nX-Page: own\r\nContent-Length: 4\r\n\r\nsigh")

    engine = ProxyEngine("up", raw_upstream(busy).url)
    status, headers, body = run(ProxyApp(chain_of(engine, retries=0)), environ())
    assert (status, headers["X-Page"], body) == (503, "own", b"sigh")
    chain = chain_of(ProxyEngine("up", raw_upstream(busy).url), StaticEngine("page", "resting"))
    assert run(ProxyApp(chain), environ())[::2] == (200, b"resting")
    engine.close()


def test_a_bug_in_an_engine_is_no_answer_of_an_upstream():
    with pytest.raises(ZeroDivisionError):
        run(ProxyApp(Fake(lambda request: 1 / 0)), environ())


def read_until(client, text):
    client.settimeout(PATIENCE_S)
    got = b""
    while text not in got:
        part = client.recv(65536)
        assert part, got
        got += part
    return got


# --- through a real server ------------------------------------------------------------------------


@pytest.fixture
def served():
    servers = []

    def serve(app):
        server = make_server("127.0.0.1", 0, app, threaded=True)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return "127.0.0.1", server.server_port

    yield serve
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_request_goes_through_a_server_and_back(served, upstream):
    upstream.reply = lambda request: (201, {"X-Up": "1", "Content-Type": "text/x"}, request["body"])
    engine = ProxyEngine("up", upstream.url)
    connection = http.client.HTTPConnection(*served(ProxyApp(chain_of(engine))), timeout=HANG_S)
    big = b"x" * 300_000
    for data in (b"hello", big):
        connection.request("PUT", "/%7ea?b=c", data, {"X-Mine": "2"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (201, data)
        assert answer.headers["X-Up"] == "1"
        connection.close()
    assert upstream.requests[0]["path"] == "/%7ea?b=c"
    assert upstream.requests[0]["headers"]["x-mine"] == "2"
    assert upstream.requests[0]["headers"]["x-forwarded-for"] == "127.0.0.1"
    engine.close()


def test_a_client_that_leaves_a_silent_stream_closes_the_upstream(served, raw_upstream):
    closed = threading.Event()

    def silent(connection, number):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\n")
        if not connection.recv(1):
            closed.set()

    engine = ProxyEngine("up", raw_upstream(silent).url)
    chain = chain_of(engine)
    client = socket.create_connection(served(ProxyApp(chain)))
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    read_until(client, b": hi")
    client.close()
    assert closed.wait(PATIENCE_S)
    time.sleep(0.05)
    (health,) = chain.health()
    assert health.failure_rate == 0, "a client that leaves is nobody's failure"
    engine.close()


def test_a_stream_that_breaks_off_is_seen_by_the_client(served, raw_upstream):
    def breaks(connection, number):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    engine = ProxyEngine("up", raw_upstream(breaks).url)
    connection = http.client.HTTPConnection(*served(ProxyApp(chain_of(engine))), timeout=HANG_S)
    connection.request("GET", "/")
    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()
    connection.close()
    engine.close()


APP = """
from om_plugins import ProxyApp, ProxyEngine
proxy = ProxyApp(ProxyEngine("up", {url!r}))

def app(environ, start_response):
    if environ["PATH_INFO"] == "/up":
        start_response("200 OK", [("Content-Length", "0")])
        return []
    return proxy(environ, start_response)
"""


@pytest.mark.server
def test_gunicorn_serves_it_with_streams_and_chunked_requests(gunicorn, raw_upstream):
    closed = threading.Event()

    def echo(connection, number):
        data = connection.recv(65536)
        if b"GET /stream" in data:
            connection.sendall(b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n: hi\n\n")
            if not connection.recv(1):
                closed.set()
            return
        while b"world" not in data:
            data += connection.recv(65536)
        body = data.partition(b"\r\n\r\n")[2]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    url, _ = gunicorn(APP.format(url=raw_upstream(echo).url), "--threads", "4")
    where = urlsplit(url)
    client = socket.create_connection((where.hostname, where.port))
    client.sendall(
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n"
    )
    read_until(client, b"helloworld")
    client.close()

    client = socket.create_connection((where.hostname, where.port))
    client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    got = read_until(client, b": hi")
    assert got.count(b"Set-Cookie") == 2
    client.close()
    assert closed.wait(PATIENCE_S)


def test_a_function_may_stand_in_the_chain():
    engine = CallableEngine("f", lambda call: HttpResponse(200, [], call.payload.target.encode()))
    assert run(ProxyApp(chain_of(engine)), environ("/here"))[2] == b"/here"
    assert isinstance(read_request(environ()), HttpRequest)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("size", [3, 100_000])
@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "POST", "PATCH"])
def test_no_request_is_lost_to_an_upstream_that_closes_without_a_word(
    raw_upstream, method, size, alone
):
    seen = []

    def script(connection, number):
        with connection.makefile("rb") as stream:
            head = list(iter(stream.readline, b"\r\n"))
            length = next(
                (line for line in head if line.lower().startswith(b"content-length")), b""
            )
            stream.read(int(length.partition(b":")[2] or 0))
        seen.append(head[0].split()[0].decode())
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    engine = ProxyEngine("up", raw_upstream(script).url, timeout=HANG_S)
    application = ProxyApp(engine if alone else chain_of(engine, retries=0))
    data = b"x" * size if method not in ("GET", "DELETE") else b""
    for _ in range(8):
        assert run(application, environ(method=method, data=data))[::2] == (200, b"ok")
    assert seen == [method] * 8
    engine.close()
