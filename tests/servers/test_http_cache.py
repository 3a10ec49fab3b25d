"""The shared HTTP cache under gunicorn's threads: real sockets, real waiting, a real crowd."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.request

import pytest

pytestmark = pytest.mark.server

APP = """
import time
from flask import Flask, Response
from om_plugins import OpenManager

app = Flask(__name__)
app.config.update(OM_HUB_URL="memory://", OM_HTTP_CACHE=True, SECRET_KEY="x" * 32)
om = OpenManager(app)
runs = {"slow": 0, "stream": 0, "stale": 0}

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
        time.sleep(0.5)
    return str(runs["stale"]), {"Cache-Control": "max-age=0, stale-while-revalidate=60"}

@app.get("/up")
def up():
    return "up"

@app.get("/runs")
def seen():
    return runs
"""


def get(url):
    began = time.monotonic()
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read(), time.monotonic() - began


def crowd(url, count):
    found = []
    threads = [threading.Thread(target=lambda: found.append(get(url))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
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
    assert {body for body, _ in found} == {b"1"}
    assert get(site + "/slow")[0] == b"1"


def test_a_crowd_gets_a_stream_as_it_comes_and_whole(site):
    found = crowd(site + "/stream", 12)
    assert {body for body, _ in found} == {b"".join(b"%05d" % n * 200 for n in range(10))}
    assert b'"stream":1' in get(site + "/runs")[0].replace(b" ", b"")


def test_a_client_that_leaves_does_not_take_the_stream_from_the_others(site):
    host = site.removeprefix("http://")
    leaving = http.client.HTTPConnection(host, timeout=10)
    leaving.request("GET", "/stream")
    answer = leaving.getresponse()
    answer.read(10)
    found = []
    other = threading.Thread(target=lambda: found.append(get(site + "/stream")))
    other.start()
    time.sleep(0.1)
    leaving.sock.close() if leaving.sock else answer.close()
    other.join(20)
    assert len(found[0][0]) == 10_000


def test_nobody_waits_for_a_stale_page_not_even_the_next_on_the_same_connection(site):
    get(site + "/stale")
    host = site.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=10)
    for _ in range(3):
        began = time.monotonic()
        connection.request("GET", "/stale")
        connection.getresponse().read()
        assert time.monotonic() - began < 0.4
    connection.close()
