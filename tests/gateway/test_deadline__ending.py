"""Answers under way when the server was told to stop."""

from __future__ import annotations

from om_plugins.gateway.deadline__ending import Ending
from om_plugins.testing.fakes import FakeClock


def test_answers_go_on_for_most_of_the_servers_patience(gunicorn_worker):
    clock = FakeClock()
    ending = Ending(clock)
    clock.advance(100)
    assert not ending.over()
    gunicorn_worker.alive = False
    assert not ending.over()
    clock.advance(7.9)
    assert not ending.over()
    clock.advance(0.2)
    assert ending.over()


def test_a_short_patience_leaves_time_to_say_so(gunicorn_worker):
    gunicorn_worker.cfg.graceful_timeout = 2
    gunicorn_worker.alive = False
    clock = FakeClock()
    ending = Ending(clock)
    assert not ending.over()
    clock.advance(0.6)
    assert ending.over()


def test_where_no_server_says_so_it_is_never_over():
    assert not Ending(FakeClock()).over()
