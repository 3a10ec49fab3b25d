"""The form "Report problem" of an error page, for browsers without scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from ..core.problem import Refusal
from .limits import is_same_origin_path
from .problem_reports import ProblemReports, read_report

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_MESSAGE = "A page could not be shown"
_MAX_FIELDS = 10

MakePage = Callable[["WSGIEnvironment", str, str], tuple[list[tuple[str, str]], bytes]]
"""``make_page(environ, report_id, url) -> (headers, body)``: the page that says thank you."""


@dataclass(eq=False, repr=False)
class ReportForm:
    """A WSGI application for ``POST`` of a form with ``url`` and ``reference``.

    Every site can send a form, so the browser must say where it comes from (``Sec-Fetch-Site`` or
    ``Origin``). The guard around this endpoint refuses other sites.

    Args:
        reports: keeps the report.
        make_page: makes the page that the person gets.
    """

    reports: ProblemReports
    make_page: MakePage

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        says = environ.get("HTTP_SEC_FETCH_SITE") or environ.get("HTTP_ORIGIN")
        why_not = "" if says else "A browser that sends a report says from where."
        try:
            form = _parse_form(read_report(environ, why_not))
        except Refusal as refusal:
            return refusal.send(environ, start_response)
        url = form.get("url", "")
        if not is_same_origin_path(url):
            url = "/"
        report = self.reports.save(
            {"message": _MESSAGE, "url": url, "reference": form.get("reference", "")}, environ
        )
        headers, page = self.make_page(environ, report.id, url)
        start_response("201 Created", [*headers, ("Content-Length", str(len(page)))])
        return [page]


def _parse_form(body: bytes) -> dict[str, str]:
    """Return the first value of each field; no fields when there are too many."""
    try:
        fields = parse_qs(
            body.decode("latin-1"), encoding="utf-8", errors="replace", max_num_fields=_MAX_FIELDS
        )
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}
