"""How many streams a server can bear, and how it says that it stops."""

from __future__ import annotations

import signal
import types

import pytest

from om_plugins.notifying import servers
from om_plugins.notifying.servers import stopping, stream_limit


class Worker:
    def __init__(self, threads=4):
        self.alive = True
        self.cfg = types.SimpleNamespace(threads=threads)

    def handle_exit(self, number, frame):
        pass


@pytest.fixture
def worker():
    made = Worker()
    before = signal.signal(signal.SIGTERM, made.handle_exit)
    yield made
    signal.signal(signal.SIGTERM, before)


def test_a_number_is_the_limit():
    assert stream_limit({"wsgi.multithread": False}, 3) == 3
    assert stream_limit({"wsgi.multithread": True}, 0) == 0


def test_auto_is_none_with_one_thread_and_one_with_more(worker):
    assert stream_limit({}, "auto") == 0
    assert stream_limit({"wsgi.multithread": False}, "auto") == 0
    assert stream_limit({"wsgi.multithread": True}, "auto") == 1
    worker.cfg.threads = 1
    assert stream_limit({"wsgi.multithread": True}, "auto") == 0


def test_auto_is_any_number_where_threads_are_greenlets(monkeypatch):
    gevent = types.SimpleNamespace(is_module_patched=lambda name: name == "threading")
    monkeypatch.setitem(servers.sys.modules, "gevent.monkey", gevent)
    assert stream_limit({"wsgi.multithread": True}, "auto") is None


def test_a_worker_that_is_not_alive_any_more_stops(worker):
    assert not stopping()
    worker.alive = False
    assert stopping()


def test_a_server_that_says_nothing_goes_on():
    assert not stopping()
