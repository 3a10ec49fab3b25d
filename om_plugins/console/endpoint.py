"""One address of the console: its method, what it reads, and what becomes of a refusal."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec
from werkzeug.wrappers import Request, Response

from ..core.body import BodyError, read_body
from ..core.problem import Refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["MAX_FORM_BYTES", "Endpoint", "body_of", "fields_of", "json_answer", "refused"]

MAX_BODY_BYTES = 4_096
MAX_FORM_BYTES = 16_384
"""Of a form with many fields, as the engines' page has them."""
MAX_FIELDS = 100

_View = Callable[[Request], Response]


class Endpoint:
    """One address: its method, and what becomes of a refusal.

    Args:
        view: answers, or raises a :class:`Refusal`.
        method: the one that is answered, GET together with HEAD.
        page: makes a refusal's page for people; a problem document is sent without, and to a
            script that asks for JSON.
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
                response = refused(refusal)
            else:
                response = self._page(request, refusal)
        response.headers["Cache-Control"] = "no-store"
        return response(environ, start_response)


def wants_json(request: Request) -> bool:
    """Whether a script asks, that reads JSON."""
    return "application/json" in request.headers.get("Accept", "")


def json_answer(data: Mapping[str, Any], status: int = 200) -> Response:
    """An answer for a script."""
    return Response(msgspec.json.encode(data), status, content_type="application/json")


def refused(refusal: Refusal) -> Response:
    """A refusal as a problem document (RFC 9457)."""
    status, headers, body = refusal.render()
    return Response(body, status, headers)


def body_of(request: Request, most: int = MAX_BODY_BYTES) -> bytes:
    """The body, if it is small and its length is told.

    Raises:
        Refusal: 411 or 413.
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


def fields_of(body: bytes) -> dict[str, str]:
    """The fields of a form, of each the first value; also those that are empty.

    Raises:
        Refusal: 400, there are too many.
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
