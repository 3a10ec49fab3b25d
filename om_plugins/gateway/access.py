"""Which other sites' pages may call a route: CORS (the Fetch standard, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.problem import Headers
from ..policies import access
from .options import RouteOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_EXPOSED = "OM-Engine, OM-Tier, OM-Attempts, OM-Degraded, OM-Stale, OM-Replayed, Retry-After"


def check_site(environ: WSGIEnvironment, host: str, route: RouteOptions) -> None:
    """Refuse a request that a page of another site sent, unless the route allows that site.

    Raises:
        Refusal: 403.
    """
    if _allow_origin(environ, route) is None:
        access.check_site(environ, host)


def build_cors_headers(environ: WSGIEnvironment, route: RouteOptions) -> Headers:
    """Return the CORS headers of the answer to this request; none without ``cors``."""
    if not route.cors:
        return []
    headers = [] if "*" in route.cors else [("Vary", "Origin")]
    origin = _allow_origin(environ, route)
    if origin is not None:
        headers += [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", _EXPOSED),
        ]
    return headers


def build_preflight_headers(
    environ: WSGIEnvironment, methods: Sequence[str], route: RouteOptions
) -> Headers:
    """Return the headers of the answer to an OPTIONS request.

    Args:
        methods: what the route answers.
    """
    headers = [("Allow", ", ".join((*methods, "OPTIONS")))]
    wanted = environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD")
    if wanted and _allow_origin(environ, route) is not None:
        headers += [
            ("Access-Control-Allow-Methods", ", ".join(methods)),
            ("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key"),
            ("Access-Control-Max-Age", "600"),
        ]
    return headers


def _allow_origin(environ: WSGIEnvironment, route: RouteOptions) -> str | None:
    """Return ``Access-Control-Allow-Origin`` for this request; ``None`` when it has none."""
    origin = environ.get("HTTP_ORIGIN")
    if not origin or not route.cors:
        return None
    if "*" in route.cors:
        return "*"
    return origin if origin in route.cors else None
