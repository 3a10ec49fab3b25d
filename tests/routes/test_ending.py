"""Answers under way when the server was told to stop."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from om_plugins.notifying.servers import grace_s
from om_plugins.routes.ending import Ending
from om_plugins.testing.fakes import FakeClock


class Worker:
    """What gunicorn's workers say of themselves, by their handler of SIGTERM."""

    def __init__(self):
        self.alive = True
        self.cfg = SimpleNamespace(graceful_timeout=10)

    def handle_exit(self, number, frame):
        """Never called."""


@pytest.fixture
def worker():
    one = Worker()
    before = signal.signal(signal.SIGTERM, one.handle_exit)
    yield one
    signal.signal(signal.SIGTERM, before)


def test_answers_go_on_for_most_of_the_servers_patience(worker):
    clock = FakeClock()
    ending = Ending(clock)
    clock.advance(100)
    assert not ending.over()
    worker.alive = False
    assert not ending.over()
    clock.advance(7.9)
    assert not ending.over()
    clock.advance(0.2)
    assert ending.over()


def test_a_short_patience_leaves_time_to_say_so(worker):
    worker.cfg.graceful_timeout = 2
    worker.alive = False
    clock = FakeClock()
    ending = Ending(clock)
    assert not ending.over()
    clock.advance(0.6)
    assert ending.over()


def test_where_no_server_says_so_it_is_never_over():
    assert not Ending(FakeClock()).over()
    assert grace_s() == 30
