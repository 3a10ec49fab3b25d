"""The layer that sends browsers from plain HTTP to HTTPS.

It believes ``wsgi.url_scheme`` alone: a header such as ``X-Forwarded-Proto``, which anybody can
send, counts only where a trusted proxy's was put there (``OM_PROXIES``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from werkzeug.exceptions import SecurityError
from werkzeug.wsgi import get_host

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["HttpsLayer"]

_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_PATH = "/:@!$&'()*+,;=~"
_QUERY = _PATH + "?%"


class HttpsLayer:
    """WSGI middleware: what comes over plain HTTP is redirected to the same address over HTTPS.

    GET and HEAD get 302 (or 301), other methods 307 (or 308), which keep method and body.

    Args:
        app: the WSGI application.
        permanent: 301 and 308: browsers remember, so there is no way back.
        exempt: paths that are answered over plain HTTP, too, such as those of health checks;
            ``/status/*`` stands for all that is below ``/status/``.
        trusted_hosts: host names to redirect to; ``None`` for whatever was asked for.
        everywhere: redirect where nothing else is said.
        wish: what the view that a request is for says: ``True`` (over HTTPS alone), ``False``
            (over plain HTTP, too) or ``None``. It is asked for plain HTTP only.
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
        exempt = [path.encode().decode("latin-1") for path in exempt]  # as in PATH_INFO
        self._exempt = frozenset(path for path in exempt if not path.endswith("*"))
        self._below = tuple(path[:-1] for path in exempt if path.endswith("*"))
        self._trusted_hosts = trusted_hosts
        self._everywhere = everywhere
        self._wish = wish

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("wsgi.url_scheme") == "https":
            return self._app(environ, start_response)
        path = environ.get("PATH_INFO", "")
        if path in self._exempt or (self._below and path.startswith(self._below)):
            return self._app(environ, start_response)
        said = self._wish(environ) if self._wish is not None else None
        if said is False and not self._host(environ):
            said = None  # no exemption for a host that is not trusted
        if not (self._everywhere if said is None else said):
            return self._app(environ, start_response)
        host = self._host(environ)
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

    def _host(self, environ: WSGIEnvironment) -> str:
        """The host that is asked for; "" for one that is malformed or not trusted."""
        try:
            host = get_host(environ, self._trusted_hosts)
        except SecurityError:
            return ""
        return host if _HOST.fullmatch(host) else ""
