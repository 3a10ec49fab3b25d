"""The shared HTTP cache under gunicorn's threads: real sockets, real waiting, a real crowd."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.request

import pytest

from tests.patience import HANG_S, cut_off, join

pytestmark = pytest.mark.server

APP = """
import threading, time
from flask import Flask, Response
from om_plugins import OpenManager

app = Flask(__name__)
app.config.update(OM_HUB_URL="memory://", OM_HTTP_CACHE=True, SECRET_KEY="x" * 32)
om = OpenManager(app)
runs = {"slow": 0, "stream": 0, "stale": 0}
gate = threading.Event()

@app.get("/slow")
def slow():
    runs["slow"] += 1
    time.sleep(0.5)
    return str(runs["slow"]), {"Cache-Control": "max-age=60"}

@app.get("/stream")
def stream():
    runs["stream"] += 1
    def pieces():
        for number in range(10):
            yield b"%05d" % number * 200
            time.sleep(0.05)
    return Response(pieces(), mimetype="text/csv", headers={"Cache-Control": "max-age=60"})

@app.get("/stale")
def stale():
    runs["stale"] += 1
    if runs["stale"] > 1:
        gate.wait(60)
    return str(runs["stale"]), {"Cache-Control": "max-age=0, stale-while-revalidate=60"}

@app.get("/open-gate")
def open_gate():
    gate.set()
    return ""

@app.get("/up")
def up():
    return "up"

@app.get("/runs")
def seen():
    return runs
"""


def get(url):
    with urllib.request.urlopen(url, timeout=HANG_S) as answer:
        return answer.read()


def crowd(url, count):
    found = []
    threads = [threading.Thread(target=lambda: found.append(get(url))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        join(thread)
    assert len(found) == count
    return found


@pytest.fixture
def site(gunicorn):
    url, _ = gunicorn(APP, "--worker-class", "gthread", "--threads", "24")
    return url


@pytest.mark.parametrize("worker", [["gthread", "--threads", "24"], ["gevent"]])
def test_a_crowd_that_misses_costs_one_trip(gunicorn, worker):
    site, _ = gunicorn(APP, "--worker-class", *worker)
    found = crowd(site + "/slow", 20)
    assert set(found) == {b"1"}
    assert get(site + "/slow") == b"1"


def test_a_crowd_gets_a_stream_as_it_comes_and_whole(site):
    found = crowd(site + "/stream", 12)
    assert set(found) == {b"".join(b"%05d" % n * 200 for n in range(10))}
    assert b'"stream":1' in get(site + "/runs").replace(b" ", b"")


def test_a_client_that_leaves_does_not_take_the_stream_from_the_others(site):
    host = site.removeprefix("http://")
    leaving = http.client.HTTPConnection(host, timeout=HANG_S)
    leaving.request("GET", "/stream")
    answer = leaving.getresponse()
    answer.read(10)
    found = []
    other = threading.Thread(target=lambda: found.append(get(site + "/stream")))
    other.start()
    time.sleep(0.1)
    leaving.sock.close() if leaving.sock else answer.close()
    join(other)
    assert len(found[0]) == 10_000


def test_nobody_waits_for_a_stale_page_not_even_the_next_on_the_same_connection(site):
    get(site + "/stale")
    host = site.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=HANG_S)
    with cut_off():
        for _ in range(3):
            connection.request("GET", "/stale")
            connection.getresponse().read()
    connection.close()
    get(site + "/open-gate")
