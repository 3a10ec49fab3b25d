"""Recovery: told at one, three and five errors of a kind; repaired once, by one worker of all.

Recovery is made of :mod:`om_plugins.recovery.run`, :mod:`om_plugins.recovery.messages`,
:mod:`om_plugins.recovery.probing` and :mod:`om_plugins.recovery.counted_errors`.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from unittest.mock import Mock

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.builtin.hubs.sqlite import SqliteHub
from om_plugins.builtin.recovery_steps import ProbeEngines
from om_plugins.chains.chain import EngineChain
from om_plugins.chains.options import ChainPolicy
from om_plugins.core.clock import SystemClock
from om_plugins.errors import (
    AttemptTimeout,
    CallerDeadline,
    Cancelled,
    ChainExhausted,
    EngineUnavailable,
    InvalidRequest,
    TooLong,
    Transient,
)
from om_plugins.recovery.messages import Recipient
from om_plugins.recovery.recovery import Recovery
from om_plugins.types import Call, EngineSpec
from om_plugins.workers.scheduler import BackgroundScheduler
from tests.patience import HANG_S, PATIENCE_S, cut_off, join, wait_until

ANN = "sid:aaaaaaaaaaaaaaaaaaaaaa"


class Step:
    """A step that does what it is told and remembers whom it was for."""

    def __init__(self, name="Tidying", percent=50, does=lambda: "done"):
        self.name, self.percent, self.does = name, percent, does
        self.ran = []

    def run(self, subject, timeout):
        self.ran.append((subject, timeout))
        return self.does()


class House:
    """One worker: everything that recovery needs, without threads."""

    def __init__(self, clock, hub, *steps, **options):
        self.clock, self.hub = clock, hub
        self.steps = [("plugin", step) for step in steps]
        self.notes, self.events, self.faults = [], [], []
        self.left_out = set()
        self.asking = ANN
        self.chains = {}
        self.scheduler = BackgroundScheduler(4, 100, clock, hub, synchronous=True)
        self.recovery = Recovery(
            clock=clock,
            hub=hub,
            scheduler=self.scheduler,
            emit=lambda signal, **details: self.events.append((signal.name, details)),
            notify=self.notes.append,
            steps=lambda: self.steps,
            guarded=self.guarded,
            chains=lambda: self.chains,
            get_recipient=lambda: Recipient(lambda: self.asking),
            **{"bounded": False, **options},
        )

    def guarded(self, plugin, function, *args):
        if plugin in self.left_out:
            return False, None
        try:
            return True, function(*args)
        except BaseException as error:
            self.faults.append((plugin, error))
            return False, None

    def chain(self, *engines, **policy):
        chain = EngineChain(
            "assistant",
            ChainPolicy(**{"retries": 0, **policy}),
            clock=self.clock,
            on_failure=self.recovery.chain_failed,
        )
        for tier, engine in enumerate(engines, 1):
            chain.add(EngineSpec(engine, "assistant", tier))
        self.chains["assistant"] = chain
        return chain

    def fail(self, times=1, subject="route:/page", error=None, **more):
        for _ in range(times):
            self.recovery.note(subject, error or KeyError("user 17"), **more)
            self.scheduler.run_pending()

    def said(self, to=None):
        return [(n.kind, n.progress) for n in self.notes if n.to == (to or ANN)]

    def names(self):
        return [name for name, _ in self.events]


@pytest.fixture
def hub(clock):
    return MemoryHub("memory://", clock)


@pytest.fixture
def house(clock, hub):
    return House(clock, hub, Step("Tidying", 20), Step("Looking", 70))


# --- the thresholds


def test_the_first_error_is_told_in_plain_words_to_the_browser_and_to_operators(house):
    house.fail()
    first, second = house.notes
    assert (first.to, second.to) == (ANN, "operators")
    assert (first.kind, first.actions, first.data) == ("warning", (), {})
    assert "KeyError" not in first.message
    assert second.data["example"] == "KeyError: <text>"
    assert first.key == second.key
    house.fail()
    assert len(house.notes) == 2


def test_the_third_of_a_kind_is_a_pattern_that_can_be_reported(house):
    house.fail(2)
    assert house.names() == []
    house.notes.clear()
    house.fail()
    mine, _ = house.notes
    assert [(a.action, a.label) for a in mine.actions] == [("report", "Report problem")]
    ((name, details),) = house.events
    assert name == "error_pattern_found"
    pattern = details["pattern"]
    assert (pattern.subject, pattern.count) == ("route:/page", 3)
    assert mine.actions[0].value == pattern.fingerprint


def test_the_fifth_of_a_kind_begins_recovery_and_the_fourth_does_not(house):
    house.fail(4)
    assert "recovery_started" not in house.names()
    house.notes.clear()
    house.fail()
    assert house.names()[-2:] == ["recovery_started", "recovery_finished"]
    expected = [("progress", 0), ("progress", 20), ("progress", 70), ("success", 100)]
    assert house.said() == house.said("operators") == expected
    assert len({note.key for note in house.notes}) == 1


def test_errors_of_other_kinds_and_places_do_not_add_up(house):
    house.fail(2)
    house.fail(2, error=ValueError("x"))
    house.fail(2, subject="route:/other")
    assert house.names() == []


def test_errors_that_left_the_window_do_not_count(house, clock):
    house.fail(4)
    clock.advance(300)
    house.fail(4)
    assert "recovery_started" not in house.names()


def test_without_a_known_browser_only_operators_are_told(house):
    house.asking = ""
    house.fail()
    assert [note.to for note in house.notes] == ["operators"]


def test_an_address_that_is_given_counts_more_than_who_asks(house):
    house.fail(to="user:7")
    house.fail(to="operators", error=ValueError())
    assert [note.to for note in house.notes] == ["user:7", "operators", "operators"]


def test_a_storm_between_two_looks_is_counted_whole(house):
    for _ in range(500):
        house.recovery.note("route:/page", KeyError(1))
    house.scheduler.run_pending()
    assert house.recovery.patterns()[0].count == 500
    assert len(house.hub.read("errors")) == 6
    assert house.names().count("recovery_started") == 1


# --- what counts


@pytest.mark.parametrize(
    "error",
    [
        Cancelled("gone"), CallerDeadline("late"), InvalidRequest("no"), TooLong("long"),
        BrokenPipeError(), KeyboardInterrupt(), GeneratorExit(), SystemExit(1),
        ChainExhausted("told by the chain itself", [Transient()]),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_the_caller_did_never_counts(house, error):
    house.fail(5, error=error)
    assert house.notes == []
    assert house.recovery.patterns() == []


def test_a_refused_request_never_counts_and_a_broken_gateway_does(house):
    from werkzeug.exceptions import BadGateway, BadRequest, ClientDisconnected, NotFound

    for kind in (BadRequest, NotFound, ClientDisconnected):
        house.fail(5, error=kind())
    assert house.recovery.patterns() == []
    house.fail(error=BadGateway())
    assert [p.count for p in house.recovery.patterns()] == [1]


@pytest.mark.parametrize("subject", ["", "x" * 100_000, "no colon", "chain:", "\x00", "route:<%"])
def test_garbage_is_taken_without_a_word(house, subject):
    class Hostile(Exception):
        def __str__(self):
            raise RuntimeError("ha")

    house.fail(5, subject=subject, error=Hostile())
    house.fail(1, subject=subject, error=Exception("{0} {name} %s \x00" * 10_000), to="\x00")
    assert all(len(pattern.subject) <= 200 for pattern in house.recovery.patterns())


def test_after_close_nothing_is_counted(house):
    house.recovery.close()
    house.fail(5)
    assert house.notes == []


def test_a_full_queue_loses_nothing_that_comes_later(house):
    refused = house.scheduler.submit
    house.scheduler.submit = lambda *args, **kwargs: False
    house.recovery.note("route:/page", KeyError("user 16"))
    house.scheduler.submit = refused
    house.fail()
    assert house.recovery.patterns()[0].count == 2


# --- chains


def test_a_fall_back_counts_once_a_call_by_the_error_of_the_first_tier(house, engine):
    chain = house.chain(
        engine("one", Transient("no 17"), idempotent=True), engine("two"), retries=2
    )
    for _ in range(2):
        assert chain.call().degraded
    house.scheduler.run_pending()
    (pattern,) = house.recovery.patterns()
    assert (pattern.subject, pattern.count) == ("chain:assistant", 2)
    assert pattern.example == "Transient: no <n>"


def test_a_retry_that_helps_does_not_count(house, engine):
    chain = house.chain(
        engine("one", Transient(), "fine", idempotent=True), engine("two"), retries=2
    )
    assert chain.call().payload == "fine"
    house.scheduler.run_pending()
    assert house.recovery.patterns() == []


def test_an_exhausted_chain_counts_as_the_fall_back_of_the_same_cause(house, engine):
    chain = house.chain(
        engine("one", Transient("no 17")), engine("two", "fine", Transient("no 18"))
    )
    chain.call()
    with pytest.raises(ChainExhausted) as caught:
        chain.call()
    house.recovery.note("route:/page", caught.value)
    house.scheduler.run_pending()
    assert [(p.subject, p.count) for p in house.recovery.patterns()] == [("chain:assistant", 2)]


def test_a_call_that_every_engine_finds_wrong_does_not_count(house, engine):
    chain = house.chain(engine("one", TooLong("x")), engine("two", TooLong("x")))
    with pytest.raises(ChainExhausted):
        chain.call()
    chain = house.chain(engine("one", InvalidRequest("x")))
    with pytest.raises(InvalidRequest):
        chain.call()
    house.scheduler.run_pending()
    assert house.recovery.patterns() == []


def test_a_callers_haste_does_not_count_and_an_engine_that_hangs_does(house, engine):
    def hang(call):
        house.clock.advance(call.remaining())
        raise AttemptTimeout("slow")

    chain = house.chain(engine("one", hang))
    with pytest.raises(CallerDeadline):
        chain.call(timeout=0.1)
    house.scheduler.run_pending()
    assert house.recovery.patterns() == []
    with pytest.raises(CallerDeadline):
        chain.call()
    house.scheduler.run_pending()
    assert [p.example for p in house.recovery.patterns()] == ["AttemptTimeout: slow"]


def test_calls_that_an_open_breaker_refuses_are_the_same_trouble_going_on(house, engine):
    chain = house.chain(engine("one", Transient("x 1")), engine("two"), breaker_min_calls=1)
    for _ in range(3):
        assert chain.call().degraded
    house.scheduler.run_pending()
    assert [(p.example, p.count) for p in house.recovery.patterns()] == [("Transient: x <n>", 3)]


def test_what_an_operator_keeps_calls_away_from_is_no_trouble(house, engine):
    chain = house.chain(engine("one"), engine("two"))
    chain.states[0].breaker.force("open")
    for _ in range(6):
        assert chain.call().history[0].error.reason == "forced open"
    house.scheduler.run_pending()
    assert house.recovery.patterns() == []
    assert house.recovery.history() == []


# --- the way of a recovery


def test_steps_run_in_the_order_of_their_percent(clock, hub):
    order = []
    steps = [Step(f"s{p}", p, lambda p=p: order.append(p)) for p in (90, 20, 50)]
    House(clock, hub, *steps).fail(5)
    assert order == [20, 50, 90]


async def later():
    return "done"


@pytest.mark.parametrize(
    "said", [lambda: False, lambda: True, lambda: 0, later, lambda: (1 for _ in "1"), Mock]
)
def test_a_step_that_does_not_say_what_it_did_is_broken(clock, hub, said):
    house = House(clock, hub, Step("Tidying", 20, said), Step("Later", 90))
    house.fail(5)
    report = house.events[-1][1]["report"]
    assert not report.succeeded
    assert report.steps == ("Tidying: failed, TypeError",)
    assert "return what was done, in one line" in str(house.faults[0][1])


def test_a_step_may_have_nothing_to_say(clock, hub):
    house = House(clock, hub, Step("Tidying", 20, lambda: None))
    house.fail(5)
    report = house.events[-1][1]["report"]
    assert (report.succeeded, report.steps) == (True, ("Tidying",))


def test_a_step_that_raises_ends_recovery_as_failed_with_two_ways_out(clock, hub):
    def lost():
        raise Transient("the upstream is away")

    later = Step("Later", 90)
    house = House(clock, hub, Step("Tidying", 20), Step("Looking", 70, lost), later)
    house.fail(5)
    assert later.ran == []
    assert house.faults == []  # it told of the trouble; nothing is wrong with the plugin
    last = [note for note in house.notes if note.to == ANN][-1]
    assert (last.kind, [a.action for a in last.actions]) == ("error", ["refresh", "report"])
    report = house.events[-1][1]["report"]
    assert not report.succeeded
    assert report.steps == ("Tidying: done", "Looking: failed, the upstream is away")
    assert house.recovery.history() == [report]


def test_a_broken_step_counts_against_its_plugin_and_says_nothing_of_its_own(clock, hub):
    def broken():
        raise ValueError("password=1234")

    house = House(clock, hub, Step("Looking", 70, broken))
    house.fail(5)
    assert [type(error) for _, error in house.faults] == [ValueError]
    assert house.recovery.history()[0].steps == ("Looking: failed, ValueError",)


def test_the_steps_of_a_plugin_that_was_left_out_are_passed_over(clock, hub):
    good, bad = Step("Good", 90), Step("Bad", 20)
    house = House(clock, hub)
    house.steps = [("good", good), ("bad", bad)]
    house.left_out = {"bad"}
    house.fail(5)
    assert (len(good.ran), len(bad.ran)) == (1, 0)
    assert house.recovery.history()[0].succeeded


def test_without_steps_nothing_begins_and_nothing_is_claimed(clock, hub):
    house = House(clock, hub)
    house.fail(6)
    assert "recovery_started" not in house.names()
    assert house.recovery.history() == []


def test_a_step_that_never_returns_is_left_behind(clock, hub):
    over = threading.Event()
    house = House(
        clock, hub, Step("Hanging", 20, lambda: over.wait(HANG_S)), bounded=True, step_timeout=0.1
    )
    try:
        with cut_off(0.1):
            house.fail(5)
        assert not house.recovery.history()[0].succeeded
        assert [type(error) for _, error in house.faults] == [TimeoutError]
    finally:
        over.set()
        for thread in threading.enumerate():
            if thread.name == "om-recovery-step":
                join(thread)


@pytest.mark.parametrize("said", [None, 7, "x" * 9999, "two\nlines\x1b[0m", object()])
def test_what_a_step_says_is_one_short_line(clock, hub, said):
    house = House(clock, hub, Step("Saying", float("nan"), lambda: said))
    house.fail(5)
    (line,) = house.recovery.history()[0].steps
    assert line.isprintable()
    assert len(line) < 300


def test_recovery_rests_for_fifteen_minutes_whether_it_helped_or_not(clock, hub):
    step = Step()
    house = House(clock, hub, step)
    house.fail(5)
    for _ in range(89):
        clock.advance(10)
        house.fail()
    assert len(step.ran) == 1
    clock.advance(10)
    house.fail()
    assert len(step.ran) == 2


def test_another_kind_of_error_does_not_wait_for_the_first(house):
    house.fail(5)
    house.fail(5, error=ValueError("other"))
    assert house.names().count("recovery_started") == 2


def test_recovery_by_hand_does_not_wait_and_needs_a_place_that_exists(house, engine):
    house.fail(5)
    house.chain(engine("one"))
    assert house.recovery.recover("route:/page")
    assert house.recovery.recover("chain:assistant", to="user:7")
    for wrong in ("", "chain:", "chain:other", "route:", "assistant", "route:/" + "x" * 999):
        assert not house.recovery.recover(wrong)
    house.scheduler.run_pending()
    assert [r.subject for r in house.recovery.history()] == [
        "route:/page", "route:/page", "chain:assistant",
    ]  # fmt: skip
    assert house.said("user:7")[-1] == ("success", 100)


def test_history_keeps_the_last_fifty_and_passes_over_garbage(house):
    for number in range(60):
        house.recovery.recover(f"route:/{number}")
    house.hub.publish("recoveries", {"subject": 7})
    house.hub.publish("recoveries", "garbage")
    house.scheduler.run_pending()
    found = [report.subject for report in house.recovery.history()]
    assert found == [f"route:/{number}" for number in range(10, 60)]


# --- several workers


def test_errors_in_two_workers_add_up_and_one_of_them_recovers(clock, hub):
    houses = [House(clock, hub, Step()) for _ in range(2)]
    for number in range(8):
        houses[number % 2].fail()
    names = [name for house in houses for name in house.names()]
    assert names.count("error_pattern_found") == 1
    assert names.count("recovery_started") == 1
    assert houses[0].recovery.history() == houses[1].recovery.history()


def test_while_one_worker_recovers_another_does_not(clock, hub):
    other = House(clock, hub, Step())
    house = House(clock, hub, Step(does=lambda: other.fail(3) or "done"))
    house.fail(5)
    assert other.recovery.patterns()[0].count == 8
    assert "recovery_started" not in other.names()


def test_when_the_worker_at_it_was_killed_another_takes_over_after_the_lease(clock, hub):
    house = House(clock, hub, Step())
    assert hub.lease("recovery:route:/page", 30)  # and never renewed or given back
    house.fail(5)
    assert "recovery_started" not in house.names()
    clock.advance(29)
    house.fail()
    assert "recovery_started" not in house.names()
    clock.advance(5)
    house.fail()
    assert "recovery_started" in house.names()


def test_a_worker_that_lost_its_lease_stops_and_says_nothing_more(clock, hub):
    later = Step("Later", 90)
    house = House(clock, hub, Step("Sleeping", 20, lambda: clock.advance(60)), later)
    house.fail(5)
    assert later.ran == []
    assert house.names()[-1] == "recovery_started"
    assert house.recovery.history() == []
    assert house.said()[-1] == ("progress", 0)


def test_a_recovery_that_kills_its_workers_is_tried_three_times(clock, hub):
    class Killed(BaseException):
        pass

    tries = []

    class Fatal(House):
        def guarded(self, plugin, function, *args):
            tries.append(1)
            raise Killed

    for _ in range(6):
        house = Fatal(clock, hub, Step())
        for _ in range(5):
            house.recovery.note("route:/page", KeyError())
        with contextlib.suppress(Killed):
            house.scheduler.run_pending()
        clock.advance(40)
    assert len(tries) == 3


WORKER = """
import sys, time
from om_plugins.workers.scheduler import BackgroundScheduler
from om_plugins.builtin.hubs.sqlite import SqliteHub
from om_plugins.builtin.recovery_steps import ProbeEngines
from om_plugins.core.clock import SystemClock
from om_plugins.recovery.recovery import Recovery

clock = SystemClock()
hub = SqliteHub("sqlite:///" + sys.argv[1], clock)
scheduler = BackgroundScheduler(4, 1000, clock, hub)

class Step:
    name, percent = "Counting", 50
    def run(self, subject, timeout):
        hub.publish("ran", subject)
        time.sleep(float(sys.argv[2]))
        return "done"

def guarded(plugin, function, *args):
    return True, function(*args)

recovery = Recovery(
    clock=clock, hub=hub, scheduler=scheduler, emit=lambda *a, **k: None, notify=lambda n: None,
    steps=lambda: [("p", Step())], guarded=guarded, chains=dict,
)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    recovery.note("route:/page", KeyError(1))
    time.sleep(0.01)
scheduler.close(timeout=10)
hub.close()
"""


def test_two_processes_recover_once(tmp_path):
    path = str(tmp_path / "hub.db")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, path, "0.3"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker in workers:
            worker.communicate(timeout=60)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    hub = SqliteHub(f"sqlite:///{path}", SystemClock())
    try:
        assert len(hub.read("ran")) == 1
        house = House(SystemClock(), hub, Step())
        assert house.recovery.patterns()[0].count > 20  # both, together
        assert len(house.recovery.history()) == 1
    finally:
        hub.close()


def test_when_a_worker_is_killed_in_the_middle_of_a_recovery_another_takes_over(tmp_path):
    path = str(tmp_path / "hub.db")
    source = WORKER.replace("chains=dict,", "chains=dict, step_timeout=0.5, lease_s=2.5,")
    killed, other = (
        subprocess.Popen(
            [sys.executable, "-c", source, path, seconds],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for seconds in ("30", "0")
    )  # fmt: skip
    hub = SqliteHub(f"sqlite:///{path}", SystemClock())
    try:
        for worker in (killed, other):
            assert worker.stdout.readline() == "ready\n"
        killed.stdin.write("go\n")
        killed.stdin.flush()
        wait_until(lambda: hub.read("ran"))
        killed.send_signal(signal.SIGKILL)  # its lease is neither renewed nor given back
        assert killed.wait(PATIENCE_S) == -signal.SIGKILL
        assert len(hub.read("ran")) == 1
        assert hub.lease("recovery:route:/page", 1) is None
        assert hub.read("recoveries") == []
        time.sleep(2.6)
        other.communicate("go\n", timeout=60)
        assert len(hub.read("ran")) == 2
        (report,) = House(SystemClock(), hub, Step()).recovery.history()
        assert report.succeeded
    finally:
        hub.close()
        for worker in (killed, other):
            worker.kill()
            worker.wait()
            worker.stdin.close()
            worker.stdout.close()


def test_a_child_of_a_fork_begins_with_free_locks_and_none_of_its_parents_errors(house):
    house.recovery.note("route:/page", KeyError("of the parent"))
    locks = house.recovery._lock, house.recovery._patterns._lock, house.recovery.probes._lock
    for lock in locks:
        lock.acquire()
    for part in (house.recovery, house.recovery._patterns, house.recovery.probes):
        part.after_fork()
    house.fail(5)
    assert house.recovery.patterns()[0].count == 5
    assert house.recovery.history()[0].succeeded


# --- probing


def opened(house, engine):
    """A chain whose first engine's breaker is open, after five calls."""
    chain = house.chain(engine, breaker_min_calls=5)
    for _ in range(5):
        with pytest.raises(ChainExhausted):
            chain.call({"question": 1})
    assert not chain.states[0].breaker.permit
    return chain


def test_a_probe_closes_the_breaker_when_the_engine_answers(house, engine):
    one = engine("one", *[Transient()] * 5, "well", idempotent=True)
    chain = opened(house, one)
    assert house.recovery.probes.probe("chain:assistant", 10) == "one: answered"
    assert chain.states[0].breaker.permit
    assert one.times == 6
    assert chain.call().payload == "well"


def test_a_probe_asks_the_failed_question_again(house, engine):
    asked = []

    def answer(call):
        asked.append(call.payload)
        return "well"

    opened(house, engine("one", *[Transient()] * 5, answer, idempotent=True))
    house.recovery.probes.probe("chain:assistant", 10)
    assert asked == [{"question": 1}]


def test_a_breaker_stays_open_when_the_probe_fails(house, engine):
    chain = opened(house, engine("one", Transient(), idempotent=True))
    with pytest.raises(EngineUnavailable, match="did not answer"):
        house.recovery.probes.probe("chain:assistant", 10)
    assert not chain.states[0].breaker.permit


def test_others_are_told_of_each_engine_that_answered_and_of_no_other(clock, hub, engine):
    told = []
    house = House(clock, hub, on_answer=lambda one: told.append(one.name))
    opened(house, engine("one", *[Transient()] * 6, "well", idempotent=True))
    with pytest.raises(EngineUnavailable):
        house.recovery.probes.probe("chain:assistant", 10)
    assert told == []
    house.recovery.probes.probe("chain:assistant", 10)
    assert told == ["one"]


def test_errors_while_another_recovery_runs_begin_their_own_with_the_next_of_their_kind(house):
    def meanwhile():
        house.steps[0][1].does = lambda: "done"
        house.fail(5, error=OSError("another kind"))
        return "done"

    house.steps[0][1].does = meanwhile
    house.fail(5)
    assert [one.count for one in house.recovery.patterns()] == [5, 5]
    assert len(house.recovery.history()) == 1
    house.clock.advance(5)
    house.fail(error=OSError("another kind"))
    assert len(house.recovery.history()) == 2


def test_an_engine_that_is_not_idempotent_is_never_asked_twice(house, engine):
    one = engine("one", Transient())
    chain = opened(house, one)
    assert house.recovery.probes.probe("chain:assistant", 10) == "no engine to probe"
    assert one.times == 5
    assert not chain.states[0].breaker.permit


def test_an_engines_own_probe_is_used_where_asking_again_is_not_allowed(house, engine):
    one = engine("one", Transient())
    probed = []
    one.probe = lambda call: probed.append(call.remaining())
    chain = opened(house, one)
    assert house.recovery.probes.reach("chain:assistant", 10) == "one: in reach"
    assert not chain.states[0].breaker.permit  # to be in reach is not to answer
    assert house.recovery.probes.probe("chain:assistant", 10) == "one: answered"
    assert chain.states[0].breaker.permit
    assert probed == pytest.approx([3, 9.5 * 0.99])  # before the step's time is over


def test_only_one_probe_is_out_at_a_time(house, engine):
    chain = opened(house, engine("one", Transient(), idempotent=True))
    assert chain.states[0].breaker.enter_early(house.clock.monotonic())
    with pytest.raises(EngineUnavailable):
        house.recovery.probes.probe("chain:assistant", 10)


def test_an_engine_that_hangs_leaves_the_others_their_time_and_is_to_blame(house, engine):
    def hang(call):
        house.clock.advance(call.remaining())
        call.raise_if_done()

    one = engine("one", *[Transient()] * 5, hang, idempotent=True)
    two = engine("two", idempotent=True)
    chain = house.chain(one, attempt_timeout=1.0, breaker_min_calls=5)
    chain.add(EngineSpec(two, "assistant", 1))
    for _ in range(5):
        house.recovery.probes.remember(Call({}, "assistant"))
        with contextlib.suppress(Transient):
            chain.states[0].probe(Call({}, "assistant"), one.call)
    began = house.clock.monotonic()
    assert (
        house.recovery.probes.probe("chain:assistant", 10) == "one: AttemptTimeout, two: answered"
    )
    assert house.clock.monotonic() - began == pytest.approx(1.0)
    assert chain.states[0].health.last_error == "AttemptTimeout"
    assert not chain.states[0].breaker.permit


def test_engines_that_all_hang_end_before_the_step_is_left_behind(house, engine):
    def hang(call):
        house.clock.advance(call.remaining())
        call.raise_if_done()

    chain = house.chain(engine("one"))
    for name in ("two", "three", "four"):
        chain.add(EngineSpec(engine(name), "assistant", 1))
    for place in chain.states:
        place.spec.engine.probe = hang
    for look in (house.recovery.probes.reach, house.recovery.probes.probe):
        began = house.clock.monotonic()
        with pytest.raises(EngineUnavailable):
            look("chain:assistant", 10)
        assert house.clock.monotonic() - began < 10


def test_closing_stops_a_probe_under_way_and_says_nothing_of_the_engine(house, engine):
    def until_closed(call):
        stopped = threading.Event()
        call.on_cancel(stopped.set)
        house.recovery.close()
        assert stopped.is_set()
        call.raise_if_done()

    one = engine("one")
    one.probe = until_closed
    house.chain(one)
    house.steps = [("plugin", ProbeEngines(house.recovery.probes))]
    house.recovery.recover("chain:assistant")
    house.scheduler.run_pending()
    assert house.recovery.history() == []
    with pytest.raises(EngineUnavailable, match="Cancelled"):
        house.recovery.probes.probe("chain:assistant", 10)


def test_a_probe_that_returns_false_is_no_answer(house, engine):
    one = engine("one", Transient())
    one.probe = lambda call: False
    chain = opened(house, one)
    for look in (house.recovery.probes.reach, house.recovery.probes.probe):
        with pytest.raises(EngineUnavailable, match="NoAnswer"):
            look("chain:assistant", 10)
    assert not chain.states[0].breaker.permit


def test_a_call_that_is_repeated_and_returns_none_is_no_answer(house, engine):
    one = engine("one", *[Transient()] * 5, None, idempotent=True)
    opened(house, one)
    with pytest.raises(EngineUnavailable, match="NoAnswer"):
        house.recovery.probes.probe("chain:assistant", 10)


def test_one_engine_of_the_first_tier_is_enough(house, engine):
    one, two = engine("one"), engine("two")
    one.probe, two.probe = lambda call: 1 / 0, lambda call: None
    chain = house.chain(one)
    chain.add(EngineSpec(two, "assistant", 1))
    assert (
        house.recovery.probes.reach("chain:assistant", 10)
        == "one: ZeroDivisionError, two: in reach"
    )


def test_what_an_operator_keeps_calls_away_from_is_not_asked_and_fails_no_recovery(house, engine):
    one, two = engine("one"), engine("two")
    one.probe = two.probe = lambda call: None
    chain = house.chain(one, two)
    chain.states[0].breaker.force("open")
    assert house.recovery.probes.reach("chain:assistant", 10) == "two: in reach"
    assert house.recovery.probes.probe("chain:assistant", 10) == "two: answered"


@pytest.mark.parametrize("subject", ["route:/page", "chain:other", "", "chain:"])
def test_a_place_without_engines_has_nothing_to_probe(house, subject):
    assert house.recovery.probes.reach(subject, 10) == "no engine to look for"
    assert house.recovery.probes.probe(subject, 10) == "no engine to probe"
