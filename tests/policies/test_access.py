"""Trusted hosts, pages of other sites, and the auth callback, seen through an engine route."""

from __future__ import annotations

import concurrent.futures
import contextlib
from unittest.mock import Mock

import flask
import pytest
from werkzeug.exceptions import Forbidden
from werkzeug.test import create_environ
from werkzeug.wrappers import Response

from om_plugins.core.problem import Refusal
from om_plugins.policies.access import ask_auth
from om_plugins.types import Caller
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


async def permit():
    return True


class Truth:
    def __bool__(self):
        return True

    def __eq__(self, other):
        return True

    __hash__ = None


NO_PERMISSIONS = {
    "forgotten return": lambda request: None,
    "one": lambda request: 1,
    "one point zero": lambda request: 1.0,
    "text": lambda request: "yes",
    "the word": lambda request: "True",
    "bytes": lambda request: b"1",
    "list": lambda request: [True],
    "dict": lambda request: {"user": 7},
    "tuple as a view returns it": lambda request: ("no", 403),
    "coroutine": lambda request: permit(),
    "future": lambda request: concurrent.futures.Future(),
    "generator": lambda request: (True for _ in "1"),
    "function": lambda request: bool,
    "mock": lambda request: Mock(),
    "mock of a caller": lambda request: Mock(spec=Caller("ann")),
    "object that is equal to True": lambda request: Truth(),
    "error that is not raised": lambda request: Forbidden("not you"),
    "not implemented": lambda request: NotImplemented,
    "ellipsis": lambda request: ...,
}


@pytest.mark.parametrize("auth", NO_PERMISSIONS.values(), ids=NO_PERMISSIONS)
def test_what_is_not_true_itself_is_no_permission_and_says_so(auth, caplog):
    client = Client(AChain(), options={"auth": auth})
    assert client.ask().status == 401
    assert not client.chain.calls
    (record,) = caplog.records
    assert record.message.startswith("OM_ROUTES['/api/ask'].auth: the callback returned ")
    assert "only True is a yes" in record.message
    assert "Caller(id)" in record.message


def test_false_is_a_plain_no(caplog):
    client = Client(AChain(), options={"auth": lambda request: False})
    assert client.ask().status == 401
    assert not caplog.records


def test_true_and_a_caller_are_let_in():
    for said in (True, Caller("ann"), Caller(7)):
        client = Client(AChain(), options={"auth": lambda request, said=said: said})
        assert client.ask().status == 200


class Customer(Caller):
    pass


def test_a_class_of_callers_is_a_caller():
    said = Customer("ann")
    assert ask_auth(create_environ(), b"", lambda request: said, None) is said


def test_a_mock_of_a_response_is_no_response(caplog):
    with pytest.raises(Refusal) as refused:
        ask_auth(create_environ(), b"", lambda request: Mock(spec=Response), None)
    assert refused.value.status == 401
    assert "returned a Mock" in caplog.text


def test_the_value_of_a_wrong_answer_is_not_logged(caplog):
    client = Client(AChain(), options={"auth": lambda request: "s3cret-token"})
    assert client.ask().status == 401
    assert "s3cret" not in caplog.text


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
