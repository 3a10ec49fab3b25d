"""The invalidation bus: one topic, one format and one reader for cached data and pages."""

from __future__ import annotations

import logging
import os

import pytest

from om_plugins.builtin.hubs.memory import MemoryHub
from om_plugins.builtin.hubs.redis import RedisHub
from om_plugins.cache.cache import CacheOptions, SmartCache
from om_plugins.core.clock import SystemClock
from om_plugins.testing.fakes import FakeClock
from om_plugins.workers.invalidation_bus import (
    TOPIC,
    DependentsOutdated,
    EntriesCleared,
    EntriesInvalidated,
    EntriesReplaced,
    EntryChanged,
    EntryRemoved,
    InvalidationBus,
    PagesPurged,
)
from om_plugins.workers.scheduler import BackgroundScheduler

MESSAGES = [
    EntriesInvalidated(
        at=1.5, prefix=b"T\xff", tags=["a"], scope="me", hard=True, found=[b"Sk", b"T"]
    ),
    EntriesInvalidated(at=1),
    EntryRemoved(at=1, ident=b"Sk"),
    EntriesCleared(at=1),
    EntryChanged(at=1, ident=b"Sk", kind="refreshed", tags=["a"], same=True),
    EntriesReplaced(at=1, idents=[b"Sk"]),
    DependentsOutdated(at=1, ident=b"Sk"),
    PagesPurged(at=1, url="/a", prefix="/", tags=["t"], idents=["i"], soft=True),
]


class Received:
    """A receiver that keeps what it got."""

    def __init__(self):
        self.messages, self.times, self.deaf = [], [], []

    def receive(self, message, published_at):
        self.messages.append(message)
        self.times.append(published_at)

    def set_deaf(self, deaf):
        self.deaf.append(deaf)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def hub(clock):
    return MemoryHub("memory://", clock)


@pytest.fixture
def make_worker(clock, hub):
    """The bus of one process, and what two of its caches receive."""

    def make(hub=hub, namespace=""):
        bus = InvalidationBus(
            hub, BackgroundScheduler(1, 10, clock, hub, synchronous=True), namespace
        )
        one, two = Received(), Received()
        bus.subscribe(one)
        bus.subscribe(two)
        return bus, one, two

    return make


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_reaches_all_other_caches(make_worker, clock, message):
    bus, sender, beside = make_worker()
    bus.publish(message, sender)
    assert sender.messages == []
    assert (beside.messages, beside.times) == ([message], [None])
    other, *receivers = make_worker()
    other.start()
    for one in receivers:
        assert (one.messages, one.times) == ([message], [clock.time()])


def test_a_process_does_not_hear_itself(make_worker):
    bus, sender, beside = make_worker()
    bus.start()
    bus.publish(EntriesCleared(at=1), sender)
    bus.read()
    assert sender.messages == []
    assert len(beside.messages) == 1


def test_nothing_is_read_before_the_start_and_each_message_once(make_worker, clock):
    bus, sender, _ = make_worker()
    other, receiver, _ = make_worker()
    bus.publish(EntriesCleared(at=1), sender)
    assert receiver.messages == []
    other.start()
    other.start()
    other.read()
    assert receiver.messages == [EntriesCleared(at=1)]


def test_namespaces_are_kept_apart(make_worker):
    bus, sender, _ = make_worker(namespace="a")
    other, receiver, _ = make_worker(namespace="b")
    bus.publish(EntriesCleared(at=1), sender)
    other.start()
    assert receiver.messages == []


def test_without_a_hub_the_caches_of_one_process_hear_each_other(clock):
    bus = InvalidationBus(None, BackgroundScheduler(1, 10, clock, None, synchronous=True))
    one, two = Received(), Received()
    bus.subscribe(one)
    bus.subscribe(two)
    bus.start()
    bus.publish(EntriesCleared(at=1), one)
    bus.read()
    assert two.messages == [EntriesCleared(at=1)]
    assert one.messages == one.deaf == []


def test_receivers_learn_when_the_hub_works_alone_and_when_it_is_back(make_worker, hub):
    class LossyHub:
        alone = False

        def __getattr__(self, name):
            return getattr(hub, name)

    lossy = LossyHub()
    bus, one, two = make_worker(lossy)
    bus.start()
    for alone in (False, True, True, False, False):
        lossy.alone = alone
        bus.read()
    assert one.deaf == two.deaf == [True, False]


def test_a_hub_that_is_away_makes_deaf_and_one_warning(make_worker, caplog):
    class Away:
        def __getattr__(self, name):
            raise ConnectionError("away")

    bus, one, two = make_worker(Away())
    with caplog.at_level(logging.WARNING, logger="om_plugins"):
        for _ in range(3):
            bus.publish(EntriesCleared(at=1), one)
            bus.read()
    assert caplog.text.count("the hub cannot be reached") == 1
    assert two.deaf == [True]
    assert len(two.messages) == 3


def test_a_receiver_that_fails_is_logged_and_keeps_no_other_from_hearing(make_worker, caplog):
    bus, sender, _ = make_worker()
    other, broken, beside = make_worker()

    def fail(message, published_at):
        raise RuntimeError("broken")

    broken.receive = fail
    for _ in range(2):
        bus.publish(EntriesCleared(at=1), sender)
    other.start()
    other.read()
    assert len(beside.messages) == 2
    assert beside.deaf == []
    assert caplog.text.count("a cache could not apply EntriesCleared") == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_has_another_name_and_reads_from_the_beginning(make_worker):
    bus, sender, _ = make_worker()
    bus.publish(EntriesCleared(at=1), sender)
    other, receiver, _ = make_worker()
    other.start()
    origin = other.origin
    pid = os.fork()
    if not pid:
        other.start()
        right = other.origin != origin and len(receiver.messages) == 2
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert other.origin == origin


OLD = {
    "cache-invalidations": [
        {"from": b"old", "prefix": b"", "tags": [], "scope": "", "at": 9e12},
        {"from": b"old", "cleared": True, "at": 9e12},
        {"from": b"old", "put": ["k"]},
        {"from": b"old", "changed": "k", "kind": "set", "tags": [], "at": 9e12, "same": False},
    ],
    "http-purges": [
        {"from": b"old", "at": 9e12, "url": "", "prefix": "", "tags": [], "idents": [], "soft": 0}
    ],
}
"""What workers wrote before the topic had a version."""


def test_workers_of_the_old_format_on_the_same_redis_neither_hear_nor_disturb(redis_server):
    clock = SystemClock()
    hubs = [RedisHub(redis_server.url, clock) for _ in range(3)]
    caches = []
    try:
        for hub in hubs[:2]:
            scheduler = BackgroundScheduler(1, 10, clock, hub, synchronous=True)
            cache = SmartCache(CacheOptions(
                stale_time=60, cache_time=600, l1_bytes=1 << 20, max_value=1 << 16,
                clock=clock, scheduler=scheduler, hub=hub,
            ))  # fmt: skip
            cache.set("k", "kept")
            caches.append(cache)
        old = hubs[2]
        for topic, messages in OLD.items():
            for message in messages:
                old.publish(topic, message)
                old.publish(TOPIC, message)
        for cache in caches:
            cache.internals.bus.read()
            assert cache.query("k", lambda: "fetched") == "kept"
        before = {topic: old.last_id(topic) for topic in OLD}
        caches[0].invalidate()
        caches[0].clear()
        caches[1].internals.bus.read()
        assert caches[1].get("k") is None
        assert {topic: old.last_id(topic) for topic in OLD} == before
    finally:
        for hub in hubs:
            hub.close()
