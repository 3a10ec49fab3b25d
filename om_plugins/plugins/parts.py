"""The hubs, stores, notifiers, monitors and recovery steps that plugins bring.

Each hook is called once, under guard.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

from ..core.fork import CachedProperty
from ..errors import PluginError
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

T = TypeVar("T")


class PluginParts:
    """The parts that the loaded plugins of one application bring.

    Args:
        plugins: the host, with its plugins loaded and registered.
    """

    def __init__(self, plugins: PluginHost) -> None:
        self._plugins = plugins

    @CachedProperty
    def hubs(self) -> dict[str, HubFactory]:
        """Factories of hubs by URL scheme. A third party's wins over a built-in one."""
        return self._collect_factories("om_hubs")

    @CachedProperty
    def stores(self) -> dict[str, CacheStoreFactory]:
        """Factories of cache stores by URL scheme. A third party's wins over a built-in one."""
        return self._collect_factories("om_caches")

    def open_hub(self, url: str, clock: Clock) -> Hub:
        """Open the hub of a URL whose scheme is known."""
        return self.hubs[url.partition(":")[0]](url, clock)

    def open_store(self, url: str) -> CacheStore:
        """Open the cache store of a URL whose scheme is known."""
        return self.stores[url.partition(":")[0]](url)

    @CachedProperty
    def notifiers(self) -> list[tuple[str, Notifier]]:
        """Notifiers, each with the name of its plugin."""
        return self._collect_parts("om_notifiers")

    @CachedProperty
    def monitors(self) -> list[tuple[str, Monitor]]:
        """Monitors, each with the name of its plugin."""
        return self._collect_parts("om_monitors")

    @CachedProperty
    def steps(self) -> list[tuple[str, RecoveryStep]]:
        """Recovery steps, each with the name of its plugin."""
        return self._collect_parts("om_recovery_steps")

    def collect_all(self) -> None:
        """Ask for every part now; failures are recorded with their plugins.

        An application asks when it first needs a part, such as its first notification.
        """
        for name in ("notifiers", "monitors", "steps"):
            with suppress(PluginError):  # the host is strict
                getattr(self, name)

    def _collect_parts(self, hook: str) -> list[tuple[str, T]]:
        return [(plugin, one) for plugin, found in self._plugins.collect(hook) for one in found]

    def _collect_factories(self, hook: str) -> dict[str, T]:
        found: dict[str, T] = {}
        for _, factories in self._plugins.collect(hook):  # third parties come first
            found = {**factories, **found}
        return found
