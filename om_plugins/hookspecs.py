"""The pluggy hooks: how plugins bring parts.

Pluggy *provides parts* when an application starts; it is never called per request. Each hook is
called once per plugin, under guard: a plugin that raises is reported by name and the others go
on. Hooks are plain functions; an ``async def`` is refused when the plugin is loaded.

Entry-point group: ``om_plugins``. A plugin is a module (or any object) with functions marked
``@hookimpl``::

    from om_plugins import EngineSpec, hookimpl

    @hookimpl
    def om_engines(context):
        return [EngineSpec(MyEngine(context.config), chain="assistant", tier=2)]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from .protocols import (
        CacheStoreFactory,
        HubFactory,
        Monitor,
        Notifier,
        PluginContext,
        RecoveryStep,
    )
    from .types import EngineSpec, PluginInfo

PROJECT = "om_plugins"
GROUP = "om_plugins"
HOOK_API = 1
"""Raised when a hook changes in a way that older plugins must know. A plugin that asks for a
newer one is refused with a message that says which version to install."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

CspSources = Mapping[str, Sequence[str]]


@hookspec
def om_plugin_info() -> PluginInfo:  # type: ignore[empty-body]
    """Say what this plugin is. Called first, before any other hook.

    Example::

        @hookimpl
        def om_plugin_info():
            return PluginInfo(summary="Answers from a wiki", config_class=WikiConfig)
    """


@hookspec
def om_features() -> Iterable[object]:  # type: ignore[empty-body]
    """Bring features, each in a ``FeatureSpec``: settings, a layer, endpoints, commands, a card.

    Called before any other hook but ``om_plugin_info``, for a feature's settings must be known
    before the application's are read. See :class:`~om_plugins.plugins.feature.Feature`.

    Example::

        @hookimpl
        def om_features():
            return [FeatureSpec(Greeting(), after="headers")]
    """


@hookspec
def om_engines(context: PluginContext) -> Iterable[EngineSpec]:  # type: ignore[empty-body]
    """Bring engines, each with its chain and tier.

    Example::

        @hookimpl
        def om_engines(context):
            return [EngineSpec(WikiEngine(context.config), chain="assistant", tier=2)]
    """


@hookspec
def om_caches(context: PluginContext) -> Mapping[str, CacheStoreFactory]:  # type: ignore[empty-body]
    """Bring cache stores: a mapping from URL scheme to a factory that takes the URL.

    A factory that has a ``check(url)`` (a class may have a static method of that name) is asked
    when the application starts; it raises :class:`~om_plugins.errors.ConfigError`.

    Example::

        @hookimpl
        def om_caches(context):
            return {"etcd": EtcdStore.from_url}      # OM_CACHE_URL = "etcd://…"
    """


@hookspec
def om_hubs(context: PluginContext) -> Mapping[str, HubFactory]:  # type: ignore[empty-body]
    """Bring hubs: a mapping from URL scheme to a factory that takes the URL and the clock.

    A factory may have a ``check(url)``, as for :func:`om_caches`. Called before the hub exists:
    ``context.hub`` must not be used here.

    Example::

        @hookimpl
        def om_hubs(context):
            return {"nats": NatsHub.from_url}        # OM_HUB_URL = "nats://…"
    """


@hookspec
def om_monitors(context: PluginContext) -> Iterable[Monitor]:  # type: ignore[empty-body]
    """Bring monitors, which get a sample of every request.

    Example::

        @hookimpl
        def om_monitors(context):
            return [StatsdMonitor(context.config)]
    """


@hookspec
def om_notifiers(context: PluginContext) -> Iterable[Notifier]:  # type: ignore[empty-body]
    """Bring notifiers, which carry notifications to people.

    Example::

        @hookimpl
        def om_notifiers(context):
            return [ChatNotifier(context.config)]
    """


@hookspec
def om_recovery_steps(context: PluginContext) -> Iterable[RecoveryStep]:  # type: ignore[empty-body]
    """Bring steps for recovery; they run in the order of their ``percent``.

    Example::

        @hookimpl
        def om_recovery_steps(context):
            return [RestartPool(percent=60)]
    """


@hookspec
def om_csp(  # type: ignore[empty-body]
    context: PluginContext,
) -> CspSources | Callable[[WSGIEnvironment], CspSources | None]:
    """Add sources to the Content-Security-Policy.

    A mapping of directive to sources is merged once, when the application starts; a callable is
    asked for every HTML response. It only widens: a directive that the policy lacks, with nothing
    to fall back to, allows everything already and is not added.

    Example::

        @hookimpl
        def om_csp(context):
            return {"style-src": ["https://fonts.example"]}
    """


@hookspec
def om_startup(context: PluginContext) -> None:
    """The application's parts are ready. Called once per process, before its first use.

    Example::

        @hookimpl
        def om_startup(context):
            context.scheduler.every(60, sync, name="wiki-sync", elected=True)
    """


@hookspec
def om_shutdown(context: PluginContext) -> None:
    """The process ends, or the application is closed: give resources back.

    Example::

        @hookimpl
        def om_shutdown(context):
            pool.close()
    """
