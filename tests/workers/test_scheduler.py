"""The background worker pool of a process: :mod:`om_plugins.workers.pool`, too."""

from __future__ import annotations

import contextvars
import functools
import gc
import logging
import math
import signal
import subprocess
import sys
import threading
import time
import types
import weakref

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.core.clock import SystemClock
from om_plugins.testing.fakes import FakeClock
from om_plugins.workers.pool import lacks_uwsgi_threads
from om_plugins.workers.scheduler import BackgroundScheduler
from tests.patience import HANG_S, PATIENCE_S, cut_off, wait_until

logger = logging.getLogger("om_plugins")


@pytest.fixture
def hub():
    return MemoryHub("memory://", SystemClock())


@pytest.fixture
def make(hub):
    made = []

    def make(workers=2, queue_size=10, clock=None, **options):
        made.append(
            BackgroundScheduler(workers, queue_size, clock or SystemClock(), hub, **options)
        )
        return made[-1]

    before = set(threading.enumerate())
    make.threads = lambda: set(threading.enumerate()) - before
    yield make
    for scheduler in made:
        scheduler.close(5)
    assert set(threading.enumerate()) <= before


# --- jobs -----------------------------------------------------------------------------------------


def test_no_thread_is_begun_before_the_first_job(make):
    scheduler = make()
    assert not make.threads()
    done = threading.Event()
    assert scheduler.submit(done.set)
    assert done.wait(PATIENCE_S)
    (worker,) = [t for t in make.threads() if t.name.startswith("om-worker")]
    assert worker.daemon


def test_no_more_threads_than_workers_run_jobs(make):
    scheduler = make(workers=3, queue_size=50)
    gate = threading.Event()
    running = []
    most = []

    def job():
        running.append(1)
        most.append(len(running))
        gate.wait(HANG_S)
        running.pop()

    for _ in range(20):
        assert scheduler.submit(job)
    wait_until(lambda: len(running) == 3)
    stats = scheduler.stats()
    assert (stats.running, stats.queued) == (3, 17)
    gate.set()
    wait_until(lambda: scheduler.stats().done == 20)
    assert max(most) == 3


def test_an_idle_worker_is_used_before_another_is_begun(make):
    scheduler = make(workers=8)
    names = set()
    for n in range(10):
        scheduler.submit(lambda: names.add(threading.current_thread().name))
        wait_until(lambda n=n: scheduler.stats().done == n + 1)
        pool = scheduler._get_pool()
        wait_until(lambda pool=pool: pool._idle)  # the worker waits again
    assert len(names) == 1


def test_a_full_queue_refuses_and_counts(make):
    scheduler = make(workers=1, queue_size=2)
    gate = threading.Event()
    scheduler.submit(lambda: gate.wait(HANG_S))
    wait_until(lambda: scheduler.stats().running == 1)
    assert [scheduler.submit(int) for _ in range(5)] == [True, True, False, False, False]
    assert scheduler.stats().dropped == 3
    gate.set()
    wait_until(lambda: scheduler.stats().done == 3)


def test_a_job_that_raises_is_logged_and_ends_no_worker(make, caplog):
    scheduler = make(workers=1)

    def broken():
        raise ValueError("broken pipe dream")

    scheduler.submit(broken, name="a broken job")
    scheduler.submit(lambda: sys.exit(3))
    done = threading.Event()
    scheduler.submit(done.set)
    assert done.wait(PATIENCE_S)
    wait_until(lambda: scheduler.stats().done == 1)
    assert scheduler.stats().failed == 2
    assert "background job 'a broken job' failed" in caplog.text
    assert "broken pipe dream" in caplog.text


async def an_async_job():
    pass


def a_yielding_job():
    yield


@pytest.mark.parametrize("job", [an_async_job, a_yielding_job, lambda: an_async_job()])
def test_a_job_that_has_not_run_is_logged_as_failed(make, job, caplog):
    scheduler = make(synchronous=True)
    scheduler.submit(job, name="odd")
    scheduler.run_pending()
    assert "background job 'odd' failed" in caplog.text
    assert "it returned a " in caplog.text


def test_jobs_do_not_see_each_others_context(make):
    variable = contextvars.ContextVar("variable", default="clean")
    scheduler = make(workers=1)
    seen = []
    scheduler.submit(lambda: variable.set("dirty"))
    scheduler.submit(lambda: seen.append(variable.get()))
    wait_until(lambda: seen)
    assert seen == ["clean"]


def test_a_job_may_submit_jobs_also_to_a_full_queue(make):
    scheduler = make(workers=1, queue_size=1)
    answers = []
    scheduler.submit(lambda: answers.extend(scheduler.submit(int) for _ in range(3)))
    wait_until(lambda: len(answers) == 3)
    assert answers == [True, False, False]


def test_closing_gives_queued_jobs_time_and_ends_the_threads(make):
    scheduler = make(workers=2)
    done = []
    for n in range(6):
        scheduler.submit(lambda n=n: (time.sleep(0.02), done.append(n)))
    scheduler.close(HANG_S)
    assert sorted(done) == [0, 1, 2, 3, 4, 5]
    assert not scheduler.submit(int)
    assert not make.threads()
    scheduler.close()


def test_closing_leaves_what_takes_too_long(make):
    scheduler = make(workers=1)
    gate = threading.Event()
    scheduler.submit(lambda: gate.wait(HANG_S))
    scheduler.submit(int)
    wait_until(lambda: scheduler.stats().running == 1)
    with cut_off():
        scheduler.close(0.1)
    assert scheduler.stats().dropped == 1
    gate.set()
    wait_until(lambda: not make.threads())


def test_a_scheduler_that_was_never_used_can_be_collected(hub):
    scheduler = BackgroundScheduler(1, 1, SystemClock(), hub)
    weak = weakref.ref(scheduler)
    scheduler.stats()
    del scheduler
    gc.collect()
    assert weak() is None


# --- again and again ------------------------------------------------------------------------------


def test_a_periodic_job_runs_until_it_is_stopped(make):
    scheduler = make()
    began = time.monotonic()
    runs = []
    stop = scheduler.every(0.02, lambda: runs.append(time.monotonic()), name="tick")
    wait_until(lambda: len(runs) >= 4)
    assert all(ran - began > number * 0.01 for number, ran in enumerate(runs, 1))
    stop()
    wait_until(lambda: not (scheduler.stats().queued or scheduler.stats().running))
    count = len(runs)
    time.sleep(0.1)
    assert len(runs) == count
    stop()


def test_a_periodic_job_never_runs_twice_at_once(make):
    scheduler = make(workers=4)
    running, most, runs = [], [], []

    def slow():
        running.append(1)
        most.append(len(running))
        time.sleep(0.05)
        running.pop()
        runs.append(1)

    scheduler.every(0.01, slow, name="slow")
    wait_until(lambda: len(runs) >= 3)
    assert max(most) == 1


def test_a_periodic_job_that_raises_goes_on_and_is_logged_once(make, caplog):
    caplog.set_level(logging.INFO, "om_plugins")
    scheduler = make()
    runs = []

    def sometimes():
        runs.append(1)
        if len(runs) < 4:
            raise ValueError("not yet")

    scheduler.every(0.01, sometimes, name="sometimes")
    wait_until(lambda: len(runs) >= 6)
    messages = [r.getMessage() for r in caplog.records]
    assert messages == [
        "background job 'sometimes' failed",
        "background job 'sometimes' works again",
    ]
    assert scheduler.stats().failed == 3


@pytest.mark.parametrize(
    "job",
    [
        an_async_job,
        a_yielding_job,
        5,
        lambda clock: None,
        functools.partial(lambda: None, 1),
        functools.lru_cache(an_async_job),
        math.sqrt,
    ],
)
def test_a_job_that_would_run_nothing_is_refused(make, job):
    with pytest.raises(TypeError, match="the job 'odd' cannot be called: "):
        make().every(60, job, name="odd")


def test_a_job_registered_later_with_a_shorter_period_is_not_kept_waiting(make):
    scheduler = make()
    scheduler.every(3600, int, name="hourly")
    done = threading.Event()
    scheduler.every(0.01, done.set, name="often")
    assert done.wait(PATIENCE_S)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_period_that_is_none_is_a_value_error(make, seconds):
    with pytest.raises(ValueError, match="above 0"):
        make().every(seconds, int, name="x")


def test_a_name_is_used_once(make):
    scheduler = make(synchronous=True)
    stop = scheduler.every(1, int, name="x")
    with pytest.raises(ValueError, match="'x' is registered already; stop it first"):
        scheduler.every(1, int, name="x")
    stop()
    scheduler.every(1, int, name="x")


# --- one process of all ---------------------------------------------------------------------------


def test_an_elected_job_stays_with_one_scheduler_until_that_is_closed(hub):
    clock = FakeClock()
    hub.clock = clock
    one, two = (BackgroundScheduler(1, 9, clock, hub, synchronous=True) for _ in range(2))
    runs = []
    one.every(10, lambda: runs.append(1), name="sweep", elected=True)
    two.every(10, lambda: runs.append(2), name="sweep", elected=True)
    for _ in range(5):
        clock.advance(10)
        two.run_due()
        one.run_due()
    assert runs == [2] * 5
    two.close()
    clock.advance(10)
    one.run_due()
    assert runs == [2] * 5 + [1]
    one.close()


def test_an_elected_job_is_taken_over_when_its_process_is_silent(hub):
    clock = FakeClock()
    hub.clock = clock
    one, two = (BackgroundScheduler(1, 9, clock, hub, synchronous=True) for _ in range(2))
    runs = []
    one.every(10, lambda: runs.append(1), name="sweep", elected=True)
    two.every(10, lambda: runs.append(2), name="sweep", elected=True)
    clock.advance(10)
    one.run_due()
    for _ in range(4):  # one is not run any more, as if it were killed
        clock.advance(10)
        two.run_due()
    assert runs == [1, 2, 2]


def test_an_elected_job_that_takes_longer_than_its_lease_keeps_it(make, hub):
    scheduler = make()
    renewed = []
    gate = threading.Event()
    renew = hub.renew_lease
    hub.renew_lease = lambda *lease: renewed.append(lease) or renew(*lease)
    scheduler.every(0.02, lambda: gate.wait(HANG_S), name="long", elected=True)
    wait_until(lambda: len(renewed) >= 3)
    assert scheduler.stats().running == 1
    assert hub.lease("job:long", 1) is None
    gate.set()


PROCESS = """
import os, sys, time, logging
from om_plugins.workers.scheduler import BackgroundScheduler
from om_plugins.builtin.hubs.sqlite import SqliteHub
from om_plugins.core.clock import SystemClock
clock = SystemClock()
hub = SqliteHub("sqlite:///{path}", clock)
scheduler = BackgroundScheduler(2, 10, clock, hub)
"""


def process(tmp_path, source):
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS.format(path=tmp_path / "hub.sqlite3") + source],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_elected_job_runs_in_one_of_two_processes_and_survives_a_kill(tmp_path):
    from om_plugins.builtin.hubs.sqlite import SqliteHub

    source = """
scheduler.every(0.1, lambda: hub.publish("ran", os.getpid()), name="job", elected=True)
hub.put(f"ready:{os.getpid()}", 1, 600)
time.sleep(600)
"""
    hub = SqliteHub(f"sqlite:///{tmp_path}/hub.sqlite3", SystemClock())
    children = [process(tmp_path, source) for _ in range(2)]
    try:
        wait_until(lambda: len(hub.scan("ready:")) == 2)
        wait_until(lambda: len(hub.read("ran")) >= 8)
        (elected,) = {m.data for m in hub.read("ran")}
        last = hub.last_id("ran")
        (child,) = [c for c in children if c.pid == elected]
        child.send_signal(signal.SIGKILL)
        child.wait()
        after = hub.last_id("ran") or last
        wait_until(lambda: hub.read("ran", after))  # the lease is 5 s
        assert {m.data for m in hub.read("ran", after)} == {c.pid for c in children} - {elected}
    finally:
        for child in children:
            child.kill()
            child.communicate()
        hub.close()


def test_jobs_and_timers_work_in_a_child_and_go_on_in_the_parent_after_a_fork(tmp_path):
    child = process(
        tmp_path,
        """
runs = []
scheduler.every(0.02, lambda: runs.append(os.getpid()), name="tick")
done = []
scheduler.submit(lambda: done.append(1))
while not (runs and done): time.sleep(0.01)
pid = os.fork()
runs.clear(); done.clear()
me = os.getpid()
assert scheduler.stats().done == 0 or pid
scheduler.submit(lambda: done.append(1))
scheduler.start()
end = time.monotonic() + 20
while not (done and me in runs) and time.monotonic() < end: time.sleep(0.01)
assert done and set(runs) == {me}, (done, runs)
if pid == 0:
    stop = scheduler.every(0.01, lambda: done.append(2), name="tick")
    while 2 not in done and time.monotonic() < end: time.sleep(0.01)
    assert 2 in done
    scheduler.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
scheduler.close()
hub.close()
""",
    )
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors


def test_a_child_that_closes_leaves_the_parents_leases_alone(tmp_path):
    child = process(
        tmp_path,
        """
ran = []
scheduler.every(0.02, lambda: ran.append(1), name="job", elected=True)
while not ran: time.sleep(0.01)
pid = os.fork()
if pid == 0:
    scheduler.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert hub.lease("job:job", 1) is None
scheduler.close()
assert hub.lease("job:job", 1) is not None
hub.close()
""",
    )
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors


def test_a_fork_while_the_queue_is_busy_leaves_the_child_able_to_work(tmp_path):
    child = process(
        tmp_path,
        """
import threading
def pester():
    while not stop.is_set(): scheduler.submit(int); scheduler.stats()
stop = threading.Event()
threads = [threading.Thread(target=pester, daemon=True) for _ in range(4)]
[t.start() for t in threads]
codes = []
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        done = threading.Event()
        os._exit(0 if scheduler.submit(done.set) and done.wait(20) else 1)
    codes.append(os.waitpid(pid, 0)[1])
stop.set()
[t.join() for t in threads]
assert codes == [0] * 20, codes
""",
    )
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors


def test_the_interpreter_ends_soon_after_draining(tmp_path):
    child = process(
        tmp_path,
        """
scheduler.submit(lambda: time.sleep(60))
scheduler.submit(lambda: (time.sleep(0.2), print("drained", flush=True)))
scheduler.every(60, int, name="tick")
time.sleep(0.1)
print(time.monotonic(), flush=True)
""",
    )
    output, errors = child.communicate(timeout=HANG_S)
    ended = time.monotonic()
    assert (child.returncode, errors) == (0, "")
    began, drained = output.split()
    assert drained == "drained"
    assert ended - float(began) < PATIENCE_S


# --- under test and under uWSGI -------------------------------------------------------------------


def test_a_synchronous_scheduler_runs_jobs_when_told_and_has_no_threads(make, threads_begun):
    scheduler = make(queue_size=2, synchronous=True)
    ran = []
    assert [scheduler.submit(lambda n=n: ran.append(n)) for n in range(3)] == [True, True, False]
    assert ran == []
    assert scheduler.run_pending() == 2
    assert ran == [0, 1]
    assert scheduler.run_pending() == 0
    stats = scheduler.stats()
    assert (stats.done, stats.dropped, stats.queued, stats.running) == (2, 1, 0, 0)
    assert threads_begun == []


def test_a_synchronous_scheduler_runs_what_is_due_on_the_clock(make):
    clock = FakeClock()
    scheduler = make(clock=clock, synchronous=True)
    ran = []
    scheduler.every(10, lambda: ran.append("ten"), name="ten")
    stop = scheduler.every(4, lambda: ran.append("four"), name="four")
    assert scheduler.run_due() == 0
    clock.advance(4)
    assert scheduler.run_due() == 1
    clock.advance(6)
    assert scheduler.run_due() == 2
    stop()
    clock.advance(6)
    assert scheduler.run_due() == 0
    assert ran == ["four", "four", "ten"]


@pytest.mark.parametrize(
    ("options", "without"),
    [
        ({b"http": b":80"}, True),
        ({b"enable-threads": True}, False),
        ({"threads": b"4"}, False),
        ({b"gevent": b"100"}, False),
    ],
)
def test_uwsgi_without_threads_is_detected(monkeypatch, options, without):
    monkeypatch.setitem(sys.modules, "uwsgi", types.SimpleNamespace(opt=options))
    assert lacks_uwsgi_threads() == without


def test_under_uwsgi_without_threads_jobs_are_refused_with_one_warning(make, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "uwsgi", types.SimpleNamespace(opt={}))
    scheduler = make()
    assert not scheduler.submit(int)
    assert not scheduler.submit(int)
    scheduler.every(1, int, name="x")
    assert scheduler.stats().dropped == 2
    (record,) = caplog.records
    assert "enable-threads = true" in record.getMessage()


def test_a_scheduler_that_is_garbage_holds_up_nobody_and_its_timer_ends(hub, monkeypatch):
    before = set(threading.enumerate())
    scheduler = BackgroundScheduler(2, 10, SystemClock(), hub)
    scheduler.every(HANG_S, int, name="rare")
    (timer,) = set(threading.enumerate()) - before
    joined = []
    monkeypatch.setattr(threading.Thread, "join", lambda *args: joined.append(args))
    del scheduler
    gc.collect()
    wait_until(lambda: not timer.is_alive())
    assert joined == []


def test_schedulers_share_one_timer_and_closing_one_stops_no_other(make):
    schedulers = [make() for _ in range(5)]
    ran = [threading.Event() for _ in schedulers]
    for scheduler, event in zip(schedulers, ran, strict=True):
        scheduler.every(0.01, event.set, name="often")
    for event in ran:
        assert event.wait(20)
    assert [one.name for one in make.threads() if one.name == "om-timer"] == ["om-timer"]
    schedulers[0].close()
    (timer,) = (one for one in make.threads() if one.name == "om-timer")
    for event in ran:
        event.clear()
    for event in ran[1:]:
        assert event.wait(20)
    assert not ran[0].is_set()
    for scheduler in schedulers[1:]:
        scheduler.close()
    assert not timer.is_alive()
