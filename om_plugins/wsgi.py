"""The WSGI middleware: the layers of the features, composed once.

:mod:`om_plugins.features` lists them, outermost first. A layer that a setting switches off is not
composed, so it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from werkzeug.middleware.proxy_fix import ProxyFix

from .core.fork import renew_after_fork
from .core.request_state import join_layers
from .core.stand_ins.transparent import Transparent, set_own
from .errors import ConfigError
from .runtime import Runtime
from .settings.arguments import check_arguments
from .settings.callbacks import explain_wsgi_app
from .settings.compose import ComposedSettings
from .workers.scheduler import run_jobs_after

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def compose(app: WSGIApplication, runtime: Runtime) -> WSGIApplication:
    """Put the layers that the settings ask for around ``app``, the innermost first."""
    if not runtime.keys.enabled:
        return app
    kit = runtime.kit
    kit.layers = {}
    kit.build_needed()
    for feature, part in reversed(list(kit.built())):
        layer = kit.compose(feature.name, part, app)
        if layer is not None:
            app = kit.layers[feature.name] = layer
    join_layers(list(kit.layers.values()), kit.sender)
    if runtime.keys.proxies:
        app = ProxyFix(app, **runtime.keys.proxies)
    if runtime.host.testing:
        app = run_jobs_after(app, runtime.scheduler)
    return app


class LayeredApp:
    """The layers around an application. The first request of each process starts the parts.

    Args:
        app: the application inside.
        runtime: its parts.

    Attributes:
        layers: the outermost layer.
        answer: what the next request is given to.
    """

    def __init__(self, app: WSGIApplication, runtime: Runtime) -> None:
        self._runtime = runtime
        self.layers = compose(app, runtime)
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """A forked child is a process of its own: its first request starts its own parts."""
        self.answer: WSGIApplication = self._start

    def _start(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._runtime.keys.enabled:
            self._runtime.start()
        self.answer = self.layers
        return self.layers(environ, start_response)


class Answers(Protocol):
    """What a :class:`TransparentApp` gives requests to."""

    @property
    def answer(self) -> WSGIApplication: ...


class TransparentApp(Transparent):
    """Takes the place of a WSGI application: it answers requests, and has the other's attributes.

    The call is ours as well. A copy or a pickle is one of the application that was replaced: the
    layers belong to one application in one process.

    Args:
        replaced: the application whose place it takes.
        source: gets the requests.
    """

    __slots__ = ("_om_source",)
    _om_source: Answers
    _om_methods = Transparent._om_methods | {"__call__"}

    def __init__(self, replaced: WSGIApplication, source: Answers) -> None:
        super().__init__(replaced)
        set_own(self, "_om_source", source)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return _read_source(self).answer(environ, start_response)


_read_source: Callable[[TransparentApp], Answers]
_read_source = TransparentApp.__dict__["_om_source"].__get__


def find_source(app: TransparentApp) -> Answers:
    """Return what the requests of ``app`` are given to."""
    return _read_source(app)


def redirect(app: TransparentApp, source: Answers) -> None:
    """Give the requests of ``app`` to another source from now on."""
    set_own(app, "_om_source", source)


_USAGE = "OpenManagerMiddleware(app, Settings(csp_mode='enforce'))"


class OpenManagerMiddleware(TransparentApp):
    """The middleware for any WSGI app, without Flask.

    Its other attributes are those of ``app``, see :class:`TransparentApp`.

    Args:
        app: the app to keep answering.
        settings: ``Settings(...)``; the defaults when not given.
        runtime: parts that were built already; made from the settings when not given.

    Raises:
        ConfigError: the app cannot be called, or the settings are no ``Settings``.

    Attributes:
        app: the app that it was given.
        runtime: the application's parts: ``runtime.part_of("cache").query(...)``,
            ``runtime.add_engine(spec)``.

    Example::

        from om_plugins import OpenManagerMiddleware, Settings

        application = OpenManagerMiddleware(application, Settings(csp_mode="enforce"))
    """

    __slots__ = ("app", "runtime")
    app: WSGIApplication
    runtime: Runtime
    _om_own = TransparentApp._om_own | {"app", "runtime"}

    @check_arguments("OpenManagerMiddleware", usage=_USAGE)
    def __init__(
        self,
        app: WSGIApplication,
        settings: ComposedSettings | None = None,
        *,
        runtime: Runtime | None = None,
    ) -> None:
        problem = explain_wsgi_app(app)
        if problem:
            reason = f"must be a WSGI application: {problem}"
            raise ConfigError("OpenManagerMiddleware(app)", app, reason)
        given: object = settings
        if given is not None and not isinstance(given, ComposedSettings):
            where = "OpenManagerMiddleware(settings)"
            raise ConfigError(where, type(given), f"must be Settings; write {_USAGE}")
        runtime = runtime or Runtime(settings, sender=self)
        super().__init__(app, LayeredApp(app, runtime))
        self.app = app
        self.runtime = runtime
