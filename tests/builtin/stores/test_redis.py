"""Cached values in a real Redis."""

from __future__ import annotations

import os
import pickle
import sys

import pytest

from om_plugins.builtin.stores.redis import RedisStore
from om_plugins.errors import ConfigError
from om_plugins.testing import CacheStoreContract
from tests.patience import cut_off


class TestContract(CacheStoreContract):
    @pytest.fixture
    def store(self, redis_server):
        store = RedisStore(redis_server.url)
        yield store
        store.close()


@pytest.fixture
def store(redis_server):
    store = RedisStore(redis_server.unix_url)
    yield store
    store.close()


class Bomb:
    def __init__(self, at):
        self.at = at

    def __reduce__(self):
        return (os.mkdir, (str(self.at),))


def test_a_planted_pickle_is_bytes_like_any_other_and_nothing_runs(store, redis_server, tmp_path):
    ran = tmp_path / "ran"
    pickle.loads(pickle.dumps(Bomb(ran)))
    assert ran.is_dir()  # so the bomb works
    ran.rmdir()
    planted = pickle.dumps(Bomb(ran))
    store.set("k", b"v", 60)
    for marked in (planted, b"!" + planted, b"=" + planted):  # "!" is cachelib's own mark
        redis_server.client.set("om:cache:k", marked)
        assert store.get("k") == marked[1:]
    assert not ran.exists()


@pytest.mark.parametrize("planted", [b"!pickle", b"x", b"", b"=", b"=ours"])
def test_what_others_planted_is_written_over(store, redis_server, planted):
    redis_server.client.set("om:cache:k", planted)
    assert store.compare_and_set("k", store.get("k"), b"mine", 60)
    assert store.get("k") == b"mine"
    redis_server.client.delete("om:cache:k")
    redis_server.client.lpush("om:cache:k", 1)
    assert store.compare_and_set("k", store.get("k"), b"mine", 60)
    assert store.get("k") == b"mine"


def test_what_is_no_value_of_a_store_is_a_miss(store, redis_server, monkeypatch):
    redis_server.client.lpush("om:cache:k", 1)
    assert store.get("k") is None
    store.set("k", b"v", 60)
    assert store.get("k") == b"v"
    monkeypatch.setattr("om_plugins.builtin.stores.redis.MAX_BYTES", 1000)
    redis_server.client.set("om:cache:k", b"=" + b"x" * 1000)
    assert store.get("k") is None


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [(0.0, 1), (0.2, 1), (1.5, 2), (1e12, 366 * 86400), (float("inf"), 366 * 86400)],
)
def test_no_ttl_means_for_ever(store, redis_server, ttl, seconds):
    store.set("k", b"v", ttl)
    assert redis_server.client.ttl("om:cache:k") == pytest.approx(seconds, abs=1)


def test_a_killed_server_is_an_error_at_once_and_a_new_one_is_found_again(store, redis_server):
    store.set("k", b"v", 60)
    redis_server.kill()
    for use in (
        lambda: store.get("k"),
        lambda: store.set("k", b"v", 60),
        lambda: store.delete("k"),
    ):
        with cut_off(), pytest.raises(ConnectionError, match="unix://"):
            use()
    redis_server.start()
    store.set("k", b"w", 60)
    assert store.get("k") == b"w"


def test_a_url_that_makes_no_sense_is_a_config_error():
    with pytest.raises(ConfigError, match=r"OM_CACHE_URL 'redis://h/0\?colour=red'"):
        RedisStore("redis://h/0?colour=red")
    with pytest.raises(ConfigError, match="OM_CACHE_URL"):
        RedisStore("redis://h/0?colour=red")


def test_without_redis_py_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match=r"OM_CACHE_URL .*pip install 'om-plugins\[redis\]'"):
        RedisStore("redis://h/0")


def test_a_child_has_connections_of_its_own(redis_server, used_by_parent_and_child):
    used_by_parent_and_child(RedisStore, redis_server.url)
