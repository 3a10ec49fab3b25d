"""One application's parts, built from its settings, its plugins and the table of features.

Building a runtime opens nothing and starts nothing. The hub is opened, threads are started and
``om_startup`` is called on first use, in the process that needs them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from . import signals
from .builtin.hubs.memory import MemoryHub
from .core.call import current_request
from .core.clock import SystemClock, UnsleepingClock
from .core.fork import close_at_exit
from .core.moved import with_old_names
from .features import Settings, add_brought
from .plugins.feature_kit import FeatureKit
from .plugins.host import PluginHost
from .plugins.kit import Host
from .plugins.parts import PluginParts
from .protocols import Clock, Hub
from .settings.compose import ComposedSettings
from .settings.general import GeneralKeys
from .settings.urls import check_url
from .types import EngineSpec
from .workers.hub import SharedHub
from .workers.lazy_store import LazyStore
from .workers.scheduler import BackgroundScheduler
from .workers.secret import Secret
from .workers.state_dir import StatePlace, resolve_hub_url

__all__ = ["Runtime"]


@with_old_names
class Runtime:
    """The parts of one application.

    Args:
        settings: checked settings; keys that only a third party's feature knows may be left.
        sender: the sender of signals: the application.
        host: what the host application says of itself.
        plugins: plugins that are no entry points, each with its name or ``None``.
        clock: time; when not given, the system's, which under ``host.testing`` never sleeps.

    Raises:
        ConfigError: a setting cannot work.
        PluginError: a plugin is broken and ``OM_STRICT`` is on.

    Attributes:
        kit: what the features get.
        closed: whether :meth:`close` was called.
        renew: returns the runtime to use in place of this one, as the host's settings may have
            changed; ``None`` once they hold.
    """

    def __init__(
        self,
        settings: ComposedSettings | None = None,
        *,
        sender: object = None,
        host: Host | None = None,
        plugins: Iterable[tuple[object, str | None]] = (),
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings = settings or Settings()
        self.keys = keys = settings.of(GeneralKeys)
        self.host = host = host or Host()
        self.clock: Clock = clock or (UnsleepingClock() if host.testing else SystemClock())
        self.closed = False
        self.renew: Callable[[], Runtime] | None = None
        self._started: dict[int, object] = {}
        sender = self if sender is None else sender
        self.strict = host.testing if keys.strict is None else keys.strict

        self.hub = SharedHub(self._open_hub, lambda: MemoryHub("memory://", self.clock), self.clock)
        self.scheduler = BackgroundScheduler(
            workers=keys.workers,
            queue_size=keys.worker_queue,
            clock=self.clock,
            hub=self.hub,
            synchronous=host.testing,
        )
        self.kit = kit = FeatureKit()
        kit.keys, kit.settings, kit.host, kit.sender = keys, settings, host, sender
        kit.clock, kit.hub, kit.scheduler = self.clock, self.hub, self.scheduler
        kit.emit = signals.emitter(sender)
        kit.secret = Secret(
            lambda: keys.secret_key or host.secret_key(), hub=self.hub, clock=self.clock
        )
        kit.namespace = (
            keys.namespace or re.sub(r"[^\w.-]", "-", host.name, flags=re.ASCII)[:64] or "app"
        )
        kit.trusted_hosts = keys.trusted_hosts or host.trusted_hosts
        kit.environ = lambda: current_request.get() or host.environ()
        kit.is_closed = lambda: self.closed
        kit.hub_url = self.hub_url
        kit.plugins = self.plugins = PluginHost(
            context=kit.plugin_context,
            only=keys.plugins,
            disabled=keys.plugins_disabled,
            configs=keys.plugin_config,
            strict=self.strict,
            max_failures=keys.plugin_failures,
            emit=kit.emit,
        )
        self.plugins.load()
        for plugin, called in plugins:
            self.plugins.register(plugin, called)
        kit.plugin_parts = PluginParts(self.plugins)
        in_memory = keys.cache_url.startswith("memory:")
        store = LazyStore(lambda: kit.plugin_parts.open_store(keys.cache_url), kit.namespace)
        kit.store = None if in_memory else store
        kit.use(*add_brought(self.plugins, settings, keys.plugins_disabled))
        if keys.hub_url != "auto":
            check_url("OM_HUB_URL", keys.hub_url, kit.plugin_parts.hubs)
        if not in_memory:
            check_url("OM_CACHE_URL", keys.cache_url, {"memory": None, **kit.plugin_parts.stores})
        for plugin_name, engines in self.plugins.collect("om_engines"):
            for engine in engines:
                self.plugins.call_guarded(plugin_name, self.add_engine, engine)

    # --- what an application asks for ---------------------------------------------------------

    def part_of(self, name: str) -> Any:
        """The part of a feature; see :meth:`~om_plugins.plugins.kit.Kit.part_of`."""
        return self.kit.part_of(name)

    def add_engine(self, spec: EngineSpec) -> None:
        """Give an engine its place in a chain; current calls end on the old order.

        Raises:
            ConfigError: it is no engine, or the chain has one of that name.
            TypeError: its ``call`` is ``async``.
        """
        self.part_of("chains").add(spec)

    def start(self) -> None:
        """Start the features once in this process. The first request does it.

        One that fails takes the start from no other.

        Raises:
            Exception: the first failure, once all is started; a plugin's under ``OM_STRICT`` alone.
        """
        pid = os.getpid()
        if self._started.setdefault(pid, token := object()) is not token:
            return
        close_at_exit(self)
        failures = []
        # the scheduler also runs jobs that were registered before a fork
        for start in (self.plugins.startup, self.kit.start, self.scheduler.start):
            try:
                start()
            except Exception as error:  # noqa: BLE001 - raised below
                failures.append(error)
        if failures:
            raise failures[0]

    def close(self) -> None:
        """Give everything back: plugins are shut down, features, pool and hub are closed."""
        self.closed = True
        if self._started.pop(os.getpid(), None) is not None:
            self.plugins.shutdown()
        with ExitStack() as stack:  # calls the last one first, and each one whatever others raise
            stack.callback(self.hub.close)
            if self.kit.store is not None:
                stack.callback(self.kit.store.close)
            stack.callback(self.kit.close)
            stack.callback(self.scheduler.close)

    def hub_url(self) -> str:
        """Where the hub is, once ``auto`` is resolved."""
        return resolve_hub_url(
            self.keys.hub_url,
            testing=self.host.testing,
            cache_url=self.keys.cache_url,
            place=StatePlace(self.keys.state_dir, self.host.name, self.host.instance_path),
            schemes=self.kit.plugin_parts.hubs,
        )

    def _open_hub(self) -> Hub:
        return self.kit.plugin_parts.open_hub(self.hub_url(), self.clock)
