"""Active health: one worker probes, all know, and an engine that is back is asked again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from unittest.mock import Mock

import pytest

from om_plugins.errors import ChainExhausted, RateLimited, Transient
from om_plugins.types import Health
from tests.patience import HANG_S, PATIENCE_S, cut_off, wait_until

INTERVAL_S = 30.0


class Probed:
    """How an engine answers to its probe: an error, or fine."""

    def __init__(self, answer: Exception | None = None) -> None:
        self.answer = answer
        self.calls = []

    def __call__(self, call) -> None:
        self.calls.append(call)
        if self.answer is not None:
            raise self.answer


@pytest.fixture
def probed(engine):
    def make(name="one", answer=None, *steps, **traits):
        one = engine(name, *steps, **traits)
        one.probe = Probed(answer)
        return one

    return make


@pytest.fixture
def workers(worker):
    return [worker(interval_s=INTERVAL_S) for _ in range(3)]


def health(one, chain="chain"):
    return [row.state for row in one.chains[chain].health()]


def test_one_worker_probes_and_all_see_what_it_found(workers, probed, pass_time):
    engines = [probed() for _ in workers]
    for one, made in zip(workers, engines, strict=True):
        one.add(made)
        one.start()
    pass_time(31, *workers)
    assert sorted(len(made.probe.calls) for made in engines) == [0, 0, 2]  # at start, and once more
    assert [health(one) for one in workers] == [[Health.HEALTHY]] * 3


def test_at_the_start_one_of_all_warms_up(workers, probed, pass_time):
    engines = [probed() for _ in workers]
    for one, made in zip(workers, engines, strict=True):
        one.add(made)
    pass_time(1.7, *workers)
    assert sum(len(made.probe.calls) for made in engines) == 1
    assert [health(one) for one in workers] == [[Health.HEALTHY]] * 3


def test_a_worker_that_starts_later_knows_at_once(worker, workers, probed, pass_time):
    workers[0].add(probed(answer=Transient()))
    pass_time(40, workers[0])
    late = worker(interval_s=INTERVAL_S)
    made = probed()
    late.add(made)
    pass_time(0.9, late)
    assert health(late) == [Health.DEGRADED]
    assert made.probe.calls == []


def test_two_probes_that_fail_in_a_row_make_an_engine_without_traffic_offline(
    workers, probed, pass_time, listening
):
    one = workers[0]
    made = probed(answer=Transient())
    breaker = one.add(made)
    pass_time(2, one)
    assert health(one) == [Health.DEGRADED]
    pass_time(31, one)
    assert health(one) == [Health.OFFLINE]
    assert breaker.permit  # and is still asked
    assert one.chains["chain"].call().payload == "from one"
    assert health(one) == [Health.HEALTHY]
    changes = [e["after"] for name, e in one.events if name == "engine_health_changed"]
    assert changes == [Health.DEGRADED, Health.OFFLINE, Health.HEALTHY]


def test_a_change_is_told_once_and_not_with_each_probe(workers, probed, pass_time, listening):
    for one in workers:
        one.add(probed())
    pass_time(200, *workers)
    for one in workers:
        changes = [e["after"] for name, e in one.events if name == "engine_health_changed"]
        assert changes == [Health.HEALTHY]


def test_a_probe_is_not_counted_as_a_call(workers, probed, pass_time):
    one = workers[0]
    breaker = one.add(probed(answer=Transient()))
    pass_time(100, one)
    assert breaker.view(one.clock.monotonic()).calls == 0


@pytest.mark.parametrize("grown", [False, True])
def test_an_engine_that_is_back_is_asked_within_one_interval_and_a_second(
    workers, probed, pass_time, grown
):
    """In every worker, also where the cooldown has grown longer than the interval."""
    engines = [probed("one", Transient(), Transient()) for _ in workers]
    breakers = [
        one.add(made, breaker_cooldown=300.0 if grown else 10.0)
        for one, made in zip(workers, engines, strict=True)
    ]
    pass_time(5, *workers)
    for one in workers:
        with pytest.raises(ChainExhausted):
            one.chains["chain"].call()
    pass_time(40, *workers)
    if grown:
        assert [one.state(b) for one, b in zip(workers, breakers, strict=True)] == ["open"] * 3
    for made in engines:
        made.probe.answer = None
        made.steps = ["back"]
    pass_time(INTERVAL_S + 1, *workers)
    for one in workers:
        answer = one.chains["chain"].call()
        assert (answer.payload, answer.attempts) == ("back", 1)
        assert health(one) == [Health.HEALTHY]


def test_an_engine_that_says_it_is_well_and_fails_gets_one_call_an_interval(
    workers, probed, pass_time
):
    one = workers[0]
    made = probed("one", None, Transient())
    one.add(made, breaker_cooldown=1000.0)
    pass_time(3, one)
    for _ in range(120):
        with pytest.raises(ChainExhausted):
            one.chains["chain"].call()
        pass_time(1, one)
    assert made.times in (5, 6)


def test_an_engine_that_nobody_calls_is_well_again_after_two_good_probes(
    workers, probed, pass_time
):
    one = workers[0]
    made = probed("one", None, Transient())
    breaker = one.add(made)
    pass_time(3, one)
    with pytest.raises(ChainExhausted):
        one.chains["chain"].call()
    assert health(one) == [Health.OFFLINE]
    pass_time(28, one)
    assert health(one) == [Health.DEGRADED]
    pass_time(31, one)
    assert health(one) == [Health.HEALTHY]
    assert breaker.permit


def test_what_an_operator_forced_no_probe_changes(workers, probed, pass_time):
    one = workers[0]
    breaker = one.add(probed())
    breaker.force("open")
    pass_time(100, one)
    assert (health(one), one.state(breaker)) == ([Health.OFFLINE], "open")


def test_a_breaker_that_several_engines_share_is_probed_once(workers, probed, pass_time):
    one = workers[0]
    first, second = probed("one", breaker_key="host"), probed("two", breaker_key="host")
    one.add(first), one.add(second, "other")
    pass_time(2, one)
    assert (len(first.probe.calls), len(second.probe.calls)) == (1, 0)
    assert health(one) == health(one, "other") == [Health.HEALTHY]


def test_an_engine_without_a_probe_has_no_data(workers, engine, probed, pass_time):
    one = workers[0]
    one.add(engine("none"))
    one.add(probed("some"))
    pass_time(40, one)
    assert health(one) == [Health.NO_DATA, Health.HEALTHY]


@pytest.mark.parametrize("answer", [RateLimited("not so often"), NotImplementedError()])
def test_a_probe_that_does_not_tell_says_nothing(workers, probed, pass_time, answer):
    one = workers[0]
    one.add(probed(answer=answer))
    pass_time(40, one)
    assert health(one) == [Health.NO_DATA]


@pytest.mark.parametrize("threads", [False, True])
def test_a_probe_that_returns_false_fails(worker, probed, pass_time, threads):
    one = worker(interval_s=INTERVAL_S, threads=threads)
    made = probed()
    made.probe = lambda call: False
    one.add(made)
    one.health_checks.run_round()
    one.health_checks.run_round()
    assert health(one) == [Health.OFFLINE]


@pytest.mark.parametrize("answer", [None, True])
def test_a_probe_that_returns_nothing_or_true_succeeds(worker, probed, answer):
    one = worker(interval_s=INTERVAL_S)
    made = probed()
    made.probe = lambda call: answer
    one.add(made)
    one.health_checks.run_round()
    assert health(one) == [Health.HEALTHY]


async def later():
    return True


@pytest.mark.parametrize(
    "answer",
    [
        lambda: 0,
        lambda: 1,
        lambda: "",
        lambda: "down",
        list,
        lambda: {"status": "down"},
        lambda: (True for _ in "1"),
        later,
        Mock,
        lambda: NotImplemented,
        object,
    ],
)
def test_a_probe_that_returns_anything_else_fails_and_says_so(worker, probed, answer, caplog):
    one = worker(interval_s=INTERVAL_S)
    made = probed()
    made.probe = lambda call: answer()
    one.add(made)
    one.health_checks.run_round()
    one.health_checks.run_round()
    assert health(one) == [Health.OFFLINE]
    assert "NoAnswer: the probe of engine " in caplog.text


def test_when_nobody_probes_any_more_what_was_found_is_forgotten(workers, probed, pass_time):
    first, second = workers[:2]
    first.add(probed())
    second.add(probed())
    pass_time(3, first, second)
    prober = max(
        workers[:2], key=lambda one: len(one.chains["chain"].engines[0].engine.probe.calls)
    )
    other = second if prober is first else first
    other.health_checks.begin_round = lambda: None
    other.health_checks.close()
    pass_time(60, other)
    assert health(other) == [Health.HEALTHY]
    pass_time(35, other)
    assert health(other) == [Health.NO_DATA]


def test_the_interval_is_kept_also_where_the_schedulers_jitter_is_against_it(
    workers, probed, pass_time, monkeypatch
):
    one, periods = workers[0], []
    every = one.scheduler.every
    monkeypatch.setattr(
        one.scheduler, "every", lambda s, *a, **k: [periods.append(s), every(s, *a, **k)][1]
    )
    one.add(probed())
    pass_time(1, one)
    assert [period * 1.1 for period in periods] == pytest.approx([INTERVAL_S])


def test_without_an_interval_nobody_probes(worker, probed, pass_time):
    one = worker()
    made = probed()
    one.add(made)
    pass_time(100, one)
    assert made.probe.calls == []


def test_closed_nobody_probes(workers, probed, pass_time):
    one = workers[0]
    made = probed()
    one.add(made)
    pass_time(2, one)
    one.close()
    pass_time(100, one)
    assert len(made.probe.calls) == 1


@pytest.mark.parametrize(
    "words",
    [None, 7, [7], [["chain", "one"]], [["chain", "one", "yes"]], [["c" * 2000, "one", True]],
     [["chain", "one", True]] * 1001],
)  # fmt: skip
def test_what_is_not_as_it_should_be_is_left_out(workers, probed, pass_time, hub, words):
    one = workers[0]
    one.health_checks.run_first_round = lambda: None
    one.add(probed())
    pass_time(2, one)
    said = {"kind": "engines probed", "origin": "x", "data": {"words": words}}
    hub.publish("engines:app", said)
    hub.put("engines/app/probed/newest", {**said, "at": one.clock.time()}, 60)
    pass_time(2, one)
    one.health_checks.receive_retained()
    assert health(one) == [Health.NO_DATA]


def test_what_was_found_long_ago_is_left_out(workers, probed, hub, pass_time):
    one = workers[0]
    one.health_checks.run_first_round = lambda: None
    one.add(probed())
    data = {"words": [["chain", "one", False]]}
    old = {"kind": "engines probed", "origin": "x", "data": data, "at": one.clock.time() - 91}
    hub.put("engines/app/probed/newest", old, 60)
    pass_time(2, one)
    assert health(one) == [Health.NO_DATA]


def test_what_is_kept_and_told_while_a_worker_starts_is_one_word(workers, probed, hub, pass_time):
    one = workers[0]
    breaker = one.add(probed())
    one.health_checks.run_first_round = lambda: None
    pass_time(0.9, one)
    data = {"words": [["chain", "one", False]]}
    said = {"kind": "engines probed", "origin": "x", "data": data}
    hub.put("engines/app/probed/newest", {**said, "at": one.clock.time()}, 60)
    hub.publish("engines:app", said)
    one.health_checks.receive_retained()
    pass_time(1, one)
    assert breaker.view(one.clock.monotonic()).probes_failed == 1


# --- threads


class Hanging:
    """A probe that hangs until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Event()
        self.cancelled = threading.Event()

    def __call__(self, call) -> None:
        call.on_cancel(self.cancelled.set)
        self.begun.release()
        self.go.wait(HANG_S)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("om_plugins.chains.health_checks.PROBE_TIMEOUT_S", 0.2)


@pytest.fixture
def threaded(worker, monkeypatch):
    """A worker whose probes have threads, on the machine's own clock."""
    from om_plugins.core.clock import SystemClock

    one = worker(interval_s=INTERVAL_S, threads=True)
    monkeypatch.setattr(one.health_checks, "clock", SystemClock())
    return one


def test_a_probe_that_hangs_is_cut_and_counts_as_failed(threaded, probed, monkeypatch):
    monkeypatch.setattr("om_plugins.chains.health_checks.PROBE_TIMEOUT_S", 1.0)
    hanging, fine = probed("hanging"), probed("fine")
    hanging.probe = Hanging()
    threaded.add(hanging), threaded.add(fine)
    try:
        with cut_off(1.0):
            threaded.health_checks.run_round()
        assert health(threaded) == [Health.DEGRADED, Health.HEALTHY]
        assert hanging.probe.cancelled.is_set()
    finally:
        hanging.probe.go.set()


def test_an_engine_that_hangs_has_one_thread_and_no_more(threaded, probed, quick, monkeypatch):
    hanging = probed()
    hanging.probe = Hanging()
    threaded.add(hanging)
    try:
        for _ in range(3):
            threaded.health_checks.run_round()
        assert hanging.probe.begun.acquire(timeout=PATIENCE_S)
        assert not hanging.probe.begun.acquire(timeout=0.05)
        assert health(threaded) == [Health.OFFLINE]
    finally:
        hanging.probe.go.set()
    wait_until(lambda: not any(t.name == "om-probe" for t in threading.enumerate()))
    monkeypatch.setattr("om_plugins.chains.health_checks.PROBE_TIMEOUT_S", HANG_S)
    threaded.health_checks.run_round()
    assert health(threaded) == [Health.HEALTHY]


def test_many_that_hang_are_probed_eight_at_once_and_the_rest_come_first_next_time(
    threaded, probed, quick, monkeypatch
):
    monkeypatch.setattr("om_plugins.chains.health_checks.MAX_ROUND_S", 0.1)
    hanging = Hanging()
    for number in range(12):
        made = probed(f"e{number}")
        made.probe = hanging
        threaded.add(made)
    try:
        threaded.health_checks.run_round()
        assert health(threaded).count(Health.DEGRADED) == 8
        hanging.go.set()
        monkeypatch.setattr("om_plugins.chains.health_checks.MAX_ROUND_S", HANG_S)
        monkeypatch.setattr("om_plugins.chains.health_checks.PROBE_TIMEOUT_S", HANG_S)
        threaded.health_checks.run_round()
        assert Health.NO_DATA not in health(threaded)[8:]
    finally:
        hanging.go.set()


def test_a_round_holds_no_thread_of_the_pool(threaded, probed, monkeypatch):
    monkeypatch.setattr("om_plugins.chains.health_checks.PROBE_TIMEOUT_S", HANG_S)
    hanging = probed()
    hanging.probe = Hanging()
    threaded.add(hanging)
    with cut_off():
        threaded.health_checks.begin_round()
        threaded.health_checks.begin_round()  # one is under way
    assert hanging.probe.begun.acquire(timeout=PATIENCE_S)
    hanging.probe.go.set()
    wait_until(lambda: health(threaded) == [Health.HEALTHY])
    assert not hanging.probe.begun.acquire(timeout=0.05)


# --- real processes

WORKERS = """
import json, os, signal, sys, time
from om_plugins.workers.scheduler import BackgroundScheduler
from om_plugins.builtin.hubs.sqlite import SqliteHub
from om_plugins.core.clock import SystemClock
from om_plugins.chains.options import ChainPolicy
from om_plugins.chains.chain import EngineChain
from om_plugins.policies.registry import BreakerRegistry
from om_plugins.chains.health_checks import HealthChecks
from om_plugins.chains.sharing import BreakerSharing, EngineBus
from om_plugins.types import EngineSpec, EngineTraits

folder = sys.argv[1]
clock = SystemClock()

class Upstream:
    name = "one"
    traits = EngineTraits()
    def call(self, call):
        return "fine"
    def probe(self, call):
        with open(f"{folder}/probes", "a") as log:
            log.write(f"{os.getpid()}\\n")
        if os.path.exists(f"{folder}/down"):
            raise OSError("down")

breakers = BreakerRegistry()
chain = EngineChain("c", ChainPolicy(breaker_min_calls=1, breaker_cooldown=500.0),
                    clock=clock, breakers=breakers)
chain.add(EngineSpec(Upstream(), "c"))
hub = SqliteHub(f"sqlite:///{folder}/hub.sqlite3", clock)
scheduler = BackgroundScheduler(2, 100, clock, hub)
bus = EngineBus(hub=hub, scheduler=scheduler, clock=clock, namespace="app",
                has_engines=lambda: True)
BreakerSharing(breakers=breakers, bus=bus, clock=clock, shared=False)
checks = HealthChecks(clock=clock, hub=hub, scheduler=scheduler, namespace="app", bus=bus,
                      chains=lambda: {"c": chain}, breakers=breakers, interval_s=0.5)
for _ in range(3):
    if os.fork() == 0:
        signal.alarm(60)
        checks.start()
        bus.start()
        breaker = chain.states[0].breaker
        opened = False
        while os.getppid() != 1:
            if not opened and os.path.exists(f"{folder}/open"):
                opened = True
                breaker.leave(breaker.permit, clock.monotonic(), 0.0, failed=True)
            state = [chain.health()[0].state.value, breaker.view(clock.monotonic()).state]
            with open(f"{folder}/{os.getpid()}.part", "w") as out:
                json.dump(state, out)
            os.replace(f"{folder}/{os.getpid()}.part", f"{folder}/{os.getpid()}.json")
            time.sleep(0.05)
        os._exit(0)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""


@pytest.mark.server
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_one_of_several_processes_probes_all_see_it_and_another_takes_over(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WORKERS, str(tmp_path)], stderr=subprocess.PIPE
    )

    def states():
        return {int(path.stem): json.loads(path.read_text()) for path in tmp_path.glob("*.json")}

    def wait_for(condition):
        wait_until(condition, lambda: (states(), parent.poll()), pause_s=0.05)

    def probers():
        path = tmp_path / "probes"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    alive = set()
    try:
        wait_for(lambda: [s for s, _ in states().values()] == ["healthy"] * 3)
        alive = set(states())
        seen = len(probers())
        wait_for(lambda: len(probers()) >= seen + 3)
        assert len(set(probers()[seen:])) == 1
        # all breakers open for 500 s; the upstream is down, and then it is back
        (tmp_path / "down").touch()
        (tmp_path / "open").touch()
        wait_for(lambda: [s for s, _ in states().values()] == ["offline"] * 3)
        (tmp_path / "down").unlink()
        wait_for(lambda: all(breaker != "open" for _, breaker in states().values()))
        # the one that probes is killed
        prober = probers()[-1]
        os.kill(prober, signal.SIGKILL)
        alive.discard(prober)
        (tmp_path / f"{prober}.json").unlink()
        wait_for(lambda: probers()[-1] != prober)
        (tmp_path / "down").touch()
        wait_for(lambda: all(states()[pid][0] == "offline" for pid in alive))
    finally:
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
        parent.wait(PATIENCE_S)
        parent.stderr.close()


def test_a_good_probe_ends_the_offline_time_in_all_workers(workers, probed, pass_time):
    for one in workers:
        one.add(probed())
        one.chains["chain"].states[0].cooldown.begin("offline", 3600, 0)
    assert [health(one) for one in workers] == [[Health.OFFLINE]] * 3
    pass_time(31, *workers)
    assert [health(one) for one in workers] == [[Health.HEALTHY]] * 3


def test_a_bad_probe_ends_no_offline_time(workers, probed, pass_time):
    one = workers[0]
    one.add(probed(answer=Transient()))
    one.chains["chain"].states[0].cooldown.begin("offline", 3600, 0)
    pass_time(31, one)
    assert one.chains["chain"].states[0].cooldown.until
