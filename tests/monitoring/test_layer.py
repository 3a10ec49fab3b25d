"""The monitoring layer counts every kind of WSGI app to its end, and changes nothing."""

from __future__ import annotations

import io
import socket
import threading
import urllib.request
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from flask import Flask, Response, abort, stream_with_context
from werkzeug.test import EnvironBuilder

from om_plugins.monitoring.collector import FOLD_AT, UNMATCHED, Collector
from om_plugins.monitoring.layer import MonitoringLayer
from tests.patience import HANG_S, PATIENCE_S

PLAIN = [("Content-Type", "text/plain")]


@pytest.fixture
def collector(clock):
    return Collector(clock)


@pytest.fixture
def around(clock, collector):
    def make(app, validated=True, **options):
        inner = validator(app) if validated else app
        layer = MonitoringLayer(inner, collector, clock=clock, **options)
        return validator(layer) if validated else layer

    return make


def environ(path="/", method="GET", **extra):
    built = EnvironBuilder(path, method=method).get_environ()
    built["SERVER_PROTOCOL"] = "HTTP/1.1"
    return {**built, **extra}


def start_response(status, headers, exc_info=None):
    return lambda data: None


def get(app, *args, **kwargs):
    body = app(environ(*args, **kwargs), start_response)
    try:
        return b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()


def only(collector):
    """The one row there is, and its one duration."""
    collector.fold()
    (row,) = collector.rows.values()
    return row


def test_a_list_is_counted_with_its_bytes(around, collector):
    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return [b"one", b"two"]

    assert get(around(app)) == b"onetwo"
    row = only(collector)
    assert (row.requests, row.size_bytes, row.status_class) == (1, 6, 2)
    assert collector.in_flight() == 0


def test_a_list_that_holds_what_is_no_bytes_fails_where_it_is_sent_and_is_counted(
    around, collector
):
    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return [b"one", None]

    with pytest.raises(TypeError):
        get(around(app, validated=False))
    assert only(collector).requests == 1
    assert collector.in_flight() == 0


def test_time_runs_to_the_end_of_the_body_and_of_its_close(around, collector, clock):
    class Body:
        def __iter__(self):
            for _ in range(3):
                clock.advance(1)
                yield b"x"

        def close(self):
            clock.advance(1)

    def app(environ, start_response):
        clock.advance(1)
        start_response("200 OK", PLAIN)
        return Body()

    get(around(app, validated=False))
    assert only(collector).recent(clock.time()).total == pytest.approx(5.0)


def test_chunks_pass_as_they_come(around):
    made = []

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return (made.append(n) or b"x" for n in range(3))

    body = around(app, validated=False)(environ(), start_response)
    assert made == []
    iterator = iter(body)
    next(iterator)
    assert made == [0]
    body.close()


def test_a_body_can_be_read_with_next_as_flasks_own(around, collector):
    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return iter([b"one", b"two", b"three"])

    body = around(app, validated=False)(environ(), start_response)
    assert [next(body), next(body), *body] == [b"one", b"two", b"three"]
    assert next(body, None) is None
    body.close()
    row = only(collector)
    assert (row.requests, row.size_bytes) == (1, len(b"onetwothree"))


def test_close_is_called_once_also_when_the_client_leaves_early(around, collector):
    closed = []

    class Body:
        def __iter__(self):
            yield b"one"
            yield b"two"

        def close(self):
            closed.append(1)

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return Body()

    layer = around(app, validated=False)
    never_begun = layer(environ(), start_response)
    assert collector.in_flight() == 1
    never_begun.close()
    never_begun.close()
    left = layer(environ(), start_response)
    next(iter(left))
    left.close()
    assert closed == [1, 1]
    row = only(collector)
    assert (row.requests, row.size_bytes, row.status_class) == (2, 3, 2)
    assert collector.in_flight() == 0


def test_an_exception_of_the_app_is_a_500_and_goes_on_to_the_server(around, collector):
    def app(environ, start_response):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        get(around(app, validated=False))
    assert only(collector).status_class == 5
    assert collector.in_flight() == 0


@pytest.mark.parametrize("where", ["iteration", "close"])
def test_an_exception_in_the_body_is_a_500_although_200_was_said(around, collector, where):
    class Body:
        def __iter__(self):
            yield b"x"
            if where == "iteration":
                raise OSError(where)

        def close(self):
            if where == "close":
                raise OSError(where)

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return Body()

    with pytest.raises(OSError, match=where):
        get(around(app, validated=False))
    assert only(collector).status_class == 5
    assert collector.in_flight() == 0


def test_a_generator_may_start_its_response_late_and_again_with_exc_info(around, collector):
    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        try:
            raise KeyError
        except KeyError:
            import sys

            start_response("503 SERVICE UNAVAILABLE", PLAIN, sys.exc_info())
        yield b"sorry"

    assert get(around(app, validated=False)) == b"sorry"
    assert only(collector).status_class == 5


def test_what_is_written_the_old_way_is_counted(around, collector):
    def app(environ, start_response):
        write = start_response("200 OK", PLAIN)
        write(b"four")
        return [b"five!"]

    get(around(app))
    assert only(collector).size_bytes == 9


def test_the_servers_own_file_object_is_returned_and_the_length_is_the_header(around, collector):
    file = FileWrapper(io.BytesIO(b"file"))

    def app(environ, start_response):
        start_response("200 OK", [*PLAIN, ("Content-Length", "4")])
        return file

    offered = environ(**{"wsgi.file_wrapper": FileWrapper})
    assert around(app, validated=False)(offered, start_response) is file
    row = only(collector)
    assert (row.requests, row.size_bytes) == (1, 4)
    assert collector.in_flight() == 0


def test_a_file_wrapper_that_is_a_function_returns_the_file_itself_as_in_uwsgi(around):
    file = io.BytesIO(b"file")

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return environ["wsgi.file_wrapper"](file)

    offered = environ(**{"wsgi.file_wrapper": lambda filelike, size=0: filelike})
    assert around(app, validated=False)(offered, start_response) is file


def test_a_list_keeps_its_length_so_that_servers_set_content_length(around):
    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return [b"hello"]

    class Quiet(WSGIRequestHandler):
        def log_message(self, *args):
            pass

    server = make_server("127.0.0.1", 0, around(app, validated=False), handler_class=Quiet)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{server.server_port}/", timeout=HANG_S
        ) as got:
            assert (got.headers["Content-Length"], got.read()) == ("5", b"hello")
    finally:
        thread.join()
        server.server_close()


def test_a_client_that_hangs_up_on_a_real_server_is_no_longer_in_flight(around, collector):
    begun = threading.Event()
    over = threading.Event()

    class Body:
        def __iter__(self):
            begun.set()
            while True:
                yield b"x" * 65_536

        def close(self):
            over.set()

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return Body()

    class Quiet(WSGIRequestHandler):
        def log_message(self, *args):
            pass

        def get_stderr(self):
            return io.StringIO()

    server = make_server("127.0.0.1", 0, around(app, validated=False), handler_class=Quiet)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    try:
        with socket.create_connection(server.server_address, timeout=HANG_S) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert begun.wait(PATIENCE_S)
            assert collector.in_flight() == 1
        assert over.wait(PATIENCE_S)
    finally:
        thread.join()
        server.server_close()
    assert collector.in_flight() == 0


def test_the_rule_is_the_route_and_never_the_path(around, collector):
    app = Flask(__name__)

    @app.get("/users/<int:number>")
    def user(number):
        if number == 13:
            abort(404)
        return str(number)

    @app.get("/stream")
    def stream():
        return Response(stream_with_context(str(n) for n in range(3)))

    layer = around(app.wsgi_app)
    for path in ("/users/1", "/users/2", "/users/13", "/nowhere/1", "/nowhere/2", "/stream"):
        get(layer, path)
    get(layer, "/users/1", "DELETE")
    collector.fold()
    assert {key: row.requests for key, row in collector.rows.items()} == {
        ("GET", "/users/<int:number>", 2): 2,
        ("GET", "/users/<int:number>", 4): 1,
        ("GET", UNMATCHED, 4): 2,
        ("GET", "/stream", 2): 1,
        ("DELETE", UNMATCHED, 4): 1,
    }


def test_paths_of_this_package_have_names_and_an_app_may_name_its_own(around, collector):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/mine/7":
            environ["om_plugins.state"].route = "/mine/<n>"
        start_response("200 OK", PLAIN)
        return [b"x"]

    layer = around(app, paths={"/ask"}, prefix="/_om")
    for path in ("/ask", "/ask/2", "/_om/csp", "/_om/static/x", "/_omnibus", "/mine/7"):
        get(layer, path)
    collector.fold()
    assert {key[1]: row.requests for key, row in collector.rows.items()} == {
        "/ask": 1,
        "/_om/*": 2,
        UNMATCHED: 2,
        "/mine/<n>": 1,
    }


def test_a_host_may_say_itself_what_the_route_is(around, collector):
    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return [b"x"]

    get(around(app, route_of=lambda environ: "/said"), "/path")
    assert only(collector).route == "/said"


def test_a_long_event_stream_is_no_slow_request(around, collector, clock):
    def app(environ, start_response):
        start_response("200 OK", [("content-type", "text/event-stream; charset=utf-8")])
        clock.advance(30)
        return [b"data: x\n\n"]

    get(around(app))
    row = only(collector)
    assert row.requests == 1
    assert row.recent(clock.time()).count == 0


def test_without_background_work_requests_fold_now_and_then(around, collector):
    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return [b"x"]

    layer = around(app, validated=False)
    template = environ()
    for _ in range(FOLD_AT + 10):
        layer(dict(template), start_response).close()
    assert len(collector.waiting) < 20
