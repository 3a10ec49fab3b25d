"""Engine routes, asked as a client asks them.

The layer's own parts are seen through it: :mod:`om_plugins.gateway.request`,
:mod:`om_plugins.gateway.response`, :mod:`om_plugins.gateway.access`,
:mod:`om_plugins.chains.http_call`, :mod:`om_plugins.core.access` and
:mod:`om_plugins.workers.rate_limit`.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import flask
import pytest
from werkzeug.exceptions import Forbidden
from werkzeug.wrappers import Response

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.errors import (
    CallerDeadline,
    Cancelled,
    ChainExhausted,
    ConfigError,
    EngineUnavailable,
    HubError,
    InvalidRequest,
    RateLimited,
    TooLong,
    Transient,
)
from om_plugins.gateway import EngineRoutes
from om_plugins.settings.settings__options import RouteOptions
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import Answer

SECRET = b"a secret for tests"


class Chunks:
    """Chunks of a streamed answer that know whether they were closed."""

    def __init__(self, *chunks):
        self._chunks = iter(chunks)
        self.closed = False

    def __iter__(self):
        return self

    def __next__(self):
        chunk = next(self._chunks)
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    def close(self):
        self.closed = True


class AChain:
    """A chain that answers or raises what it is told, and remembers its calls."""

    name = "assistant"

    def __init__(self, answer=None, *, idempotent=False):
        self.answer = answer
        self.idempotent = idempotent
        self.calls = []

    def call(self, payload=None, **options):
        self.calls.append((payload, options))
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, Answer):
            return self.answer
        return Answer({"you said": payload}, engine="echo")


class Reply:
    def __init__(self, status, headers, body):
        self.status = int(status.split()[0])
        self.line = status
        self.header_list = headers
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def events(self):
        blocks = self.body.decode().removesuffix("\n\n").split("\n\n")
        pairs = [block.split("\n", 1) for block in blocks]
        return [(n.removeprefix("event: "), json.loads(d.removeprefix("data: "))) for n, d in pairs]


class Client:
    """Asks a WSGI app through ``wsgiref.validate``, with the validator below it as well."""

    def __init__(self, chain, *, clock=None, hub=None, secret=SECRET, options=None, **arguments):
        self.chain = chain
        self.clock = clock or FakeClock()
        self.hub = hub or MemoryHub("memory://", self.clock)
        options = RouteOptions(chain="assistant", **(options or {}))
        self.wsgi = validator(
            EngineRoutes(
                validator(self.host_app),
                {"/api/ask": options, "/질문": options},
                lambda name: self.chain,
                hub=self.hub,
                secret=lambda: secret,
                clock=self.clock,
                **arguments,
            )
        )

    @staticmethod
    def host_app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-Host", "yes")])
        return [b"the host app, " + environ["PATH_INFO"].encode("latin-1")]

    def environ(self, method="POST", path="/api/ask", body=None, headers=None, **more):
        if not isinstance(body, bytes):
            body = json.dumps({"q": 1} if body is None else body).encode()
        environ = {
            "REQUEST_METHOD": method, "PATH_INFO": path.encode().decode("latin-1"),
            "SCRIPT_NAME": "", "QUERY_STRING": "", "REMOTE_ADDR": "198.51.100.7",
            "HTTP_HOST": "app.example",
        }  # fmt: skip
        if method == "POST":
            environ |= {
                "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body)),
                "wsgi.input": io.BytesIO(body),
            }  # fmt: skip
        for name, value in (headers or {}).items():
            environ["HTTP_" + name.upper().replace("-", "_")] = value
        environ |= more
        setup_testing_defaults(environ)
        return {name: value for name, value in environ.items() if value is not None}

    def open(self, **request):
        """The iterable and the list that will hold status and headers."""
        started = []

        def start_response(status, headers, exc_info=None):
            started[:] = [status, headers]
            return lambda data: None

        return self.wsgi(self.environ(**request), start_response), started

    def ask(self, **request):
        iterable, started = self.open(**request)
        try:
            body = b"".join(iterable)
        finally:
            iterable.close()
        return Reply(*started, body)


EVENTS = {"Accept": "text/event-stream"}


# --- what is not ours ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api/ask/", "/api/as", "/API/ask", "/api/ask/x"])
def test_other_paths_go_to_the_app_unchanged(path):
    reply = Client(AChain()).ask(path=path)
    assert reply.body == b"the host app, " + path.encode()
    assert reply.header_list == [("Content-Type", "text/plain"), ("X-Host", "yes")]


def test_path_with_other_letters_is_matched():
    assert Client(AChain()).ask(path="/질문").json == {"you said": {"q": 1}}


# --- questions and answers ----------------------------------------------------------------------


def test_post_is_answered_as_json_with_how_it_came_about():
    answer = Answer(
        {"a": "디스크"}, engine="big\r\nX-Evil: 1", tier=2, attempts=3, degraded=True, stale=True
    )
    reply = Client(AChain(answer)).ask(body={"q": "?"})
    assert reply.status == 200
    assert reply.json == {"a": "디스크"}
    expected = {
        "content-type": "application/json", "om-engine": "big--X-Evil--1", "om-tier": "2",
        "om-attempts": "3", "om-degraded": "?1", "om-stale": "?1", "cache-control": "no-store",
        "x-content-type-options": "nosniff", "content-length": str(len(reply.body)),
    }  # fmt: skip
    assert expected.items() <= reply.headers.items()


def test_plain_answer_has_no_marks():
    reply = Client(AChain()).ask()
    assert not {"om-degraded", "om-stale"} & set(reply.headers)


@pytest.mark.parametrize(
    ("payload", "body"),
    [("text", {"answer": "text"}), (None, None), ([1], [1]), (5, 5), (True, True)],
)
def test_every_json_payload_has_a_body(payload, body):
    assert Client(AChain(Answer(payload, engine="e"))).ask().json == body


def test_call_gets_key_timeout_and_few_headers():
    client = Client(AChain(), options={"timeout": 4})
    headers = {"Idempotency-Key": "abc-1", "Accept-Language": "ko", "Cookie": "s=1"}
    client.ask(headers={**headers, "Traceparent": "00-\x7f-01"})
    options = client.chain.calls[0][1]
    assert re.fullmatch("[0-9a-f]{32}", options["idempotency_key"])  # not the client's own
    assert options["timeout"] == 4
    assert options["headers"] == {"accept-language": "ko"}
    assert options["stream"] is False


def test_streamed_answer_is_joined_for_a_client_without_streams():
    chunks = Chunks("a", "디".encode()[:1], "디".encode()[1:], "c")
    assert Client(AChain(Answer(chunks=chunks, engine="e"))).ask().json == {"answer": "a디c"}
    assert chunks.closed


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


# --- hostile requests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\xff", b"NaN", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 100_000,
        b'"\\ud800"', b"{} {}",
    ],
)  # fmt: skip
def test_malformed_json_is_400(body):
    client = Client(AChain())
    reply = client.ask(body=body)
    assert reply.status == 400
    assert reply.json["title"] == "Bad Request"
    assert not client.chain.calls


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "", "json"]
)
def test_body_that_is_not_json_is_415(kind):
    assert Client(AChain()).ask(CONTENT_TYPE=kind).status == 415


def test_json_content_types_are_accepted():
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/ld+json"):
        assert Client(AChain()).ask(CONTENT_TYPE=kind).status == 200


class Endless(io.RawIOBase):
    """An input that never ends and counts what was read."""

    def __init__(self):
        self.taken = 0

    def read(self, size=-1):
        assert size > 0
        self.taken += size
        return b"1" * size

    def readline(self, size=-1): ...

    def readlines(self, hint=-1): ...

    def __iter__(self): ...


def test_body_over_the_limit_is_413_unread():
    source = Endless()
    more = {"wsgi.input": source, "CONTENT_LENGTH": "1001"}
    reply = Client(AChain(), options={"max_body": 1000}).ask(**more)
    assert reply.status == 413
    assert "1,000 bytes" in reply.json["detail"]
    assert source.taken == 0


def test_endless_chunked_body_is_413_after_the_limit():
    source = Endless()
    more = {"wsgi.input": source, "CONTENT_LENGTH": None, "wsgi.input_terminated": True}
    assert Client(AChain(), options={"max_body": 1000}).ask(**more).status == 413
    assert source.taken <= 2000


def test_chunked_body_is_read():
    more = {"CONTENT_LENGTH": None, "wsgi.input_terminated": True}
    assert Client(AChain()).ask(body=[1], **more).json == {"you said": [1]}


def test_body_of_unknown_length_is_411():
    assert Client(AChain()).ask(CONTENT_LENGTH=None).status == 411


def test_body_that_ends_early_or_breaks_is_400():
    client = Client(AChain())
    assert client.ask(CONTENT_LENGTH="999").status == 400

    class Broken(Endless):
        def read(self, size=-1):
            raise OSError("the client left")

    assert client.ask(**{"wsgi.input": Broken(), "CONTENT_LENGTH": "9"}).status == 400


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "é"])
def test_unfit_idempotency_key_is_400(key):
    client = Client(AChain())
    assert client.ask(headers={"Idempotency-Key": key}).status == 400
    assert not client.chain.calls


def test_untrusted_host_is_400():
    client = Client(AChain(), trusted_hosts=["app.example", ".sub.example"])
    assert client.ask().status == 200
    assert client.ask(HTTP_HOST="a.sub.example").status == 200
    for host in ("evil.example", "app.example.evil", "app.example@evil"):
        assert client.ask(HTTP_HOST=host).status == 400


# --- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (ChainExhausted("x", [Transient("s3cret")]), 503, "5"),
        (ChainExhausted("x", [RateLimited()], "c", [], 2.1), 503, "3"),
        (ChainExhausted("x", [EngineUnavailable("e", "offline")], "c", [], 9e9), 503, "3600"),
        (ChainExhausted("x", [Transient()], "c", [], 0.0), 503, "1"),
        (ChainExhausted("x", [TooLong(), TooLong()]), 413, None),
        (InvalidRequest("s3cret"), 400, None),
        (CallerDeadline("s3cret"), 504, None),
        (Cancelled("s3cret"), 503, "1"),
        (ZeroDivisionError("s3cret"), 500, None),
    ],
)
def test_failure_becomes_a_problem_in_plain_words(error, status, retry_after):
    reply = Client(AChain(error)).ask()
    assert reply.status == reply.json["status"] == status
    assert reply.headers.get("retry-after") == retry_after
    assert reply.headers["content-type"] == "application/problem+json"
    assert b"s3cret" not in reply.body
    assert b"Traceback" not in reply.body
    assert reply.json["instance"].startswith("urn:uuid:")


def test_unknown_error_is_logged_under_the_id_that_the_client_sees(caplog):
    with caplog.at_level(logging.ERROR, "om_plugins"):
        reply = Client(AChain(ZeroDivisionError("s3cret"))).ask()
    assert reply.json["instance"] in caplog.text
    assert "ZeroDivisionError: s3cret" in caplog.text


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


def test_answer_that_is_not_json_is_500_and_closed():
    chunks = Chunks(object())
    assert Client(AChain(Answer(chunks=chunks, engine="e"))).ask().status == 500
    assert chunks.closed


# --- streams ------------------------------------------------------------------------------------


def test_stream_is_sent_as_events():
    chunks = Chunks("a\nb", "디".encode(), {"k": 1})
    client = Client(AChain(Answer(chunks=chunks, engine="e", tier=2, degraded=True)))
    reply = client.ask(headers=EVENTS)
    assert client.chain.calls[0][1]["stream"] is True
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.headers["om-tier"] == "2"
    meta = {"engine": "e", "tier": 2, "attempts": 1, "degraded": True, "stale": False}
    assert reply.events == [
        ("meta", meta), ("chunk", "a\nb"), ("chunk", "디"), ("chunk", {"k": 1}), ("done", {})
    ]  # fmt: skip
    assert chunks.closed


def test_answer_without_chunks_is_one_event():
    reply = Client(AChain(Answer({"answer": "x"}, engine="e"))).ask(headers=EVENTS)
    assert reply.events[1:] == [("chunk", {"answer": "x"}), ("done", {})]


@pytest.mark.parametrize(
    ("error", "status"),
    [(Transient("s3cret"), 502), (CallerDeadline(), 504), (ValueError("s3cret"), 500)],
)
def test_failure_in_the_middle_is_an_error_event(error, status):
    chunks = Chunks("a", error, "never")
    reply = Client(AChain(Answer(chunks=chunks, engine="e"))).ask(headers=EVENTS)
    assert [name for name, _ in reply.events] == ["meta", "chunk", "error"]
    assert reply.events[-1][1]["status"] == status
    assert b"s3cret" not in reply.body
    assert chunks.closed


def test_failure_before_the_first_chunk_is_a_problem_document():
    reply = Client(AChain(ChainExhausted("x", [Transient()]))).ask(headers=EVENTS)
    assert (reply.status, reply.headers["content-type"]) == (503, "application/problem+json")


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_client_that_leaves_closes_the_answer(taken):
    chunks = Chunks("a", "b", "c")
    iterable, _ = Client(AChain(Answer(chunks=chunks, engine="e"))).open(headers=EVENTS)
    iterator = iter(iterable)
    for _ in range(taken):
        next(iterator)
    iterator.close()
    assert chunks.closed


@pytest.mark.parametrize(
    ("accept", "streams"),
    [
        (None, False), ("*/*", False), ("text/*", False), ("application/json", False),
        ("text/event-stream", True), ("TEXT/Event-Stream", True),
        ("text/event-stream;q=0", False), ("text/event-stream, application/json", True),
        ("text/event-stream;q=0.5, application/json", False),
        ("text/event-stream;q=0.5, */*;q=0.1", True), ("text/event-stream;q=0.5, */*", False),
        ("application/json;q=0.9, text/event-stream", True), (";;,,q=text/event-stream", False),
    ],
)  # fmt: skip
def test_events_are_sent_only_to_who_prefers_them(accept, streams):
    client = Client(AChain())
    reply = client.ask(headers={} if accept is None else {"Accept": accept})
    assert client.chain.calls[0][1]["stream"] is streams
    assert reply.headers["content-type"].startswith("text/event-stream") is streams


# --- who may ask --------------------------------------------------------------------------------


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


def test_allowed_origin_may_ask_and_read():
    client = Client(AChain(), options={"cors": ["https://pal.example"]})
    pal = {"Origin": "https://pal.example", "Sec-Fetch-Site": "cross-site"}
    reply = client.ask(headers=pal)
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == "https://pal.example"
    assert reply.headers["vary"] == "Origin"
    client.chain.answer = ChainExhausted("x", [Transient()])
    assert "access-control-allow-origin" in client.ask(headers=pal).headers
    other = client.ask(headers={"Origin": "https://other.example"})
    assert (other.status, other.headers["vary"]) == (403, "Origin")
    assert "access-control-allow-origin" not in other.headers


def test_preflight_is_answered_for_allowed_origins_only():
    client = Client(AChain(), options={"cors": ["https://pal.example"]})
    asked = {"Access-Control-Request-Method": "POST", "Sec-Fetch-Site": "cross-site"}
    reply = client.ask(method="OPTIONS", headers={"Origin": "https://pal.example", **asked})
    assert reply.status == 204
    assert reply.headers["access-control-allow-methods"] == "POST"
    assert "Content-Type" in reply.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in reply.headers
    reply = client.ask(method="OPTIONS", headers={"Origin": "https://evil.example", **asked})
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_star_allows_every_site():
    reply = Client(AChain(), options={"cors": "*"}).ask(headers={"Origin": "https://any.example"})
    assert reply.headers["access-control-allow-origin"] == "*"


def test_rate_is_counted_per_client_and_over_workers():
    clock = FakeClock(now=6000.0)
    hub = MemoryHub("memory://", clock)
    one = Client(AChain(), clock=clock, hub=hub, options={"rate": "2/min"})
    two = Client(AChain(), clock=clock, hub=hub, options={"rate": "2/min"})
    assert one.ask().headers["ratelimit"] == '"default";r=1;t=60'
    assert two.ask().status == 200
    clock.advance(20)
    refused = one.ask()
    assert (refused.status, refused.headers["retry-after"]) == (429, "40")
    assert refused.json["retry_after"] == 40
    assert two.ask().status == 429
    assert one.ask(REMOTE_ADDR="203.0.113.9").status == 200
    clock.advance(40)
    assert one.ask().status == 200


def test_addresses_of_one_ipv6_customer_are_one_client():
    client = Client(AChain(), options={"rate": "1/min"})
    assert client.ask(REMOTE_ADDR="2001:db8::1").status == 200
    assert client.ask(REMOTE_ADDR="2001:db8::ffff:2").status == 429
    assert client.ask(REMOTE_ADDR="2001:db8:0:1::1").status == 200
    assert client.ask(REMOTE_ADDR="::ffff:192.0.2.1").status == 200
    assert client.ask(REMOTE_ADDR="192.0.2.1").status == 429
    assert client.ask(REMOTE_ADDR="not:an:address").status == 200
    assert client.ask(REMOTE_ADDR=None).status == 200


class RecordingHub:
    def __init__(self, error=None):
        self.keys = []
        self.error = error

    def increment(self, key, amount=1, ttl=60.0):
        self.keys.append(key)
        if self.error:
            raise self.error
        return len(self.keys)


def test_no_address_reaches_the_hub_and_a_flood_does_not_either():
    client = Client(AChain(), hub=RecordingHub(), options={"rate": "3/min"})
    assert [client.ask().status for _ in range(8)] == [200] * 3 + [429] * 5
    assert len(client.hub.keys) == 4
    assert not any("198.51" in key for key in client.hub.keys)


def test_lost_hub_never_fails_a_request(caplog):
    client = Client(AChain(), hub=RecordingHub(HubError("gone")))
    assert [client.ask().status for _ in range(3)] == [200] * 3
    assert caplog.text.count("is not counted") == 1, "said once, not for every request"


def test_rate_can_be_switched_off():
    client = Client(AChain(), hub=RecordingHub(HubError("gone")), options={"rate": None})
    client.ask()
    assert not client.hub.keys


# --- auth ---------------------------------------------------------------------------------------


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


# --- configuration ------------------------------------------------------------------------------


async def async_auth(request):
    return True


@pytest.mark.parametrize(
    ("path", "options", "error"),
    [
        ("api", {"chain": "a"}, ConfigError),
        ("/api", {}, ConfigError),
        ("/api", {"chain": "a", "auth": async_auth}, TypeError),
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
