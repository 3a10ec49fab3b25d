"""The monitoring layer: counts requests and measures their time to the end of the body.

Chunks of the body pass at once. The time ends in ``close()``, which servers call when the body was
sent or the client left. The one exception is a body of the server's own ``wsgi.file_wrapper``:
this object itself is returned, so that the server can use ``sendfile``. Its time ends there, and
its size is its ``Content-Length``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..core.body import is_file_body
from ..core.request_state import KEY, RequestState, StateLayer, end, nest
from ..protocols import Clock
from .collector import FOLD_AT, UNMATCHED, Collector, FinishedRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    RouteOf = Callable[[WSGIEnvironment], str | None]
    OnWrongMethod = Callable[[str, str, Sequence[str]], None]

Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_LONG_S = 1.0
_MOST_ALLOW = 200
_NO_HEADERS: Headers = []


class MonitoringLayer(StateLayer):
    """WSGI middleware that reports every request to a :class:`~.collector.Collector`.

    Args:
        app: the WSGI application.
        collector: counts the requests.
        clock: its monotonic time measures durations.
        route_of: returns the route of a request, never the raw path; called when the response
            starts. When not given, the route is the URL rule that Flask matched, else the
            ``route`` of the request's :class:`~om_plugins.core.request_state.RequestState`.
        paths: exact paths that are routes themselves where no rule matched.
        prefix: all paths below this one are one route, ``<prefix>/*``.
        on_wrong_method: called for each 405 that nobody else has counted, with the route, the
            method, and the methods in the response's ``Allow``. This package's own pages are left
            out.
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
        self._has_paths = bool(paths or prefix)
        self._on_wrong_method = on_wrong_method
        self.owner = self
        self.inside = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self.inside:
            state: RequestState = environ[KEY]
        else:  # `begin`, without the price of a call
            found: RequestState | None = environ.get(KEY)
            state = environ[KEY] = RequestState(self.owner)
            if found is not None:
                nest(state, found)
        measured = _MeasuredBody(self, environ, state, start_response, self._monotonic())
        self._enter()
        try:
            body = self._app(environ, measured.start)
        except BaseException:
            end(environ, state)
            measured.failed = True
            measured.finish(self)
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if wrapper is not None and is_file_body(wrapper, body):
            measured.size = measured.declared_size()
            measured.finish(self)
            return body
        measured.body = body
        if type(body) is list or type(body) is tuple:
            measured.__class__ = _SizedBody
        return measured

    def wrap_body(self, body: bytes, route: str | None, started: float) -> WholeBody:
        """Wrap the body of a ``GET`` that is answered with 200, to count it when it is closed."""
        self._enter()
        return WholeBody(self, body, route, started)

    def count(self, seen: FinishedRequest) -> None:
        """Count a request that has ended."""
        self._leave(seen)
        if len(self._waiting) > FOLD_AT:
            self._collector.fold()

    def find_route(self, environ: WSGIEnvironment, route: str | None) -> str | None:
        """Return the route of a request that no rule matched, ``None`` when it has none.

        Args:
            environ: of the request.
            route: what the app named it.
        """
        path = environ.get("PATH_INFO", "")
        if path in self._paths:
            return path  # type: ignore[no-any-return]
        if self._prefix and (path.startswith(self._below) or path == self._prefix):
            return self._own
        return route

    def report_wrong_method(self, environ: WSGIEnvironment, route: str | None, allow: str) -> None:
        """Report a 405, unless it was counted already or is one of this package's own pages."""
        if (
            self._on_wrong_method is None
            or environ.get("PATH_INFO", "") in self._paths
            or route == self._own
        ):
            return
        allowed = [one.strip() for one in allow[:_MOST_ALLOW].split(",")]
        self._on_wrong_method(route or UNMATCHED, environ.get("REQUEST_METHOD", ""), allowed)


def own_route(prefix: str) -> str:
    """Return the one route that stands for all paths below ``prefix``."""
    return f"{prefix}/*"


class _MeasuredBody:
    """A request in progress: its ``start_response``, then its body."""

    __slots__ = ("_chunks", "_write", "body", "environ", "failed", "headers", "layer", "request",
                 "route", "size", "start_response", "started", "state", "status")  # fmt: skip

    body: Any

    def __init__(
        self,
        layer: MonitoringLayer,
        environ: WSGIEnvironment,
        state: RequestState,
        start_response: StartResponse,
        started: float,
    ) -> None:
        self.layer: MonitoringLayer | None = layer
        self.environ = environ
        self.state = state
        self.start_response = start_response
        self.started = started
        self.failed = False
        self.headers: Headers = _NO_HEADERS
        self.request: Any = None
        self.route: str | None = None
        self.size = 0
        self.status = "500"
        self._chunks: Iterator[bytes] | None = None

    def start(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """Act as the ``start_response`` of the app."""
        self.status = status
        self.headers = headers
        # Flask removes its request from the environ with its context, before the body is sent
        self.request = self.environ.get("werkzeug.request")
        if self.layer is not None and self.layer._route_of is not None:
            self.route = self.layer._route_of(self.environ)
        if self.state.outer is not None:
            end(self.environ, self.state)
        if exc_info is None:
            self._write = self.start_response(status, headers)
        else:
            self._write = self.start_response(status, headers, exc_info)
        return self.write

    def write(self, data: bytes) -> object:
        """Send data by the ``write()`` of WSGI, and count it."""
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

    def __next__(self) -> bytes:
        # Flask's bodies are iterators, and middleware around the application may rely on it
        if self._chunks is None:
            self._chunks = iter(self)
        return next(self._chunks)

    def close(self) -> None:
        """Close the body: the server sent it, or the client left."""
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
            self.finish(layer)

    def finish(self, layer: MonitoringLayer) -> None:
        """Hand the sample to the collector. This is called once."""
        self.layer = None
        ended = layer._monotonic()
        duration = ended - self.started
        environ = self.environ
        route = self.route
        if route is None:
            request = self.request
            rule = None if request is None else getattr(request, "url_rule", None)
            if rule is not None:
                route = rule.rule
            else:
                route = self.state.route
                if layer._has_paths:
                    route = layer.find_route(environ, route)
        layer._leave(
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
        if len(layer._waiting) > FOLD_AT:
            layer._collector.fold()
        if self.status[:3] == "405" and not self.state.wrong_method_counted:
            layer.report_wrong_method(environ, route, self._header("allow"))

    def is_event_stream(self) -> bool:
        """Return whether the body lasts as long as the client stays."""
        return self._header("content-type").startswith("text/event-stream")

    def declared_size(self) -> int:
        """Return the size of the body by its headers, in bytes."""
        length = self._header("content-length")
        return int(length) if length.isascii() and length.isdecimal() and len(length) < 16 else 0

    def _header(self, wanted: str) -> str:
        return next((value for name, value in self.headers if name.lower() == wanted), "")


class _SizedBody(_MeasuredBody):
    """A body of known length. Servers set ``Content-Length`` themselves for a list of one item."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        self.size += sum(map(len, self.body))
        return iter(self.body)

    def __len__(self) -> int:
        return len(self.body)

    def close(self) -> None:
        layer = self.layer
        if layer is not None:  # a list and a tuple have no `close` of their own
            self.finish(layer)


class WholeBody(list[bytes]):
    """A body in one piece that is counted when the server closes it."""

    __slots__ = ("_layer", "_route", "_started")

    def __init__(
        self, layer: MonitoringLayer, body: bytes, route: str | None, started: float
    ) -> None:
        super().__init__((body,))
        self._layer: MonitoringLayer | None = layer
        self._route = route
        self._started = started

    def close(self) -> None:
        """Count the request."""
        layer, self._layer = self._layer, None
        if layer is not None:
            ended = layer._monotonic()
            duration = ended - self._started
            layer.count((self._route, "GET", "200 OK", duration, len(self[0]), ended, False))
