"""A guard before an endpoint under ``OM_PREFIX``: no other site's pages, and not too often."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from werkzeug.wsgi import get_host

from ..gateway.access import RateLimit, check_site
from ..gateway.response import as_problem
from ..gateway.response__refusal import Refusal
from ..settings.settings__options import RouteOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SAME_SITE = RouteOptions()


class Guarded:
    """WSGI middleware: refuses with a problem document, or hands on to ``app``.

    Args:
        app: what is guarded.
        limit: counts calls per client; ``None`` for no limit.
    """

    def __init__(self, app: WSGIApplication, limit: RateLimit | None = None) -> None:
        self._app = app
        self._limit = limit

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            check_site(environ, get_host(environ), _SAME_SITE)
            if self._limit is not None:
                self._limit.take(environ)
        except Refusal as refusal:
            status, headers, body = as_problem(refusal)
            start_response(f"{status} {HTTPStatus(status).phrase}", headers)
            return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]
        return self._app(environ, start_response)
