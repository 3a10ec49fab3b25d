"""Who may send a request: trusted hosts, other sites' pages, and the operator's own callback."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import get_host

from ..core.problem import Refusal
from ..protocols import HostContext
from ..settings.callbacks import is_permitted
from ..types import Caller

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("om_plugins")

_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_host(environ: WSGIEnvironment, trusted: Sequence[str] | None) -> str:
    """Return the request's host, with its port unless that is the scheme's own.

    Raises:
        Refusal: 400, the host is not one of ``trusted``. ``None`` trusts every host.
    """
    try:
        return get_host(environ, trusted)
    except SecurityError:
        raise Refusal(400, "This server does not answer under that host name.") from None


def check_site(environ: WSGIEnvironment, host: str) -> None:
    """Refuse a request that a page of another site sent.

    ``Sec-Fetch-Site`` decides (Fetch Metadata); for older browsers ``Origin`` does.

    Args:
        host: what :func:`check_host` returned.

    Raises:
        Refusal: 403.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        if site in ("same-origin", "none"):
            return
    else:
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or _is_same_host(origin, host):
            return
    raise Refusal(403, "This address may not be called from other sites.")


def _is_same_host(origin: str, host: str) -> bool:
    try:
        parts, asked = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS.get(parts.scheme)
        # The default port is that of the origin: a proxy that speaks TLS may stand in front.
        return (
            default is not None
            and parts.hostname == asked.hostname
            and (parts.port or default) == (asked.port or default)
        )
    except ValueError:
        return False


def ask_auth(
    environ: WSGIEnvironment,
    body: bytes,
    auth: Callable[..., Any] | None,
    host_context: HostContext | None,
    observe: Callable[[object, Request], Request] | None = None,
    *,
    key: str = "auth",
) -> object:
    """Ask an ``auth`` callback, in the host's request context.

    The callback gets a copy of the body, so that it can check a signature of it.

    Args:
        auth: the callback; ``None`` lets everybody in.
        host_context: opens the host's request context; ``None`` for a host without one.
        observe: gets what ``host_context`` gave and the request for the callback, and returns the
            request that the callback gets instead.
        key: the setting that has the callback, for the log.

    Returns:
        ``True`` or a :class:`~om_plugins.types.Caller`; ``None`` without a callback. A response
        is to be sent instead.

    Raises:
        Refusal: 401, the callback returned anything else, or raised.
    """
    if auth is None:
        return None
    copy = {
        **environ,
        "wsgi.input": io.BytesIO(body),
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input_terminated": True,
    }
    copy.pop("werkzeug.request", None)
    try:
        with nullcontext() if host_context is None else host_context(copy) as context:
            # The host's own request, where there is one: two requests would read the same body.
            found = copy.get("werkzeug.request")
            request = found if isinstance(found, Request) else Request(copy)
            answer = auth(request if observe is None else observe(context, request))
    except HTTPException as stop:
        return Response.force_type(stop.get_response(copy), copy)
    except Exception as error:
        refusal = _build_401()
        logger.error(
            "%s: the callback failed, %s", key, refusal.document["instance"], exc_info=error
        )
        raise refusal from None
    # its class, not what it says of itself: a mock takes the place of any class
    if issubclass(type(answer), (Caller, Response)):
        return answer
    if not is_permitted(answer, f"{key}: the callback", _OR_CALLER):
        raise _build_401()
    return answer


_OR_CALLER = "; om_plugins.Caller(id) is a yes that tells who it is"


def _build_401() -> Refusal:
    # RFC 9110 section 11.6.1: a 401 must name a challenge.
    return Refusal(401, "Please sign in first.", [("WWW-Authenticate", "Bearer")])
