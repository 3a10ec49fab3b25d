"""A deadline from outside: how long the proxy in front still waits for this request.

Envoy says so in ``x-envoy-expected-rq-timeout-ms`` (its router filter's documentation). An answer
that comes later reaches nobody, so calls to chains made in that request end by then. The header is
read only where a proxy is trusted: it can shorten a call, never lengthen one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..monitoring.layer import made_by
from ..protocols import Clock

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["DEADLINE", "DeadlineLayer", "expected_s"]

DEADLINE: ContextVar[float] = ContextVar("om_plugins.deadline", default=math.inf)
"""When the proxy stops waiting for the request under way, on the monotonic clock; ``inf``: never
that we know of."""

_HEADER = "HTTP_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS"
_LONGEST_MS = 3_600_000


class DeadlineLayer:
    """WSGI middleware that sets :data:`DEADLINE` while a request is answered, its body included.

    Args:
        app: the app underneath.
        clock: its monotonic time counts.
    """

    def __init__(self, app: WSGIApplication, clock: Clock) -> None:
        self._app = app
        self._monotonic = clock.monotonic

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seconds = expected_s(environ)
        if seconds is None:
            if DEADLINE.get() != math.inf:  # of a request whose body nobody closed
                DEADLINE.set(math.inf)
            return self._app(environ, start_response)
        DEADLINE.set(self._monotonic() + seconds)
        try:
            body = self._app(environ, start_response)
        except BaseException:
            DEADLINE.set(math.inf)
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if type(body) in (list, tuple) or (wrapper is not None and made_by(wrapper, body)):
            DEADLINE.set(math.inf)
            return body
        return _Body(body)


class _Body:
    """A body that may still call a chain; the deadline ends with it."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        DEADLINE.set(math.inf)
        close = getattr(self._body, "close", None)
        if close is not None:
            close()


def expected_s(environ: WSGIEnvironment) -> float | None:
    """The seconds that the proxy still waits, at most an hour; ``None`` when it says nothing that
    can be read. Envoy's 0 is no limit."""
    said = environ.get(_HEADER)
    if not said or len(said) > 18 or not (said.isascii() and said.isdecimal()):
        return None
    milliseconds = int(said)
    return min(milliseconds, _LONGEST_MS) / 1000 if milliseconds else None
