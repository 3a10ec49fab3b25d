"""The WSGI middleware: the layers of the features, composed once.

:mod:`om_plugins.features` lists them, outermost first. A layer that a setting switches off is not
composed, so it costs nothing.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wsgi import ClosingIterator

from .core.request_state import join_layers
from .runtime import Runtime

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .settings.compose import ComposedSettings

__all__ = ["OpenManagerMiddleware", "compose"]


def compose(app: WSGIApplication, runtime: Runtime) -> WSGIApplication:
    """Put the layers that the settings ask for around ``app``, the innermost first."""
    if not runtime.keys.enabled:
        return app
    kit = runtime.kit
    kit.layers = {}
    for feature, part in reversed(list(kit.built())):
        layer = kit.compose(feature.name, part, app)
        if layer is not None:
            app = kit.layers[feature.name] = layer
    join_layers(list(kit.layers.values()), kit.sender)
    if runtime.keys.proxies:
        app = ProxyFix(app, **runtime.keys.proxies)
    if runtime.host.testing:
        app = _RunsPendingJobs(app, runtime)
    return app


class OpenManagerMiddleware:
    """The middleware for any WSGI app, without Flask.

    Args:
        app: the app to keep answering.
        settings: ``Settings(...)``; the defaults when not given.
        runtime: parts that were built already; made from the settings when not given.

    Attributes:
        runtime: the application's parts: ``runtime.part_of("cache").query(...)``,
            ``runtime.add_engine(spec)``.

    Example::

        from om_plugins import OpenManagerMiddleware, Settings

        application = OpenManagerMiddleware(application, Settings(csp_mode="enforce"))
    """

    def __init__(
        self,
        app: WSGIApplication,
        settings: ComposedSettings | None = None,
        *,
        runtime: Runtime | None = None,
    ) -> None:
        self.app = app
        self.runtime = runtime or Runtime(settings, sender=self)
        self._layers = compose(app, self.runtime)
        self._answer: WSGIApplication = self._first
        _start_again_after_fork(self)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._answer(environ, start_response)

    def _first(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self.runtime.keys.enabled:
            self.runtime.start()
        self._answer = self._layers
        return self._layers(environ, start_response)


def _start_again_after_fork(middleware: OpenManagerMiddleware) -> None:
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
