from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from contextlib import contextmanager

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.cache.subscriptions import WATCHED
from om_plugins.core.clock import SystemClock
from om_plugins.types import CacheChange
from om_plugins.workers.invalidation_bus import TOPIC
from om_plugins.workers.scheduler import BackgroundScheduler
from tests.patience import HANG_S, PATIENCE_S, join, wait_until


@pytest.fixture(params=["each its own values", "one store"])
def workers(request, make_world, store):
    """Two processes' caches over one hub."""
    options = {"store": store} if request.param == "one store" else {}
    return make_world(**options), make_world(**options)


@pytest.fixture
def told():
    return []


def second(*worlds):
    """A second goes by in all of them."""
    worlds[0].clock.advance(1)
    for world in worlds:
        world.scheduler.run_due()
    for world in worlds:
        world.run()


def kinds(told):
    return [change.kind for change in told]


def published(hub):
    """What was told of changes; that a shared store has another value is told in any case."""
    return [m.data for m in hub.read(TOPIC, limit=500) if m.data["type"] != "replaced"]


# --- in one process -------------------------------------------------------------------------------


def test_a_change_is_told_in_the_background_and_never_by_who_made_it(world, told):
    world.cache.subscribe(("user", 7), told.append, scope="tenant")
    world.cache.set(("user", 7), 1, scope="tenant")
    assert told == []
    world.run()
    assert told == [CacheChange(("user", 7), "set", "tenant")]


def test_a_change_of_a_numbered_scope_is_told_with_the_scope_as_it_was_subscribed(world, told):
    world.cache.subscribe("inbox", told.append, scope=7)
    world.cache.set("inbox", 1, scope="7")
    world.run()
    assert told == [CacheChange("inbox", "set", 7)]


def test_other_keys_and_other_scopes_are_not_told(world, told):
    world.cache.subscribe("k", told.append)
    world.cache.set("kk", 1)
    world.cache.set("k", 1, scope="tenant")
    world.cache.remove("other")
    world.run()
    assert told == []


def test_a_fetch_of_a_missing_value_is_told_as_set_and_a_hit_not_at_all(world, fetcher, told):
    world.cache.subscribe("k", told.append)
    world.cache.query("k", fetcher(1))
    world.cache.query("k", fetcher(2))
    world.cache.get("k")
    world.run()
    assert kinds(told) == ["set"]


def test_a_refresh_in_the_background_is_told_as_refreshed(world, fetcher, told):
    world.cache.set("k", "old")
    world.cache.subscribe("k", told.append)
    world.clock.advance(11)
    assert world.cache.query("k", fetcher("new")) == "old"
    assert told == []
    world.run()
    assert kinds(told) == ["refreshed"]
    assert world.cache.get("k") == "new"


def test_a_failed_refresh_is_no_change(world, fetcher, told):
    world.cache.set("k", "old")
    world.cache.subscribe("k", told.append)
    world.clock.advance(11)
    world.cache.query("k", fetcher(OSError("away")))
    world.run()
    assert told == []


def test_a_refresh_that_is_too_large_to_keep_is_told_as_removed(make_world, fetcher, told):
    world = make_world(max_value=100)
    world.cache.set("k", "old")
    world.cache.subscribe("k", told.append)
    world.clock.advance(11)
    world.cache.query("k", fetcher("x" * 200))
    world.run()
    assert kinds(told) == ["removed"]


@pytest.mark.parametrize(
    "how",
    [
        {"tags": ["t"]},
        {"prefix": "serv"},
        {"prefix": "none", "tags": ["t"]},
        {},
    ],
)
def test_an_invalidation_that_meets_the_key_is_told(world, told, how):
    world.cache.set("servers", 1, tags=["t"])
    world.cache.subscribe("servers", told.append)
    world.cache.invalidate(tags=["other"])
    world.cache.invalidate("servants")
    world.run()
    assert told == []
    world.cache.invalidate(**how)
    world.run()
    assert kinds(told) == ["invalidated"]


def test_removal_and_clearing_are_told_as_removed(world, told):
    world.cache.subscribe("k", told.append)
    world.cache.remove("k")
    world.run()
    world.cache.clear()
    world.run()
    assert kinds(told) == ["removed", "removed"]


def test_changes_are_told_in_order(world, told):
    world.cache.subscribe("k", told.append)
    world.cache.set("k", 1)
    world.cache.invalidate("k")
    world.cache.remove("k")
    world.run()
    assert kinds(told) == ["set", "invalidated", "removed"]


def test_what_piles_up_is_told_once_per_kind_and_the_last_change_last(world, told):
    world.cache.subscribe("k", told.append)
    for _ in range(1000):
        world.cache.set("k", 1)
        world.cache.remove("k")
        world.cache.set("k", 2)
    world.run()
    assert kinds(told) == ["removed", "set"]


def test_a_callback_that_raises_is_logged_and_the_others_are_told(world, told, caplog):
    def broken(change):
        raise ValueError("broken")

    world.cache.subscribe("k", broken)
    world.cache.subscribe("k", told.append)
    for _ in range(2):
        world.cache.set("k", 1)
        world.run()
    assert kinds(told) == ["set", "set"]
    assert [r.exc_info[0] for r in caplog.records if "subscription" in r.message] == [
        ValueError,
        ValueError,
    ]


def test_after_unsubscribing_nothing_is_told_not_even_what_was_pending(world, told):
    unsubscribe = world.cache.subscribe("k", told.append)
    other = world.cache.subscribe("k", lambda change: None)
    world.cache.set("k", 1)
    unsubscribe()
    unsubscribe()
    world.cache.set("k", 2)
    world.run()
    assert told == []
    assert world.cache.stats().subscriptions == 1
    other()
    assert world.cache.stats().subscriptions == 0


def test_a_callback_may_unsubscribe_itself(world, told):
    def once(change):
        told.append(change)
        unsubscribe()

    unsubscribe = world.cache.subscribe("k", once)
    world.cache.set("k", 1)
    world.cache.remove("k")
    world.run()
    world.cache.set("k", 1)
    world.run()
    assert kinds(told) == ["set"]


def test_a_callback_may_use_the_cache_and_change_other_keys(world, told):
    world.cache.subscribe("k", lambda change: world.cache.set("copy", world.cache.get("k")))
    world.cache.subscribe("copy", told.append)
    world.cache.set("k", [1])
    world.run()
    world.run()
    assert world.cache.get("copy") == [1]
    assert kinds(told) == ["set"]


def test_a_callback_runs_in_the_context_of_the_application(make_world, told):
    @contextmanager
    def context():
        told.append("opened")
        yield
        told.append("closed")

    world = make_world(context=context)
    world.cache.subscribe("k", lambda change: told.append(change.kind))
    world.cache.set("k", 1)
    world.run()
    assert told == ["opened", "set", "closed"]


def test_what_the_queue_had_no_place_for_is_told_a_second_later(make_world, told):
    world = make_world(queue_size=1)
    world.cache.subscribe("k", told.append)
    world.scheduler.submit(lambda: None)
    world.cache.set("k", 1)
    world.run()
    assert told == []
    second(world)
    assert kinds(told) == ["set"]


def test_a_subscription_is_never_called_twice_at_once(make_world):
    """With real threads: changes that come during a call are told after it, by one call each."""
    clock = SystemClock()
    hub = MemoryHub("memory://", clock)
    scheduler = BackgroundScheduler(4, 100, clock, hub)
    cache = make_world(hub=hub).cache
    cache.internals.subscriptions._scheduler = scheduler
    running, most, seen = [], [], []
    entered, leave = threading.Event(), threading.Event()

    def slow(change):
        running.append(1)
        most.append(len(running))
        seen.append(change.kind)
        entered.set()
        leave.wait(HANG_S)
        running.pop()

    cache.subscribe("k", slow)
    try:
        cache.set("k", 1)
        assert entered.wait(PATIENCE_S)
        cache.remove("k")
        for _ in range(50):
            cache.set("k", 2)
        leave.set()
        wait_until(lambda: len(seen) >= 3)
    finally:
        leave.set()
        scheduler.close()
        hub.close()
    assert seen == ["set", "removed", "set"]
    assert set(most) == {1}


def test_what_cannot_be_subscribed_is_refused_at_once(world):
    with pytest.raises(TypeError, match="callable"):
        world.cache.subscribe("k", "callback")
    with pytest.raises(TypeError, match="object"):
        world.cache.subscribe((object(),), print)


def test_a_cache_with_subscriptions_can_be_dropped(make_world):
    world = make_world()

    class Owner:
        def hear(self, change):
            pass

    owner = Owner()
    world.cache.subscribe("k", owner.hear)
    kept, cache = weakref.ref(owner), weakref.ref(world.cache)
    del owner
    gc.collect()
    assert kept() is not None  # the cache holds the callback
    world.cache = world.scheduler = world.run = None
    gc.collect()
    assert cache() is None
    assert kept() is None


# --- between workers ------------------------------------------------------------------------------


def test_changes_of_another_worker_are_told(workers, told):
    one, two = workers
    two.cache.subscribe("k", told.append)
    second(two, one)
    second(two, one)
    one.cache.set("k", 1, tags=["t"])
    one.cache.set("not watched", 1)
    second(one, two)
    assert kinds(told) == ["set"]
    one.clock.advance(11)
    one.cache.query("k", lambda: 2)
    one.run()
    second(one, two)
    one.cache.invalidate(tags=["t"])
    second(one, two)
    one.cache.invalidate("k")
    second(one, two)
    one.cache.remove("k")
    second(one, two)
    one.cache.clear()
    second(one, two)
    second(one, two)
    assert kinds(told) == ["set", "refreshed", *["invalidated"] * 2, *["removed"] * 2]


def test_who_is_told_finds_the_new_value_in_the_store(make_world, store):
    one, two = make_world(store=store), make_world(store=store)
    found = []
    two.cache.set("k", "old")
    two.cache.subscribe("k", lambda change: found.append(two.cache.query("k", lambda: "never")))
    second(two, one)
    one.cache.set("k", "new")
    second(one, two)
    assert found == ["new"]


def test_a_tag_counts_that_only_the_other_worker_knows(workers, told):
    one, two = workers
    one.cache.set("k", 1, tags=["t"])
    two.cache.subscribe("k", told.append)
    second(two, one)
    one.cache.invalidate(tags=["t"])
    second(one, two)
    assert kinds(told) == ["invalidated"]


def test_a_tag_that_was_heard_of_counts_when_a_third_worker_invalidates_it(make_world, told):
    one, two, three = make_world(), make_world(), make_world()
    three.cache.get("k")
    two.cache.subscribe("k", told.append)
    second(two, one, three)
    one.cache.set("k", 1, tags=["t"])
    second(one, two, three)
    three.cache.invalidate(tags=["t"])
    second(one, two, three)
    assert kinds(told) == ["set", "invalidated"]


def test_nothing_is_published_when_nobody_watches(workers, hub, told):
    one, two = workers
    two.cache.get("k")
    for _ in range(3):
        one.cache.set("k", 1)
        one.clock.advance(11)
        one.cache.query("k", lambda: 2)
        second(one, two)
    one.cache.subscribe("k", told.append)  # its own changes need no hub
    second(one, two)
    one.cache.set("k", 3)
    second(one, two)
    assert kinds(told) == ["set"]
    assert published(hub) == []


def test_a_worker_that_unsubscribes_or_ends_is_not_published_for(workers, hub, told):
    one, two = workers
    unsubscribe = two.cache.subscribe("k", told.append)
    for _ in range(20):
        second(two, one)
    one.cache.set("k", 1)
    assert len(published(hub)) == 1
    unsubscribe()
    second(two, one)
    assert hub.scan(WATCHED) == {}
    one.cache.set("k", 2)
    assert len(published(hub)) == 1
    two.cache.subscribe("k", told.append)
    second(two, one)
    one.cache.set("k", 3)
    assert len(published(hub)) == 2
    two.cache.internals.close()  # and so it renews nothing any more
    one.clock.advance(10)
    second(one)
    one.cache.set("k", 4)
    assert len(published(hub)) == 2


@pytest.mark.parametrize("keys", [["k", *map(str, range(1001))], ["k", "x" * 70_000]])
def test_one_who_watches_too_much_to_say_hears_of_everything(workers, told, hub, keys):
    one, two = workers
    for key in keys:
        two.cache.subscribe(key, told.append)
    second(two, one)
    assert list(hub.scan(WATCHED).values()) == [True]
    one.cache.set("k", 1)
    one.cache.set("nobody's", 1)
    second(one, two)
    assert told == [CacheChange("k", "set")]
    assert len(published(hub)) == 2


def test_what_was_published_before_is_not_told(workers, told):
    one, two = workers
    first = one.cache.subscribe("k", lambda change: None)
    second(one, two)
    two.cache.set("k", 1)
    one.cache.remove("k")
    one.clock.advance(0.5)
    two.cache.subscribe("k", told.append)
    second(one, two)
    first()
    assert told == []


def test_subscribing_is_enough_to_hear(workers, told):
    """The subscriber uses its cache for nothing else."""
    one, two = workers
    one.cache.subscribe("k", told.append)
    two.cache.remove("k")
    second(one)
    assert kinds(told) == ["removed"]


def test_callbacks_of_this_process_go_on_without_the_hub(make_world, told):
    class Away:
        def __getattr__(self, name):
            raise OSError("no hub")

    world = make_world(hub=Away())
    world.cache.subscribe("k", told.append)
    world.cache.set("k", 1)
    second(world)
    world.cache.remove("k")
    second(world)
    assert kinds(told) == ["set", "removed"]


@pytest.mark.parametrize(
    "said", [None, 1, "k", {"k": 1}, [1, None, ["k"]], [["k"] * 5] * 2000, False]
)
def test_a_list_of_no_sense_in_the_hub_is_passed_by(make_world, hub, said):
    world = make_world()
    hub.put(f"{WATCHED}//else", said, 100)
    second(world)
    world.cache.set("k", 1)
    second(world)
    world.cache.set("k", 1)
    assert published(hub) == []


@pytest.mark.parametrize(
    "message",
    [
        {"type": "changed", "ident": b"Sk", "kind": "exploded", "tags": [], "at": 1},
        {"type": "changed", "ident": b"Sk", "kind": ["set"], "tags": [], "at": 1},
        {"type": "changed", "ident": "k", "kind": "set", "tags": [], "at": 1},
        {"type": "changed", "ident": b"Sk", "kind": "set", "tags": "t", "at": 1},
        {"type": "changed", "ident": b"Sk", "kind": "set", "tags": [], "at": "now"},
        {"type": "invalidated", "prefix": None, "found": [5, None, []], "at": 1},
        {"type": "invalidated", "prefix": None, "found": "k", "at": 1},
        {"changed": "k", "kind": "set", "tags": [], "at": 1},
    ],
)
def test_news_of_no_sense_is_not_told(world, hub, told, message):
    world.cache.subscribe("k", told.append)
    hub.publish(TOPIC, message)
    second(world)
    assert told == []


# --- processes ------------------------------------------------------------------------------------

WORKER = """
import json, sys
from om_plugins.workers.scheduler import BackgroundScheduler
from om_plugins.builtin.hubs.sqlite import SqliteHub
from om_plugins.cache.cache import CacheOptions, SmartCache
from om_plugins.core.clock import SystemClock

clock = SystemClock()
hub = SqliteHub(f"sqlite:///{sys.argv[1]}/hub.sqlite3", clock)
scheduler = BackgroundScheduler(2, 10, clock, hub)
cache = SmartCache(CacheOptions(
    stale_time=60, cache_time=600, l1_bytes=1 << 20, max_value=1 << 16, clock=clock,
    scheduler=scheduler, hub=hub,
))

def say(change):
    print(json.dumps([change.key, change.kind]), flush=True)

if sys.argv[2] == "hear":
    cache.subscribe("k", say)
    print("ready", flush=True)
for line in sys.stdin:
    cache.set("k", line)
scheduler.close()
hub.close()
"""


def test_a_change_in_another_process_is_told(tmp_path):
    def begin(role):
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    hearing, telling = begin("hear"), begin("tell")
    heard = []
    try:
        assert hearing.stdout.readline() == "ready\n"
        reader = threading.Thread(target=lambda: heard.append(hearing.stdout.readline()))
        reader.start()
        end = time.monotonic() + HANG_S
        while reader.is_alive() and time.monotonic() < end:
            telling.stdin.write("value\n")
            telling.stdin.flush()
            reader.join(0.2)
    finally:
        for process in (telling, hearing):
            process.stdin.close()
            assert process.wait(PATIENCE_S) == 0
        join(reader)
        for process in (telling, hearing):
            process.stdout.close()
    assert json.loads(heard[0]) == ["k", "set"]


FORKS = """
import os, sys
from om_plugins.workers.scheduler import BackgroundScheduler
from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.cache.cache import CacheOptions, SmartCache
from om_plugins.testing.fakes import FakeClock
from om_plugins.workers.invalidation_bus import EntryRemoved, InvalidationBus

clock = FakeClock()
hub = MemoryHub("memory://", clock)
scheduler = BackgroundScheduler(2, 10, clock, hub, synchronous=True)
cache = SmartCache(CacheOptions(
    stale_time=60, cache_time=600, l1_bytes=1 << 20, max_value=1 << 16, clock=clock,
    scheduler=scheduler, hub=hub,
))
told = []
cache.subscribe("k", lambda change: told.append(change.kind))
message = EntryRemoved(at=clock.time(), ident=b"Sk")
InvalidationBus(hub, scheduler).publish(message, None)
clock.advance(1)
scheduler.run_due()    # heard by the parent alone
cache.set("k", 1)      # told by the parent alone
# as another thread may hold it while the process forks
cache.internals.subscriptions._lock.acquire()
pid = os.fork()
if pid == 0:
    scheduler.run_pending()
    clock.advance(5)
    scheduler.run_due()
    scheduler.run_pending()
    assert told == [], told
    cache.remove("k")
    scheduler.run_pending()
    assert told == ["removed"], told
    own = cache.internals.bus.origin.hex()
    clock.advance(1)
    scheduler.run_due()
    assert f"cache/watched//{own}" in hub.scan("cache/watched")
    os._exit(0)
cache.internals.subscriptions._lock.release()
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
scheduler.run_pending()
assert told == ["removed", "set"], told
sys.exit(code)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_was_subscribed_before_a_fork_is_told_in_the_child_too():
    subprocess.run([sys.executable, "-c", FORKS], check=True, timeout=HANG_S)
