"""The proxy engine: what an upstream gets, byte for byte, and what comes back."""

from __future__ import annotations

import gzip
import re
import threading
import time

import pytest

from om_plugins.builtin.engines.proxy import ProxyEngine
from om_plugins.builtin.engines.proxy_app import StreamedBody
from om_plugins.builtin.http import connections, network
from om_plugins.chains.chain import EngineChain
from om_plugins.chains.options import ChainPolicy
from om_plugins.core.call import caller_gone
from om_plugins.errors import (
    AttemptTimeout,
    CallerDeadline,
    Cancelled,
    ConfigError,
    InvalidRequest,
    Misconfigured,
    RateLimited,
    Transient,
    Unsupported,
)
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import Call, EngineSpec, HttpRequest
from tests.patience import HANG_S, PATIENCE_S, cut_off

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Recorder:
    """Answers every request of a keep-alive connection with ``answer`` and keeps what came."""

    def __init__(self, answer=OK):
        self.answer = answer
        self.heads = []
        self.bodies = []
        self.connections = 0

    def __call__(self, connection, number):
        self.connections += 1
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                part = connection.recv(65536)
                if not part:
                    return
                data += part
            head, _, data = data.partition(b"\r\n\r\n")
            lower = head.lower()
            if b"transfer-encoding: chunked" in lower:
                while not data.endswith(b"0\r\n\r\n"):
                    part = connection.recv(65536)
                    if not part:
                        return
                    data += part
                body, data = data, b""
            else:
                length = 0
                for line in lower.split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                while len(data) < length:
                    part = connection.recv(65536)
                    if not part:
                        return
                    data += part
                body, data = data[:length], data[length:]
            self.heads.append(head.decode("latin-1"))
            self.bodies.append(body)
            connection.sendall(self.answer)

    @property
    def lines(self):
        return self.heads[-1].split("\r\n")


@pytest.fixture
def proxied(raw_upstream):
    engines = []

    def make(answer=OK, path="", **options):
        script = answer if callable(answer) else Recorder(answer)
        engine = ProxyEngine("up", raw_upstream(script).url + path, **options)
        engines.append(engine)
        return engine, script

    yield make
    for engine in engines:
        engine.close()


def ask(engine, *args, stream=False, timeout=HANG_S, monotonic=time.monotonic, **options):
    request = HttpRequest(*args, **options)
    deadline = monotonic() + timeout
    return engine.call(Call(request, stream=stream, deadline=deadline, monotonic=monotonic))


# --- what the upstream gets -----------------------------------------------------------------------


def test_a_request_is_passed_on_as_it_is(proxied):
    engine, upstream = proxied(pass_deadline=False)
    headers = [
        ("Host", "public.example"),
        ("X-Odd~Name", "a"),
        ("X-Twice", "1"),
        ("X-Empty", ""),
        ("x-twice", "2"),
        ("X-Latin", "é"),
    ]
    ask(engine, "GET", "/%7euser/a%2Fb//c/../d?x=%zz&y=[1]&q", headers)
    assert upstream.lines[0] == "GET /%7euser/a%2Fb//c/../d?x=%zz&y=[1]&q HTTP/1.1"
    assert upstream.lines[2:] == [
        "X-Odd~Name: a", "X-Twice: 1", "X-Empty: ", "x-twice: 2", "X-Latin: é",
        "Via: 1.1 om-plugins",
    ]  # fmt: skip
    assert re.fullmatch(r"Host: 127\.0\.0\.1:\d+", upstream.lines[1])


@pytest.mark.parametrize(
    ("host", "sent"), [("client", "public.example"), ("inner.example:81", "inner.example:81")]
)
def test_the_host_is_what_the_policy_says(proxied, host, sent):
    engine, upstream = proxied(host=host)
    ask(engine, "GET", "/", [("Host", "public.example")])
    assert [line for line in upstream.lines if line.startswith("Host")] == [f"Host: {sent}"]


def test_a_path_of_the_upstream_comes_first_and_cannot_be_left(proxied):
    engine, upstream = proxied(path="/base/")
    ask(engine, "GET", "/a..b/.c?../x")
    assert upstream.lines[0] == "GET /base/a..b/.c?../x HTTP/1.1"
    for target in ("/../admin", "/a/..", "/%2e%2E/x", "/..;/x", "/.%2e", "/a/%2e%2e%2fx", "/..\\x"):
        with pytest.raises(InvalidRequest, match="leads out"):
            ask(engine, "GET", target)
    assert len(upstream.heads) == 1


@pytest.mark.parametrize(
    ("method", "target", "error"),
    [
        ("GET", "no/slash", InvalidRequest),
        ("GET", "/a b", InvalidRequest),
        ("GET", "/a\r\nX: y", InvalidRequest),
        ("GET", "/a#b", InvalidRequest),
        ("GET", "http://elsewhere/", InvalidRequest),
        ("GET", "*", InvalidRequest),
        ("GET /x HTTP/1.1\r\nX:", "/", InvalidRequest),
        ("", "/", InvalidRequest),
        ("CONNECT", "/", Unsupported),
        ("TRACE", "/", Unsupported),
    ],
)
def test_a_request_line_that_is_none_is_not_sent(proxied, method, target, error):
    engine, upstream = proxied()
    with pytest.raises(error) as caught:
        ask(engine, method, target)
    assert caught.value.sent == "no"
    assert upstream.heads == []


@pytest.mark.parametrize("header", [("X", "a\r\nY: b"), ("X: y\r\nZ", "a"), ("X", "a\0b")])
def test_a_header_cannot_bring_another(proxied, header):
    engine, upstream = proxied()
    with pytest.raises(InvalidRequest):
        ask(engine, "GET", "/", [header])
    assert upstream.heads == []


def test_framing_is_the_engines_own(proxied):
    engine, upstream = proxied(pass_deadline=False, via=None)
    lies = [("Content-Length", "99"), ("Transfer-Encoding", "chunked"), ("Expect", "100-continue")]
    ask(engine, "POST", "/", lies, b"hello")
    assert upstream.lines[2:] == ["Content-Length: 5"]
    assert upstream.bodies == [b"hello"]
    ask(engine, "POST", "/", lies)
    assert upstream.lines[2:] == ["Content-Length: 0"]
    ask(engine, "GET", "/", lies)
    assert upstream.lines[2:] == []


def test_an_iterable_is_streamed_counted_or_in_chunks(proxied):
    engine, upstream = proxied()
    ask(engine, "POST", "/", body=iter([b"he", b"", b"llo"]), length=5)
    assert "Content-Length: 5" in upstream.lines
    assert upstream.bodies[-1] == b"hello"
    ask(engine, "POST", "/", body=iter([b"he", b"", b"llo"]))
    assert "Transfer-Encoding: chunked" in upstream.lines
    assert upstream.bodies[-1] == b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"


def test_a_body_that_is_not_as_long_as_it_says_never_ends_well(proxied):
    engine, upstream = proxied()
    with pytest.raises(Cancelled, match="broke off"):
        ask(engine, "POST", "/", body=iter([b"hell"]), length=5)
    with pytest.raises(InvalidRequest, match="longer"):
        ask(engine, "POST", "/", body=iter([b"hello", b"GET /smuggled"]), length=5)
    time.sleep(0.05)
    assert not any("smuggled" in head for head in upstream.heads)


def test_a_body_that_was_streamed_is_not_sent_twice(proxied):
    engine, _ = proxied()
    request = HttpRequest("PUT", "/", body=StreamedBody(b"a", lambda size: b"", 10), length=1)
    engine.call(Call(request))
    with pytest.raises(Unsupported, match="is gone") as caught:
        engine.call(Call(request))
    assert caught.value.sent == "no"


def test_a_client_that_sends_slowly_is_not_the_upstreams_failure(proxied, monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(network, "time", clock)
    monkeypatch.setattr(connections, "time", clock)
    engine, _ = proxied(timeout=20)

    def slowly():
        for _ in range(3):
            clock.advance(15)
            yield b"x"

    post = {"body": slowly(), "length": 3, "monotonic": clock.monotonic}
    assert ask(engine, "POST", "/", **post).status == 200
    post["body"] = slowly()
    with pytest.raises(CallerDeadline):
        ask(engine, "POST", "/", **post, timeout=40)


def test_an_answer_before_the_body_was_read_is_still_read(proxied):
    def early(connection, number):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        connection.shutdown(1)
        time.sleep(0.3)

    engine, _ = proxied(early)
    body = iter([b"x" * 65536] * 40)
    try:
        assert ask(engine, "POST", "/", body=body).status == 413
    except Transient as error:  # the reset came before the answer was read: the network's race
        assert error.sent in ("maybe", "yes")


def test_the_time_that_is_left_is_told(proxied):
    engine, upstream = proxied(timeout=900)
    ask(engine, "GET", "/", [("X-Envoy-Expected-Rq-Timeout-Ms", "999999")], timeout=200)
    (told,) = [line for line in upstream.lines if "timeout-ms" in line.lower()]
    assert 180_000 <= int(told.partition(": ")[2]) <= 200_000


def test_own_headers_take_the_place_of_the_clients(proxied):
    engine, upstream = proxied(headers={"Authorization": "Bearer ours"})
    ask(engine, "GET", "/", [("authorization", "Basic theirs")])
    assert [line for line in upstream.lines if "uthorization" in line] == [
        "Authorization: Bearer ours"
    ]


def test_an_upgrade_is_ignored_and_a_websocket_refused(proxied):
    engine, upstream = proxied()
    ask(engine, "GET", "/", [("Connection", "Upgrade"), ("Upgrade", "h2c")])
    assert "h2c" not in upstream.heads[-1]
    with pytest.raises(Unsupported, match="WebSocket"):
        ask(engine, "GET", "/", [("Connection", "keep-alive, Upgrade"), ("Upgrade", "WebSocket")])


def test_a_request_that_goes_in_a_circle_is_stopped(proxied):
    engine, _ = proxied()
    ask(engine, "GET", "/", [("Via", "1.1 om-plugins, 1.1 om-plugins")])
    with pytest.raises(Misconfigured, match="circle"):
        ask(engine, "GET", "/", [("Via", "1.1 om-plugins, " * 8)])


def test_max_forwards_counts_down_for_options(proxied):
    engine, upstream = proxied()
    ask(engine, "OPTIONS", "*", [("Max-Forwards", "2")])
    assert upstream.lines[0] == "OPTIONS * HTTP/1.1"
    assert "Max-Forwards: 1" in upstream.lines
    answer = ask(engine, "OPTIONS", "/", [("Max-Forwards", "0")])
    assert answer.status == 200
    assert len(upstream.heads) == 1


def test_another_payload_is_for_another_engine(proxied):
    engine, _ = proxied()
    with pytest.raises(Unsupported, match="not dict"):
        engine.call(Call({"a": 1}))


# --- what comes back ------------------------------------------------------------------------------


def test_an_answer_comes_back_as_it_is(proxied):
    body = gzip.compress(b"hello")
    engine, _ = proxied(
        b"HTTP/1.1 299 Odd\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nSet-Cookie: a=1\r\n"
        b"X-Empty:\r\nSet-Cookie: b=2; Path=/\r\nContent-Encoding: gzip\r\nLocation: /%%7e\r\n"
        b"Keep-Alive: timeout=5\r\nX-Latin: \xe9\r\nX-Unknown: ,a,,b,\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    answer = ask(engine, "GET", "/")
    assert answer.status == answer.payload.status == 299
    assert answer.payload.headers == [
        ("Set-Cookie", "a=1"), ("X-Empty", ""), ("Set-Cookie", "b=2; Path=/"),
        ("Content-Encoding", "gzip"), ("Location", "/%7e"), ("X-Latin", "é"),
        ("X-Unknown", ",a,,b,"), ("Content-Length", str(len(body))),
    ]  # fmt: skip
    assert answer.payload.body == body


@pytest.mark.parametrize(
    ("method", "status", "length"), [("GET", 200, 0), ("GET", 304, 7), ("HEAD", 200, 7)]
)
def test_an_answer_without_a_body_may_name_any_encoding(proxied, method, status, length):
    engine, _ = proxied(
        b"HTTP/1.1 %d X\r\nContent-Encoding: br\r\nContent-Length: %d\r\n\r\n" % (status, length)
    )
    answer = ask(engine, method, "/")
    assert (answer.status, answer.payload.body) == (status, b"")


def test_folded_lines_and_trailers_end_here(proxied):
    engine, upstream = proxied(
        b"HTTP/1.1 200 OK\r\nX-Fold: a\r\n  b\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\nX-T: 1\r\n\r\n"
    )
    for _ in range(2):
        answer = ask(engine, "GET", "/")
        assert answer.payload.headers == [("X-Fold", "a b")]
        assert answer.payload.body == b"ok"
    assert upstream.connections == 1, "the trailer was read, so the connection is clean"


def test_interim_answers_are_skipped(proxied):
    engine, _ = proxied(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 102 Processing\r\n\r\n" + OK
    )
    answer = ask(engine, "GET", "/")
    assert (answer.status, answer.payload.body) == (200, b"ok")
    assert answer.payload.headers == [("Content-Length", "2")]


def test_switching_protocols_unasked_is_no_answer(proxied):
    engine, _ = proxied(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\nwhatever")
    with pytest.raises(Transient, match="SWITCH_UPGRADE"):
        ask(engine, "GET", "/")


@pytest.mark.parametrize(
    ("method", "answer", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "1000"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: x\r\n\r\n", "1000"),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", None),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "0"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_without_a_body_ends_with_its_head(proxied, method, answer, length, stream):
    engine, upstream = proxied(answer)
    for _ in range(2):
        found = ask(engine, method, "/", stream=stream)
        assert found.payload.body == b""
        assert not found.streamed
        assert dict(found.payload.headers).get("Content-Length") == length
    assert upstream.connections == 1


def test_a_body_is_streamed_as_it_comes_and_may_be_given_up(proxied):
    gone = threading.Event()

    def endless(connection, number):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nfirst")
        time.sleep(0.1)
        try:
            while True:
                connection.sendall(b"x" * 65536)
        except OSError:
            gone.set()

    engine, _ = proxied(endless)
    answer = ask(engine, "GET", "/", stream=True)
    assert answer.payload.status == 200
    assert next(answer.chunks) == b"first"
    answer.close()
    assert gone.wait(PATIENCE_S)


def test_a_reader_that_takes_its_time_is_no_silence(proxied, monkeypatch):
    taken = threading.Event()

    def slow(connection, number):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\none")
        assert taken.wait(PATIENCE_S)
        connection.sendall(b"two")
        connection.recv(1)

    clock = FakeClock()
    monkeypatch.setattr(network, "time", clock)
    engine, _ = proxied(slow, idle_timeout=30)
    answer = ask(engine, "GET", "/", stream=True)
    chunks = iter(answer.chunks)
    assert next(chunks) == b"one"
    clock.advance(50)
    taken.set()
    assert next(chunks) == b"two"
    answer.close()


def test_a_silence_in_a_stream_is_cut_off(proxied):
    def silent(connection, number):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\none")
        connection.recv(1)

    engine, _ = proxied(silent, idle_timeout=0.3)
    chunks = iter(ask(engine, "GET", "/", stream=True).chunks)
    assert next(chunks) == b"one"
    with cut_off(0.3), pytest.raises(AttemptTimeout):
        next(chunks)


def test_more_bytes_than_the_answer_are_never_the_next_answer(proxied):
    engine, upstream = proxied(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    for _ in range(3):
        assert ask(engine, "GET", "/").payload.body == b"ok"
    assert upstream.connections == 3


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_an_answer_that_can_be_read_in_two_ways_is_none(proxied, answer):
    engine, _ = proxied(answer)
    with pytest.raises(Transient):
        ask(engine, "GET", "/")


def test_a_length_beside_chunks_does_not_count_and_ends_the_connection(proxied):
    engine, upstream = proxied(
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\n\r\n"
    )
    for _ in range(2):
        answer = ask(engine, "GET", "/")
        assert answer.payload.headers == []
        assert answer.payload.body == b"ok"
    assert upstream.connections == 2


@pytest.mark.parametrize(("status", "error"), [(502, Transient), (503, RateLimited)])
def test_chosen_statuses_are_failures_that_keep_the_answer(proxied, status, error):
    page = f"HTTP/1.1 {status} Oh\r\nRetry-After: 7\r\nX-Page: own\r\nContent-Length: 4\r\n\r\nsigh"
    engine, _ = proxied(page.encode())
    with pytest.raises(error) as caught:
        ask(engine, "GET", "/")
    assert (caught.value.status, caught.value.retry_after) == (status, 7)
    assert caught.value.response.status == status
    assert ("X-Page", "own") in caught.value.response.headers
    assert caught.value.response.body == b"sigh"


@pytest.mark.parametrize("status", [301, 404, 429, 500])
def test_every_other_status_is_an_answer(proxied, status):
    engine, _ = proxied(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok".encode())
    assert ask(engine, "GET", "/").status == status


def test_500_may_be_a_failure_too(proxied):
    engine, _ = proxied(b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nok", fail_on=[500])
    with pytest.raises(Transient):
        ask(engine, "GET", "/")


# --- in a chain -----------------------------------------------------------------------------------


def chain_of(*engines, **policy):
    chain = EngineChain("web", ChainPolicy(delays=(0.001,), **policy))
    for tier, engine in enumerate(engines, 1):
        chain.add(EngineSpec(engine, "web", tier))
    return chain


def test_a_chain_falls_back_and_streams_head_and_body(proxied):
    engine, _ = proxied(OK)
    dead = ProxyEngine("dead", "http://127.0.0.1:1")
    answer = chain_of(dead, engine, retries=0).call(
        HttpRequest("POST", "/", body=b"x"), stream=True, idempotent=False
    )
    assert answer.degraded
    assert answer.payload.status == 200
    assert b"".join(answer.chunks) == b"ok"


def test_a_post_that_may_have_arrived_is_not_sent_again(proxied):
    def dies(connection, number):
        connections.append(number)
        connection.recv(65536)

    connections = []
    engine, _ = proxied(dies)
    with pytest.raises(ExceptionGroup):
        chain_of(engine, retries=2).call(HttpRequest("POST", "/", body=b"x"), stream=True)
    assert len(connections) == 1
    with pytest.raises(ExceptionGroup):
        chain_of(engine, retries=2).call(HttpRequest("GET", "/"), stream=True, idempotent=True)
    assert len(connections) == 4


def test_a_client_that_leaves_ends_a_wait(proxied):
    left = threading.Event()
    closed = threading.Event()

    def silent(connection, number):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nfirst")
        if not connection.recv(1):
            closed.set()

    engine, _ = proxied(silent, idle_timeout=HANG_S)
    token = caller_gone.set(left.is_set)
    try:
        answer = chain_of(engine).call(HttpRequest(), stream=True, timeout=HANG_S)
    finally:
        caller_gone.reset(token)
    assert next(answer.chunks) == b"first"
    threading.Timer(0.1, left.set).start()
    with cut_off(), pytest.raises(Cancelled):
        next(answer.chunks)
    assert closed.wait(PATIENCE_S)


@pytest.mark.parametrize(
    "options",
    [{"host": ""}, {"host": "a b"}, {"via": "two words"}, {"fail_on": [200]}, {"fail_on": ["x"]},
     {"idle_timeout": 0}],
)  # fmt: skip
def test_a_wrong_argument_is_a_config_error(options):
    with pytest.raises(ConfigError):
        ProxyEngine("up", "http://127.0.0.1:1", **options)
    with pytest.raises(ConfigError, match="no query"):
        ProxyEngine("up", "http://127.0.0.1:1/?a=b")
