"""A deadline from outside ends the calls of its request, and nothing else."""

from __future__ import annotations

import io
import math
from wsgiref.util import FileWrapper

import flask
import pytest

from om_plugins import OpenManager, OpenManagerMiddleware, Settings
from om_plugins.gateway.deadline import (
    DEADLINE,
    DeadlineLayer,
    GracefulStop,
    read_expected_s,
)
from om_plugins.testing.fakes import FakeClock

HEADER = "HTTP_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("1500", 1.5),
        ("1", 0.001),
        ("0", None),
        ("", None),
        (None, None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("nan", None),
        ("٣", None),
        (" 5", None),
        ("9" * 18, 3600.0),
        ("9" * 5000, None),
    ],
)
def test_the_header_is_milliseconds_and_garbage_is_nothing(said, seconds):
    assert read_expected_s({} if said is None else {HEADER: said}) == seconds


def through(app, said="2000", clock=None, **environ):
    layer = DeadlineLayer(app, clock or FakeClock())
    environ |= {HEADER: said} if said else {}
    return layer({"REQUEST_METHOD": "GET", **environ}, lambda *a: None)


def test_the_deadline_holds_for_the_request_and_its_body():
    seen = []

    def app(environ, start_response):
        seen.append(DEADLINE.get())
        yield b""
        seen.append(DEADLINE.get())

    body = through(app)
    assert list(body) == [b""]
    body.close()
    assert seen == [1002.0, 1002.0]
    assert DEADLINE.get() == math.inf


def test_lists_and_files_pass_as_they_are_and_end_it():
    whole = [b"whole"]
    assert through(lambda environ, start: whole) is whole
    file = FileWrapper(io.BytesIO(b"x"))
    options = {"wsgi.file_wrapper": FileWrapper}
    assert through(lambda environ, start: file, **options) is file
    assert DEADLINE.get() == math.inf


def test_an_app_that_raises_ends_it():
    def app(environ, start_response):
        raise ValueError

    with pytest.raises(ValueError):
        through(app)
    assert DEADLINE.get() == math.inf


def test_a_body_that_nobody_closed_shortens_no_later_request():
    through(lambda environ, start: iter(()))
    assert DEADLINE.get() < math.inf
    through(lambda environ, start: [], said=None)
    assert DEADLINE.get() == math.inf


def test_without_the_header_the_layer_is_not_there():
    body = iter(())
    assert through(lambda environ, start: body, said=None) is body


# --- calls of chains ------------------------------------------------------------------------------


def left_of(environ, timeout, proxies=1):
    """How long an engine had that was asked in a view, and in an engine route."""
    left = {}
    app = flask.Flask("deadlines")
    routes = {"/route": {"chain": "c", "timeout": timeout}}
    app.config.update(
        TESTING=True, OM_PROXIES=proxies, OM_ROUTES=routes, OM_CHAIN_DEFAULTS={"timeout": 20}
    )
    om = OpenManager(app)

    @om.engine("e", chain="c", local=True)
    def engine(call):
        left[call.payload["in"]] = round(call.remaining(), 1)
        return {}

    @app.post("/view")
    def view():
        om.chain("c").call({"in": "view"}, timeout=timeout)
        return {}

    client = app.test_client()
    for where in ("view", "route"):
        reply = client.post(f"/{where}", json={"in": where}, headers=environ, buffered=True)
        assert reply.status_code == 200, reply.text
    return left


@pytest.mark.parametrize(("own", "used"), [(None, 2.0), (1.5, 1.5), (10.0, 2.0)])
def test_a_call_waits_for_the_shorter_of_the_two(own, used):
    header = {"X-Envoy-Expected-Rq-Timeout-Ms": "2040"}
    assert left_of(header, own) == pytest.approx({"view": used, "route": used}, abs=0.2)


def test_without_the_header_or_a_trusted_proxy_nothing_changes():
    assert left_of({}, None) == pytest.approx({"view": 20, "route": 20}, abs=0.2)
    header = {"X-Envoy-Expected-Rq-Timeout-Ms": "2040"}
    assert left_of(header, None, proxies=0) == pytest.approx({"view": 20, "route": 20}, abs=0.2)


@pytest.mark.parametrize("proxies", [0, 1])
def test_the_header_counts_only_behind_a_trusted_proxy(proxies):
    seen = []

    def app(environ, start_response):
        seen.append(DEADLINE.get())
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    settings = Settings(proxies=proxies, hub_url="memory://", monitoring=False)
    wsgi = OpenManagerMiddleware(app, settings)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_HOST": "a", HEADER: "2000"}
    environ |= {"wsgi.url_scheme": "http", "REMOTE_ADDR": "127.0.0.1"}
    wsgi(environ, lambda *a: None)
    assert (seen[0] < math.inf) == bool(proxies)
    wsgi.runtime.close()


# --- a server that stops ------------------------------------------------------------------------


def test_answers_go_on_for_most_of_the_servers_patience(gunicorn_worker):
    clock = FakeClock()
    stop = GracefulStop(clock)
    clock.advance(100)
    assert not stop.is_over()
    gunicorn_worker.alive = False
    assert not stop.is_over()
    clock.advance(7.9)
    assert not stop.is_over()
    clock.advance(0.2)
    assert stop.is_over()


def test_a_short_patience_leaves_time_to_say_so(gunicorn_worker):
    gunicorn_worker.cfg.graceful_timeout = 2
    gunicorn_worker.alive = False
    clock = FakeClock()
    stop = GracefulStop(clock)
    assert not stop.is_over()
    clock.advance(0.6)
    assert stop.is_over()


def test_where_no_server_says_so_it_is_never_over():
    assert not GracefulStop(FakeClock()).is_over()
