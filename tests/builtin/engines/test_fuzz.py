"""Hostile upstreams, made by chance: always an error of the table, bounded memory, never a hang."""

from __future__ import annotations

import gzip
import io
import json
import queue
import re
import socket
import threading
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from om_plugins.builtin.engines.http import HttpEngine
from om_plugins.builtin.engines.proxy import ProxyEngine
from om_plugins.builtin.http.forwarding import HOP_BY_HOP
from om_plugins.builtin.http.sse import read_events
from om_plugins.builtin.http.status import map_status
from om_plugins.builtin.http.transport import Transport
from om_plugins.builtin.http.waits import MAX_WAIT_S, read_wait
from om_plugins.builtin.openai.engine import OpenAIEngine
from om_plugins.errors import CallerDeadline, Cancelled, EngineError, InvalidRequest, Transient
from om_plugins.types import Answer, Call, HttpRequest
from tests.patience import HANG_S, PATIENCE_S, cut_off, join

ENDS = (EngineError, CallerDeadline, Cancelled)
QUICK = settings(max_examples=80, suppress_health_check=list(HealthCheck), derandomize=True)
LONG = settings(max_examples=2000, suppress_health_check=list(HealthCheck), print_blob=True)

# --- what a hostile upstream may say --------------------------------------------------------------

status_lines = st.one_of(
    st.sampled_from([
        b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.1 304 Same",
        b"HTTP/1.1 429 Slow", b"HTTP/1.1 503 Busy", b"HTTP/1.1 500", b"HTTP/1.1 302 There",
        b"HTTP/1.1 100 Go on", b"HTTP/1.1 103 Hints", b"HTTP/1.1 101 Switch", b"HTTP/1.1 999 X",
        b"HTTP/2 200 OK", b"HTTP/1.1 -20 X", b"HTTP/1.1 2000 X", b"HTTP/1.1", b"ICY 200 OK",
        b"HTTP/1.1 \xd9\xa2\xd9\xa0\xd9\xa0 OK", b"",
    ]),
    st.binary(max_size=30),
)  # fmt: skip
names = st.one_of(
    st.sampled_from([
        b"Content-Length", b"Transfer-Encoding", b"Content-Type", b"Content-Encoding",
        b"Retry-After", b"Connection", b"Set-Cookie", b"Date", b"X", b"", b" X", b"X ", b"From ",
    ]),
    st.binary(max_size=10),
)  # fmt: skip
values = st.one_of(
    st.sampled_from([
        b"0", b"2", b"5", b"1000000000", b"99999999999999999999", b"-1", b"+5", b"5, 5", b"5, 6",
        b"0x5", b"chunked", b"Chunked, gzip", b"identity", b"gzip", b"br", b"close", b"keep-alive",
        b"application/json", b"text/event-stream", b"1e309", b"nan",
        b"Wed, 21 Oct 2015 07:28:00 GMT",
        b"Fri, 31 Dec 9999 23:59:59 -9999", b"a\r\n folded", b"\xff\xfe", b"x" * 70_000, b"",
    ]),
    st.binary(max_size=20),
)  # fmt: skip
sizes = st.one_of(
    st.integers(0, 9).map(lambda n: b"%x" % n),
    st.sampled_from([b"-5", b"ffffffffffffffffff", b"3fffffff", b"5;a=b", b"", b" 5", b"0x5"]),
)
chunks = st.tuples(sizes, st.binary(max_size=9), st.sampled_from([b"\r\n", b"\n", b"", b"\r"])).map(
    lambda parts: parts[0] + b"\r\n" + parts[1] + parts[2]
)
bodies = st.one_of(
    st.sampled_from([
        b"{}", b"[" * 5000, b'{"error": {"code": ["x"]}}', b'{"choices": [{"message": 7}]}',
        b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1e400}}',
        b"data: {}\n\n", b"data: [DONE]\n\n", b"data: " + b"x" * 5000, b"data: [1]\n\n" * 50,
        gzip.compress(b"{}"), gzip.compress(b" " * 10**7)[:5000], b"2\r\n{}\r\n0\r\n\r\n",
    ]),
    st.lists(chunks, max_size=6).map(b"".join),
    st.binary(max_size=60),
)  # fmt: skip


@st.composite
def answers(draw):
    head = draw(status_lines)
    for name, value in draw(st.lists(st.tuples(names, values), max_size=5)):
        head += b"\r\n" + name + b":" + value
    return head + draw(st.sampled_from([b"\r\n\r\n", b"\n\n", b"\r\n", b""])) + draw(bodies)


class Hostile:
    """Plays the next answer of its queue on each connection, then closes it."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.answer = b""
        self.heads = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(2)
            with connection:
                try:
                    data = b""
                    while b"\r\n\r\n" not in data:
                        data += connection.recv(65536) or b"\r\n\r\n"
                    self.heads.put(data.partition(b"\r\n\r\n")[0])
                    connection.sendall(self.answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
                except OSError:
                    pass

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        join(self._thread)


@pytest.fixture(scope="module")
def hostile():
    server = Hostile()
    yield server
    server.close()


KINDS = {
    "json": lambda url: (HttpEngine("up", url, max_answer=10_000), {"q": 1}, False),
    "chat": lambda url: (OpenAIEngine("up", url, "m", max_answer=10_000), "q", False),
    "chat stream": lambda url: (OpenAIEngine("up", url, "m", max_answer=10_000), "q", True),
    "proxy": lambda url: (ProxyEngine("up", url, max_answer=10_000), HttpRequest(), False),
    "proxy stream": lambda url: (ProxyEngine("up", url), HttpRequest(), True),
}


@pytest.fixture(scope="module", params=list(KINDS))
def asked(request, hostile):
    engine, payload, stream = KINDS[request.param](hostile.url)
    yield lambda: ask(engine, payload, stream)
    engine.close()


def ask(engine, payload, stream):
    """An answer, or an error of the table, in time."""
    call = Call(payload, stream=stream, deadline=time.monotonic() + HANG_S)
    error = answer = None
    with cut_off():
        try:
            answer = engine.call(call)
            if isinstance(answer, Answer) and answer.chunks is not None:
                size = 0
                for chunk in answer.chunks:
                    size += len(chunk)
                answer.close()
        except ENDS as raised:
            error = raised
    return answer, error


def check(hostile, asked, answer):
    hostile.answer = answer
    found, error = asked()
    if error is not None:
        wait = getattr(error, "retry_after", None)
        assert wait is None or 0 <= wait <= MAX_WAIT_S
        return
    if hasattr(found.payload, "headers"):
        for name, value in found.payload.headers:
            assert not re.search(r"[\r\n\0]", name + value)
            assert name.lower() not in HOP_BY_HOP


@QUICK
@given(answer=answers())
def test_whatever_an_upstream_says_is_an_answer_or_an_error_of_the_table(hostile, asked, answer):
    check(hostile, asked, answer)


@pytest.mark.proof
@LONG
@given(answer=answers())
def test_whatever_an_upstream_says_for_long(hostile, asked, answer):
    check(hostile, asked, answer)


# --- endless upstreams ----------------------------------------------------------------------------

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = JSON + b"Transfer-Encoding: chunked\r\n\r\n"


def bomb():
    packer = gzip.GzipFile(fileobj=(packed := io.BytesIO()), mode="wb")
    packer.write(b" " * 50_000_000)
    packer.close()
    return packed.getvalue()


ENDLESS = {
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-Flood: y\r\n"),
    "header line": (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 1000),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "chunk extensions": (CHUNKED, b"1;" + b"x" * 4000 + b"\r\n \r\n"),
    "chunk size": (CHUNKED, b"0" * 1000),
    "tiny chunks": (CHUNKED, b"1\r\n \r\n" * 100),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n"),
    "declared gigabyte": (JSON + b"Content-Length: 1073741824\r\n\r\n", b" " * 65_536),
    "declared chunk": (CHUNKED + b"40000000\r\n", b" " * 65_536),
    "no length": (JSON + b"\r\n", b" " * 65_536),
    "gzip bomb": (JSON + b"Content-Encoding: gzip\r\n\r\n" + bomb(), b"\0" * 1000),
    "silence": (b"", b""),
    "silence in a body": (JSON + b"Content-Length: 1073741824\r\n\r\n[", b""),
}


@pytest.mark.parametrize("kind", list(ENDLESS))
@pytest.mark.parametrize(
    "make", [KINDS["json"], KINDS["chat stream"], KINDS["proxy"]], ids=["json", "stream", "proxy"]
)
def test_an_endless_upstream_is_cut_in_time_with_bounded_memory(raw_upstream, kind, make):
    before, again = ENDLESS[kind]

    def script(connection, number):
        connection.recv(65536)
        connection.settimeout(HANG_S)
        end = time.monotonic() + HANG_S
        connection.sendall(before)
        while again and time.monotonic() < end:
            connection.sendall(again)
        while connection.recv(65536):  # the rest of what was asked, until it is given up
            pass

    engine, payload, stream = make(raw_upstream(script).url)
    tracemalloc.start()
    try:
        with cut_off(), pytest.raises(ENDS):
            deadline = time.monotonic() + 0.12
            answer = engine.call(Call(payload, stream=stream, deadline=deadline))
            for _ in answer.chunks or ():
                pass
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
        engine.close()


# --- single readers -------------------------------------------------------------------------------


@QUICK
@given(
    value=st.one_of(
        st.text(max_size=80),
        st.sampled_from(["1e5", "-1", "inf", "９", "Wed, 99 Foo 99999", "0" * 70, "1" * 13]),
        st.floats().map(str),
        st.datetimes().map(lambda when: when.strftime("%a, %d %b %Y %H:%M:%S GMT")),
    ),
    date=st.text(max_size=40),
    status=st.integers(100, 999),
)
def test_a_wait_is_seconds_within_bounds_or_nothing(value, date, status):
    headers = {"retry-after": value, "x-ratelimit-reset": value, "ratelimit": value, "date": date}
    for document in (None, value, {"message": f"try again in {value}", "retry_after": value}):
        wait = read_wait(headers, document)
        assert wait is None or 0 <= wait <= MAX_WAIT_S
    assert isinstance(map_status(status, headers, "x"), EngineError)


CHUNK = re.compile(rb"([0-9a-fA-F]{1,20})[ \t]*(?:;[^\r\n]*)?\r\n", re.DOTALL)


def dechunk(data):
    """The body of well-formed chunks, read by the letter of RFC 9112 section 7.1."""
    body = b""
    while found := CHUNK.match(data):
        size, data = int(found[1], 16), data[found.end() :]
        if not size:
            return body
        body += data[:size]
        assert data[size : size + 2] == b"\r\n"
        data = data[size + 2 :]
    raise AssertionError(f"{data!r} is no chunk")


def exchange_with(hostile, answer):
    """The exchange of one request, and its transport; or nothing when the head is refused."""
    hostile.answer = answer
    host, _, port = hostile.url.removeprefix("http://").partition(":")
    transport = Transport("http", host, int(port))
    call = Call(None, deadline=time.monotonic() + HANG_S)
    return transport.open(
        "GET", "/", body=None, headers=[], call=call, where="up", limit_s=HANG_S
    )  # fmt: skip


@QUICK
@given(data=bodies, rest=st.binary(max_size=20))
def test_a_chunked_body_is_read_to_its_end_or_refused(hostile, data, rest):
    try:
        body = exchange_with(hostile, CHUNKED + data + rest).read(2**30)
    except ENDS:
        return
    assert body == dechunk(data + rest)


@QUICK
@given(headers=st.lists(st.tuples(names, values), max_size=4))
def test_framing_is_clear_or_refused(hostile, headers):
    head = b"".join(name + b":" + value + b"\r\n" for name, value in headers)
    try:
        exchange = exchange_with(hostile, b"HTTP/1.1 200 OK\r\n" + head + b"\r\n12345")
    except ENDS:
        return
    chunked = "transfer-encoding" in exchange.headers
    assert exchange.length is None or not chunked
    if exchange.length is not None:
        assert exchange.headers["content-length"].strip().partition(",")[0].isdecimal()
    exchange.close()


@QUICK
@given(pieces=st.lists(st.one_of(st.binary(max_size=40), bodies), max_size=8))
def test_server_events_are_read_however_they_are_cut(pieces):
    try:
        found = list(read_events(iter(pieces), max_event=200))
    except Transient:
        return
    whole = list(read_events([b"".join(pieces)], max_event=200))
    assert found == whole


# --- what a client may send -----------------------------------------------------------------------

HEADERS = st.lists(
    st.tuples(st.text(max_size=12), st.text(max_size=20))
    | st.tuples(
        st.sampled_from(["X-A", "Connection", "Host", "TE"]),
        st.sampled_from(["a\r\nb: c", "x-a", "é"]),
    ),
    max_size=4,
)


@QUICK
@given(
    method=st.one_of(
        st.sampled_from(["GET", "POST", "GET /x HTTP/1.1\r\nA:"]), st.text(max_size=8)
    ),
    target=st.one_of(st.text(max_size=20), st.text(max_size=20).map(lambda text: "/" + text)),
    headers=HEADERS,
)
def test_no_request_can_bring_a_line_of_its_own(hostile, method, target, headers):
    hostile.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    while not hostile.heads.empty():
        hostile.heads.get()
    engine = ProxyEngine("up", hostile.url, via=None, pass_deadline=False)
    try:
        engine.call(Call(HttpRequest(method, target, headers), deadline=time.monotonic() + HANG_S))
    except (InvalidRequest, EngineError):
        return
    finally:
        engine.close()
    lines = hostile.heads.get(timeout=PATIENCE_S).decode("latin-1").split("\r\n")
    assert lines[0] == f"{method} {target} HTTP/1.1"
    sent = {f"{name}: {value}" for name, value in headers}
    own = {line for line in lines[1:] if line.split(":")[0] in ("Host", "Content-Length")}
    assert set(lines[1:]) - own <= sent


def test_json_answers_of_any_shape_are_no_crash(hostile):
    shapes = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "delta", "content", "usage", "error", "code",
                             "finish_reason", "prompt_tokens", "model", "type"]), inner, max_size=4,
        ),
        max_leaves=12,
    )  # fmt: skip
    engine = OpenAIEngine("up", hostile.url, "m")

    @QUICK
    @given(document=shapes, status=st.sampled_from([200, 400, 429]))
    def shape(document, status):
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
        hostile.answer = head.encode() + body
        ask(engine, "q", False)
        stream = b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\ndata: " + body + b"\n\n"
        hostile.answer = stream
        ask(engine, "q", True)

    shape()
    engine.close()
