"""Whole applications over each store that is shipped: a folder, a real Redis, a real memcached."""

from __future__ import annotations

import os
import pickle
import struct
import time
from dataclasses import dataclass

import pytest

from om_plugins import Settings
from om_plugins.cache.keys import make_store_key
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime

KEY = make_store_key("k")


class Bomb:
    def __init__(self, at):
        self.at = at

    def __reduce__(self):
        return (os.mkdir, (str(self.at),))


@dataclass
class Point:
    x: int


class Folder:
    def __init__(self, folder):
        self.url = f"file://{folder}"
        self._folder = folder

    def plant(self, data):
        (found,) = self._folder.iterdir()
        found.write_bytes(struct.pack("I", int(time.time()) + 60) + data)


class Redis:
    def __init__(self, server):
        self.url = server.url
        self._client = server.client

    def plant(self, data):
        assert self._client.exists(f"om:cache:shop:{KEY}")
        self._client.set(f"om:cache:shop:{KEY}", data)


class Memcached:
    def __init__(self, server):
        self.url = server.url
        self._port = server.port

    def plant(self, data):
        import pymemcache

        client = pymemcache.Client(("127.0.0.1", self._port), default_noreply=False)
        assert client.get(f"om:shop:{KEY}")
        client.set(f"om:shop:{KEY}", data, flags=1)
        client.close()


@pytest.fixture(params=["file", "redis", "memcached"])
def place(request, tmp_path):
    if request.param == "file":
        return Folder(tmp_path / "values")
    if request.param == "redis":
        return Redis(request.getfixturevalue("redis_server"))
    return Memcached(request.getfixturevalue("memcached_server"))


@pytest.fixture
def worker(place):
    """A function that makes one more worker's parts; each has a memory of its own."""
    made = []

    def make(name="shop", **settings):
        settings = {"hub_url": "memory://", "cache_url": place.url, "monitoring": False} | settings
        made.append(
            Runtime(Settings(**settings), host=Host(name=name, secret_key=lambda: "the host's"))
        )
        return made[-1].part_of("cache")

    yield make
    for runtime in made:
        runtime.close()


def test_workers_share_values_and_applications_do_not(worker):
    worker().set("k", [1, "two"])
    assert worker().get("k") == [1, "two"]
    assert worker("another").get("k") is None
    worker().remove("k")
    assert worker().get("k") is None


def test_a_planted_pickle_is_a_miss_and_nothing_runs(worker, place, tmp_path):
    ran = tmp_path / "ran"
    bomb = pickle.dumps(Bomb(ran))
    pickle.loads(bomb)
    ran.rmdir()  # so the bomb works
    for pickles in (False, True):
        for planted in (bomb, b"!" + bomb, b"=" + bomb, b"OMC\x02" + bomb, b""):
            worker().set("k", "good")
            place.plant(planted)
            cache = worker(cache_pickle=pickles)
            assert cache.get("k") is None
            assert cache.query("k", lambda: "fetched") == "fetched"
            assert not ran.exists()


def test_signed_pickles_are_shared_by_workers_that_opted_in(worker):
    worker(cache_pickle=True).set("k", Point(7))
    assert worker(cache_pickle=True).get("k") == Point(7)
    assert worker(cache_pickle=True, secret_key=b"another secret").get("k") is None
    assert worker().get("k") is None


def test_the_hub_is_the_caches_redis_unless_something_else_is_said(redis_server):
    settings = {"cache_url": redis_server.url, "monitoring": False}
    one, two = (Runtime(Settings(**settings), host=Host(name="shop")) for _ in range(2))
    assert one.hub_url() == redis_server.url
    one.hub.put("key", "value", 60)
    assert two.hub.get("key") == "value"
    assert redis_server.client.exists("om:{shop}:value:key")
    assert Runtime(Settings(**settings, hub_url="memory://")).hub_url() == "memory://"
    one.close()
    two.close()
