"""One application's parts, built from its settings and plugins.

This is the only place where the rooms meet: each gets what it needs of another as a floor-1
protocol. Building a runtime opens nothing and starts nothing; the hub is opened, threads are
started and ``om_startup`` is called on first use, in the process that needs them.
"""

from __future__ import annotations

import atexit
import difflib
import logging
import os
import re
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import signals
from .builtin.hubs.memory import MemoryHub
from .cache.cache import SmartCache
from .cache.subscriptions import BrowserAnnouncer
from .cache.values import PickleEncoder
from .chains.chain import EngineChain, check_engine
from .chains.health_checks import HealthChecks
from .chains.live_settings import LiveSettings
from .chains.sharing import BreakerSharing, EngineBus
from .core.call import current_request
from .core.clock import SystemClock
from .core.translations import Translations, display_name, load_translations
from .errors import ConfigError
from .gateway.deadline import DEADLINE
from .headers.cached_pages import CachedPages
from .headers.layer import HeaderPolicy
from .http_cache.cache import HttpCachePart
from .http_cache.rules import rules_from
from .monitoring.alert_rules import build_rules as build_alert_rules
from .monitoring.counters import SignalCounter
from .monitoring.layer import ROUTE, own_route
from .monitoring.monitoring import Monitoring
from .notifications.audience import Browsers, check_address
from .notifications.notifications import Notifications
from .notifications.problem_reports import ProblemReports
from .plugins.host import PluginHost
from .plugins.parts import PluginParts
from .policies.registry import BreakerRegistry
from .protocols import Clock, HostContext, Hub, PluginContext
from .recovery.messages import Recipient
from .recovery.recovery import Recovery
from .recovery.wrong_methods import WrongMethods
from .settings.kinds__schemes import check_url
from .settings.settings import Settings
from .settings.settings__options import FallbackOptions
from .types import EngineSpec, StoreStats
from .workers.changed_keys import ChangedKeys
from .workers.hub import SharedHub
from .workers.hub_url import resolve_hub_url
from .workers.lazy_store import LazyStore
from .workers.scheduler import BackgroundScheduler
from .workers.secret import Secret
from .workers.servers import has_one_thread, stopping

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["Runtime"]

logger = logging.getLogger("om_plugins")

ONE_THREAD_SLEEP_S = 1.0
"""How long a call may wait between attempts where the server has one thread."""


class Runtime:
    """The parts of one application.

    Args:
        settings: checked settings.
        sender: the sender of signals: the application.
        testing: no threads, files or sleeps; broken plugins raise.
        debug: reports on every page.
        instance_path: where a hub file may live; ``None`` for nowhere.
        secret_key: the host's own secret, used when ``OM_SECRET_KEY`` is not set.
        trusted_hosts: the host's own list, used when ``OM_TRUSTED_HOSTS`` is not set.
        host_context: opens the host framework's request context.
        work_context: opened around every background fetch: the host's application context.
        current_environ: the WSGI environ of the request under way, ``None`` outside one.
        route_of: the host's url rule for a host name and a path; "" for none.
        name: the application's, for ``OM_NAMESPACE``.
        clock: time.

    Raises:
        ConfigError: a setting cannot work.
        PluginError: a plugin is broken and ``OM_STRICT`` is on.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        sender: object = None,
        testing: bool = False,
        debug: bool = False,
        instance_path: Path | None = None,
        secret_key: Callable[[], bytes | str | None] = lambda: None,
        trusted_hosts: Sequence[str] | None = None,
        host_context: HostContext | None = None,
        work_context: Callable[[], AbstractContextManager[object]] = nullcontext,
        current_environ: Callable[[], WSGIEnvironment | None] = lambda: None,
        route_of: Callable[[str, str], str] | None = None,
        name: str = "",
        clock: Clock | None = None,
        plugins: Iterable[tuple[object, str | None]] = (),
    ) -> None:
        self.settings = settings = settings or Settings()
        self.testing = testing
        self.debug = debug
        self.clock: Clock = clock or SystemClock()
        self.trusted_hosts = settings.trusted_hosts or trusted_hosts
        self.host_context = host_context
        self.route_of = route_of
        self.emit = signals.emitter(self if sender is None else sender)
        self._instance_path = instance_path
        self.namespace = (
            settings.namespace or re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)[:64] or "app"
        )
        self._started: dict[int, object] = {}
        self.closed = False
        self.chains: dict[str, EngineChain] = {}
        self.view_fallbacks: Sequence[FallbackOptions] = ()
        self._breakers = BreakerRegistry()

        self.hub = SharedHub(self._open_hub, lambda: MemoryHub("memory://", self.clock), self.clock)
        self.scheduler = BackgroundScheduler(
            workers=settings.workers,
            queue_size=settings.worker_queue,
            clock=self.clock,
            hub=self.hub,
            synchronous=testing,
        )
        self.plugins = PluginHost(
            context=self._context,
            only=settings.plugins,
            disabled=settings.plugins_disabled,
            configs=settings.plugin_config,
            strict=testing if settings.strict is None else settings.strict,
            max_failures=settings.plugin_failures,
            emit=self.emit,
        )
        self.secret = Secret(
            lambda: settings.secret_key or secret_key(), hub=self.hub, clock=self.clock
        )
        self.browsers = Browsers(self.secret)
        self._host_environ = current_environ
        self.notify = Notifications(
            hub=self.hub,
            scheduler=self.scheduler,
            clock=self.clock,
            emit=self.emit,
            notifiers=lambda: self.parts.notifiers,
            guarded=self.plugins.guarded,
            browsers=self.browsers,
            environ=self._environ,
        )
        self.problem_reports = ProblemReports(
            hub=self.hub, clock=self.clock, emit=self.emit, notify=self.notify
        )
        in_memory = settings.cache_url.startswith("memory:")
        store = (
            None
            if in_memory
            else LazyStore(lambda: self.parts.open_store(settings.cache_url), self.namespace)
        )
        self._store = store
        self.changed_keys = ChangedKeys(self.hub)
        self.cache = SmartCache(
            stale_time=settings.cache_stale_time,
            cache_time=settings.cache_time,
            l1_bytes=settings.cache_l1_bytes,
            max_value=settings.cache_max_value,
            clock=self.clock,
            scheduler=self.scheduler,
            hub=self.hub,
            store=store,
            emit=self.emit,
            context=work_context,
            jitter=0.0 if testing else settings.cache_jitter,
            refreshes=max(1, settings.workers - 1),
            queue=settings.worker_queue,
            pickles=PickleEncoder(lambda: settings.secret_key or secret_key())
            if settings.cache_pickle
            else None,
            announcer=BrowserAnnouncer(self.changed_keys.publish, check_address),
            shrink_also=self._shrink_pages,
        )
        self.http_cache_part = HttpCachePart(
            rules_from(settings),
            l1_bytes=settings.http_cache_l1_bytes,
            clock=self.clock,
            scheduler=self.scheduler,
            hub=self.hub,
            store=store,
            trusted_hosts=self.trusted_hosts,
            hooks=CachedPages(ROUTE),
            emit=self.emit,
        )
        self.http_cache = self.http_cache_part.cache
        signals.cache_invalidated.connect(
            self.http_cache_part.follow_invalidation, sender=self if sender is None else sender
        )
        self.monitoring = Monitoring(
            clock=self.clock,
            hub=self.hub,
            scheduler=self.scheduler,
            emit=self.emit,
            notify=self.notify,
            monitors=lambda: self.parts.monitors,
            guarded=self.plugins.guarded,
            engines=lambda: [one for chain in self.chains.values() for one in chain.health()],
            cache_stats=self.cache.stats,
            cache_groups=self.cache.groups,
            page_stats=self.http_cache.stats,
            store_stats=self._store_stats,
            signal_counts=SignalCounter(self if sender is None else sender)
            if settings.metrics
            else None,
            rules=build_alert_rules(settings.alerts),
            own_routes=frozenset({own_route(settings.prefix)}),
        )
        self.recovery = Recovery(
            clock=self.clock,
            hub=self.hub,
            scheduler=self.scheduler,
            emit=self.emit,
            notify=self.notify,
            steps=lambda: self.parts.steps,
            guarded=self.plugins.guarded,
            chains=lambda: self.chains,
            translate=load_translations(),
            get_recipient=self._make_recipient,
            name=self._name_of,
            bounded=not testing,
        )
        self._engine_bus = EngineBus(
            hub=self.hub,
            scheduler=self.scheduler,
            clock=self.clock,
            namespace=self.namespace,
            has_engines=lambda: not self._breakers.empty,
        )
        BreakerSharing(
            breakers=self._breakers,
            bus=self._engine_bus,
            clock=self.clock,
            shared=settings.breaker_shared,
        )
        self._health_checks = HealthChecks(
            clock=self.clock,
            hub=self.hub,
            scheduler=self.scheduler,
            bus=self._engine_bus,
            chains=lambda: self.chains,
            breakers=self._breakers,
            interval_s=0.0 if testing else settings.probe_interval,
            namespace=self.namespace,
            threads=not testing,
        )
        self.wrong_methods = WrongMethods(
            clock=self.clock,
            hub=self.hub,
            scheduler=self.scheduler,
            emit=self.emit,
            notify=self.notify,
            translate=load_translations(),
        )
        self.live = LiveSettings(
            settings=settings,
            hub=self.hub,
            scheduler=self.scheduler,
            clock=self.clock,
            chains=lambda: self.chains,
        )
        self.plugins.load()
        for plugin, called in plugins:
            self.plugins.register(plugin, called)
        self.parts: PluginParts = PluginParts(self.plugins)
        if settings.hub_url != "auto":
            check_url("OM_HUB_URL", settings.hub_url, self.parts.hubs)
        if not in_memory:
            known = {"memory": None, **self.parts.stores}
            check_url("OM_CACHE_URL", settings.cache_url, known)
        extra, asked = self.parts.csp()
        self.header_policy = HeaderPolicy.from_settings(
            settings, debug=debug, testing=testing, extra=extra, callables=asked
        )
        for plugin, specs in self.plugins.collect("om_engines"):
            for spec in specs:
                self.plugins.guarded(plugin, self.add_engine, spec)

    # --- what an application asks for ---------------------------------------------------------

    def chain(self, name: str) -> EngineChain:
        """The chain of that name.

        Raises:
            ConfigError: no engine belongs to it.
        """
        found = self.chains.get(name)
        if found is None:
            near = difflib.get_close_matches(name, list(self.chains), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "add one with om.engine(..., chain=…)"
            raise ConfigError("chain", name, f"no engine belongs to it; {hint}")
        return found

    def add_engine(self, spec: EngineSpec) -> None:
        """Give an engine its place in a chain; calls under way end on the old order.

        Raises:
            ConfigError: it is no engine, or the chain has one of that name.
            TypeError: its ``call`` is ``async``.
        """
        spec = self._attached(spec)
        found = self.chains.get(spec.chain)
        if found is None:
            found = EngineChain(
                spec.chain,
                self.live.policy_of(spec.chain),
                options=self.live.engines_of(spec.chain),
                clock=self.clock,
                emit=self.emit,
                breakers=self._breakers,
                on_failure=self.recovery.chain_failed if self.settings.enabled else None,
                # only where a proxy is trusted is its header read, and this ever set
                ambient_deadline=DEADLINE.get if self.settings.proxies else None,
                stopping=lambda: self.closed or stopping(),
                max_sleep_s=self._max_sleep_s,
            )
            found.add(spec)
            self.chains[spec.chain] = found
        else:
            found.add(spec)

    def start(self) -> None:
        """Call ``om_startup`` once in this process. The first request does it."""
        pid = os.getpid()
        if self._started.setdefault(pid, token := object()) is token:
            self.plugins.startup()
            if self.settings.monitoring:
                self.monitoring.start()
            self._health_checks.start()
            self._engine_bus.start()
            self.live.start()
            self.scheduler.start()  # jobs that were registered before a fork run here too
            _close_at_exit(self)

    def close(self) -> None:
        """Give everything back: plugins are shut down, engines, pool, store and hub are closed."""
        self.closed = True
        if self._started.pop(os.getpid(), None) is not None:
            self.plugins.shutdown()
        self._health_checks.close()
        self._engine_bus.close()
        self.monitoring.close()
        self.http_cache_part.close()
        self.recovery.close()
        self.scheduler.close()
        for chain in self.chains.values():
            chain.close()
        if self._store is not None:
            self._store.close()
        self.hub.close()

    def hub_url(self) -> str:
        """Where the hub is, once ``auto`` is resolved."""
        return resolve_hub_url(
            self.settings.hub_url,
            testing=self.testing,
            cache_url=self.settings.cache_url,
            instance_path=self._instance_path,
            schemes=self.parts.hubs,
        )

    def _attached(self, spec: EngineSpec) -> EngineSpec:
        """Have an engine that wants the parts of the application get them."""
        engine = check_engine(spec, spec.chain)
        attach = getattr(engine, "attach", None)
        if attach is None:
            return spec
        log = logging.getLogger(f"om_plugins.engine.{engine.name}")
        mine = attach(self._context(engine.name, None, log))
        return spec if mine is None else replace(spec, engine=mine)

    # --- how the parts are made ---------------------------------------------------------------

    def _context(self, name: str, config: object, log: logging.Logger) -> PluginContext:
        return PluginContext(
            name=name,
            config=config,
            clock=self.clock,
            hub=self.hub,
            cache=self.cache,
            scheduler=self.scheduler,
            notify=self.notify,
            logger=log,
            prober=self.recovery.probes,
            namespace=self.namespace,
        )

    def _shrink_pages(self) -> int:
        return self.http_cache_part.store.shrink()

    def _store_stats(self) -> StoreStats | None:
        """What this process asked of the cache's store, for data and for pages."""
        found, pages = self.cache.store_stats(), self.http_cache.store_stats()
        if found is not None and pages is not None:
            found.add(pages)
        return found

    def _open_hub(self) -> Hub:
        return self.parts.open_hub(self.hub_url(), self.clock)

    def _environ(self) -> WSGIEnvironment | None:
        return current_request.get() or self._host_environ()

    def _make_recipient(self) -> Recipient:
        """Return the browser of the current request; its cookie is checked in the background."""
        environ = self._environ()
        if environ is None:
            return Recipient(translate=load_translations())
        cookies = str(environ.get("HTTP_COOKIE", ""))
        return Recipient(lambda: self.browsers.find_address(cookies), load_translations(environ))

    def _max_sleep_s(self) -> float:
        """How long a call may wait between attempts: it must not hold a server's only thread."""
        environ = self._environ()
        return ONE_THREAD_SLEEP_S if environ and has_one_thread(environ) else float("inf")

    def _name_of(self, subject: str, said: object) -> str:
        language = said if isinstance(said, Translations) else None
        return display_name(subject, self.settings.display_names, language)


def _close_at_exit(runtime: Runtime) -> None:
    reference = weakref.ref(runtime)

    def close() -> None:
        living = reference()
        if living is not None:
            living.close()

    atexit.register(close)
    weakref.finalize(runtime, atexit.unregister, close)
