"""One fetch over all processes: by the clock, and with real ones that are killed and paused."""

from __future__ import annotations

import collections
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from om_plugins.cache import singleflight
from om_plugins.cache.entry import pack, unpack
from om_plugins.cache.keys import make_store_key
from om_plugins.cache.singleflight import PrivateValue
from om_plugins.testing.fakes import FakeClock
from tests.patience import HANG_S, PATIENCE_S, wait_until

LEASE_S = 2.0
"""Of the real processes, which are to be waited for."""
FETCH = f"cache/fetch/{make_store_key('k')}"
OWN = f"cache/own/{make_store_key('k')}"


class FencedDictStore:
    """One that refuses what comes too late.

    Attributes:
        before_write: called once, after a writer has looked and before it writes.
    """

    def __init__(self, *, refuse=False):
        self.data = {}
        self.get = self.data.get
        self.before_write = None
        self.refused = 0
        self._refuse = refuse

    def set(self, key, value, ttl):
        action, self.before_write = self.before_write, None
        if action:
            action()
        self.data[key] = value

    def delete(self, key):
        self.data.pop(key, None)

    def compare_and_set(self, key, before, value, ttl):
        action, self.before_write = self.before_write, None
        if action:
            action()
        there = self.data.get(key)
        same = there is None if before is None else there is not None and there.startswith(before)
        if not same or self._refuse:
            self.refused += 1
            return False
        self.data[key] = value
        return True


@pytest.fixture
def world(make_world, store):
    return make_world(store=store)


@pytest.fixture
def other(make_world, store):
    return make_world(store=store)


def while_asleep(clock: FakeClock, *actions):
    """Do one thing in each sleep, as another process would."""
    left = list(actions)
    sleep = clock.sleep

    def slept(seconds):
        sleep(seconds)
        if left:
            left.pop(0)()

    clock.sleep = slept


def test_a_fetch_holds_a_lease_and_gives_it_back(world, hub):
    held = []
    world.cache.query("k", lambda: held.append(hub.lease(FETCH, 5)) or "value")
    assert held == [None]
    assert hub.lease(FETCH, 5) is not None


def test_memory_alone_needs_no_lease(make_world, hub):
    hub.lease(FETCH, 60)
    assert make_world().cache.query("k", lambda: "value") == "value"


def test_who_finds_another_at_work_waits_for_its_value(world, other, hub, fetcher):
    lease = hub.lease(FETCH, 60)
    fetch = fetcher("mine")
    while_asleep(world.clock, int, int, lambda: other.cache.set("k", "theirs"), lease.release)
    assert world.cache.query("k", fetch) == "theirs"
    assert fetch.calls == 0


def test_waiting_looks_often_at_first_and_then_seldom(world, hub):
    hub.lease(FETCH, 600)
    assert world.cache.query("k", lambda: "own") == "own"
    slept = world.clock.slept
    assert slept[0] == 0.01
    assert max(slept) == 0.25
    assert sum(slept) == pytest.approx(
        singleflight.FOLLOW_S, abs=0.3
    )  # and then it fetches by itself


def test_when_a_leader_brings_nothing_the_next_one_fetches(world, hub, fetcher):
    lease = hub.lease(FETCH, 60)
    while_asleep(world.clock, int, lease.release)
    assert world.cache.query("k", fetcher("mine")) == "mine"
    assert sum(world.clock.slept) < 1


def test_a_private_answer_is_waited_for_once_and_then_everybody_fetches(world, other, hub):
    def private():
        raise PrivateValue("for one")

    assert other.cache.query("k", private) == "for one"
    assert hub.get(OWN) is True
    held = []
    world.cache.query("k", lambda: held.append(hub.lease(FETCH, 5)) or "for another")
    assert held != [None]  # the lease was free while this one fetched
    assert world.cache.query("k2", private) == "for one"


def test_after_an_error_nobody_waits_for_anybody_for_a_second(world, other, hub, fetcher):
    with pytest.raises(ValueError, match="broken"):
        other.cache.query("k", fetcher(ValueError("broken")), retries=0)
    assert hub.get(OWN) is False
    held = []
    world.cache.query("k", lambda: held.append(hub.lease(FETCH, 5)) or "value")
    assert held != [None]
    world.clock.advance(1.1)
    assert hub.get(OWN) is None


def test_a_refresh_is_left_to_the_process_that_is_at_it(world, hub, fetcher):
    world.cache.set("k", "old")
    world.clock.advance(11)
    lease = hub.lease(FETCH, 60)
    fetch = fetcher("new")
    assert world.cache.query("k", fetch) == "old"
    world.run()
    assert fetch.calls == 0
    assert world.cache.query("k", fetch) == "old"
    assert world.run() == 0  # it is not looked at again at once
    lease.release()
    world.clock.advance(0.6)
    world.cache.query("k", fetch)
    world.run()
    assert world.cache.query("k", fetch) == "new"


def test_a_lease_is_renewed_while_its_fetcher_runs(world, hub):
    def slow():
        for _ in range(12):
            world.clock.advance(1)
            world.scheduler.run_due()
            assert hub.lease(FETCH, 1) is None
        return "value"

    assert world.cache.query("k", slow) == "value"


def test_what_a_leader_brings_after_it_lost_its_turn_is_given_but_not_kept(world, other):
    def asleep():
        world.clock.advance(singleflight.LEASE_S + 1)
        assert other.cache.query("k", lambda: "newer") == "newer"
        return "older"

    assert world.cache.query("k", asleep) == "older"
    assert world.cache.get("k") == other.cache.get("k") == "newer"


@pytest.mark.parametrize("newer", ["fetched", "set", "removed"])
def test_a_leader_that_is_paused_between_its_look_and_its_write_changes_nothing_newer(
    make_world, hub, newer
):
    store = FencedDictStore()
    one, other = make_world(store=store), make_world(store=store)
    one.cache.set("k", "old", cache_time=1)
    one.clock.advance(2)

    def asleep():
        one.clock.advance(singleflight.LEASE_S + 1)
        if newer == "fetched":
            assert other.cache.query("k", lambda: "newer") == "newer"
        elif newer == "set":
            other.cache.set("k", "newer")
        else:
            store.delete(next(iter(store.data)))

    store.before_write = asleep
    fetched = []
    assert one.cache.query("k", lambda: fetched.append(1) or "older") == "older"
    assert fetched == [1]
    found = None if newer == "removed" else "newer"
    assert one.cache.get("k") == other.cache.get("k") == found


def test_in_a_store_that_cannot_tell_a_paused_leader_leaves_nothing_rather_than_an_old_value(
    make_world,
):
    store = FencedDictStore()
    store.compare_and_set = None
    one, other = make_world(store=store), make_world(store=store)

    def asleep():
        one.clock.advance(singleflight.LEASE_S + 1)
        assert other.cache.query("k", lambda: "newer") == "newer"

    store.before_write = asleep
    assert one.cache.query("k", lambda: "older") == "older"
    assert store.data == {}
    assert one.cache.get("k") is None
    assert one.cache.query("k", lambda: "newest") == "newest"
    one.clock.advance(6)
    assert other.cache.get("k") == "newest"


def test_a_leader_that_still_has_its_turn_writes_over_an_older_value_that_came_between(make_world):
    store = FencedDictStore()
    one, other = make_world(store=store), make_world(store=store)

    other.cache.set("k", "late")
    ((key, late),) = store.data.items()
    late = replace(unpack(late, one.clock.time()), fence=1)
    store.data.clear()
    store.before_write = lambda: store.data.update({key: pack(late)})
    assert one.cache.query("k", lambda: "mine") == "mine"
    one.clock.advance(6)
    assert one.cache.get("k") == "mine"


def test_a_value_that_others_always_overtake_is_given_and_not_kept(make_world):
    store = FencedDictStore(refuse=True)
    store.data[make_store_key("k")] = b"what cannot be seen"
    store.get = lambda key: None
    world = make_world(store=store)
    assert world.cache.query("k", lambda: "value") == "value"
    assert store.refused == 3
    assert world.cache.get("k") is None
    assert store.data == {}  # it is not in the way for ever


def test_a_leader_that_lost_its_turn_keeps_nothing_while_another_is_at_it(world, store, hub):
    def asleep():
        world.clock.advance(singleflight.LEASE_S + 1)
        assert hub.lease(FETCH, 60) is not None
        return "older"

    assert world.cache.query("k", asleep) == "older"
    assert make_store_key("k") not in store.data


def test_a_value_that_was_set_meanwhile_is_not_overwritten(world, other):
    def slow():
        world.clock.advance(0.1)
        other.cache.set("k", "set")
        return "fetched"

    assert world.cache.query("k", slow) == "fetched"
    assert world.cache.get("k") == "set"


def test_who_fetches_without_a_turn_does_not_overwrite_what_began_later(world, other, hub):
    hub.lease(FETCH, 600)  # somebody who never ends

    def slow():
        other.cache.set("k", "set")
        return "fetched"

    assert world.cache.query("k", slow) == "fetched"
    assert world.cache.get("k") == "set"


def test_tokens_count_more_than_clocks_that_disagree(world, other, store, hub):
    other.cache.query("k", lambda: "older", stale_time=0)
    record = unpack(store.data[make_store_key("k")], world.clock.time())
    record.began = record.stored = world.clock.time() + 50  # its host's clock is ahead
    store.data[make_store_key("k")] = pack(record)
    assert world.cache.query("k", lambda: world.clock.advance(1) or "newer") == "older"
    world.run()
    assert unpack(store.data[make_store_key("k")], world.clock.time() + 60).fence > record.fence
    assert world.cache.get("k") == "newer"


def test_records_carry_the_token_of_their_lease(world, store, hub):
    before = hub.lease("any", 1).token
    world.cache.query("k", lambda: "value")
    record = unpack(store.data[make_store_key("k")], world.clock.time())
    assert before < record.fence < hub.lease("another", 1).token


def test_a_hub_that_raises_leaves_each_process_to_itself(make_world, store, fetcher):
    class Broken:
        def __getattr__(self, name):
            def fail(*args, **kwargs):
                raise OSError("gone")

            return fail

    world = make_world(store=store, hub=Broken())
    assert world.cache.query("k", lambda: "value") == "value"
    assert world.cache.get("k") == "value"


def test_greenlets_wait_side_by_side_under_gevent(tmp_path):
    pytest.importorskip("gevent")
    source = f"""
from gevent import monkey; monkey.patch_all()
import gevent, time
from om_plugins.runtime import Runtime
from om_plugins import Settings
runtime = Runtime(Settings(
    hub_url="sqlite:///{tmp_path}/hub.sqlite3", cache_url="file://{tmp_path}/values",
    monitoring=False,
))
fetches = []
def fetch():
    fetches.append(1)
    gevent.sleep(0.2)
    return "value"
theirs = runtime.hub.lease("{FETCH}", 60)
waiting = [gevent.spawn(runtime.part_of("cache").query, "k", fetch) for _ in range(50)]
other = [gevent.spawn(runtime.part_of("cache").query, "other", fetch) for _ in range(50)]
gevent.joinall(other, timeout=20)
assert not any(one.ready() for one in waiting)
theirs.release()
gevent.joinall(waiting, timeout=20)
assert {{one.value for one in waiting + other}} == {{"value"}}
assert len(fetches) == 2, fetches
runtime.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


# --- real processes -------------------------------------------------------------------------------


class Worker:
    def __init__(self, hub, store, log, threads):
        script = Path(__file__).with_name("herd.py")
        self.process = subprocess.Popen(
            [sys.executable, script, hub, store, str(log), str(threads), str(LEASE_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def begin(self, *words):
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    def answer(self, timeout=HANG_S):
        readable, _, _ = select.select([self.process.stdout], [], [], timeout)
        assert readable, "no answer"
        return json.loads(self.process.stdout.readline())

    def __call__(self, *words):
        self.begin(*words)
        return self.answer()

    def end(self):
        self.process.kill()
        self.process.communicate()


class Herd:
    """Several workers, and what they fetched."""

    def __init__(self, hub, store, log, count, threads):
        self.log = log
        self.threads = threads
        self.workers = [Worker(hub, store, log, threads) for _ in range(count)]

    def fetches(self):
        return self.log.read_text().splitlines() if self.log.exists() else []

    def fetches_by_process(self):
        return collections.Counter(int(line.split()[0]) for line in self.fetches())

    def wait_for_fetches(self, count):
        wait_until(lambda: len(self.fetches()) >= count)

    def open_gate(self):
        Path(f"{self.log}.gate").touch()

    def together(self, *words):
        for worker in self.workers:
            worker.begin("together", *words)
        return [worker.answer() for worker in self.workers]


SQLITE, REDIS = "sqlite and a folder", "redis"


@pytest.fixture(params=[pytest.param(SQLITE, marks=pytest.mark.proof), REDIS])
def make_herd(request, tmp_path):
    if request.param == REDIS:
        hub = store = request.getfixturevalue("redis_server").url
    else:
        hub, store = f"sqlite:///{tmp_path}/om/hub.sqlite3", f"file://{tmp_path}/values"
    herds = []

    def make(count=4, threads=32):
        herds.append(Herd(hub, store, tmp_path / "fetches", count, threads))
        return herds[-1]

    yield make
    for herd in herds:
        for worker in herd.workers:
            worker.end()


@pytest.mark.server
def test_a_cold_key_is_fetched_once_by_four_processes_of_32_threads(make_herd):
    herd = make_herd()
    for turn in range(3):
        answers = herd.together(f"cold {turn}", f"value{turn}", 0.2, 60)
        assert len({answer for one in answers for answer in one["answers"]}) == 1
        assert max(one["slowest"] for one in answers) < PATIENCE_S
    assert len(herd.fetches()) == 3


@pytest.mark.server
def test_nobody_waits_when_a_value_gets_stale_under_the_same_load(make_herd):
    herd = make_herd()
    herd.workers[0]("set", "k", "old")
    for worker in herd.workers:
        assert worker("get", "k") == "old"
    answers = herd.together("k", "new", None, 0)  # stale at once
    assert {answer for one in answers for answer in one["answers"]} == {"old"}
    herd.wait_for_fetches(1)
    herd.open_gate()
    wait_until(lambda: any(worker("get", "k") != "old" for worker in herd.workers))
    assert len(herd.fetches()) == 1


@pytest.mark.server
@pytest.mark.parametrize(
    "make_herd", [pytest.param(SQLITE, marks=pytest.mark.proof), REDIS], indirect=True
)
def test_a_killed_leader_is_followed_when_its_lease_is_over(make_herd):
    herd = make_herd(2, 4)
    leader, follower = herd.workers
    leader.begin("together", "k", "lost", None, 60)
    herd.wait_for_fetches(1)
    follower.begin("together", "k", "found", 0.1, 60)
    leader.process.kill()
    answer = follower.answer()
    assert [a.split()[0] for a in answer["answers"]] == ["found"]
    assert answer["slowest"] < PATIENCE_S
    assert len(herd.fetches()) == 2


@pytest.mark.server
@pytest.mark.parametrize("make_herd", [REDIS], indirect=True)
def test_a_paused_leader_does_not_overwrite_what_came_after_it(make_herd):
    herd = make_herd(2, 1)
    leader, follower = herd.workers
    leader.begin("together", "k", "older", None, 60)
    herd.wait_for_fetches(1)
    os.kill(leader.process.pid, signal.SIGSTOP)
    try:
        answer = follower("together", "k", "newer", 0.1, 60)
        assert [a.split()[0] for a in answer["answers"]] == ["newer"]
    finally:
        herd.open_gate()
        os.kill(leader.process.pid, signal.SIGCONT)
    assert leader.answer()["answers"][0].startswith("older")
    assert follower("get", "k").startswith("newer")
    assert leader("get", "k").startswith("newer")
    third = make_herd(1, 1).workers[0]
    assert third("get", "k").startswith("newer")


@pytest.mark.server
@pytest.mark.parametrize("make_herd", [REDIS], indirect=True)
def test_a_redis_that_is_killed_and_begun_again_under_load_fails_no_request(
    make_herd, redis_server
):
    herd = make_herd(2, 8)
    for worker in herd.workers:
        worker.begin("load")
    herd.wait_for_fetches(1)
    time.sleep(1)
    before = herd.fetches_by_process()
    redis_server.kill()
    # memory is not trusted: each process refreshes the value, again and again
    wait_until(
        lambda: all(
            herd.fetches_by_process()[worker.process.pid] >= before[worker.process.pid] + 3
            for worker in herd.workers
        )
    )
    redis_server.start()
    for worker in herd.workers:
        answer = worker.answer(PATIENCE_S)
        assert answer["failures"] == []
        assert answer["requests"] > 10 * herd.threads  # who waits for the server makes one
        assert len(answer["seen"]) >= 2
    first, second = herd.workers

    def share() -> bool:  # the store of a process may be tried again a little later than its hub
        first("set", "k", "old")
        return second("get", "k") == "old"

    wait_until(share)
    first("invalidate", "k")
    wait_until(lambda: second("together", "k", "new", 0, 600)["answers"] != ["old"])


@pytest.mark.proof
@pytest.mark.server
@pytest.mark.parametrize("make_herd", [SQLITE], indirect=True)
def test_an_error_is_shared_within_a_process_and_not_waited_for_by_others(make_herd):
    herd = make_herd(3, 8)
    answers = herd.together("k", "error", 0.2, 60)
    assert {a for one in answers for a in one["answers"]} == {"ValueError('no value')"}
    assert set(herd.fetches_by_process().values()) == {1}
    assert max(one["slowest"] for one in answers) < PATIENCE_S
