"""Streams of engine routes under gunicorn: real clients that leave, real upstreams that stall."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request

import pytest

from tests.patience import HANG_S, PATIENCE_S, cut_off

pytestmark = pytest.mark.server

APP = """
from flask import Flask
from om_plugins import OpenManager
from om_plugins.builtin.openai.engine import OpenAIEngine

app = Flask(__name__)
app.config.update(
    OM_HUB_URL="memory://",
    OM_ROUTES={"/ask": {"chain": "c", "rate": None}},
    OM_CHAINS={"c": {"timeout": %(timeout)s, "retries": 0}},
)
om = OpenManager(app)
om.add_engine(OpenAIEngine("model", "http://127.0.0.1:%(port)d/v1", "m"), chain="c")

@app.get("/up")
def up():
    (health,) = om.chain("c").health()
    return {
        "failures": health.failure_rate, "error": health.last_error,
        "patterns": [one.example for one in om.runtime.part_of("recovery").recovery.patterns()],
    }
"""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def piece(text):
    return b"data: %b\n\n" % json.dumps({"choices": [{"delta": {"content": text}}]}).encode()


class Upstream:
    """An OpenAI-compatible service on a bare socket: one connection, told what to send."""

    def __init__(self, script):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.script = script
        self.sent = 0
        self.asked, self.done = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.done.is_set():
            connection, _ = self.listener.accept()
            with connection:
                connection.settimeout(2 * HANG_S)
                if self.was_asked(connection):
                    self.answer(connection)

    def was_asked(self, connection):
        """False for a connection that only looks whether somebody is here."""
        data = b""
        while b"\r\n\r\n" not in data or b'"stream"' not in data:
            more = connection.recv(65_536)
            if not more:
                return False
            data += more
        return True

    def answer(self, connection):
        self.asked.set()
        try:
            for data in self.script:
                connection.sendall(data)
                self.sent += len(data)
            assert connection.recv(1) == b""
        except ConnectionError:
            pass
        self.done.set()

    def close(self):
        self.listener.close()


@pytest.fixture
def served(gunicorn):
    upstreams = []

    def start(script, timeout=HANG_S, grace=30):
        upstream = Upstream(script)
        upstreams.append(upstream)
        source = APP % {"port": upstream.port, "timeout": timeout}
        url, upstream.server = gunicorn(
            source, "--workers", "1", "--threads", "4", "--graceful-timeout", str(grace)
        )
        return upstream, url

    yield start
    for upstream in upstreams:
        upstream.close()


@pytest.fixture
def ask():
    """``ask(url)``: a client's socket that has asked for a stream."""
    clients = []

    def asked(url):
        clients.append(_asked(url))
        return clients[-1]

    yield asked
    for client in clients:
        client.close()


def _asked(url):
    host, _, port = url.removeprefix("http://").partition(":")
    client = socket.create_connection((host, int(port)), timeout=HANG_S)
    client.sendall(
        b"POST /ask HTTP/1.1\r\nHost: app\r\nContent-Type: application/json\r\n"
        b"Accept: text/event-stream\r\nContent-Length: 17\r\n\r\n"
        b'{"question": "?"}'
    )
    return client


def read_until(client, mark):
    data = b""
    while mark not in data:
        more = client.recv(65_536)
        assert more, data
        data += more
    return data


def state(url):
    with urllib.request.urlopen(url + "/up", timeout=HANG_S) as answer:
        return json.load(answer)


WELL = {"failures": 0.0, "error": "", "patterns": []}


def test_a_client_that_leaves_a_silent_stream_closes_the_upstream(served, ask):
    upstream, url = served([HEAD, piece("one")])  # and then nothing, for as long as it takes
    client = ask(url)
    read_until(client, b'"one"')
    client.close()
    assert upstream.done.wait(PATIENCE_S)
    assert state(url) == WELL


def test_a_client_that_leaves_before_the_first_piece_closes_the_upstream(served, ask):
    upstream, url = served([])
    client = ask(url)
    assert upstream.asked.wait(PATIENCE_S)
    client.close()
    assert upstream.done.wait(PATIENCE_S)
    assert state(url) == WELL


def test_a_client_that_leaves_a_busy_stream_closes_the_upstream(served, ask):
    def busy():
        yield HEAD
        while True:
            yield piece("word ")
            time.sleep(0.02)

    upstream, url = served(busy())
    client = ask(url)
    read_until(client, b'"word ')
    client.close()
    assert upstream.done.wait(PATIENCE_S)
    assert state(url) == WELL


def test_a_client_that_reads_slowly_slows_the_upstream(served, ask):
    def endless():
        yield HEAD
        while True:
            yield piece("x" * 60_000)

    upstream, url = served(endless())
    client = ask(url)
    read_until(client, b"event: chunk")
    before = -1
    deadline = time.monotonic() + HANG_S
    while upstream.sent != before and time.monotonic() < deadline:
        before = upstream.sent
        time.sleep(0.5)
    assert upstream.sent == before  # it stands still
    assert upstream.sent < 40_000_000  # what the sockets of three parties hold, and no more
    client.close()
    assert upstream.done.wait(PATIENCE_S)


def test_a_stream_that_falls_silent_ends_with_a_typed_error(served, ask):
    upstream, url = served([HEAD, piece("one")], timeout=2)
    client = ask(url)
    with cut_off():
        text = read_until(client, b"\r\n0\r\n\r\n").decode()
    document = json.loads(text.partition("event: error\ndata: ")[2].partition("\n")[0])
    assert document["status"] == 504
    assert document["detail"] == "The answer took too long. Please try again."
    assert "event: done" not in text
    assert upstream.done.wait(PATIENCE_S)
    client.close()
    assert state(url)["error"] == "AttemptTimeout"


def endless():
    yield HEAD
    while True:
        yield piece("one")
        time.sleep(0.05)


@pytest.mark.parametrize("script", [endless(), [HEAD, piece("one")]], ids=["busy", "silent"])
def test_a_stream_that_outlasts_the_servers_patience_ends_with_a_typed_error(served, ask, script):
    upstream, url = served(script, grace=3)
    client = ask(url)
    read_until(client, b"one")
    with cut_off(1.4):  # half of the grace; after all of it the worker would be killed
        upstream.server.terminate()
        text = read_until(client, b"\r\n0\r\n\r\n").decode()
    document = json.loads(text.partition("event: error\ndata: ")[2].partition("\n")[0])
    assert document["status"] == 503
    assert document["detail"].startswith("The server is being restarted.")
    assert upstream.done.wait(PATIENCE_S)
    assert upstream.server.wait(PATIENCE_S) == 0
