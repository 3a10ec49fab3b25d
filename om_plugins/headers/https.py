"""The layer that redirects browsers from plain HTTP to HTTPS.

It reads only ``wsgi.url_scheme``. Anybody can send a header such as ``X-Forwarded-Proto``; such a
header counts only when ``OM_PROXIES`` names a trusted proxy that sets it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from werkzeug.exceptions import SecurityError
from werkzeug.wsgi import get_host

from ..settings.paths import PathPatterns

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_PATH = "/:@!$&'()*+,;=~"
_QUERY = _PATH + "?%"


class HttpsLayer:
    """WSGI middleware: redirects a request over plain HTTP to the same address over HTTPS.

    GET and HEAD get 302 (or 301), other methods 307 (or 308), which keep the method and the body.

    Args:
        app: the WSGI application.
        permanent: send 301 and 308. Browsers remember these, so they cannot be taken back.
        exempt: paths that are answered over plain HTTP as well, such as those of health checks;
            ``/status/*`` means all paths below ``/status/``.
        trusted_hosts: host names to redirect to; ``None`` for the host of the request.
        everywhere: redirect requests that no view and no exemption decides about.
        wish: returns what the view of a request decides: ``True`` (HTTPS only), ``False`` (plain
            HTTP as well) or ``None``. It is called for plain HTTP only.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        permanent: bool = False,
        exempt: Iterable[str] = (),
        trusted_hosts: Sequence[str] | None = None,
        everywhere: bool = True,
        wish: Callable[[WSGIEnvironment], bool | None] | None = None,
    ) -> None:
        self._app = app
        self._codes = (
            ("301 Moved Permanently", "308 Permanent Redirect")
            if permanent
            else ("302 Found", "307 Temporary Redirect")
        )
        self._exempt = PathPatterns(exempt)
        self._trusted_hosts = trusted_hosts
        self._everywhere = everywhere
        self._wish = wish

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("wsgi.url_scheme") == "https":
            return self._app(environ, start_response)
        path = environ.get("PATH_INFO", "")
        if self._exempt.match(path):
            return self._app(environ, start_response)
        said = self._wish(environ) if self._wish is not None else None
        if said is False and not self._find_host(environ):
            said = None  # no exemption for a host that is not trusted
        if not (self._everywhere if said is None else said):
            return self._app(environ, start_response)
        host = self._find_host(environ)
        if not host:
            start_response("400 Bad Request", [("Content-Length", "0")])
            return []
        address = f"https://{host}" + quote(
            environ.get("SCRIPT_NAME", "") + path, safe=_PATH, encoding="latin-1", errors="replace"
        )
        query = environ.get("QUERY_STRING", "")
        if query:
            address += "?" + quote(query, safe=_QUERY, encoding="latin-1", errors="replace")
        status = self._codes[environ.get("REQUEST_METHOD") not in ("GET", "HEAD")]
        start_response(status, [("Location", address), ("Content-Length", "0")])
        return []

    def _find_host(self, environ: WSGIEnvironment) -> str:
        """Return the host of the request; "" for one that is malformed or not trusted."""
        try:
            host = get_host(environ, self._trusted_hosts)
        except SecurityError:
            return ""
        return host if _HOST.fullmatch(host) else ""
