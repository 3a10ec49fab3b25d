"""Trusted hosts, pages of other sites, and the auth callback, seen through an engine route."""

from __future__ import annotations

import contextlib

import flask
import pytest
from werkzeug.exceptions import Forbidden
from werkzeug.wrappers import Response

from tests.gateway.conftest import AChain, Client


def test_untrusted_host_is_400():
    client = Client(AChain(), trusted_hosts=["app.example", ".sub.example"])
    assert client.ask().status == 200
    assert client.ask(HTTP_HOST="a.sub.example").status == 200
    for host in ("evil.example", "app.example.evil", "app.example@evil"):
        assert client.ask(HTTP_HOST=host).status == 400


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "nonsense"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://app.example"}, False),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://public.example"}, True),
        ({"Origin": "http://app.example"}, True),
        ({"Origin": "https://app.example"}, True),
        ({"Origin": "https://app.example:8443"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "https://app.example.evil"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://[bad"}, False),
    ],
)
def test_other_sites_are_refused(headers, allowed):
    client = Client(AChain())
    reply = client.ask(headers=headers)
    assert reply.status == (200 if allowed else 403)
    assert bool(client.chain.calls) is allowed
    assert "access-control-allow-origin" not in reply.headers


def test_auth_decides_in_the_hosts_context_and_may_read_the_body():
    seen = []

    @contextlib.contextmanager
    def host_context(environ):
        seen.append("in")
        yield
        seen.append("out")

    def auth(request):
        seen.append(request.get_json())
        return request.headers.get("X-User") == "me"

    client = Client(AChain(), options={"auth": auth}, host_context=host_context)
    assert client.ask(body={"q": 2}, headers={"X-User": "me"}).json == {"you said": {"q": 2}}
    assert seen == ["in", {"q": 2}, "out"]
    refused = client.ask()
    assert refused.status == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert len(client.chain.calls) == 1


def test_auth_sees_flasks_session_and_the_same_request():
    app = flask.Flask(__name__)
    app.secret_key = "for tests"

    @app.get("/sign-in")
    def sign_in():
        flask.session["user"] = "me"
        return "in"

    def auth(request):
        assert request.get_json() == flask.request.get_json() == {"q": 1}
        return flask.session.get("user") == "me"

    client = Client(AChain(), options={"auth": auth}, host_context=app.request_context)
    assert client.ask().status == 401
    cookie = app.test_client().get("/sign-in").headers["Set-Cookie"].partition(";")[0]
    assert client.ask(headers={"Cookie": cookie}).json == {"you said": {"q": 1}}


@pytest.mark.parametrize("said", [None, False, 0, ""])
def test_only_a_true_answer_of_auth_lets_a_call_through(said):
    client = Client(AChain(), options={"auth": lambda request: said})
    assert client.ask().status == 401
    assert not client.chain.calls


def test_failing_auth_is_401_and_logged(caplog):
    def auth(request):
        raise KeyError("s3cret")

    client = Client(AChain(), options={"auth": auth})
    reply = client.ask()
    assert reply.status == 401
    assert b"s3cret" not in reply.body
    assert "KeyError" in caplog.text
    assert not client.chain.calls


def test_auth_may_answer_itself():
    answers = iter([Response("later", 202), Forbidden("not you")])

    def auth(request):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = Client(AChain(), options={"auth": auth})
    assert client.ask().body == b"later"
    assert client.ask().status == 403
    assert not client.chain.calls
