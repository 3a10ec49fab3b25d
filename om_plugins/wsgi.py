"""The WSGI middleware: the layers below, composed once.

Outermost first: proxies → express → observe → headers → pages under ``OM_PREFIX`` → engine routes →
shared HTTP cache → fallback → the host app. A layer that a setting switches off is not composed, so
it costs nothing.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wsgi import ClosingIterator

from .console.app import Console
from .console.prefix import Pages, PrefixLayer
from .console.prefix__guarded import Guarded
from .core.call import current_request
from .csp.reports import ReportEndpoint
from .errors import ConfigError, EngineError
from .fallback import FallbackLayer
from .fallback.page import thank_for_report
from .gateway import EngineRoutes
from .gateway.deadline import DeadlineLayer
from .headers.cached_pages import HitHeaderPolicy
from .headers.https import HttpsLayer
from .headers.layer import HeadersLayer
from .http_cache.fast_path import FastPath
from .http_cache.layer import HttpCacheLayer
from .monitoring.layer import MonitoringLayer
from .notifications.events import EventsEndpoint
from .notifications.problem_reports import ProblemEndpoint
from .notifications.report_form import ReportForm
from .runtime import Runtime
from .settings.settings import Settings
from .workers.rate_limit import RateLimit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["OpenManagerMiddleware", "compose"]


def compose(
    app: WSGIApplication,
    runtime: Runtime,
    *,
    view_fallbacks: bool = False,
    https_wish: Callable[[WSGIEnvironment], bool | None] | None = None,
) -> WSGIApplication:
    """Put the layers that the settings ask for around ``app``.

    Args:
        view_fallbacks: some views bring a fallback of their own.
        https_wish: what views say about plain HTTP; see :class:`~.security.https.HttpsLayer`.
    """
    settings = runtime.settings
    if not settings.enabled:
        return app
    if settings.fallback or view_fallbacks:
        app = FallbackLayer(
            app,
            settings.fallback,
            runtime.chain,
            cache=runtime.cache,
            scheduler=runtime.scheduler,
            clock=runtime.clock,
            prefix=settings.prefix,
            views=view_fallbacks,
            show_errors=runtime.testing or runtime.debug,
            note=partial(_note_route, runtime),
            emit=runtime.emit,
        )
    pages: HttpCacheLayer | None = None
    if runtime.http_cache_part.wanted:
        app = pages = runtime.http_cache_part.layer(app)
    if settings.routes:
        _none_is_below(settings.prefix, settings.routes)
        app = EngineRoutes(
            app,
            settings.routes,
            runtime.chain,
            hub=runtime.hub,
            secret=runtime.secret,
            clock=runtime.clock,
            host_context=runtime.host_context,
            trusted_hosts=runtime.trusted_hosts,
            trust_forwarded=bool(settings.proxies),
            on_error=partial(_note, runtime),
            on_wrong_method=runtime.wrong_methods.note,
        )
    reports = ReportEndpoint(
        hub=runtime.hub,
        emit=runtime.emit,
        clock=runtime.clock,
        prefix=settings.prefix,
        route_of=runtime.route_of,
    )
    endpoints: dict[str, WSGIApplication] = {
        **Console(runtime).endpoints(),
        "/csp": reports,
        **_notifying(runtime),
    }
    app = PrefixLayer(app, settings.prefix, Pages(endpoints, runtime.trusted_hosts))
    redirecting = (settings.force_https or https_wish is not None) and not runtime.debug
    if redirecting:
        app = HttpsLayer(
            app,
            permanent=settings.force_https_permanent,
            exempt=(
                *settings.force_https_exempt,
                *(settings.prefix + path for path in ("/health", "/ready")),
            ),
            trusted_hosts=runtime.trusted_hosts,
            everywhere=settings.force_https,
            wish=https_wish,
        )
    app = HeadersLayer(app, runtime.header_policy)
    observe: MonitoringLayer | None = None
    if settings.monitoring:
        app = observe = MonitoringLayer(
            app,
            runtime.monitoring.collector,
            clock=runtime.clock,
            paths=settings.routes,
            prefix=settings.prefix,
            on_wrong_method=runtime.wrong_methods.note,
        )
    if pages is not None and runtime.header_policy.alike and not redirecting:
        app = FastPath(app, pages, HitHeaderPolicy(runtime.header_policy), observe)
    if settings.proxies:
        app = DeadlineLayer(app, runtime.clock)
        app = ProxyFix(app, **settings.proxies)
    if runtime.testing:
        app = _RunsPendingJobs(app, runtime)
    return app


def _notifying(runtime: Runtime) -> dict[str, WSGIApplication]:
    """The endpoints by which browsers get notifications and report problems."""
    settings = runtime.settings
    events = EventsEndpoint(
        hub=runtime.hub,
        clock=runtime.clock,
        browsers=runtime.browsers,
        updates=runtime.changed_keys,
        prefix=settings.prefix,
        sse_max=settings.sse_max,
        audience=settings.notify_audience,
        host_context=runtime.host_context,
        closed=lambda: runtime.closed,
    )
    limit = RateLimit(
        settings.prefix + "/problems", (10, 60), runtime.hub, runtime.secret, runtime.clock
    )
    return {
        "/events": Guarded(events),
        "/problems": Guarded(ProblemEndpoint(runtime.problem_reports), limit),
        "/report": Guarded(ReportForm(runtime.problem_reports, thank_for_report), limit),
    }


def _note(runtime: Runtime, environ: WSGIEnvironment, chain: str, error: Exception) -> None:
    """Count what an engine route could not answer; a chain that gave up has told so itself."""
    path = environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace")
    subject = f"chain:{chain}" if isinstance(error, EngineError) else f"route:{path}"
    _noted(runtime, environ, subject, error)


def _note_route(runtime: Runtime, environ: WSGIEnvironment, path: str, error: Exception) -> None:
    """Count what an app with a fallback raised."""
    _noted(runtime, environ, f"route:{path}", error)


def _noted(runtime: Runtime, environ: WSGIEnvironment, subject: str, error: Exception) -> None:
    before = current_request.set(environ)
    try:
        runtime.recovery.note(subject, error)
    finally:
        current_request.reset(before)


class OpenManagerMiddleware:
    """The middleware for any WSGI app, without Flask.

    Args:
        app: the app to keep answering.
        settings: ``Settings(...)``; the defaults when not given.
        runtime: parts that were built already; made from the settings when not given.
        view_fallbacks: some views of the app bring a fallback of their own.
        https_wish: what views say about plain HTTP; ``None`` when none of them says anything.

    Attributes:
        runtime: the application's parts: ``runtime.chain(name)``, ``runtime.add_engine(spec)``,
            ``runtime.cache.query(...)``.

    Example::

        from om_plugins import OpenManagerMiddleware, Settings

        application = OpenManagerMiddleware(application, Settings(csp_mode="enforce"))
    """

    def __init__(
        self,
        app: WSGIApplication,
        settings: Settings | None = None,
        *,
        runtime: Runtime | None = None,
        view_fallbacks: bool = False,
        https_wish: Callable[[WSGIEnvironment], bool | None] | None = None,
    ) -> None:
        self.app = app
        self.runtime = runtime or Runtime(settings, sender=self)
        self._layers = compose(
            app, self.runtime, view_fallbacks=view_fallbacks, https_wish=https_wish
        )
        self._answer: WSGIApplication = self._first
        _again_after_fork(self)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._answer(environ, start_response)

    def _first(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self.runtime.settings.enabled:
            self.runtime.start()
        self._answer = self._layers
        return self._layers(environ, start_response)


def _none_is_below(prefix: str, routes: Iterable[str]) -> None:
    for path in routes:
        if path == prefix or path.startswith(prefix + "/"):
            raise ConfigError(
                f"OM_ROUTES[{path!r}]",
                path,
                f"is below OM_PREFIX {prefix!r}, where this package's own pages are; "
                "choose another path",
            )


def _again_after_fork(middleware: OpenManagerMiddleware) -> None:
    """A forked child is a process of its own: its first request starts its own parts."""
    reference = weakref.ref(middleware)

    def forget() -> None:
        living = reference()
        if living is not None:
            living._answer = living._first

    os.register_at_fork(after_in_child=forget)


class _RunsPendingJobs:
    """Under testing there are no threads: background jobs run here, after each request."""

    def __init__(self, app: WSGIApplication, runtime: Runtime) -> None:
        self._app = app
        self._runtime = runtime

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return ClosingIterator(self._app(environ, start_response), [self._run])

    def _run(self) -> None:
        self._runtime.scheduler.run_pending()
