"""Engine routes: which requests they answer, and with which call."""

from __future__ import annotations

import re
from wsgiref.validate import validator

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.errors import (
    ChainExhausted,
    ConfigError,
    InvalidRequest,
    Transient,
)
from om_plugins.gateway.layer import EngineRoutes
from om_plugins.gateway.options import RouteOptions
from om_plugins.testing.fakes import FakeClock
from tests.gateway.conftest import SECRET, AChain, Client


@pytest.mark.parametrize("path", ["/", "/api/ask/", "/api/as", "/API/ask", "/api/ask/x"])
def test_other_paths_go_to_the_app_unchanged(path):
    reply = Client(AChain()).ask(path=path)
    assert reply.body == b"the host app, " + path.encode()
    assert reply.header_list == [("Content-Type", "text/plain"), ("X-Host", "yes")]


def test_path_with_other_letters_is_matched():
    assert Client(AChain()).ask(path="/질문").json == {"you said": {"q": 1}}


def test_call_gets_key_timeout_and_few_headers():
    client = Client(AChain(), options={"timeout": 4})
    headers = {"Idempotency-Key": "abc-1", "Accept-Language": "ko", "Cookie": "s=1"}
    client.ask(headers={**headers, "Traceparent": "00-\x7f-01"})
    options = client.chain.calls[0][1]
    assert re.fullmatch("[0-9a-f]{32}", options["idempotency_key"])  # not the client's own
    assert options["timeout"] == 4
    assert options["headers"] == {"accept-language": "ko"}
    assert options["stream"] is False


def test_get_takes_the_query_when_every_engine_is_idempotent():
    client = Client(AChain(idempotent=True))
    reply = client.ask(method="GET", QUERY_STRING="q=%EB%94%94&tag=a&tag=b&tag=c&empty=")
    assert reply.json == {"you said": {"q": "디", "tag": ["a", "b", "c"], "empty": ""}}
    head = client.ask(method="HEAD", QUERY_STRING="q=1")
    assert head.status == 200
    assert head.body == b""
    assert client.ask(method="GET", QUERY_STRING="a&" * 300).status == 400
    assert client.ask(method="GET", QUERY_STRING="a" * 20_000).status == 414


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
def test_other_methods_get_405_in_plain_words(method):
    client = Client(AChain())
    reply = client.ask(method=method)
    assert reply.status == 405
    assert reply.headers["allow"] == "POST, OPTIONS"
    assert reply.headers["content-type"] == "application/problem+json"
    assert not client.chain.calls
    if method != "HEAD":
        problem = reply.json
        assert problem["detail"] == (
            f"This address answers POST, not {method}. Send your question with POST as JSON."
        )
        assert problem["status"] == 405
        assert set(problem) == {"type", "title", "status", "detail", "instance"}


def test_options_tells_the_methods():
    reply = Client(AChain()).ask(method="OPTIONS")
    assert (reply.status, reply.headers["allow"], reply.body) == (204, "POST, OPTIONS", b"")
    reply = Client(AChain(idempotent=True)).ask(method="OPTIONS")
    assert reply.headers["allow"] == "GET, HEAD, POST, OPTIONS"


def test_on_error_is_told_of_our_failures_only():
    told = []
    client = Client(AChain(), on_error=lambda environ, chain, error: told.append((chain, error)))
    for error in (InvalidRequest(), ChainExhausted("x", [Transient()]), KeyError()):
        client.chain.answer = error
        client.ask()
    assert [(c, type(e)) for c, e in told] == [
        ("assistant", ChainExhausted), ("assistant", KeyError)
    ]  # fmt: skip


def test_raising_on_error_changes_nothing():
    def broken(environ, chain, error):
        raise RuntimeError

    assert Client(AChain(KeyError()), on_error=broken).ask().status == 500


async def async_auth(request):
    return True


@pytest.mark.parametrize("auth", [async_auth, lambda: True, lambda user, password: True, "x", 1])
def test_an_auth_that_cannot_be_called_is_found_at_the_start(auth):
    with pytest.raises(ConfigError, match="must be a function that takes a werkzeug Request"):
        RouteOptions(chain="a", auth=auth)


def test_an_auth_that_returns_something_to_await_lets_nobody_in(caplog):
    client = Client(AChain(), options={"auth": lambda request: async_auth(request)})
    assert client.ask().status == 401
    assert "auth: the callback returned a coroutine, which nobody awaits" in caplog.text


@pytest.mark.parametrize(
    ("path", "options", "error"),
    [
        ("api", {"chain": "a"}, ConfigError),
        ("/api", {}, ConfigError),
    ],
)
def test_wrong_route_is_found_at_the_start(path, options, error):
    clock = FakeClock()
    with pytest.raises(error, match="OM_ROUTES"):
        EngineRoutes(
            Client.host_app, {path: RouteOptions(**options)}, AChain,
            hub=MemoryHub("memory://", clock), secret=lambda: SECRET, clock=clock,
        )  # fmt: skip


def test_unknown_chain_is_500_and_logged(caplog):
    client = Client(AChain())

    def chain(name):
        raise KeyError(name)

    middleware = EngineRoutes(
        Client.host_app, {"/api/ask": RouteOptions(chain="nope")}, chain,
        hub=client.hub, secret=lambda: SECRET, clock=client.clock,
    )  # fmt: skip
    client.wsgi = validator(middleware)
    assert client.ask().status == 500
    assert "nope" in caplog.text
