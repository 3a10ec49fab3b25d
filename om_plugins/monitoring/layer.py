"""The outermost layer: counts and times requests to the end of their bodies.

Nothing is held back: chunks pass as they come. Timing ends in ``close()``, which servers call when
the body was sent or the client left. The one exception is a body made by the server's own
``wsgi.file_wrapper``: that very object is returned, so that the server can use ``sendfile``, and
the time ends there; its bytes are those of ``Content-Length``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..core.body import is_file_body
from ..protocols import Clock
from .collector import FOLD_AT, UNMATCHED, Collector, Seen

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    RouteOf = Callable[[WSGIEnvironment], str | None]
    OnWrongMethod = Callable[[str, str, Sequence[str]], None]

__all__ = ["ROUTE", "WRONG_METHOD", "ObserveLayer", "WholeBody", "own_route"]

ROUTE = "om_plugins.route"
"""The environ key under which an app without werkzeug routing may name its route."""

WRONG_METHOD = "om_plugins.wrong_method"
"""The environ key by which whoever has counted a 405 says so."""

Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_LONG_S = 1.0
_MOST_ALLOW = 200
_NO_HEADERS: Headers = []


class ObserveLayer:
    """Plain WSGI middleware that tells a :class:`~.collector.Collector` of every request.

    Args:
        app: the WSGI application.
        collector: what counts.
        clock: its monotonic time measures.
        route_of: the route of a request, asked when the response starts; never the raw path.
            When not given: the URL rule that Flask matched, else what the app put into the
            environ as :data:`ROUTE`.
        paths: exact paths with a name of their own where ``route_of`` knows none.
        prefix: what is below this path is one route, ``<prefix>/*``.
        on_wrong_method: told of 405s that nobody else has counted, this package's own left out:
            the route, the method, and what the response's ``Allow`` says.
    """

    def __init__(
        self,
        app: WSGIApplication,
        collector: Collector,
        *,
        clock: Clock,
        route_of: RouteOf | None = None,
        paths: Collection[str] = (),
        prefix: str = "",
        on_wrong_method: OnWrongMethod | None = None,
    ) -> None:
        self._app = app
        self._collector = collector
        self._monotonic = clock.monotonic
        self._enter = collector.enter
        self._leave = collector.leave
        self._waiting = collector.waiting
        self._route_of = route_of
        self._paths = frozenset(paths)
        self._prefix = prefix
        self._below = prefix + "/"
        self._own = own_route(prefix)
        self._on_wrong_method = on_wrong_method

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        observed = _Observed(self, environ, start_response, self._monotonic())
        self._enter()
        try:
            body = self._app(environ, observed.start)
        except BaseException:
            observed.failed = True
            observed.ended(self)
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if wrapper is not None and is_file_body(wrapper, body):
            observed.size = observed.declared_size()
            observed.ended(self)
            return body
        observed.body = body
        if type(body) is list or type(body) is tuple:
            observed.__class__ = _Sized
        return observed

    def whole(self, body: bytes, route: str | None, started: float) -> WholeBody:
        """The body of a ``GET`` that is answered by 200: counted from now until it is closed."""
        self._enter()
        return WholeBody(self, body, route, started)

    def left(self, seen: Seen) -> None:
        """Count a request that has ended."""
        self._leave(seen)
        if len(self._waiting) > FOLD_AT:
            self._collector.fold()

    def named(self, environ: WSGIEnvironment) -> str | None:
        """The route of a request that no rule matched: of this package, or named by the app."""
        path = environ.get("PATH_INFO", "")
        if path in self._paths:
            return path  # type: ignore[no-any-return]
        if self._prefix and (path.startswith(self._below) or path == self._prefix):
            return self._own
        return environ.get(ROUTE)

    def refused(self, environ: WSGIEnvironment, route: str | None, allow: str) -> None:
        """Tell of a 405."""
        if (
            self._on_wrong_method is None
            or WRONG_METHOD in environ
            or environ.get("PATH_INFO", "") in self._paths
            or route == self._own
        ):
            return
        allowed = [one.strip() for one in allow[:_MOST_ALLOW].split(",")]
        self._on_wrong_method(route or UNMATCHED, environ.get("REQUEST_METHOD", ""), allowed)


def own_route(prefix: str) -> str:
    """The one route that stands for everything below ``prefix``."""
    return f"{prefix}/*"


class _Observed:
    """One request under way: its ``start_response``, then its body."""

    __slots__ = ("_write", "body", "environ", "failed", "headers", "layer", "request", "route",
                 "size", "start_response", "started", "status")  # fmt: skip

    def __init__(
        self,
        layer: ObserveLayer,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        started: float,
    ) -> None:
        self.layer: ObserveLayer | None = layer
        self.environ = environ
        self.start_response = start_response
        self.started = started
        self.body: Any = ()
        self.failed = False
        self.headers: Headers = _NO_HEADERS
        self.request: Any = None
        self.route: str | None = None
        self.size = 0
        self.status = "500"

    def start(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """The app's ``start_response``."""
        self.status = status
        self.headers = headers
        # Flask's request is in the environ until its context is popped, before the body is sent
        self.request = self.environ.get("werkzeug.request")
        if self.layer is not None and self.layer._route_of is not None:
            self.route = self.layer._route_of(self.environ)
        if exc_info is None:
            self._write = self.start_response(status, headers)
        else:
            self._write = self.start_response(status, headers, exc_info)
        return self.write

    def write(self, data: bytes) -> object:
        """The old imperative way of sending; counted too."""
        self.size += len(data)
        return self._write(data)

    def __iter__(self) -> Iterator[bytes]:
        # a generator is the cheapest way to see each chunk; close() does not depend on it
        try:
            for chunk in self.body:
                self.size += len(chunk)
                yield chunk
        except Exception:
            self.failed = True
            raise

    def close(self) -> None:
        """The server is done with the body, wholly sent or not."""
        layer = self.layer
        if layer is None:
            return
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        except BaseException:
            self.failed = True
            raise
        finally:
            self.ended(layer)

    def ended(self, layer: ObserveLayer) -> None:
        """Hand the sample over, once."""
        self.layer = None
        ended = layer._monotonic()
        duration = ended - self.started
        environ = self.environ
        route = self.route
        if route is None:
            rule = getattr(self.request, "url_rule", None)
            route = rule.rule if rule is not None else layer.named(environ)
        layer.left(
            (
                route,
                environ.get("REQUEST_METHOD", ""),
                "500" if self.failed else self.status,
                duration,
                self.size,
                ended,
                duration > _LONG_S and self.is_event_stream(),
            )
        )
        if self.status[:3] == "405":
            layer.refused(environ, route, self._header("allow"))

    def is_event_stream(self) -> bool:
        """Whether the body lasts for as long as the client stays."""
        return self._header("content-type").startswith("text/event-stream")

    def declared_size(self) -> int:
        """The body's size as the headers say."""
        length = self._header("content-length")
        return int(length) if length.isascii() and length.isdecimal() and len(length) < 16 else 0

    def _header(self, wanted: str) -> str:
        return next((value for name, value in self.headers if name.lower() == wanted), "")


class _Sized(_Observed):
    """A body of known length: servers set ``Content-Length`` themselves for a list of one."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        self.size += sum(map(len, self.body))
        return iter(self.body)

    def __len__(self) -> int:
        return len(self.body)


class WholeBody(list[bytes]):
    """A body that is here in one piece, for which nothing but its end is waited for."""

    __slots__ = ("_layer", "_route", "_started")

    def __init__(self, layer: ObserveLayer, body: bytes, route: str | None, started: float) -> None:
        super().__init__((body,))
        self._layer: ObserveLayer | None = layer
        self._route = route
        self._started = started

    def close(self) -> None:
        """The server is done with it."""
        layer, self._layer = self._layer, None
        if layer is not None:
            ended = layer._monotonic()
            duration = ended - self._started
            layer.left((self._route, "GET", "200 OK", duration, len(self[0]), ended, False))
