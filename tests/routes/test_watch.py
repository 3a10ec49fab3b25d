"""The watch tells that a client hung up, once, and looks at nobody else."""

from __future__ import annotations

import socket
import threading

import pytest

from om_plugins.routes.watch import ClientWatch


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_client_that_hangs_up_is_told_of_once(pair):
    ours, theirs = pair
    left = threading.Event()
    calls = []
    ClientWatch().watch({"gunicorn.socket": ours}, lambda: (calls.append(1), left.set()))
    theirs.sendall(b"more of a request says nothing")
    assert not left.wait(0.4)
    theirs.close()
    assert left.wait(2)
    assert calls == [1]


def test_after_the_end_nobody_is_told(pair):
    ours, theirs = pair
    left = threading.Event()
    watch = ClientWatch()
    stop = watch.watch({"werkzeug.socket": ours}, left.set)
    stop()
    stop()
    theirs.close()
    assert not left.wait(0.6)
    assert watch._watched == {}


def test_one_thread_serves_many_and_one_that_fails_stops_no_other(pair, caplog):
    pairs = [socket.socketpair() for _ in range(5)]
    watch, told = ClientWatch(), threading.Semaphore(0)
    before = threading.active_count()
    watch.watch({"gunicorn.socket": pair[0]}, lambda: 1 / 0)
    for ours, _ in pairs:
        watch.watch({"gunicorn.socket": ours}, told.release)
    assert threading.active_count() == before + 1
    pair[1].close()
    for _, theirs in pairs:
        theirs.close()
    assert all(told.acquire(timeout=2) for _ in pairs)
    assert "giving up the stream" in caplog.text
    for ours, _ in pairs:
        ours.close()


@pytest.mark.parametrize("environ", [{}, {"gunicorn.socket": object()}])
def test_without_a_socket_nothing_is_watched(environ):
    watch = ClientWatch()
    watch.watch(environ, lambda: None)()
    assert not watch._running


def test_a_forked_child_begins_with_nothing(pair):
    watch = ClientWatch()
    watch.watch({"gunicorn.socket": pair[0]}, lambda: None)
    watch.after_fork()
    assert watch._watched == {}
    assert not watch._running
