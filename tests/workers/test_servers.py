"""How many streams a server can bear, and how it says that it stops."""

from __future__ import annotations

import types

from om_plugins.workers import servers
from om_plugins.workers.servers import grace_s, stopping, stream_limit


def test_a_number_is_the_limit():
    assert stream_limit({"wsgi.multithread": False}, 3) == 3
    assert stream_limit({"wsgi.multithread": True}, 0) == 0


def test_auto_needs_as_many_threads_as_the_caller_says(gunicorn_worker):
    environ = {"wsgi.multithread": True}
    assert stream_limit(environ, "auto", least_threads=4) == 1
    del gunicorn_worker.cfg.threads
    assert stream_limit(environ, "auto", least_threads=4) == 1
    gunicorn_worker.cfg.threads = 3
    assert stream_limit(environ, "auto", least_threads=4) == 0
    assert stream_limit(environ, 2, least_threads=4) == 2


def test_auto_is_none_with_one_thread_and_one_with_more(gunicorn_worker):
    assert stream_limit({}, "auto") == 0
    assert stream_limit({"wsgi.multithread": False}, "auto") == 0
    assert stream_limit({"wsgi.multithread": True}, "auto") == 1
    gunicorn_worker.cfg.threads = 1
    assert stream_limit({"wsgi.multithread": True}, "auto") == 0


def test_auto_is_any_number_where_threads_are_greenlets(monkeypatch):
    gevent = types.SimpleNamespace(is_module_patched=lambda name: name == "threading")
    monkeypatch.setitem(servers.sys.modules, "gevent.monkey", gevent)
    assert stream_limit({"wsgi.multithread": True}, "auto") is None


def test_a_worker_that_is_not_alive_any_more_stops(gunicorn_worker):
    assert not stopping()
    gunicorn_worker.alive = False
    assert stopping()


def test_a_server_that_says_nothing_goes_on():
    assert not stopping()


def test_its_patience_is_what_it_says_or_half_a_minute(gunicorn_worker):
    assert grace_s() == 10
    del gunicorn_worker.cfg.graceful_timeout
    assert grace_s() == 30
