"""The WSGI middleware: the layers of the features, composed once.

:mod:`om_plugins.features` lists them, outermost first. A layer that a setting switches off is not
composed, so it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, SupportsIndex

from werkzeug.middleware.proxy_fix import ProxyFix

from .core.fork import renew_after_fork
from .core.request_state import join_layers
from .runtime import Runtime
from .workers.scheduler import run_jobs_after

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .settings.compose import ComposedSettings


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


class TransparentApp:
    """Takes the place of a WSGI application: it answers requests, and has the other's attributes.

    Reading, setting and deleting an attribute reaches the application that was replaced, so code
    that configures a WSGI wrapper through ``app.wsgi_app`` goes on as before. Even ``isinstance``,
    ``vars`` and ``inspect.signature`` see the other's. What is looked up in the type alone is ours:
    the call, ``type(...)``, ``repr(...)`` and equality. A copy or a pickle is one of the
    application that was replaced: the layers belong to one application in one process.

    Args:
        replaced: the application whose place it takes.
        source: gets the requests.
    """

    __slots__ = ("__weakref__", "_om_replaced", "_om_source")
    _om_replaced: WSGIApplication
    _om_source: Answers
    _om_own: ClassVar[frozenset[str]] = frozenset()
    """The names of further attributes that are ours."""

    def __init__(self, replaced: WSGIApplication, source: Answers) -> None:
        _set(self, "_om_replaced", replaced)
        _set(self, "_om_source", source)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return _read_source(self).answer(environ, start_response)

    def __getattribute__(self, name: str) -> Any:
        if name in ("__call__", "__reduce_ex__") or name in type(self)._om_own:
            return object.__getattribute__(self, name)
        return getattr(_read_replaced(self), name)

    def __setattr__(self, name: str, value: object) -> None:
        if name in type(self)._om_own:
            _set(self, name, value)
        else:
            setattr(_read_replaced(self), name, value)

    def __delattr__(self, name: str) -> None:
        if name in type(self)._om_own:
            object.__delattr__(self, name)
        else:
            delattr(_read_replaced(self), name)

    def __dir__(self) -> list[str]:
        return sorted({*dir(_read_replaced(self)), *type(self)._om_own})

    def __copy__(self) -> WSGIApplication:
        return copy(_read_replaced(self))

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return _get_replaced, (_read_replaced(self),)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} around {_read_replaced(self)!r}>"


def _get_replaced(replaced: WSGIApplication) -> WSGIApplication:
    return replaced


_set = object.__setattr__
_read_replaced: Callable[[TransparentApp], WSGIApplication]
_read_replaced = TransparentApp.__dict__["_om_replaced"].__get__
_read_source: Callable[[TransparentApp], Answers]
_read_source = TransparentApp.__dict__["_om_source"].__get__


def find_replaced(app: object) -> WSGIApplication | None:
    """Return the application whose place ``app`` takes; ``None`` when it is none of ours."""
    return _read_replaced(app) if isinstance(app, TransparentApp) else None


def find_source(app: TransparentApp) -> Answers:
    """Return what the requests of ``app`` are given to."""
    return _read_source(app)


def redirect(app: TransparentApp, source: Answers) -> None:
    """Give the requests of ``app`` to another source from now on."""
    _set(app, "_om_source", source)


class OpenManagerMiddleware(TransparentApp):
    """The middleware for any WSGI app, without Flask.

    Its other attributes are those of ``app``: see :class:`TransparentApp`.

    Args:
        app: the app to keep answering.
        settings: ``Settings(...)``; the defaults when not given.
        runtime: parts that were built already; made from the settings when not given.

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

    def __init__(
        self,
        app: WSGIApplication,
        settings: ComposedSettings | None = None,
        *,
        runtime: Runtime | None = None,
    ) -> None:
        runtime = runtime or Runtime(settings, sender=self)
        super().__init__(app, LayeredApp(app, runtime))
        self.app = app
        self.runtime = runtime
