"""Where responses are kept: bounds, forks, another worker's purges, a hub that is away."""

from __future__ import annotations

import logging
import os

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.http_cache.purges import Purge
from om_plugins.http_cache.rfc9111 import CacheVerdict
from om_plugins.http_cache.store import KEEP_STALE_S, ResponseStore
from om_plugins.http_cache.stored_response import StoredResponse
from om_plugins.testing.fakes import FakeClock
from om_plugins.workers.invalidation_bus import (
    TOPIC,
    InvalidationBus,
    PagesPurged,
)
from om_plugins.workers.scheduler import BackgroundScheduler


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def hub(clock):
    return MemoryHub("memory://", clock)


def made(clock, hub, l1_bytes=1_000_000, **more):
    scheduler = BackgroundScheduler(1, 10, clock, hub, synchronous=True)
    bus = InvalidationBus(hub, scheduler)
    store = ResponseStore(
        l1_bytes=l1_bytes, max_body=100_000, clock=clock, scheduler=scheduler, bus=bus, **more
    )
    store.bus = bus
    store.scheduler = scheduler
    return store


def page(clock, body=b"x", **verdict):
    verdict.setdefault("lifetime_s", 60.0)
    now = clock.time()
    return StoredResponse(200, "200 OK", [], body, CacheVerdict(**verdict), now, now)


def keep(store, clock, ident="k", **more):
    return store.save(ident, page(clock, **more), store.purge_mark())


def test_what_is_kept_is_found_until_its_end(clock, hub):
    store = made(clock, hub)
    assert keep(store, clock)
    assert store.find("k") is not None
    clock.advance(61)
    assert store.find("k") is None


def test_what_pages_ask_of_a_store_is_counted(clock, hub, store):
    one, two = (made(clock, hub, store=store) for _ in range(2))
    keep(one, clock)
    assert two.find("k") is not None
    one.delete("k")
    said, heard = one.store_stats(), two.store_stats()
    assert (said.writes, said.deletes, heard.hits) == (1, 1, 1)
    assert heard.read_bytes == said.written_bytes > 0
    assert made(clock, hub).store_stats() is None


def test_one_with_a_validator_is_kept_longer_for_a_304(clock, hub):
    store = made(clock, hub)
    keep(store, clock, etag='"a"')
    clock.advance(61)
    assert store.find("k") is not None
    clock.advance(KEEP_STALE_S)
    assert store.find("k") is None


def test_age_that_it_came_with_counts(clock, hub):
    store = made(clock, hub)
    keep(store, clock, age_s=50.0)
    held = store.find("k")
    assert clock.monotonic() - held.stored == 50
    clock.advance(11)
    assert store.find("k") is None


def test_one_that_is_over_already_is_not_kept(clock, hub):
    store = made(clock, hub)
    assert not keep(store, clock, lifetime_s=5.0, age_s=6.0)
    assert not keep(store, clock, lifetime_s=0.0)


def test_memory_is_bounded_and_evictions_are_counted(clock, hub):
    store = made(clock, hub, l1_bytes=50_000)
    for number in range(20):
        keep(store, clock, str(number), body=b"x" * 5_000)
    stats = store.stats()
    assert stats.size_bytes <= 50_000
    assert stats.entries + stats.evictions == 20
    assert store.shrink() > 0


def test_hits_outlive_their_entry(clock, hub):
    store = made(clock, hub)
    keep(store, clock, body=b"12345")
    for _ in range(3):
        store.find("k").count_hit()
    assert [store.stats().hits for _ in range(2)] == [3, 3]
    store.delete("k")
    assert (store.stats().hits, store.stats().bytes_saved) == (3, 15)


def test_a_child_keeps_the_pages_and_hears_for_itself(clock, hub):
    store = made(clock, hub)
    keep(store, clock)
    store.lock.acquire()  # as another thread might while the process forks
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        found = store.find("k") is not None and store.stats().entries == 1
        os.write(writer, b"1" if found else b"0")
        os._exit(0)
    store.lock.release()
    os.waitpid(pid, 0)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    os.close(writer)


def test_what_was_kept_after_another_workers_purge_stays(clock, hub):
    one, two = made(clock, hub), made(clock, hub)
    keep(one, clock)
    clock.advance(1)
    two.purge(Purge(prefix=""))
    clock.advance(1)
    one.delete("k")
    keep(one, clock)
    one.bus.read()
    assert one.find("k") is not None


@pytest.mark.parametrize(
    "data",
    [
        None,
        "x",
        {},
        {"at": 1e12},
        {"type": "purged"},
        {"type": "purged", "at": 1e12, "prefix": 5},
        {"type": "purged", "at": True, "prefix": ""},
        {"type": "purged", "at": 1e12, "prefix": "", "tags": "t"},
        {"type": "purged", "at": 1e12, "url": "/" * 10_000},
    ],
)
def test_what_somebody_planted_in_the_hub_is_passed_by(clock, hub, data):
    store = made(clock, hub)
    keep(store, clock)
    hub.publish(TOPIC, data)
    store.bus.read()
    assert store.find("k") is not None


def test_a_purge_that_claims_to_come_from_the_future_is_one_of_now(clock, hub):
    one = made(clock, hub)
    one.start()
    other = InvalidationBus(hub, None)
    other.publish(PagesPurged(at=clock.time() + 1e9, prefix=""), None)
    one.bus.read()
    clock.advance(1)
    keep(one, clock)
    one.bus.read()
    assert one.find("k") is not None


def test_a_hub_that_is_away_is_told_once(clock, caplog):
    class Away:
        def __getattr__(self, name):
            raise ConnectionError("away")

    store = made(clock, Away())
    with caplog.at_level(logging.WARNING, logger="om_plugins"):
        keep(store, clock)
        for _ in range(3):
            store.purge(Purge(url="/a"))
            store.bus.read()
    assert caplog.text.count("the hub cannot be reached") == 1
    assert store.find("k") is not None


class SharedBytes:
    """A store that workers share; ``down`` while it cannot be reached."""

    def __init__(self):
        self.values, self.down, self.reads = {}, False, 0

    def get(self, key):
        self.reads += 1
        if self.down:
            raise ConnectionError("away")
        return self.values.get(key)

    def set(self, key, value, ttl):
        if self.down:
            raise ConnectionError("away")
        self.values[key] = value

    def delete(self, key):
        if self.down:
            raise ConnectionError("away")
        self.values.pop(key, None)


class LossyHub:
    """A hub that goes on alone while its backend is away, as an application's does."""

    def __init__(self, hub):
        self.hub, self.alone = hub, False

    def __getattr__(self, name):
        return getattr(self.hub, name)

    def read(self, *args, **options):
        return [] if self.alone else self.hub.read(*args, **options)


@pytest.fixture
def workers(clock, hub):
    """One that may lose the hub, the other, and what they share."""
    lossy, store = LossyHub(hub), SharedBytes()
    one, two = made(clock, lossy, store=store), made(clock, hub, store=store)
    keep(one, clock)
    return one, two, lossy, store


def test_memory_answers_before_the_store_while_purges_are_heard(workers, clock):
    one, _, _, store = workers
    clock.advance(4)
    one.bus.read()
    assert one.find("k") is not None
    assert store.reads == 0


def test_memory_is_bypassed_while_purges_cannot_be_heard(workers, clock):
    one, two, lossy, _ = workers
    lossy.alone = True
    one.bus.read()
    for body in (b"1", b"2", b"3"):
        two.delete("k")
        two.save("k", page(clock, body), two.purge_mark())
        found = one.find("k")
        assert found.content.body == body
        assert found.fresh_until > clock.monotonic()
        clock.advance(0.1)
    two.purge(Purge(idents=("k",)))
    assert one.find("k") is None


def test_what_it_keeps_meanwhile_is_bypassed_too_and_trusted_again_later(workers, clock):
    one, two, lossy, store = workers
    lossy.alone = True
    one.bus.read()
    one.delete("k")
    keep(one, clock)
    clock.advance(0.1)
    two.purge(Purge(idents=("k",)))
    assert one.find("k") is None
    lossy.alone = False
    one.bus.read()
    keep(one, clock)
    reads = store.reads
    clock.advance(4)
    assert one.find("k") is not None
    assert store.reads == reads


def test_when_the_store_is_away_as_well_memory_answers_with_what_it_has_as_stale(workers, clock):
    one, _, lossy, store = workers
    lossy.alone = store.down = True
    one.bus.read()
    assert one.find("k").fresh_until > clock.monotonic()  # not asked for again within a second
    clock.advance(1.1)
    found = one.find("k")
    assert found is not None
    assert found.fresh_until < clock.monotonic()
    assert found.expires < clock.monotonic()


def test_a_worker_that_only_reads_hears_of_purges_as_well(workers, clock):
    one, two, _, store = workers
    assert two.find("k") is not None
    one.purge(Purge(idents=("k",)))
    clock.advance(1)
    two.scheduler.run_due()
    store.down = True
    assert two.find("k") is None


def test_it_can_be_closed_and_used_again(clock, hub):
    store = made(clock, hub)
    store.start()
    store.start()
    store.bus.close()
    keep(store, clock)
    assert store.find("k") is not None
    store.bus.close()
