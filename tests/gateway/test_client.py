"""Who the client of a route is: nobody gets another's stored answer, and a retry gets its own."""

from __future__ import annotations

import contextlib
import itertools

import flask
import msgspec
import pytest
from flask import request as flask_request
from flask import session
from werkzeug.wrappers import Request

from om_plugins import Caller, OpenManager
from om_plugins.core.inputs import IDENTITIES, InputRules, KnownReader
from om_plugins.gateway.client import ClientInputs
from tests.gateway.conftest import AChain, Client
from tests.opening import NEW_FLASK

KEY = {"Idempotency-Key": "k-1"}


def client(auth=None, **arguments):
    return Client(AChain(), options={"auth": auth, "rate": None}, **arguments)


def is_replayed(asked, headers=(), **more):
    return "om-replayed" in asked.ask(headers={**KEY, **dict(headers)}, **more).headers


def is_same(auth, one, other, **arguments):
    """Whether two requests, as (headers, environ), are of one client to a route."""
    asked = client(auth, **arguments)
    assert not is_replayed(asked, one[0], **one[1])
    return is_replayed(asked, other[0], **other[1])


# --- another's answer -----------------------------------------------------------------------------

ANN = {"X-API-Key": "ann"}
BOB = {"X-API-Key": "bob"}
AUTHS = {
    "true by a header": lambda r: bool(r.headers.get("X-API-Key")),
    "true by the environ": lambda r: "HTTP_X_API_KEY" in r.environ and bool(r.environ),
    "one text for all": lambda r: r.headers["X-API-Key"] and Caller("customer"),
    "one number for all": lambda r: Caller(int(bool(r.headers["X-API-Key"]))),
    "by all headers": lambda r: dict(r.headers)["X-Api-Key"] and Caller("customer"),
    "by the environ as a whole": lambda r: dict(r.environ)["HTTP_X_API_KEY"] and Caller("customer"),
}


@pytest.mark.parametrize("auth", AUTHS.values(), ids=AUTHS)
def test_what_auth_looked_at_tells_clients_apart(auth):
    assert not is_same(auth, (ANN, {}), (BOB, {}))
    assert is_same(auth, (ANN, {}), (ANN, {}))


@pytest.mark.parametrize(
    ("look", "one", "other"),
    [
        (lambda r: r.cookies.get("user"), {"Cookie": "user=a"}, {"Cookie": "user=b"}),
        (lambda r: r.authorization, {"Authorization": "Bearer a"}, {"Authorization": "Bearer b"}),
        (lambda r: r.headers.get("Cookie"), {"Cookie": "user=a"}, {"Cookie": "user=b"}),
        (lambda r: r.user_agent.string, {"User-Agent": "a"}, {"User-Agent": "b"}),
        (lambda r: r.access_route, {"X-Forwarded-For": "1.1.1.1"}, {"X-Forwarded-For": "2.2.2.2"}),
    ],
)  # fmt: skip
def test_one_text_for_all_does_not_join_who_differs(look, one, other):
    def auth(request):
        return Caller("customer") if look(request) else False

    assert not is_same(auth, (one, {}), (other, {}))
    assert is_same(auth, (one, {}), (one, {}))


def test_the_address_counts_when_auth_looks_at_it():
    for look in (
        lambda r: r.remote_addr,
        lambda r: r.environ["REMOTE_ADDR"],
        lambda r: r.access_route[0],
    ):
        one, other = ({}, {"REMOTE_ADDR": "10.0.0.1"}), ({}, {"REMOTE_ADDR": "10.0.0.2"})
        assert not is_same(lambda r, look=look: look(r) and Caller("inside"), one, other)


@pytest.mark.parametrize("auth", [None, lambda r: True, lambda r: Caller("customer")])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_AUTHORIZATION", "Bearer b"),
        ("HTTP_PROXY_AUTHORIZATION", "Basic b"),
        ("REMOTE_USER", "bob"),
        ("SSL_CLIENT_S_DN", "CN=bob"),
        ("HTTP_X_OUR_USER", "bob"),
    ],
)
def test_each_identity_tells_clients_apart_whatever_auth_says(auth, name, value):
    rules = InputRules(lambda: b"k", IDENTITIES | {"HTTP_X_OUR_USER"})
    for one, other in itertools.permutations([{}, {name: value}, {name: "other"}], 2):
        assert not is_same(auth, ({}, one), ({}, other), inputs=rules)
    assert is_same(auth, ({}, {name: value}), ({}, {name: value}), inputs=rules)


@pytest.mark.parametrize("auth", [None, lambda r: True])
@pytest.mark.parametrize("gate", [{}, {"Authorization": "Basic c2l0ZTpzaXRl"}])
def test_without_a_caller_address_and_cookies_count_behind_a_common_gate_too(auth, gate):
    for one, other in (
        ((gate, {}), ({**gate, "Cookie": "user=dave"}, {})),
        ((gate, {}), (gate, {"REMOTE_ADDR": "10.0.0.2"})),
    ):
        assert not is_same(auth, one, other)


def test_host_root_path_and_query_are_part_of_who_asks():
    for name, value in (("HTTP_HOST", "other.example"), ("QUERY_STRING", "token=bob")):
        assert not is_same(lambda r: Caller("customer"), ({}, {}), ({}, {name: value}))


@pytest.mark.parametrize(
    ("one", "other"),
    [("a", "b"), (1, 2), ("1 ", "1"), ("0", 1), ("ab", "a"), ("é", "e"), (-1, 1)],
)
def test_what_is_said_tells_clients_apart(one, other):
    says = iter([Caller(one), Caller(other)])
    assert not is_same(lambda r: next(says), ({}, {}), ({}, {}))


def test_no_value_can_pass_for_another():
    """Each part has its length, so what is said cannot spell what was looked at."""
    rules = InputRules(lambda: b"k")

    def describe(said, **more):
        about = {"wsgi.url_scheme": "http", "HTTP_HOST": "a", **more}
        return list(ClientInputs(rules).describe(about, said))

    assert describe(Caller("x"), REMOTE_USER="y") != describe(Caller("xREMOTE_USERy"))
    assert describe(True) != describe(Caller("True"))


# --- the same client ------------------------------------------------------------------------------

UNRELATED = {
    "Traceparent": "00-1", "X-Request-Id": "2", "Date": "today", "User-Agent": "other",
    "X-Retry": "1", "Accept-Language": "ko",
}  # fmt: skip


@pytest.mark.parametrize(
    "auth",
    [
        None,
        lambda r: True,
        lambda r: Caller("ann"),
        lambda r: Caller(r.headers["X-API-Key"]),
        AUTHS["one number for all"],
    ],
)
def test_what_nobody_looked_at_may_differ(auth):
    assert is_same(auth, (ANN, {}), ({**ANN, **UNRELATED}, {"REMOTE_PORT": "1234"}))


def test_a_caller_holds_through_new_cookies_and_addresses():
    moved = {**ANN, "Cookie": "new=1"}, {"REMOTE_ADDR": "203.0.113.9"}
    assert is_same(lambda r: Caller(r.headers["X-API-Key"]), (ANN, {}), moved)


def test_a_known_reader_keeps_what_it_sees_to_itself():
    """So a signature that is new for each try may be checked."""

    def check_signature(request):
        return request.headers["X-Signature"]

    def auth(request):
        return check_signature(request) and Caller("ann")

    rules = InputRules(lambda: b"k", IDENTITIES)
    one, other = ({"X-Signature": "1"}, {}), ({"X-Signature": "2"}, {})
    assert not is_same(auth, one, other, inputs=rules)
    rules.readers[__name__, "check_signature"] = KnownReader("it is checked")
    assert is_same(auth, one, other, inputs=rules)


def test_the_body_may_be_read_by_auth():
    def auth(request):
        return request.get_json()["q"] and Caller("ann")

    assert is_same(auth, ({}, {}), ({}, {}))


def test_a_host_whose_request_is_its_own_counts_every_header():
    class OwnRequest(Request):
        pass

    @contextlib.contextmanager
    def host_context(environ):
        environ["werkzeug.request"] = OwnRequest(environ)
        yield

    auth, more = (lambda r: Caller(type(r).__name__)), {"host_context": host_context}
    assert is_same(auth, (ANN, {}), (ANN, {}), **more)
    assert not is_same(auth, (ANN, {}), (BOB, {}), **more)


def test_without_a_key_nothing_is_observed():
    seen = []
    asked = client(lambda r: seen.append(type(r)) or True)
    asked.ask()
    assert seen == [Request]


# --- in a Flask app -------------------------------------------------------------------------------


class FlaskClient:
    """A browser, or several, of one app with a route."""

    def __init__(self, auth, **config):
        self.app = app = flask.Flask("routes")
        app.config.update(
            TESTING=True, SECRET_KEY="k" * 32, OM_HUB_URL="memory://",
            OM_ROUTES={"/ask": {"chain": "a", "auth": auth, "rate": None}}, **config,
        )  # fmt: skip
        om = OpenManager(app)
        made = []

        @om.engine("a", chain="a")
        def a(payload):
            made.append(1)
            return {"order": len(made)}

        @app.get("/in/<who>")
        def enter(who):
            session["user"] = who
            return "in"

        @app.get("/count")
        def count():
            session["seen"] = session.get("seen", 0) + 1
            return "counted"

    def browser(self, who=None):
        browser = self.app.test_client()
        if who:
            browser.get(f"/in/{who}")
        return browser

    @staticmethod
    def ask(browser, address="127.0.0.1", **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        reply = browser.post(
            "/ask", json={"q": 1}, headers={**KEY, **named}, environ_base={"REMOTE_ADDR": address}
        )
        assert reply.status_code == 200
        return reply.json["order"]


FLASK_AUTHS = {
    "true": lambda r: bool(session.get("user")),
    "one text": lambda r: session.get("user") and Caller("customer"),
    "the user": lambda r: Caller(session.get("user")),
    "the whole session": lambda r: dict(session) and Caller("customer"),
    "by an encoder in C": lambda r: (
        msgspec.json.encode(session._get_current_object()) and Caller("customer")
    ),
    "by the proxy": lambda r: flask_request.cookies.get("session") and Caller("customer"),
}
if not NEW_FLASK:
    del FLASK_AUTHS["by an encoder in C"]  # what C code reads itself cannot be seen there


@pytest.mark.parametrize("auth", FLASK_AUTHS.values(), ids=FLASK_AUTHS)
def test_sessions_of_two_visitors_are_two_clients(auth):
    site = FlaskClient(auth)
    ann, bob = site.browser("ann"), site.browser("bob")
    assert [site.ask(one) for one in (ann, bob, ann, bob)] == [1, 2, 1, 2]


def test_a_session_that_changed_elsewhere_is_the_same_client():
    for auth in (FLASK_AUTHS["the user"], FLASK_AUTHS["one text"]):
        site = FlaskClient(auth)
        ann = site.browser("ann")
        assert site.ask(ann) == 1
        ann.get("/count")
        ann.set_cookie("_ga", "2")
        assert site.ask(ann, "10.0.0.9", User_Agent="other", Date="today") == 1


def test_a_header_that_auth_reads_tells_visitors_apart_in_flask():
    site = FlaskClient(lambda r: r.headers.get("X-API-Key") and True)
    one = site.browser()
    assert [site.ask(one, X_API_Key=key) for key in ("ann", "bob", "ann")] == [1, 2, 1]


def test_the_address_counts_in_flask_only_when_auth_looks_at_it():
    site = FlaskClient(lambda r: Caller(r.headers["X-API-Key"]))
    assert [site.ask(site.browser(), f"10.0.0.{n}", X_API_Key="ann") for n in (1, 2)] == [1, 1]
    site = FlaskClient(lambda r: r.remote_addr and Caller(r.headers["X-API-Key"]))
    assert [site.ask(site.browser(), f"10.0.0.{n}", X_API_Key="ann") for n in (1, 2)] == [1, 2]


def test_a_request_class_that_cannot_be_observed_counts_every_header():
    class OwnRequest(flask.Request):
        @property
        def headers(self):
            return self.__dict__["headers"]

        @headers.setter
        def headers(self, value):
            self.__dict__["headers"] = value

    site = FlaskClient(lambda r: r.headers.get("X-API-Key") and Caller("customer"))
    site.app.request_class = OwnRequest
    one = site.browser()
    assert [site.ask(one, X_API_Key=key) for key in ("ann", "bob", "ann")] == [1, 2, 1]


def test_settings_of_the_cache_say_who_the_client_is():
    site = FlaskClient(lambda r: Caller("customer"), OM_CACHE_IDENTITIES=["HTTP_X_FORWARDED_USER"])
    one = site.browser()
    assert [site.ask(one, X_Forwarded_User=who) for who in ("ann", "bob", "ann")] == [1, 2, 1]
