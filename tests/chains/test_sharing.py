"""News of engines: told in order and in the background, and heard by all."""

from __future__ import annotations

import pytest

from om_plugins.chains.sharing import EngineNews, Kept
from om_plugins.workers.scheduler import BackgroundScheduler


@pytest.fixture
def side(hub, clock):
    def make(namespace="app", wanted=lambda: True):
        scheduler = BackgroundScheduler(1, 10, clock, hub, synchronous=True)
        news = EngineNews(
            hub=hub, scheduler=scheduler, clock=clock, namespace=namespace, wanted=wanted
        )
        news.heard = []
        news.on("thing", news.heard.append)
        news.scheduler = scheduler
        news.hear()
        return news

    return make


def said(news):
    return [one.data["n"] for one in news.heard]


def test_what_one_tells_all_hear_in_the_order_of_telling(side):
    one, two = side(), side()
    for number in range(3):
        one.tell("thing", {"n": number})
    assert one.scheduler.stats().done == 0  # nobody waited for the hub
    one.scheduler.run_pending()
    for news in (one, two):
        news.hear()
        assert said(news) == [0, 1, 2]
    assert [one.heard[0].own, two.heard[0].own] == [True, False]


def test_what_could_not_be_told_at_once_is_told_when_news_are_read(side, monkeypatch):
    one, two = side(), side()
    monkeypatch.setattr(one.scheduler, "submit", lambda function, name="": False)
    one.tell("thing", {"n": 1})
    one.hear()
    two.hear()
    assert said(two) == [1]


def test_nothing_from_before_a_process_began_is_heard(side):
    one = side()
    one.tell("thing", {"n": 1})
    one.scheduler.run_pending()
    two = side()
    two.hear()
    assert said(two) == []


def test_what_is_kept_is_there_for_those_who_come_late_until_it_runs_out(side, clock):
    one = side()
    one.tell("thing", {"n": 1}, Kept("things/a", 10))
    one.tell("thing", {"n": 2}, Kept("things/b", 20))
    one.tell("thing", {"n": 3}, Kept("others/c", 20))
    one.scheduler.run_pending()
    clock.advance(5)
    two = side()
    kept = two.kept("things/")
    assert [(one.data["n"], one.age_s) for one in kept] == [(1, 5), (2, 5)]
    assert kept[0].at == pytest.approx(clock.monotonic() - 5)
    clock.advance(6)
    one.tell("thing", {"n": 2}, Kept("things/b", 0.0))
    one.scheduler.run_pending()
    assert two.kept("things/") == []


def test_the_age_of_news_is_never_below_nothing(side, hub, clock):
    one = side()
    hub.publish("engines:app", {"kind": "thing", "origin": "x", "data": {"n": 1}})
    clock._now -= 1000  # the hub's clock is ahead
    one.hear()
    assert one.heard[0].age_s == 0.0


def test_a_listener_that_refuses_its_news_stops_nobody(side, hub):
    one = side()

    def refuse(news):
        raise ValueError("not this")

    one.on("other", refuse)
    for kind in ("other", "unknown", "thing"):
        hub.publish("engines:app", {"kind": kind, "origin": "x", "data": {"n": 1}})
    one.hear()
    assert said(one) == [1]


def test_two_applications_in_one_hub_do_not_hear_each_other(side):
    one, two = side("one"), side("two")
    one.tell("thing", {"n": 1}, Kept("things/a", 10))
    one.scheduler.run_pending()
    two.hear()
    assert (said(two), two.kept("things/")) == ([], [])


def test_what_is_told_while_nobody_can_tell_is_bounded(side, monkeypatch):
    one = side()
    for number in range(3000):
        one._untold.append(({"kind": "thing", "origin": "x", "data": {"n": number}}, None))
    one.hear()
    assert said(one) == list(range(2000, 3000))


def test_a_child_of_a_fork_tells_under_its_own_name_and_with_a_free_lock(side):
    one = side()
    before = one.origin
    one.tell("thing", {"n": 1})
    one._lock.acquire()
    one.after_fork()
    one.hear()
    assert one.origin != before
    assert said(one) == []  # its parent's news are its parent's to tell
