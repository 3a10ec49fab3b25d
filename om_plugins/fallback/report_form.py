"""The friendly page's "Report problem" for browsers without scripts: a plain form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from ..core.body import BodyError, read_body
from ..core.translations import words
from ..notifications.problem_reports import (
    MAX_BODY_BYTES,
    ProblemEndpoint,
    refuse,
    refuse_body,
)
from ..recovery import messages__wording as wording
from .page import local_address, rendered

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["ReportForm"]


class ReportForm:
    """A WSGI application for ``POST`` of a form with ``url`` and ``reference``.

    A form can be sent by any site, so the browser must say where it comes from
    (``Sec-Fetch-Site`` or ``Origin``); the guard around this endpoint refuses other sites.

    Args:
        problems: keeps and tells the report.
    """

    def __init__(self, problems: ProblemEndpoint) -> None:
        self._problems = problems

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("REQUEST_METHOD") != "POST":
            return refuse(start_response, "405 Method Not Allowed", "Send a report with POST.")
        if not (environ.get("HTTP_SEC_FETCH_SITE") or environ.get("HTTP_ORIGIN")):
            return refuse(
                start_response, "403 Forbidden", "A browser that sends a report says from where."
            )
        try:
            body = read_body(environ, MAX_BODY_BYTES)
        except BodyError as error:
            return refuse_body(start_response, error)
        form = _fields(body)
        here = local_address(form.get("url", ""))
        report = self._problems.keep(
            {"message": wording.REPORTED, "url": here, "reference": form.get("reference", "")},
            environ,
        )
        say = words(environ)
        headers, page = rendered(
            environ,
            "sent.html",
            language=say.language,
            title=say(wording.THANKS),
            text=say(wording.SENT, number=report.id),
            back=say(wording.BACK),
            here=here,
        )
        start_response("201 Created", [*headers, ("Content-Length", str(len(page)))])
        return [page]


def _fields(body: bytes) -> dict[str, str]:
    try:
        found = parse_qs(
            body.decode("latin-1"), encoding="utf-8", errors="replace", max_num_fields=10
        )
    except ValueError:
        return {}
    return {name: values[0] for name, values in found.items()}
