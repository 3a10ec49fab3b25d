"""A guard before an endpoint under ``OM_PREFIX``: no other site's pages, and not too often."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.wsgi import get_host

from ..core.access import check_site
from ..core.problem import Refusal
from ..workers.rate_limit import RateLimit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


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
            check_site(environ, get_host(environ))
            if self._limit is not None:
                self._limit.count(environ)
        except Refusal as refusal:
            return refusal.send(environ, start_response)
        return self._app(environ, start_response)
