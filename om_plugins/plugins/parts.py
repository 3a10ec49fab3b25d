"""The parts that an application's plugins bring, asked of each plugin once, under guard."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from ..csp.policy import checked
from ..hookspecs import CspSources
from ..protocols import (
    CacheStore,
    CacheStoreFactory,
    Clock,
    Hub,
    HubFactory,
    Monitor,
    Notifier,
    RecoveryStep,
)
from .host import PluginHost

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["AskCsp", "PluginParts"]

T = TypeVar("T")
AskCsp = Callable[["WSGIEnvironment"], "CspSources | None"]


class PluginParts:
    """What the loaded plugins of one application bring.

    Args:
        plugins: loaded and registered.

    Attributes:
        hubs, stores: factories by URL scheme. A third party's wins over a built-in one.
    """

    def __init__(self, plugins: PluginHost) -> None:
        self._plugins = plugins
        self.hubs: dict[str, HubFactory] = {}
        self.stores: dict[str, CacheStoreFactory] = {}
        # third parties are asked first
        for _, hubs in plugins.collect("om_hubs"):
            self.hubs = {**hubs, **self.hubs}
        for _, stores in plugins.collect("om_caches"):
            self.stores = {**stores, **self.stores}

    def open_hub(self, url: str, clock: Clock) -> Hub:
        """Open the hub of a URL whose scheme is known."""
        return self.hubs[url.partition(":")[0]](url, clock)

    def open_store(self, url: str) -> CacheStore:
        """Open the cache store of a URL whose scheme is known."""
        return self.stores[url.partition(":")[0]](url)

    @cached_property
    def notifiers(self) -> list[tuple[str, Notifier]]:
        """Each with the name of its plugin."""
        return self._each("om_notifiers")

    @cached_property
    def monitors(self) -> list[tuple[str, Monitor]]:
        """Each with the name of its plugin."""
        return self._each("om_monitors")

    @cached_property
    def steps(self) -> list[tuple[str, RecoveryStep]]:
        """Steps of recovery, each with the name of its plugin."""
        return self._each("om_recovery_steps")

    def csp(self) -> tuple[dict[str, list[str]], list[AskCsp]]:
        """Sources that plugins add to the policy, merged, and those who are asked each time."""
        merged: dict[str, list[str]] = {}
        asked: list[AskCsp] = []
        for plugin, found in self._plugins.collect("om_csp", _checked_sources):
            if callable(found):
                asked.append(self._guarded(plugin, found))
                continue
            for directive, allowed in found.items():
                merged.setdefault(directive, []).extend(allowed)
        return merged, asked

    def _each(self, hook: str) -> list[tuple[str, T]]:
        return [(plugin, one) for plugin, found in self._plugins.collect(hook) for one in found]

    def _guarded(self, plugin: str, ask: AskCsp) -> AskCsp:
        def guarded(environ: WSGIEnvironment) -> CspSources | None:
            ok, sources = self._plugins.guarded(plugin, ask, environ)
            return sources if ok else None

        guarded.__name__ = f"om_csp of the plugin {plugin!r}"
        return guarded


def _checked_sources(found: CspSources | AskCsp) -> CspSources | AskCsp:
    return found if callable(found) else checked(found, "om_csp")
