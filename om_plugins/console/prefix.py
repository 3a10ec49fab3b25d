"""What is served under ``OM_PREFIX``: the layer, the endpoints of all features, and liveness.

A plain WSGI app behind a small layer. A path under the prefix is answered here; every other path
goes to the host app. :class:`Endpoint` is for the endpoints of the console itself.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

import msgspec
from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import get_host

from ..core.body import BodyError, read_body
from ..core.problem import Refusal

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
        endpoints: gives the WSGI apps by their path, such as ``{"/csp": ReportEndpoint(…)}``;
            called on the first request, so that an application whose pages nobody asks for never
            imports them.
        trusted_hosts: host names to answer to; ``None`` for all.
    """

    def __init__(
        self,
        endpoints: Callable[[], Mapping[str, WSGIApplication]],
        trusted_hosts: Sequence[str] | None = None,
    ) -> None:
        self._make_endpoints = endpoints
        self._trusted_hosts = trusted_hosts
        self._lock = threading.Lock()
        self._urls: tuple[Map, Mapping[str, WSGIApplication]] | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._answer(environ)(environ, start_response)

    def _answer(self, environ: WSGIEnvironment) -> WSGIApplication:
        try:
            get_host(environ, self._trusted_hosts)
            if not environ.get("PATH_INFO"):
                return _with_slash(environ)
            urls, endpoints = self._urls or self._make_urls()
            endpoint, _ = urls.bind_to_environ(environ).match()
        except SecurityError:
            return Refusal(400, "This server does not answer under that name.").send
        except HTTPException as error:
            if isinstance(error.response, Response):
                return error.response
            return Refusal(error.code or 500, "There is no such page here.").send
        return endpoints[endpoint]

    def _make_urls(self) -> tuple[Map, Mapping[str, WSGIApplication]]:
        with self._lock:
            if self._urls is None:
                endpoints = {"/health": liveness, **self._make_endpoints()}
                self._urls = Map([Rule(path, endpoint=path) for path in endpoints]), endpoints
            return self._urls


def liveness(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """``GET /health``: 200 as long as this process answers, whatever its engines do.

    Browsers ask it when a request of theirs failed, load balancers ask it all the time. The answer
    says nothing else.
    """
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        refusal = Refusal(405, "Use GET here.", [("Allow", "GET, HEAD")])
        return refusal.send(environ, start_response)
    response = Response(b'{"status":"ok"}', content_type="application/json")
    response.cache_control.no_store = True
    return response(environ, start_response)


def _with_slash(environ: WSGIEnvironment) -> Response:
    """Redirect to the prefix with a slash: the page's links are relative to what is below it."""
    answer = Response(status=308)
    answer.autocorrect_location_header = False
    # relative, so that no header of a proxy or client can name another host
    answer.headers["Location"] = quote(environ["SCRIPT_NAME"].rpartition("/")[2]) + "/"
    return answer


# --- endpoints of the console ---------------------------------------------------------------------

MAX_BODY_BYTES = 4_096
MAX_FORM_BYTES = 16_384
"""The longest body of a form with many fields, such as those of the engines' page."""
MAX_FIELDS = 100

_View = Callable[[Request], Response]


class Endpoint:
    """A WSGI app at one path: checks the method and answers refusals.

    Args:
        view: answers, or raises a :class:`Refusal`.
        method: the allowed method; HEAD is allowed with GET.
        page: makes a page for people of a refusal. Without it, and for a script that asks for
            JSON, a refusal is a problem document (RFC 9457).
    """

    def __init__(
        self,
        view: _View,
        method: str,
        page: Callable[[Request, Refusal], Response] | None = None,
    ) -> None:
        self._view = view
        self._methods = ("GET", "HEAD") if method == "GET" else (method,)
        self._page = page

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        try:
            if request.method not in self._methods:
                allowed = ", ".join(self._methods)
                raise Refusal(405, f"Use {self._methods[0]} here.", [("Allow", allowed)])
            response = self._view(request)
        except Refusal as refusal:
            if self._page is None or wants_json(request):
                response = make_refusal(refusal)
            else:
                response = self._page(request, refusal)
        response.headers["Cache-Control"] = "no-store"
        return response(environ, start_response)


def wants_json(request: Request) -> bool:
    """Return whether the client, a script, accepts JSON."""
    return "application/json" in request.headers.get("Accept", "")


def make_json(data: Mapping[str, Any], status: int = 200) -> Response:
    """Return an answer of JSON."""
    return Response(msgspec.json.encode(data), status, content_type="application/json")


def make_refusal(refusal: Refusal) -> Response:
    """Return a refusal as a problem document (RFC 9457)."""
    status, headers, body = refusal.render()
    return Response(body, status, headers)


def read_small_body(request: Request, most: int = MAX_BODY_BYTES) -> bytes:
    """Return the body of a request.

    Args:
        most: the greatest length in bytes.

    Raises:
        Refusal: 411 without a length, 413 for a longer body, 400 for a broken one.
    """
    try:
        body = read_body(request.environ, most)
    except BodyError as error:
        if error.status == 411:
            raise Refusal(411, "Say how long the body is.") from None
        if error.status == 413:
            raise Refusal(413, f"A body may have {most} bytes.") from None
        raise Refusal(error.status, str(error)) from None
    request.environ["wsgi.input"] = io.BytesIO(body)
    return body


def read_fields(body: bytes) -> dict[str, str]:
    """Return the fields of a form, with the first value of each. Empty fields are included.

    Raises:
        Refusal: 400 for too many fields.
    """
    try:
        found = parse_qs(
            body.decode("latin-1"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="replace",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:
        raise Refusal(400, f"A form may have {MAX_FIELDS} fields.") from None
    return {name: values[0] for name, values in found.items()}
