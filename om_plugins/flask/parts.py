"""The parts of the current app, as attributes of ``OpenManager``."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Unpack

from flask import Flask, current_app, has_app_context

from ..chains.options import DEFAULT_LASTS_S
from ..core.moved import refuse_arguments
from ..runtime import Runtime
from .app_state import current_runtime

if TYPE_CHECKING:
    from ..cache.cache import SmartCache
    from ..chains.chain import EngineChain
    from ..http_cache.cache import HttpCache
    from ..monitoring.alerts import Alerts
    from ..monitoring.monitoring import Monitoring
    from ..notifications.notifications import Notifications
    from ..notifications.problem_reports import ProblemReports
    from ..protocols import Hub
    from ..recovery.recovery import Recovery
    from ..recovery.wrong_methods import WrongMethods
    from ..settings.signatures import ChainChanges


class CurrentParts:
    """The parts of the current app.

    The current app is the one of Flask's application context. Outside a context it is the only
    app that is bound. Each attribute raises ``RuntimeError`` when it is not clear which app is
    meant, or when that app is not bound.
    """

    def __init__(self) -> None:
        self._apps: weakref.WeakSet[Flask] = weakref.WeakSet()

    @property
    def runtime(self) -> Runtime:
        """All parts of the current app.

        Raises:
            RuntimeError: it is not clear which app is meant, or it is not bound.
        """
        if has_app_context():
            app = current_app._get_current_object()  # type: ignore[attr-defined]
            if app in self._apps:
                return current_runtime(app)
            if not self._apps:
                raise RuntimeError("this app is not bound: call om.init_app(app) first")
            raise RuntimeError(
                f"the current app {app.name!r} is not bound to this OpenManager: "
                "call om.init_app(app) on it"
            )
        apps = list(self._apps)
        if len(apps) == 1:
            return current_runtime(apps[0])
        if apps:
            names = ", ".join(sorted(repr(app.name) for app in apps))
            raise RuntimeError(
                f"this OpenManager serves {len(apps)} apps ({names}): say which one is meant "
                "with 'with app.app_context():'"
            )
        raise RuntimeError("no app is bound: call OpenManager(app) or om.init_app(app) first")

    def chain(self, name: str) -> EngineChain:
        """Return the chain of that name: ``om.chain("assistant").call(payload)``.

        Raises:
            ConfigError: no engine belongs to a chain of that name.
        """
        chain: EngineChain = self.runtime.part_of("chains").get(name)
        return chain

    def configure(
        self, chain: str, *, lasts: float = DEFAULT_LASTS_S, **options: Unpack[ChainChanges]
    ) -> None:
        """Change a chain while the app runs, in every worker.

        ``om.configure("assistant", timeout=3, engines={"model": {"enabled": False}})``; see
        :meth:`om_plugins.chains.live_settings.LiveSettings.configure` for the arguments.
        ``lasts`` is in seconds; by default the change ends after a day.
        """
        refuse_arguments("configure()", options.keys() & {"lasts_s"}, {"lasts_s": "lasts="})
        self.runtime.part_of("chains").live.configure(chain, lasts=lasts, **options)

    def reset_chain(self, chain: str | None = None) -> None:
        """Take the changes of :meth:`configure` back, in every worker.

        Args:
            chain: the name of a chain; ``None`` for all chains.
        """
        self.runtime.part_of("chains").live.reset(chain)

    def run_pending_jobs(self) -> None:
        """Run the background jobs that wait, in this thread. For tests.

        Under ``TESTING`` there are no background threads: jobs run after each request, or here.
        """
        self.runtime.scheduler.run_pending()

    @property
    def cache(self) -> SmartCache:
        """The smart cache: ``om.cache.query("servers", fetch_servers)``."""
        cache: SmartCache = self.runtime.part_of("cache")
        return cache

    def _cache_if_enabled(self) -> SmartCache | None:
        runtime = self.runtime
        cache: SmartCache = runtime.part_of("cache")
        return cache if runtime.keys.enabled else None

    @property
    def http_cache(self) -> HttpCache:
        """The shared HTTP cache: ``om.http_cache.purge("/report")``."""
        http_cache: HttpCache = self.runtime.part_of("http_cache").cache
        return http_cache

    @property
    def notify(self) -> Notifications:
        """Sends notifications: ``om.notify.success("Saved")``.

        In a request they go to the browser that sent it, else to the operators. ``to="everyone"``,
        ``to="user:7"`` or ``to="role:editor"`` sends them to others.
        """
        notify: Notifications = self.runtime.part_of("notifications")
        return notify

    @property
    def alerts(self) -> Alerts:
        """Silences alerts: ``om.alerts.silence("response_time", 3600)``."""
        alerts: Alerts = self.runtime.part_of("monitoring").alerts
        return alerts

    @property
    def monitoring(self) -> Monitoring:
        """Counts requests: ``om.monitoring.overview()`` returns the counts of all workers."""
        monitoring: Monitoring = self.runtime.part_of("monitoring")
        return monitoring

    @property
    def problem_reports(self) -> ProblemReports:
        """The problems that people reported: ``om.problem_reports.read(limit=20)``."""
        reports: ProblemReports = self.runtime.part_of("notifications").problem_reports
        return reports

    @property
    def recovery(self) -> Recovery:
        """Finds patterns of errors and repairs what it can: ``om.recovery.patterns()``."""
        recovery: Recovery = self.runtime.part_of("recovery").recovery
        return recovery

    @property
    def wrong_methods(self) -> WrongMethods:
        """Finds clients that use the wrong HTTP method: ``om.wrong_methods.current()``."""
        wrong_methods: WrongMethods = self.runtime.part_of("recovery").wrong_methods
        return wrong_methods

    @property
    def hub(self) -> Hub:
        """The hub that the app's workers share."""
        return self.runtime.hub
