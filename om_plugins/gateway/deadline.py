"""When an answer must end: the proxy in front stops waiting, or the server stops.

Envoy says in ``x-envoy-expected-rq-timeout-ms`` how long it still waits (documentation of its
router filter). A later answer reaches nobody, so calls to chains that are made in that request end
by then. The header is read only where a proxy is trusted. It can shorten a call, but never lengthen
one.

A server that stops lets answers end, for as long as it is configured to wait. Then it breaks them
off, and a client could not tell a broken answer from a complete one. :class:`GracefulStop` ends
them a moment before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..core.body import close_body, is_file_body
from ..core.problem import Refusal
from ..protocols import Clock
from ..workers.servers import grace_s, stopping

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

DEADLINE: ContextVar[float] = ContextVar("om_plugins.deadline", default=math.inf)
"""When the proxy stops waiting for the current request, on the monotonic clock; ``inf`` when it
does not say."""

_HEADER = "HTTP_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS"
_LONGEST_MS = 3_600_000

_LAST_SHARE = 0.2
_LAST_S = 1.5
"""At least this much of the server's waiting time is left to tell clients and to close upstreams.
A thread that waits for a silent upstream looks twice a second."""


class DeadlineLayer:
    """WSGI middleware that sets :data:`DEADLINE` during a request, its body included.

    Args:
        app: the app underneath.
        clock: its monotonic time counts.
    """

    def __init__(self, app: WSGIApplication, clock: Clock) -> None:
        self._app = app
        self._monotonic = clock.monotonic

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seconds = read_expected_s(environ)
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
        if type(body) in (list, tuple) or (wrapper is not None and is_file_body(wrapper, body)):
            DEADLINE.set(math.inf)
            return body
        return _DeadlineBody(body)


class _DeadlineBody:
    """A body whose iteration may still call a chain; the deadline ends with the body."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        DEADLINE.set(math.inf)
        close_body(self._body)


def read_expected_s(environ: WSGIEnvironment) -> float | None:
    """Return the seconds that the proxy still waits, at most an hour.

    Returns:
        ``None`` when the header is missing or cannot be read, or is 0: no limit, in Envoy.
    """
    header = environ.get(_HEADER)
    if not header or len(header) > 18 or not (header.isascii() and header.isdecimal()):
        return None
    milliseconds = int(header)
    return min(milliseconds, _LONGEST_MS) / 1000 if milliseconds else None


class GracefulStop:
    """Whether current answers must end now, because the server stops.

    Args:
        clock: its monotonic time counts.
    """

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._since: float | None = None

    def is_over(self) -> bool:
        """Whether the server has waited for most of its time."""
        if not stopping():
            return False
        now = self._monotonic()
        if self._since is None:
            self._since = now
        patience_s = grace_s()
        return now - self._since >= patience_s - max(_LAST_S, _LAST_SHARE * patience_s)


def refuse_at_restart() -> Refusal:
    """Return the answer to a client whose answer was cut off by a restart."""
    text = "The server is being restarted. Please ask again in a moment."
    return Refusal(503, text, [("Retry-After", "1")], retry_after=1)
