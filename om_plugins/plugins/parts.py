"""The hubs, stores, notifiers, monitors and recovery steps that plugins bring.

Each hook is called once, under guard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from ..settings.callbacks import explain_callback, explain_unfinished, name_type
from .host import PluginHost

T = TypeVar("T")

_HUB = {
    "publish": 2,
    "read": 4,
    "last_id": 1,
    "put": 3,
    "get": 1,
    "scan": 1,
    "increment": 3,
    "lease": 2,
    "close": 0,
}
_STORE = {"get": 1, "set": 3, "delete": 1}
"""The methods of a part, with the number of arguments that they get."""
_STORE_MAY_HAVE = {"compare_and_set": 4, "close": 0}


def explain_hub(hub: object) -> str:
    """Explain why what a factory returned is no hub; "" when it can be asked."""
    return _explain(hub, _HUB, {})


def explain_store(store: object) -> str:
    """Explain why what a factory returned is no cache store; "" when it can be asked."""
    return _explain(store, _STORE, _STORE_MAY_HAVE)


def _explain(part: object, must_have: Mapping[str, int], may_have: Mapping[str, int]) -> str:
    unfinished = explain_unfinished(part)
    if unfinished:
        return f"its factory {unfinished}"
    missing = [name for name in must_have if getattr(part, name, None) is None]
    if missing:
        forgotten = ": a return may be missing" if part is None else ""
        return f"its factory returned {name_type(part)}, without {', '.join(missing)}{forgotten}"
    for name, arguments in {**must_have, **may_have}.items():
        method = getattr(part, name, None)
        problem = "" if method is None else explain_callback(method, arguments)
        if problem:
            return f"{name} of {name_type(part)} cannot be called: {problem}"
    return ""


def _check(kind: str, url: str, part: T, explain: Callable[[object], str]) -> T:
    problem = explain(part)
    if problem:
        raise TypeError(f"the {kind} of {url.partition(':')[0]!r} cannot be used: {problem}")
    return part


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
        """Open the hub of a URL whose scheme is known.

        Raises:
            TypeError: its factory returned what is no hub.
        """
        return _check("hub", url, self.hubs[url.partition(":")[0]](url, clock), explain_hub)

    def open_store(self, url: str) -> CacheStore:
        """Open the cache store of a URL whose scheme is known.

        Raises:
            TypeError: its factory returned what is no store.
        """
        return _check("store", url, self.stores[url.partition(":")[0]](url), explain_store)

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
