"""Sharing between workers: events in order and in the background, and the breakers they change."""

from __future__ import annotations

import logging
import os
import select
import signal

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.builtin.hubs.sqlite import SqliteHub
from om_plugins.chains.sharing import BreakerSharing, EngineBus, RetainedKey
from om_plugins.core.clock import SystemClock
from om_plugins.policies.breaker import Breaker
from om_plugins.policies.registry import BreakerRegistry
from om_plugins.workers.hub import SharedHub
from om_plugins.workers.scheduler import BackgroundScheduler
from tests.patience import HANG_S, wait_until


@pytest.fixture
def side(hub, clock):
    def make(namespace="app", has_engines=lambda: True):
        scheduler = BackgroundScheduler(1, 10, clock, hub, synchronous=True)
        bus = EngineBus(
            hub=hub, scheduler=scheduler, clock=clock, namespace=namespace, has_engines=has_engines
        )
        bus.heard = []
        bus.subscribe("thing", bus.heard.append)
        bus.scheduler = scheduler
        bus.read()
        return bus

    return make


def said(bus):
    return [one.data["n"] for one in bus.heard]


def test_what_one_tells_all_hear_in_the_order_of_telling(side):
    one, two = side(), side()
    for number in range(3):
        one.publish("thing", {"n": number})
    assert one.scheduler.stats().done == 0  # nobody waited for the hub
    one.scheduler.run_pending()
    for bus in (one, two):
        bus.read()
        assert said(bus) == [0, 1, 2]
    assert [one.heard[0].own, two.heard[0].own] == [True, False]


def test_what_could_not_be_told_at_once_is_told_when_news_are_read(side, monkeypatch):
    one, two = side(), side()
    monkeypatch.setattr(one.scheduler, "submit", lambda function, name="": False)
    one.publish("thing", {"n": 1})
    one.read()
    two.read()
    assert said(two) == [1]


def test_nothing_from_before_a_process_began_is_heard(side):
    one = side()
    one.publish("thing", {"n": 1})
    one.scheduler.run_pending()
    two = side()
    two.read()
    assert said(two) == []


def test_what_is_kept_is_there_for_those_who_come_late_until_it_runs_out(side, clock):
    one = side()
    one.publish("thing", {"n": 1}, RetainedKey("things/a", 10))
    one.publish("thing", {"n": 2}, RetainedKey("things/b", 20))
    one.publish("thing", {"n": 3}, RetainedKey("others/c", 20))
    one.scheduler.run_pending()
    clock.advance(5)
    two = side()
    kept = two.retained("things/")
    assert [(one.data["n"], one.age_s) for one in kept] == [(1, 5), (2, 5)]
    assert kept[0].at == pytest.approx(clock.monotonic() - 5)
    clock.advance(6)
    one.publish("thing", {"n": 2}, RetainedKey("things/b", 0.0))
    one.scheduler.run_pending()
    assert two.retained("things/") == []


def test_the_age_of_news_is_never_below_nothing(side, hub, clock):
    one = side()
    hub.publish("engines:app", {"kind": "thing", "origin": "x", "data": {"n": 1}})
    clock._now -= 1000  # the hub's clock is ahead
    one.read()
    assert one.heard[0].age_s == 0.0


def test_a_listener_that_refuses_its_news_stops_nobody(side, hub):
    one = side()

    def refuse(event):
        raise ValueError("not this")

    one.subscribe("other", refuse)
    for kind in ("other", "unknown", "thing"):
        hub.publish("engines:app", {"kind": kind, "origin": "x", "data": {"n": 1}})
    one.read()
    assert said(one) == [1]


def test_two_applications_in_one_hub_do_not_hear_each_other(side):
    one, two = side("one"), side("two")
    one.publish("thing", {"n": 1}, RetainedKey("things/a", 10))
    one.scheduler.run_pending()
    two.read()
    assert (said(two), two.retained("things/")) == ([], [])


def test_what_is_told_while_nobody_can_tell_is_bounded(side, monkeypatch):
    one = side()
    for number in range(3000):
        one.publish("thing", {"n": number})
    one.read()
    assert said(one) == list(range(2000, 3000))


def test_a_child_of_a_fork_tells_under_its_own_name_and_with_a_free_lock(side):
    one = side()
    before = one.origin
    one.publish("thing", {"n": 1})
    one._lock.acquire()
    one.after_fork()
    one.read()
    assert one.origin != before
    assert said(one) == []  # its parent's news are its parent's to tell


# --- breakers ------------------------------------------------------------------------------------


@pytest.fixture
def pair(worker, engine, pass_time):
    """Two workers with the same engine and a shared breaker; the first goes first."""
    first, second = worker(shared=True), worker(shared=True)
    first.bus.origin, second.bus.origin = "1-a", "2-b"
    mine, theirs = first.add(engine("one")), second.add(engine("one"))
    pass_time(0.9, first, second)
    return first, mine, second, theirs


def test_what_opens_in_one_worker_opens_in_all_within_a_second(pair, pass_time):
    first, mine, second, theirs = pair
    first.fail(mine)
    assert theirs.permit  # no call waited for that
    pass_time(0.9, first, second)
    assert second.state(theirs) == "open"
    assert theirs.view(second.clock.monotonic()).retry_after_s == pytest.approx(11.1, abs=0.5)


def test_unless_it_is_asked_for_only_what_is_forced_is_shared(worker, engine, pass_time):
    first, second = worker(), worker()
    mine, theirs = first.add(engine("one")), second.add(engine("one"))
    pass_time(0.9, first, second)
    first.fail(mine)
    pass_time(1.6, first, second)
    assert theirs.permit
    mine.force("open")
    pass_time(1.6, first, second)
    assert theirs.view(0).forced == "open"


def test_where_an_engine_answered_in_a_recovery_the_others_let_the_next_call_through(
    worker, engine, pass_time
):
    first, second = worker(), worker()
    mine, theirs = (one.add(engine("one")) for one in (first, second))
    pass_time(0.9, first, second)
    second.fail(theirs)
    first.sharing.publish_answer(mine)
    pass_time(0.9, first, second)
    assert second.state(theirs) == "half-open"
    second.fail(theirs)
    pass_time(0.9, first, second)
    assert second.state(theirs) == "open"  # only what is published since counts
    assert first.state(mine) == "closed"


def test_the_one_that_opened_it_probes_first_and_the_others_hear_what_it_found(pair, pass_time):
    first, mine, second, theirs = pair
    first.fail(mine)
    pass_time(10.1, first, second)
    assert (first.state(mine), second.state(theirs)) == ("half-open", "open")
    first.succeed(mine)
    pass_time(0.9, first, second)
    assert second.state(theirs) == "closed"


def test_a_probe_that_fails_in_one_worker_keeps_the_others_from_probing(pair, pass_time):
    first, mine, second, theirs = pair
    first.fail(mine)
    pass_time(10.1, first, second)
    first.fail(mine)
    pass_time(2, first, second)
    assert second.state(theirs) == "open"
    assert theirs.view(second.clock.monotonic()).in_a_row == 2


def test_where_the_first_is_gone_another_probes_soon_after(pair, pass_time):
    first, mine, second, theirs = pair
    first.fail(mine)
    pass_time(0.9, first, second)
    pass_time(12, second)
    assert second.state(theirs) == "half-open"


def test_of_two_that_opened_by_themselves_one_goes_first(pair, pass_time):
    first, mine, second, theirs = pair
    first.fail(mine), second.fail(theirs)
    pass_time(1, first, second)
    now = first.clock.monotonic()
    ours, others = mine.view(now).retry_after_s, theirs.view(now).retry_after_s
    assert others - ours == pytest.approx(2, abs=0.1)


def test_news_of_closing_do_not_close_what_opened_later(pair, clock, pass_time):
    first, mine, second, theirs = pair
    first.fail(mine)
    clock.advance(10)
    first.succeed(mine)
    first.scheduler.run_pending()
    clock.advance(0.1)
    second.fail(theirs)
    pass_time(0.9, second)
    assert second.state(theirs) == "open"


def test_news_of_opening_do_not_open_what_was_closed_by_a_probe_since(pair, clock, pass_time):
    first, mine, second, theirs = pair
    second.fail(theirs)
    clock.advance(9.9)
    first.fail(mine)
    first.scheduler.run_pending()
    clock.advance(0.2)
    second.succeed(theirs)
    second.work()
    assert second.state(theirs) == "closed"


def test_a_worker_that_starts_later_begins_with_what_is_open_and_forced(worker, engine, pass_time):
    first = worker(shared=True)
    opened, forced = first.add(engine("one"), "a"), first.add(engine("two"), "b")
    pass_time(0.9, first)
    first.fail(opened)
    forced.force("closed")
    first.scheduler.run_pending()
    pass_time(2, first)
    second = worker(shared=True)
    late = second.add(engine("one"), "a")
    pass_time(0.8, second)
    assert second.state(late) == "open"
    assert late.view(second.clock.monotonic()).retry_after_s < 10
    # the engine comes after the news
    assert second.add(engine("two"), "b").view(0).forced == "closed"


def test_what_was_given_back_is_not_kept(worker, engine, pass_time):
    first = worker(shared=True)
    one = first.add(engine("one"))
    pass_time(0.9, first)
    one.force("open")
    one.force(None)
    first.fail(one)
    first.scheduler.run_pending()
    pass_time(11, first)
    first.succeed(one)
    first.scheduler.run_pending()
    second = worker(shared=True)
    late = second.add(engine("one"))
    pass_time(0.8, second)
    assert (late.view(0).forced, second.state(late)) == (None, "closed")


def test_of_two_operators_the_same_one_is_the_last_in_every_worker(pair, pass_time):
    first, mine, second, theirs = pair
    mine.force("open")
    first.scheduler.run_pending()
    theirs.force("closed")
    second.scheduler.run_pending()
    pass_time(2, first, second)
    assert mine.view(0).forced == theirs.view(0).forced == "closed"


def test_what_is_heard_is_not_told_again(pair, hub, pass_time):
    first, mine, second, _ = pair
    first.fail(mine)
    mine.force("closed")
    pass_time(5, first, second)
    assert len(hub.read("engines:app")) == 2


def test_engines_that_share_a_breaker_share_it_over_workers(worker, engine, pass_time):
    first, second = worker(shared=True), worker(shared=True)
    one = first.add(engine("one", breaker_key="host"))
    two = second.add(engine("two", breaker_key="host"), "other")
    pass_time(0.9, first, second)
    first.fail(one)
    pass_time(1.6, first, second)
    assert second.state(two) == "open"


def test_an_engine_that_only_one_worker_has_is_nobodys_trouble(worker, engine, pass_time):
    first, second = worker(shared=True), worker(shared=True)
    one, other = first.add(engine("one")), second.add(engine("other"))
    pass_time(0.9, first, second)
    first.fail(one)
    one.force("open")
    pass_time(1.6, first, second)
    assert second.state(other) == "closed"


HOSTILE = [
    None, 7, "text", [], {}, {"kind": 1}, {"kind": []}, {"kind": "breaker opened"},
    {"kind": "breaker opened", "origin": 7, "data": {}},
    {"kind": "breaker opened", "origin": "x", "data": []},
    *[
        {"kind": f"breaker {kind}", "origin": "0", "data": {"chain": "chain", "engine": "one", **d}}
        for kind in ("opened", "closed", "forced")
        for d in (
            {"for_s": -1, "in_a_row": 0}, {"for_s": "1", "in_a_row": 0}, {"state": "ajar"},
            {"for_s": float("nan"), "in_a_row": 0}, {"for_s": 1e300, "in_a_row": 1},
            {"for_s": 1.0, "in_a_row": 2**62}, {"engine": "x" * 5000}, {"chain": None},
        )
    ],
]  # fmt: skip


@pytest.mark.parametrize("said", HOSTILE)
def test_what_is_not_as_it_should_be_is_left_out(pair, hub, pass_time, said):
    _, _, second, theirs = pair
    hub.publish("engines:app", said)
    hub.put("engines/app/forced/x", said, 60)
    hub.put("engines/app/opened/x", said, 60)
    pass_time(1.6, second)
    second.sharing.receive_retained()
    assert (second.state(theirs), theirs.view(0).forced) == ("closed", None)


def test_what_is_kept_with_a_time_that_is_none_is_left_out(pair, hub):
    _, _, second, theirs = pair
    data = {"chain": "chain", "engine": "one", "state": "open"}
    for number, at in enumerate((float("nan"), float("-inf"), "now", None)):
        value = {"kind": "breaker forced", "origin": "x", "data": data, "at": at}
        hub.put(f"engines/app/opened/{number}", value, 60)
    second.sharing.receive_retained()
    assert second.state(theirs) == "closed"


class Broken:
    """A hub that is out of reach."""

    def __getattr__(self, name):
        def fail(*args, **options):
            raise ConnectionError("refused")

        return fail


def test_losing_the_hub_fails_no_call_and_keeps_what_is_known(worker, engine, clock, pass_time):
    class Door:
        hub = MemoryHub("memory://", clock)

        def __getattr__(self, name):
            return getattr(self.hub, name)

    alone = SharedHub(
        Door, lambda: MemoryHub("memory://", clock), clock, logging.getLogger("quiet")
    )
    one = worker(hub=alone, shared=True)
    breaker = one.add(engine("one"))
    pass_time(0.9, one)
    breaker.force("open")
    pass_time(1.6, one)
    Door.hub = Broken()
    pass_time(5, one)
    assert alone.alone
    assert breaker.view(0).forced == "open"
    breaker.force(None)
    one.succeed(breaker)
    one.fail(breaker)
    pass_time(5, one)
    assert one.state(breaker) == "open"


def test_without_engines_the_hub_is_left_alone(worker, pass_time):
    one = worker(hub=Broken())
    pass_time(5, one)
    assert one.scheduler.stats().failed == 0


# --- real processes


def heard(reader: int) -> bytes:
    select.select([reader], [], [], HANG_S)  # os.read alone would keep greenlets from running
    return os.read(reader, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_workers_that_share_a_file_hear_of_each_others_breakers(tmp_path):
    clock = SystemClock()
    breakers = BreakerRegistry()
    hub = SqliteHub(f"sqlite:///{tmp_path}/hub.sqlite3", clock)
    scheduler = BackgroundScheduler(2, 100, clock, hub)
    bus = EngineBus(
        hub=hub, scheduler=scheduler, clock=clock, namespace="app", has_engines=lambda: True
    )
    BreakerSharing(breakers=breakers, bus=bus, clock=clock, shared=True)
    one = breakers.get("chain", "one", "", lambda: Breaker(min_calls=1, cooldown_s=60))
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            bus.start()
            wait_until(lambda: bus._last_id is not None)
            os.write(writer, b"h")
            wait_until(lambda: not one.permit)
            os.write(writer, b"r")
            wait_until(lambda: one.view(clock.monotonic()).forced == "closed")
            os.write(writer, b"f")
            os._exit(0)
        finally:
            os._exit(1)
    try:
        bus.start()
        assert heard(reader) == b"h"
        one.leave(one.permit, clock.monotonic(), 0.0, failed=True)
        assert heard(reader) == b"r"
        one.force("closed")
        assert heard(reader) == b"f"
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(reader), os.close(writer)
        bus.close()
        scheduler.close()
        hub.close()
