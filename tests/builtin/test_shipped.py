"""The shipped plugins that import their parts on first use."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from om_plugins.builtin import BUILTINS, shipped
from om_plugins.builtin.hubs.sqlite import SqliteHub
from om_plugins.builtin.stores.file import FileStore
from om_plugins.builtin.stores.memcached import MemcachedStore
from om_plugins.builtin.stores.redis import RedisStore
from om_plugins.core.clock import SystemClock
from om_plugins.errors import ConfigError
from om_plugins.settings.urls import check_url

CONTEXT = SimpleNamespace(namespace="shop")
REDIS = {"redis", "rediss", "unix", "valkey", "valkeys", "redis+sentinel", "rediss+sentinel"}


PLUGINS = [
    name
    for name, one in vars(shipped).items()
    if hasattr(one, "om_plugin_info") and not isinstance(one, type)
]


@pytest.mark.parametrize("name", PLUGINS)
def test_each_one_is_listed_and_says_what_it_is(name):
    plugin = getattr(shipped, name)
    assert BUILTINS[name.replace("_", "-")] == f"om_plugins.builtin.shipped:{name}"
    assert plugin.om_plugin_info().summary


@pytest.mark.parametrize(
    ("plugin", "schemes", "url", "kind"),
    [
        (shipped.cache_file, {"file"}, "file:///tmp/values", FileStore),
        (shipped.cache_memcached, {"memcached"}, "memcached://nowhere.invalid", MemcachedStore),
        (shipped.cache_redis, REDIS, "redis://nowhere.invalid", RedisStore),
    ],
)
def test_stores_are_made_from_their_urls(plugin, schemes, url, kind):
    factories = plugin.om_caches(CONTEXT)
    assert set(factories) == schemes
    check_url("OM_CACHE_URL", url, factories)
    assert type(factories[url.partition(":")[0]](url)) is kind


def test_a_hub_of_a_redis_is_made_for_every_kind_of_url():
    factories = shipped.hub_redis.om_hubs(CONTEXT)
    assert set(factories) == REDIS
    hub = factories["redis"]("redis://nowhere.invalid", SystemClock())
    assert hub._stream == "om:{shop}:topic:"


def test_a_hub_in_a_file_is_made_from_its_url(tmp_path):
    factories = shipped.hub_sqlite.om_hubs(CONTEXT)
    hub = factories["sqlite"](f"sqlite:///{tmp_path}/hub", SystemClock())
    assert type(hub) is SqliteHub
    assert set(factories) == {"sqlite"}


@pytest.mark.parametrize(
    ("factories", "url"),
    [
        (shipped.cache_file.om_caches(CONTEXT), "file:///tmp/x?size=1"),
        (shipped.cache_memcached.om_caches(CONTEXT), "memcached://h/?size=1"),
        (shipped.cache_redis.om_caches(CONTEXT), "redis://h/0?colour=red"),
        (shipped.hub_redis.om_hubs(CONTEXT), "redis://h/0?colour=red"),
        (shipped.hub_sqlite.om_hubs(CONTEXT), "sqlite://hub"),
    ],
)
def test_a_wrong_url_is_found_before_anything_is_opened(factories, url):
    with pytest.raises(ConfigError, match="OM_"):
        check_url("OM_HUB_URL", url, factories)


def test_asking_them_imports_none_of_their_parts():
    code = (
        "import sys\n"
        "from types import SimpleNamespace\n"
        "from om_plugins.builtin import shipped\n"
        "context = SimpleNamespace(namespace='shop')\n"
        "for one in vars(shipped).values():\n"
        "    for hook in ('om_plugin_info', 'om_caches', 'om_hubs'):\n"
        "        if hasattr(one, hook) and not isinstance(one, type):\n"
        "            getattr(one, hook)(*([context] if hook != 'om_plugin_info' else []))\n"
        "heavy = {'sqlite3', 'cachelib', 'redis', 'pymemcache',\n"
        "    'om_plugins.builtin.hubs.redis', 'om_plugins.builtin.hubs.sqlite',\n"
        "    'om_plugins.builtin.recovery_steps'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
