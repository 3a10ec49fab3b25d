"""Cached values in a real memcached."""

from __future__ import annotations

import os
import pickle
import sys

import pytest
from cachelib import MemcachedCache

from om_plugins.builtin.stores.memcached import MemcachedStore
from om_plugins.errors import ConfigError
from om_plugins.testing import CacheStoreContract
from tests.patience import cut_off

pymemcache = pytest.importorskip("pymemcache")


class TestContract(CacheStoreContract):
    @pytest.fixture
    def store(self, memcached_server):
        store = MemcachedStore(memcached_server.url)
        yield store
        store.close()


class TestContractOverTwoServers(CacheStoreContract):
    @pytest.fixture
    def store(self, memcached_server):
        port = memcached_server.port
        store = MemcachedStore(f"memcached://127.0.0.1:{port},localhost:{port}")
        yield store
        store.close()


@pytest.fixture
def store(memcached_server):
    store = MemcachedStore(memcached_server.url)
    yield store
    store.close()


@pytest.fixture
def client(memcached_server):
    client = pymemcache.Client(("127.0.0.1", memcached_server.port), default_noreply=False)
    yield client
    client.close()


class Bomb:
    def __init__(self, at):
        self.at = at

    def __reduce__(self):
        return (os.mkdir, (str(self.at),))


@pytest.mark.parametrize("flags", [0, 1])
def test_a_planted_pickle_is_bytes_like_any_other_and_nothing_runs(store, client, tmp_path, flags):
    ran = tmp_path / "ran"
    pickle.loads(pickle.dumps(Bomb(ran)))
    assert ran.is_dir()  # so the bomb works
    ran.rmdir()
    planted = pickle.dumps(Bomb(ran))
    client.set("om:k", planted, flags=flags)  # 1 is how pickling clients mark theirs
    assert store.get("k") == planted
    assert not ran.exists()


def test_a_value_that_the_server_does_not_take_is_not_kept(store):
    store.set("k", b"old", 60)
    store.set("k", b"x" * 2_000_000, 60)
    assert store.get("k") is None
    store.set("k", b"new", 60)
    assert store.get("k") == b"new"


@pytest.mark.parametrize("ttl", [0.0, 0.2, 1e12, float("inf")])
def test_no_ttl_means_for_ever(store, client, ttl):
    store.set("k", b"v", ttl)
    expires = client.raw_command(b"mg om:k t").split(b" t")[1]
    assert 0 <= int(expires) <= 367 * 86400


def test_a_value_is_there_for_all_of_its_time(store, monkeypatch):
    # The server counts whole seconds: what it is told to keep for one may be gone at once.
    told = []
    monkeypatch.setattr(MemcachedCache, "set", lambda *_, timeout: told.append(timeout))
    for ttl in (0.2, 1, 1.5):
        store.set("k", b"v", ttl)
    assert told == [2, 2, 3]


def test_a_killed_server_is_an_error_at_once_and_a_new_one_is_found_again(store, memcached_server):
    store.set("k", b"v", 60)
    memcached_server.kill()
    for use in (
        lambda: store.get("k"),
        lambda: store.set("k", b"v", 60),
        lambda: store.delete("k"),
    ):
        with cut_off(), pytest.raises((OSError, pymemcache.MemcacheError)):
            use()
    memcached_server.start()
    store.set("k", b"w", 60)
    assert store.get("k") == b"w"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("memcached://", "must be 'memcached://host:11211'"),
        ("memcached://user:pw@host", "knows no user, password"),
        ("memcached://host/0", "knows no user, password or database"),
        ("memcached://a,,b", "must be"),
        ("memcached://host:port", "must be"),
        ("memcached://host?pool=5", "unknown option 'pool'; known are connect_timeout and timeout"),
        ("memcached://host?timeout=soon", "timeout must be seconds, not 'soon'"),
        ("memcached://host?timeout=0", "timeout must be seconds"),
    ],
)
def test_an_address_that_makes_no_sense_is_refused_with_the_way_out(url, reason):
    with pytest.raises(ConfigError, match="OM_CACHE_URL") as found:
        MemcachedStore(url)
    assert reason in str(found.value)


def test_without_pymemcache_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymemcache", None)
    with pytest.raises(ConfigError, match=r"OM_CACHE_URL .*install 'om-plugins\[memcached\]'"):
        MemcachedStore("memcached://h")


def test_an_address_names_servers_a_socket_and_times():
    store = MemcachedStore("memcached://one,[::1]:5?timeout=0.25")
    assert store._servers == [("one", 11211), ("::1", 5)]
    assert store._options == {"timeout": 0.25, "connect_timeout": 0.5}
    assert MemcachedStore("memcached:///run/memcached.sock")._servers == ["/run/memcached.sock"]


def test_a_child_has_connections_of_its_own(memcached_server, used_by_parent_and_child):
    used_by_parent_and_child(MemcachedStore, memcached_server.url)
