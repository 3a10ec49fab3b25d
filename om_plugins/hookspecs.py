"""The pluggy hooks, with which plugins bring parts.

Pluggy is used when an application starts, and never for a request. Each hook is called once for
each plugin. When a plugin raises, its name and the error are reported, and the others are called
all the same. Hooks are plain functions; an ``async def`` is refused when the plugin is loaded.

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
"""The version of the hooks. It grows when a hook changes in a way that older plugins must know. A
plugin that needs a newer version is refused, with a message that says which release to install."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

CspSources = Mapping[str, Sequence[str]]


@hookspec
def om_plugin_info() -> PluginInfo:  # type: ignore[empty-body]
    """Describe the plugin. This is called before any other hook.

    Example::

        @hookimpl
        def om_plugin_info():
            return PluginInfo(summary="Answers from a wiki", config_class=WikiConfig)
    """


@hookspec
def om_features() -> Iterable[object]:  # type: ignore[empty-body]
    """Bring features, each in a ``FeatureSpec``: settings, a layer, endpoints, commands, a card.

    This is called before any other hook but ``om_plugin_info``, because the settings of a feature
    must be known before those of the application are read. See
    :class:`~om_plugins.plugins.feature.Feature`.

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
    """Bring cache stores: a mapping from a URL scheme to a factory that takes the URL.

    A factory may have a function ``check(url)`` (a class may have a static method of that name). It
    is called when the application starts, and raises :class:`~om_plugins.errors.ConfigError` for a
    URL that cannot work.

    Example::

        @hookimpl
        def om_caches(context):
            return {"etcd": EtcdStore.from_url}      # OM_CACHE_URL = "etcd://…"
    """


@hookspec
def om_hubs(context: PluginContext) -> Mapping[str, HubFactory]:  # type: ignore[empty-body]
    """Bring hubs: a mapping from a URL scheme to a factory that takes the URL and the clock.

    A factory may have a function ``check(url)``, as for :func:`om_caches`. The hook is called
    before the hub exists, so it must not use ``context.hub``.

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
    """Bring notifiers, which deliver notifications to people.

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

    A mapping from directives to sources is merged once, when the application starts. A callable is
    called for every HTML response. The sources can only allow more: a directive that the policy
    does not have, and that falls back to none, allows everything already and is not added.

    Example::

        @hookimpl
        def om_csp(context):
            return {"style-src": ["https://fonts.example"]}
    """


@hookspec
def om_startup(context: PluginContext) -> None:
    """Start what the plugin needs. Called once in each process, before its first request.

    Example::

        @hookimpl
        def om_startup(context):
            context.scheduler.every(60, sync, name="wiki-sync", elected=True)
    """


@hookspec
def om_shutdown(context: PluginContext) -> None:
    """Release resources, because the process ends or the application is closed.

    Example::

        @hookimpl
        def om_shutdown(context):
            pool.close()
    """
