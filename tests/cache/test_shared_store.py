from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from om_plugins.cache.keys import make_store_key
from om_plugins.workers.invalidation_bus import TOPIC, EntriesInvalidated, InvalidationBus
from tests.patience import PATIENCE_S, wait_until


@pytest.fixture
def workers(make_world, store):
    """Two processes' caches over one store and one hub."""
    return make_world(store=store), make_world(store=store)


def test_a_value_that_one_worker_fetched_is_there_for_the_other(workers, fetcher):
    one, two = workers
    one.cache.query("k", fetcher([1]))
    never = fetcher("never")
    assert two.cache.query("k", never) == [1]
    assert never.calls == 0
    assert two.cache.stats().misses == 0
    assert two.cache.stats().fresh == 1


def test_age_goes_on_counting_in_the_other_worker(workers, fetcher):
    one, two = workers
    one.cache.query("k", fetcher("old"))
    one.clock.advance(9)
    assert two.cache.query("k", fetcher("new")) == "old"
    one.clock.advance(1.5)
    two.cache.query("k", fetcher("new"))
    assert two.cache.stats().stale == 1
    one.clock.advance(89.5)
    assert two.cache.get("k") is None


def test_memory_answers_alone_for_five_seconds_at_most(workers, store):
    one, two = workers
    one.cache.set("k", 1)
    assert two.cache.get("k") == 1
    one.cache.set("k", 2)
    one.clock.advance(4.9)
    reads = store.reads
    assert two.cache.query("k", int) == 1
    assert store.reads == reads
    one.clock.advance(0.2)
    assert two.cache.query("k", int) == 2


def test_what_one_worker_sets_by_hand_the_other_asks_the_store_for(workers, hub):
    one, two = workers
    keys = [("k", number) for number in range(700)]
    for key in keys:
        one.cache.set(key, "old")
        assert two.cache.get(key) == "old"
    one.clock.advance(1)
    one.scheduler.run_due()
    two.scheduler.run_due()
    before = hub.last_id(TOPIC)
    for key in keys:
        one.cache.set(key, "new")
    one.clock.advance(1)
    one.scheduler.run_due()
    two.scheduler.run_due()
    assert [two.cache.get(key) for key in keys] == ["new"] * 700
    assert len(hub.read(TOPIC, after=before)) == 2  # told in few messages
    one.clock.advance(1)
    one.scheduler.run_due()
    assert len(hub.read(TOPIC, after=before)) == 2


def test_the_same_value_set_once_more_is_no_news(workers, hub):
    one, _ = workers
    one.cache.set("k", "value")
    one.clock.advance(1)
    one.scheduler.run_due()
    before = hub.last_id(TOPIC)
    one.cache.set("k", "value")
    one.clock.advance(1)
    one.scheduler.run_due()
    assert hub.last_id(TOPIC) == before


def test_an_invalidation_is_heard_within_a_second(workers, fetcher):
    one, two = workers
    one.cache.set("k", "old", tags=["t"])
    assert two.cache.get("k") == "old"
    one.clock.advance(0.1)
    one.cache.invalidate(tags=["t"])
    one.clock.advance(1)
    two.scheduler.run_due()
    fetch = fetcher("new")
    assert two.cache.query("k", fetch) == "old"
    two.run()
    assert two.cache.query("k", fetch) == "new"
    assert two.cache.stats().stale == 1


def test_workers_that_keep_their_own_values_hear_of_invalidations_too(make_world):
    one, two = make_world(), make_world()
    for worker in (one, two):
        worker.cache.set("a", "old", tags=["t"])
        worker.cache.set("b", "old")
    one.clock.advance(0.1)
    one.cache.invalidate(tags=["t"])
    one.cache.remove("b")
    one.clock.advance(1)
    two.scheduler.run_due()
    assert two.cache.query("a", lambda: "new") == "old"  # the last good value, while it refreshes
    two.run()
    assert two.cache.get("a") == "new"
    assert two.cache.get("b") is None


def test_a_refresh_takes_what_another_worker_has_fetched_already(workers, fetcher):
    one, two = workers
    one.cache.set("k", "old")
    two.cache.get("k")
    one.clock.advance(11)
    fetch = fetcher("new")
    one.cache.query("k", fetch)
    two.cache.query("k", fetch)
    one.run()
    two.run()
    assert two.cache.query("k", fetch) == "new"
    assert fetch.calls == 1


def test_what_was_refreshed_since_is_not_marked_by_late_news(workers):
    one, two = workers
    one.cache.set("k", "old")
    two.cache.get("k")
    one.clock.advance(0.1)
    one.cache.invalidate("k")
    one.clock.advance(0.1)
    two.cache.set("k", "newer than the invalidation")
    one.clock.advance(1)
    two.scheduler.run_due()
    assert two.cache.query("k", int) == "newer than the invalidation"
    assert two.cache.stats().stale == 0


def test_a_worker_that_starts_later_knows_what_was_invalidated(make_world, store, fetcher):
    one = make_world(store=store)
    one.cache.set("k", "old", stale_time=90)
    one.clock.advance(1)
    one.cache.invalidate("k")
    one.clock.advance(1)
    late = make_world(store=store)
    assert late.cache.query("k", fetcher("new")) == "old"
    assert late.cache.stats().stale == 1


def test_removal_and_clearing_reach_the_other_worker(workers):
    one, two = workers
    for key in "ab":
        one.cache.set(key, key)
        two.cache.get(key)
    one.clock.advance(0.1)
    one.cache.remove("a")
    one.clock.advance(1)
    two.scheduler.run_due()
    assert two.cache.get("a") is None
    assert two.cache.get("b") == "b"
    one.cache.clear()
    one.clock.advance(1)
    two.scheduler.run_due()
    assert two.cache.get("b") is None
    assert one.cache.get("b") is None


def test_a_store_that_is_away_costs_nothing_but_one_warning(workers, store, fetcher, caplog):
    one, _ = workers
    one.cache.query("k", fetcher("value"))
    store.down = True
    fetch = fetcher("fetched")
    for _ in range(5):
        one.clock.advance(6)
        assert one.cache.query("k", fetch, stale_time=50) == "value"
        assert one.cache.query("other", fetch, stale_time=50) == "fetched"
    one.cache.remove("k")
    assert [r.message for r in caplog.records if "cannot be reached" in r.message] == [
        "the cache store cannot be reached (OSError: no route to the store); values are kept in "
        "this process only"
    ]


def test_a_store_that_is_away_is_asked_each_half_second_only(workers, store):
    one, _ = workers
    store.down = True
    tries = []
    store._check = lambda: tries.append(one.clock.monotonic()) or (_ for _ in ()).throw(OSError())
    for _ in range(100):
        one.cache.get("k")
        one.clock.advance(0.1)
    assert 15 <= len(tries) <= 21


def test_what_was_replaced_or_removed_while_the_store_was_away_does_not_come_back(
    workers, store, fetcher, caplog
):
    caplog.set_level("INFO", "om_plugins")
    one, two = workers
    for key in "abc":
        one.cache.set(key, "old")
    store.down = True
    one.cache.remove("a")
    one.cache.set("b", "new")
    store.down = False
    one.clock.advance(1)
    assert one.cache.get("missing") is None
    assert two.cache.query("a", fetcher("fetched")) == "fetched"
    assert two.cache.query("b", fetcher("fetched")) == "fetched"
    assert two.cache.get("c") == "old"
    assert "the cache store is back" in caplog.text


class LossyHub:
    """A hub that goes on alone while its backend is away, as an application's does."""

    def __init__(self, hub):
        self.hub = hub
        self.alone = False

    def __getattr__(self, name):
        return getattr(self.hub, name)


@pytest.fixture
def deaf(make_world, store, hub):
    """A process that does not hear of the other, and the other."""
    lossy = LossyHub(hub)
    one, two = make_world(store=store, hub=lossy), make_world(store=store)
    one.cache.set("k", "old", stale_time=90)
    lossy.alone = True
    one.clock.advance(1)
    one.scheduler.run_due()
    one.lossy = lossy
    return one, two


def test_memory_is_bypassed_while_invalidations_cannot_be_heard(deaf, fetcher):
    one, two = deaf
    for value in range(5):
        two.cache.set("k", value)
        assert one.cache.query("k", fetcher("never")) == value
        one.clock.advance(0.1)
    assert one.cache.stats().fresh == 5
    two.cache.remove("k")
    assert one.cache.get("k") is None


def test_memory_answers_again_once_they_are_heard(deaf, store):
    one, _ = deaf
    one.lossy.alone = False
    one.clock.advance(1)
    one.scheduler.run_due()
    one.cache.get("k")
    reads = store.reads
    one.clock.advance(4)
    assert one.cache.query("k", int) == "old"
    assert store.reads == reads


def test_when_the_store_is_away_as_well_the_last_good_value_is_served_and_refreshed(
    deaf, store, fetcher
):
    one, _ = deaf
    store.down = True
    fetch = fetcher("new", "newer", "newest")
    assert one.cache.query("k", fetch, stale_time=60) == "old"  # nobody waits
    one.run()
    assert one.cache.query("k", fetch, stale_time=60) == "new"
    for _ in range(8):  # once in its dedupe_time, however often it is asked for
        one.clock.advance(0.1)
        one.cache.query("k", fetch, stale_time=60)
        one.run()
    assert fetch.calls == 1
    one.clock.advance(0.3)
    one.cache.query("k", fetch, stale_time=60)
    one.run()
    assert one.cache.query("k", fetch, stale_time=60) == "newer"


def test_without_a_shared_store_memory_is_all_there_is(make_world, hub):
    lossy = LossyHub(hub)
    world = make_world(hub=lossy)
    world.cache.set("k", "value")
    lossy.alone = True
    world.clock.advance(1)
    world.scheduler.run_due()
    assert world.cache.query("k", int) == "value"
    assert world.cache.stats().fresh == 1


def test_a_planted_entry_is_a_miss(workers, store, fetcher):
    one, _ = workers
    for planted in (pickle.dumps(os.getpid), b"OMC\x01garbage", b""):
        store.data[make_store_key("k")] = planted
        assert one.cache.query("k", fetcher("fetched")) == "fetched"
        one.cache.remove("k")


def test_a_body_that_cannot_be_read_is_a_miss(workers, store, fetcher):
    one, two = workers
    one.cache.set("k", "value")
    store.data[make_store_key("k")] = store.data[make_store_key("k")][:-6] + b"\xc1"
    assert two.cache.query("k", fetcher("fetched")) == "fetched"


@pytest.mark.parametrize(
    "message",
    [
        None,
        "text",
        {},
        {"type": "invalidated", "at": "soon", "prefix": b""},
        {"type": "invalidated", "at": float("nan"), "prefix": b""},
        {"type": "invalidated", "at": float("inf"), "prefix": b""},
        {"type": "invalidated", "at": True, "prefix": b""},
        {"type": "invalidated", "at": 9e12, "prefix": "S"},
        {"type": "invalidated", "at": 9e12, "prefix": b"", "tags": "t"},
        {"type": "invalidated", "at": 9e12, "prefix": b"", "tags": [1, None]},
        {"type": "removed", "at": 9e12, "ident": 5},
        {"type": "removed", "at": 9e12, "ident": b"no ident"},
        {"type": "replaced", "at": 9e12, "idents": "k"},
        {"type": "replaced", "at": 9e12, "idents": [None, 5, b"Sk"]},
        {"type": "exploded", "at": 9e12},
        {"at": 9e12, "prefix": b"", "tags": [], "scope": ""},
        {"at": 9e12, "cleared": True},
    ],
)
def test_news_of_no_sense_is_passed_by(make_world, store, hub, message):
    world = make_world(store=store)
    world.cache.set("k", 1)
    hub.publish(TOPIC, message)
    world.clock.advance(1)
    world.scheduler.run_due()
    world.cache.query("k", int)
    assert world.cache.stats().fresh == 1


def test_news_from_a_clock_that_is_ahead_does_not_condemn_the_future(make_world, store, hub):
    world = make_world(store=store)
    world.cache.set("k", 1)
    InvalidationBus(hub, world.scheduler).publish(EntriesInvalidated(at=9e12, prefix=b""), None)
    world.clock.advance(1)
    world.scheduler.run_due()
    world.clock.advance(1)
    world.cache.set("k", 2)
    world.cache.query("k", int)
    assert world.cache.stats().fresh == 1


WORKER = """
import sys
from om_plugins.workers.scheduler import BackgroundScheduler
from om_plugins.builtin.stores.file import FileStore
from om_plugins.builtin.hubs.sqlite import SqliteHub
from om_plugins.cache.cache import CacheOptions, SmartCache
from om_plugins.core.clock import SystemClock

import json
folder = sys.argv[1]
clock = SystemClock()
hub = SqliteHub(f"sqlite:///{folder}/hub.sqlite3", clock)
scheduler = BackgroundScheduler(1, 10, clock, hub)
cache = SmartCache(CacheOptions(
    stale_time=60, cache_time=600, l1_bytes=1 << 20, max_value=1 << 16, clock=clock,
    scheduler=scheduler, hub=hub, store=FileStore.from_url(f"file://{folder}/values"),
))
for line in sys.stdin:
    verb, *rest = json.loads(line)
    if verb == "query":
        answer = cache.query(rest[0], lambda: rest[1], tags=["t"])
    elif verb == "invalidate":
        answer = cache.invalidate(tags=["t"])
    print(json.dumps(answer), flush=True)
scheduler.close()
hub.close()
"""


class Worker:
    """A process of its own, told what to do line by line."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: object) -> object:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        code = self.process.wait(PATIENCE_S)
        self.process.stdout.close()
        return code


def test_two_processes_share_values_and_hear_each_others_invalidations(tmp_path):
    one, two = Worker(tmp_path), Worker(tmp_path)
    try:
        assert one("query", "k", "first") == "first"
        assert two("query", "k", "never") == "first"
        one("invalidate")
        wait_until(lambda: two("query", "k", "second") != "first", pause_s=0.05)
        assert two("query", "k", "never") == "second"
    finally:
        codes = one.end(), two.end()
    assert codes == (0, 0)


# --- counters of the store ------------------------------------------------------------------------


def test_what_a_store_is_asked_is_counted(make_world, store, fetcher):
    one, two = make_world(store=store), make_world(store=store)
    one.cache.query("k", fetcher("value"))
    two.cache.query("k", fetcher("value"))
    one.cache.remove("k")
    said, heard = one.cache.store_stats(), two.cache.store_stats()
    assert said.misses >= 1
    assert (said.hits, said.writes, said.deletes) == (0, 1, 1)
    assert (heard.misses, heard.hits, heard.writes) == (0, 1, 0)
    assert heard.read_bytes == said.written_bytes > 0


def test_times_that_it_was_out_of_reach_are_counted(make_world, store, fetcher):
    world = make_world(store=store)
    store.down = True
    world.cache.query("k", fetcher("value"))
    world.cache.remove("k")  # a store that is away is not asked again at once
    assert world.cache.store_stats().failures == 1


def test_memory_alone_is_no_store(world):
    assert world.cache.store_stats() is None
