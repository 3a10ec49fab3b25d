"""Shipped plugins whose parts most applications never use: each part is imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..core.fork import hold_forks
from ..hookspecs import hookimpl
from ..settings.urls import CheckedFactory
from ..types import PluginInfo

if TYPE_CHECKING:
    from ..protocols import (
        CacheStore,
        CacheStoreFactory,
        Clock,
        Hub,
        HubFactory,
        PluginContext,
        RecoveryStep,
    )


class FileStorePlugin:
    """Plugin ``cache-file``."""

    @hookimpl
    def om_plugin_info(self) -> PluginInfo:
        """Describe this plugin."""
        return PluginInfo(
            summary="Keeps cached values in a folder that all workers of a host share"
        )

    @hookimpl
    def om_caches(self, context: PluginContext) -> Mapping[str, CacheStoreFactory]:
        """Bring the store for ``file://`` addresses."""
        return {"file": _openable(_make_file_store)}


class MemcachedStorePlugin:
    """Plugin ``cache-memcached``."""

    @hookimpl
    def om_plugin_info(self) -> PluginInfo:
        """Describe this plugin."""
        return PluginInfo(summary="Keeps cached values in memcached, for many hosts")

    @hookimpl
    def om_caches(self, context: PluginContext) -> Mapping[str, CacheStoreFactory]:
        """Bring the store for ``memcached://`` addresses."""
        return {"memcached": _openable(_make_memcached_store)}


class RedisStorePlugin:
    """Plugin ``cache-redis``."""

    @hookimpl
    def om_plugin_info(self) -> PluginInfo:
        """Describe this plugin."""
        return PluginInfo(summary="Keeps cached values in a Redis that many hosts share")

    @hookimpl
    def om_caches(self, context: PluginContext) -> Mapping[str, CacheStoreFactory]:
        """Bring the store for the addresses of a Redis."""
        from .hubs.redis_connection import SCHEMES

        return dict.fromkeys(SCHEMES, _openable(_make_redis_store))


class RedisHubPlugin:
    """Plugin ``hub-redis``."""

    @hookimpl
    def om_plugin_info(self) -> PluginInfo:
        """Describe this plugin."""
        return PluginInfo(summary="A hub in a Redis or Valkey, for many hosts (redis://host)")

    @hookimpl
    def om_hubs(self, context: PluginContext) -> Mapping[str, HubFactory]:
        """Bring the hub for the addresses of a Redis."""
        from .hubs.redis_connection import SCHEMES

        make = partial(_make_redis_hub, namespace=context.namespace)
        return dict.fromkeys(SCHEMES, CheckedFactory(make, _check_redis_hub))


class SqliteHubPlugin:
    """Plugin ``hub-sqlite``."""

    @hookimpl
    def om_plugin_info(self) -> PluginInfo:
        """Describe this plugin."""
        return PluginInfo(summary="A hub in a file, for all processes of a host (sqlite:///path)")

    @hookimpl
    def om_hubs(self, context: PluginContext) -> Mapping[str, HubFactory]:
        """Bring the hub for ``sqlite:///`` addresses."""
        return {"sqlite": CheckedFactory(_make_sqlite_hub, _check_sqlite_hub)}


class RecoveryStepsPlugin:
    """Plugin ``recovery-steps``."""

    @hookimpl
    def om_plugin_info(self) -> PluginInfo:
        """Describe this plugin."""
        return PluginInfo(summary="Repairs a chain or a route whose errors pile up")

    @hookimpl
    def om_recovery_steps(self, context: PluginContext) -> Iterable[RecoveryStep]:
        """Bring the steps that this application can use."""
        from .recovery_steps import list_steps

        return list_steps(context.cache, context.prober)


def _openable(make: Callable[[str], CacheStore]) -> CacheStoreFactory:
    """A factory of stores that open nothing when they are made, which checks the URL."""
    return CheckedFactory(make, make)


def _make_file_store(url: str) -> CacheStore:
    with hold_forks():
        from .stores.file import FileStore

    return FileStore.from_url(url)


def _make_memcached_store(url: str) -> CacheStore:
    with hold_forks():
        from .stores.memcached import MemcachedStore

    return MemcachedStore(url)


def _make_redis_store(url: str) -> CacheStore:
    with hold_forks():
        from .stores.redis import RedisStore

    return RedisStore(url)


def _make_redis_hub(url: str, clock: Clock, *, namespace: str) -> Hub:
    with hold_forks():
        from .hubs.redis import RedisHub

    return RedisHub(url, clock, namespace=namespace)


def _check_redis_hub(url: str) -> None:
    with hold_forks():
        from .hubs.redis import RedisHub

    RedisHub.check(url)


def _make_sqlite_hub(url: str, clock: Clock) -> Hub:
    with hold_forks():
        from .hubs.sqlite import SqliteHub

    return SqliteHub(url, clock)


def _check_sqlite_hub(url: str) -> None:
    with hold_forks():
        from .hubs.sqlite import SqliteHub

    SqliteHub.check(url)


cache_file = FileStorePlugin()
cache_memcached = MemcachedStorePlugin()
cache_redis = RedisStorePlugin()
hub_redis = RedisHubPlugin()
hub_sqlite = SqliteHubPlugin()
recovery_steps = RecoveryStepsPlugin()
