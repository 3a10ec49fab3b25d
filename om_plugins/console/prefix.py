"""What is served under ``OM_PREFIX``: endpoints, liveness and the shipped files for browsers.

A plain WSGI app behind a small layer: a path under the prefix is answered here, every other path
goes straight on to the host app.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import mimetypes
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import get_host

from ..core.problem import CONTENT_TYPE, build_problem, encode_problem

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class PrefixLayer:
    """WSGI middleware: ``prefix`` and what is below it go to ``pages``, the rest to ``app``.

    Args:
        app: the host app.
        prefix: a path such as ``/_om``, matched on ``PATH_INFO``.
        pages: the app for the prefix; it sees the prefix moved to ``SCRIPT_NAME``.
    """

    def __init__(self, app: WSGIApplication, prefix: str, pages: WSGIApplication) -> None:
        self._app = app
        self._prefix = prefix
        self._below = prefix + "/"
        self._pages = pages

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if not (path.startswith(self._below) or path == self._prefix):
            return self._app(environ, start_response)
        inner = dict(environ)
        inner["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + self._prefix
        inner["PATH_INFO"] = path[len(self._prefix) :]
        return self._pages(inner, start_response)


class Pages:
    """The WSGI app below the prefix.

    Args:
        endpoints: more WSGI apps by their path, such as ``{"/csp": ReportEndpoint(…)}``.
        trusted_hosts: host names to answer to; ``None`` for all.
    """

    def __init__(
        self,
        endpoints: Mapping[str, WSGIApplication],
        trusted_hosts: Sequence[str] | None = None,
    ) -> None:
        self._endpoints: dict[str, WSGIApplication] = {"/health": liveness, **endpoints}
        self._trusted_hosts = trusted_hosts
        self._static = StaticFiles()

    @cached_property
    def _map(self) -> Map:  # made on first use: it is the dearest part of binding an app
        return Map(
            [
                Rule("/static/<name>", endpoint="static", methods=["GET"]),
                *(Rule(path, endpoint=path) for path in self._endpoints),
            ]
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._answer(environ)(environ, start_response)

    def _answer(self, environ: WSGIEnvironment) -> WSGIApplication:
        try:
            get_host(environ, self._trusted_hosts)
            if not environ.get("PATH_INFO"):
                return _with_slash(environ)
            endpoint, arguments = self._map.bind_to_environ(environ).match()
        except SecurityError:
            return _problem(400, "Unknown host", "This server does not answer under that name.")
        except HTTPException as error:
            if isinstance(error.response, Response):
                return error.response
            status = HTTPStatus(error.code or 500)
            answer = _problem(status, status.phrase, "There is no such page here.")
            allowed = getattr(error, "valid_methods", None)
            if allowed:
                answer.headers["Allow"] = ", ".join(sorted(allowed))
            return answer
        if endpoint == "static":
            return self._static.answer(Request(environ), arguments["name"])
        return self._endpoints[endpoint]


def liveness(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """``GET /health``: 200 as long as this process answers, whatever its engines do.

    Browsers ask it when a request of theirs failed, load balancers all the time; it tells nothing
    but that.
    """
    if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        response = Response(b'{"status":"ok"}', content_type="application/json")
    else:
        response = _problem(405, "", "Use GET here.")
        response.headers["Allow"] = "GET, HEAD"
    response.cache_control.no_store = True
    return response(environ, start_response)


def _with_slash(environ: WSGIEnvironment) -> Response:
    """The prefix alone: addresses on its page are relative to what is below it."""
    answer = Response(status=308)
    answer.autocorrect_location_header = False
    # relative, so that nothing which a proxy or a client said can name another host
    answer.headers["Location"] = quote(environ["SCRIPT_NAME"].rpartition("/")[2]) + "/"
    return answer


class StaticFiles:
    """The files of ``console/static``, read once and kept with their ETags."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}

    def answer(self, request: Request, name: str) -> Response:
        """The file, a 304, or a 404."""
        found = self._files.get(name) or self._read(name)
        if found is None:
            return _problem(404, "Not Found", "There is no such file here.")
        body, etag, mimetype = found
        response = Response(body, mimetype=mimetype)
        response.set_etag(etag)
        response.cache_control.public = True
        # modules import each other by name: this is how long two releases may mix in a browser
        response.cache_control.max_age = 60
        return response.make_conditional(request.environ)

    def _read(self, name: str) -> tuple[bytes, str, str] | None:
        folder = importlib.resources.files(__package__) / "static"
        known = {entry.name: entry for entry in folder.iterdir() if entry.is_file()}
        if name not in known:
            return None
        body = known[name].read_bytes()
        mimetype = mimetypes.guess_type(name)[0] or "application/octet-stream"
        self._files[name] = body, hashlib.sha256(body).hexdigest()[:32], mimetype
        return self._files[name]


def _problem(status: int, title: str, detail: str) -> Response:
    return Response(
        encode_problem(build_problem(status, title, detail)), status, content_type=CONTENT_TYPE
    )
