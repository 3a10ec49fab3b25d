"""Notifications under gunicorn: across workers, with few threads, and when it stops."""

from __future__ import annotations

import http.client
import json
import signal
import time
import urllib.request
from urllib.parse import urlsplit

import pytest

from tests.patience import HANG_S, PATIENCE_S, cut_off, wait_until

pytestmark = pytest.mark.server

APP = """
import os
from pathlib import Path
from flask import Flask
from om_plugins import OpenManager

app = Flask(__name__, instance_path=str(Path(__file__).parent / "instance"))
om = OpenManager(app)

@app.get("/up")
def up():
    return str(os.getpid())

@app.get("/say")
def say():
    om.notify.success("Saved", data={"pid": os.getpid()})
    return str(os.getpid())

@app.get("/all")
def everybody():
    om.notify.info("For all", to="everyone", data={"pid": os.getpid()})
    return str(os.getpid())
"""


class Browser:
    """Reads a stream; keeps its cookie."""

    def __init__(self, url):
        self.address = urlsplit(url).netloc
        self.cookie = ""
        self.stream = None

    def get(self, path):
        connection = http.client.HTTPConnection(self.address, timeout=HANG_S)
        headers = {"Cookie": self.cookie, "Sec-Fetch-Site": "same-origin"}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        set_cookie = answer.headers["Set-Cookie"]
        if set_cookie:
            self.cookie = set_cookie.partition(";")[0]
        return connection, answer

    def ask(self, path):
        connection, answer = self.get(path)
        try:
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def listen(self):
        self.connection, self.stream = self.get("/_om/events")
        if self.stream.status != 200:  # as browsers do: gunicorn waits for it
            self.close()
        return self.stream.status

    def ready(self):
        while b"ready" not in self.stream.readline():
            pass
        return self

    def next(self):
        while True:
            line = self.stream.readline()
            assert line, "the stream ended"
            if line.startswith(b'data: {"'):
                return json.loads(line[6:])

    def close(self):
        if self.stream is not None:
            self.stream.close()
            self.connection.close()


@pytest.fixture
def browser_of():
    made = []

    def make(url):
        made.append(Browser(url))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_what_one_worker_says_is_heard_by_a_browser_of_the_other(gunicorn, browser_of):
    url, _ = gunicorn(APP, "--workers", "2", "--threads", "4", "-k", "gthread")
    mine, other = browser_of(url), browser_of(url)
    wait_until(lambda: mine.listen() == 200, pause_s=0.1)
    mine.ready()
    wait_until(lambda: other.listen() == 200, pause_s=0.05)  # on the other worker: one each
    other.ready()
    speakers = set()
    deadline = time.monotonic() + PATIENCE_S
    while len(speakers) < 2 and time.monotonic() < deadline:
        _, pid = mine.ask("/say")
        with cut_off():
            heard = mine.next()
        assert (heard["message"], str(heard["data"]["pid"])) == ("Saved", pid)
        speakers.add(pid)
    assert len(speakers) == 2  # the worker that streams to this browser, and the other one
    other.ask("/all")
    assert mine.next()["message"] == "For all"
    assert other.next()["message"] == "For all"  # the first it hears: the rest was not its own


def test_a_sync_worker_with_four_browsers_open_still_answers(gunicorn, browser_of):
    url, _ = gunicorn(APP, "--workers", "1")
    browsers = [browser_of(url) for _ in range(4)]
    assert [browser.listen() for browser in browsers] == [204] * 4
    with cut_off():
        assert browsers[0].ask("/up")[0] == 200
    (cursor,) = json.loads(browsers[0].ask("/_om/events?poll=1")[1])
    browsers[0].ask("/say")
    again = "/_om/events?poll=1&after=" + cursor["id"]
    heard = wait_until(lambda: json.loads(browsers[0].ask(again)[1]))
    assert heard[0]["message"] == "Saved"


@pytest.mark.parametrize("threads", ["2", "1"])
def test_streams_leave_a_thread_for_the_site(gunicorn, browser_of, threads):
    url, _ = gunicorn(APP, "--workers", "1", "--threads", threads, "-k", "gthread")
    found = [browser_of(url).listen() for _ in range(4)]
    assert found == ([200] if threads == "2" else [204]) + [204] * 3
    with urllib.request.urlopen(url + "/up", timeout=PATIENCE_S) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("kind", ["gthread", "gevent"])
def test_streams_end_soon_after_the_server_is_told_to_stop(gunicorn, browser_of, kind):
    if kind == "gevent":
        pytest.importorskip("gevent")
    url, process = gunicorn(APP, "--workers", "1", "--threads", "4", "-k", kind)
    browsers = [browser_of(url) for _ in range(1 if kind == "gthread" else 5)]
    assert [browser.listen() for browser in browsers] == [200] * len(browsers)
    for browser in browsers:
        browser.ready()
    process.send_signal(signal.SIGTERM)
    with cut_off():  # gunicorn would wait 30 seconds for what goes on
        for browser in browsers:
            while browser.stream.readline():
                pass
        assert process.wait(PATIENCE_S) == 0


def test_a_browser_that_went_away_makes_room(gunicorn, browser_of):
    url, _ = gunicorn(APP, "--workers", "1", "--threads", "4", "-k", "gthread")
    first = browser_of(url)
    assert first.listen() == 200
    first.ready()
    first.close()
    second = browser_of(url)
    second.ask("/all")  # what is said is written to the stream, which finds nobody there
    deadline = time.monotonic() + PATIENCE_S
    while second.listen() != 200:
        assert time.monotonic() < deadline
        second.close()
        second.ask("/all")
        time.sleep(0.1)
