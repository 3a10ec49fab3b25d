"""Who may ask: trusted hosts, cross-site calls, the rate per client, and the auth callback."""

from __future__ import annotations

import hmac
import io
import ipaddress
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import get_host

from ..protocols import Clock, HostContext, Hub
from ..settings.settings__options import RouteOptions
from .response__refusal import Headers, Refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("om_plugins")

_MAX_BLOCKED = 10_000
_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_host(environ: WSGIEnvironment, trusted: Sequence[str] | None) -> str:
    """The request's host, with its port unless that is the scheme's own.

    Raises:
        Refusal: 400, the host is not one of ``trusted`` (every host is, when ``None``).
    """
    try:
        return get_host(environ, trusted)
    except SecurityError:
        raise Refusal(400, "This server does not answer under that host name.") from None


def allowed_origin(environ: WSGIEnvironment, route: RouteOptions) -> str | None:
    """What ``Access-Control-Allow-Origin`` says to this request; ``None`` for nothing."""
    origin = environ.get("HTTP_ORIGIN")
    if not origin or not route.cors:
        return None
    if "*" in route.cors:
        return "*"
    return origin if origin in route.cors else None


def check_site(environ: WSGIEnvironment, host: str, route: RouteOptions) -> None:
    """Refuse what another site's page sends (Fetch Metadata; by Origin for older browsers).

    Raises:
        Refusal: 403.
    """
    if allowed_origin(environ, route) is not None:
        return
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        if site in ("same-origin", "none"):
            return
    else:
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or _same_host(origin, host):
            return
    raise Refusal(403, "This address may not be called from other sites.")


def _same_host(origin: str, host: str) -> bool:
    try:
        parts, asked = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS.get(parts.scheme)
        # The origin's own default port: a proxy that speaks TLS may stand in front.
        return (
            default is not None
            and parts.hostname == asked.hostname
            and (parts.port or default) == (asked.port or default)
        )
    except ValueError:
        return False


class RateLimit:
    """Counts calls per client in fixed windows, over all workers through the hub.

    A client is its address (of IPv6 the first 64 bits, which one customer has), hashed with the
    secret, so that nobody can read addresses from the shared store. When the hub fails, calls
    go through: losing it never fails a request.

    Args:
        path: whose calls are counted.
        rate: calls and seconds.
        hub, secret, clock: see :class:`~om_plugins.gateway.layer.EngineRoutes`.
    """

    def __init__(
        self,
        path: str,
        rate: tuple[int, int],
        hub: Hub,
        secret: Callable[[], bytes],
        clock: Clock,
    ) -> None:
        self._path = path
        self._count, self._period = rate
        self._hub = hub
        self._secret = secret
        self._clock = clock
        self._blocked: dict[str, int] = {}  # client → window; a flood need not reach the hub
        self._warned = False

    def take(self, environ: WSGIEnvironment) -> Headers:
        """Count one call.

        Returns:
            ``RateLimit`` headers (draft-ietf-httpapi-ratelimit-headers).

        Raises:
            Refusal: 429 with Retry-After.
        """
        now = self._clock.time()
        window = int(now // self._period)
        left_s = max(1, math.ceil((window + 1) * self._period - now))
        try:
            client = self._client(environ)
            if self._blocked.get(client) == window:
                used = self._count + 1
            else:
                key = f"rate:{window}:{client}"
                used = self._hub.increment(key, ttl=float(left_s + 1))
            self._warned = False
        except Exception:
            if not self._warned:
                self._warned = True
                logger.warning("the rate of %s is not counted", self._path, exc_info=True)
            return []
        headers = [
            ("RateLimit-Policy", f'"default";q={self._count};w={self._period}'),
            ("RateLimit", f'"default";r={max(0, self._count - used)};t={left_s}'),
        ]
        if used <= self._count:
            return headers
        if len(self._blocked) >= _MAX_BLOCKED:
            self._blocked.clear()
        self._blocked[client] = window
        raise Refusal(
            429,
            f"Too many questions. Please try again in {left_s} second{'s' * (left_s != 1)}.",
            [*headers, ("Retry-After", str(left_s))],
            retry_after=left_s,
        )

    def _client(self, environ: WSGIEnvironment) -> str:
        address = environ.get("REMOTE_ADDR") or ""
        if ":" in address:
            try:
                found = ipaddress.IPv6Address(address.partition("%")[0])
                address = str(found.ipv4_mapped or ipaddress.IPv6Network((found, 64), strict=False))
            except ValueError:
                pass  # whatever the server put there still tells clients apart
        text = f"{self._path}\0{address}".encode("utf-8", "surrogateescape")
        return hmac.digest(self._secret(), text, "sha256")[:16].hex()


def check_auth(
    environ: WSGIEnvironment, body: bytes, route: RouteOptions, host_context: HostContext | None
) -> Response | None:
    """Ask the route's ``auth`` callback; see :func:`ask_auth`.

    Returns:
        A response that the callback wants sent instead; ``None`` to go on.
    """
    said = ask_auth(environ, body, route, host_context)
    return said if isinstance(said, Response) else None


def ask_auth(
    environ: WSGIEnvironment, body: bytes, route: RouteOptions, host_context: HostContext | None
) -> object:
    """Ask the route's ``auth`` callback, in the host's request context.

    The callback may read the body, to check a signature say: it gets a copy.

    Returns:
        What it said; ``None`` without one. A response is to be sent instead.

    Raises:
        Refusal: 401, the callback said no or failed.
    """
    if route.auth is None:
        return None
    mine = {
        **environ,
        "wsgi.input": io.BytesIO(body),
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input_terminated": True,
    }
    mine.pop("werkzeug.request", None)
    try:
        with nullcontext() if host_context is None else host_context(mine):
            # The host's own request, where there is one: both would read the same body.
            request = mine.get("werkzeug.request")
            said = route.auth(request if isinstance(request, Request) else Request(mine))
    except HTTPException as stop:
        return Response.force_type(stop.get_response(mine), mine)
    except Exception as error:
        refusal = _unauthorised()
        logger.error("an auth callback failed, %s", refusal.document["instance"], exc_info=error)
        raise refusal from None
    if not isinstance(said, Response) and not said:
        raise _unauthorised()
    return said


def _unauthorised() -> Refusal:
    return Refusal(
        401, "Please sign in first.", [("WWW-Authenticate", "Bearer")]  # RFC 9110 section 11.6.1
    )  # fmt: skip
