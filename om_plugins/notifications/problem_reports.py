"""Problem reports: somebody presses "Report problem", and it becomes a numbered report.

All workers find a report in the hub, notifiers tell operators of it, and the console lists it.
Nothing in a request is trusted: sizes are cut while it is read, text is cleaned, numbers are
limited.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from .. import signals
from ..core.body import BodyError, read_body
from ..core.problem import Refusal
from ..protocols import Clock, Hub, Notify
from ..types import Notification, ProblemReport
from .audience import OPERATORS
from .limits import clean_text

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger = logging.getLogger("om_plugins")

TOPIC = "problems"
"""The hub's topic that reports are published to."""

KEPT = 500
"""How many reports are kept: the newest."""

MAX_BODY_BYTES = 8_192

_KEPT_S = 30 * 86_400.0
_NUMBER_KEPT_S = 10 * 365 * 86_400.0
_KEY = "problem:"
_MAX_DETAILS = 20


class ProblemReports:
    """The problem reports of an application.

    Args:
        hub: numbers and keeps the reports.
        clock: the time.
        emit: sends the signal ``problem_reported``.
        notify: tells the operators.
    """

    def __init__(self, *, hub: Hub, clock: Clock, emit: signals.Emit, notify: Notify) -> None:
        self._hub = hub
        self._clock = clock
        self._emit = emit
        self._notify = notify

    def save(self, fields: Mapping[str, object], environ: WSGIEnvironment) -> ProblemReport:
        """Clean a report, number it, keep it and tell the operators.

        Args:
            fields: what the browser sent; see :class:`ProblemEndpoint`.
            environ: the request that brought it.
        """
        number = self._hub.increment("problems:number", ttl=_NUMBER_KEPT_S)
        report = ProblemReport(
            id=str(number),
            at=self._clock.time(),
            message=_clean(fields.get("message"), 1000) or "Something went wrong",
            route=_clean_path(fields.get("url")),
            fingerprint=_clean(fields.get("reference"), 100),
            details=_clean_details(fields, environ),
        )
        data = dataclasses.asdict(report)
        self._hub.put(_key(number), data, ttl=_KEPT_S)
        if number > KEPT:
            self._hub.put(_key(number - KEPT), None, ttl=1.0)
        self._hub.publish(TOPIC, data)
        where = f" ({report.route})" if report.route else ""
        self._notify(
            Notification(
                kind="warning",
                message=f"Problem report {report.id}: {report.message}{where}",
                to=OPERATORS,
                key=f"problem-{report.id}",
                data={"problem": report.id, "fingerprint": report.fingerprint},
            )
        )
        self._emit(signals.problem_reported, report=report)
        return report

    def read(self, limit: int = 50) -> list[ProblemReport]:
        """Read the newest reports, newest first.

        Args:
            limit: the greatest number of reports.
        """
        kept = sorted(self._hub.scan(_KEY).items(), reverse=True)[: max(0, limit)]
        reports = []
        for _, data in kept:
            try:
                reports.append(msgspec.convert(data, ProblemReport))
            except msgspec.ValidationError:
                logger.debug("a kept problem report cannot be read", exc_info=True)
        return reports


@dataclasses.dataclass(eq=False, repr=False)
class ProblemEndpoint:
    """A WSGI application for ``POST`` with a JSON object and the header ``X-OM: 1``.

    The object may have ``message`` (the text of the toast, or what the person wrote), ``url`` (the
    page's path), ``reference`` (the value of the action that was pressed, such as the fingerprint
    of an error), ``language`` and ``details`` (an object of texts and numbers). The answer is 201
    with ``{"id": "12"}``. No form of another site can send the header.

    Args:
        reports: keeps the report.
    """

    reports: ProblemReports

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        trusted = environ.get("HTTP_X_OM") == "1"
        try:
            body = read_report(environ, "" if trusted else "A report needs the header 'X-OM: 1'.")
            fields = msgspec.json.decode(body, type=dict[str, Any])
        except Refusal as refusal:
            return refusal.send(environ, start_response)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return Refusal(400, "A report is a JSON object.").send(environ, start_response)
        report = self.reports.save(fields, environ)
        answer = msgspec.json.encode({"id": report.id})
        start_response(
            "201 Created",
            [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(answer))),
                ("Cache-Control", "no-store"),
            ],
        )
        return [answer]


def read_report(environ: WSGIEnvironment, why_not: str) -> bytes:
    """Read the body of a request with a report.

    Args:
        environ: the request.
        why_not: why the sender of a POST may not report anything; "" when it may.

    Raises:
        Refusal: the request is no POST, the sender may not report, or the body is too large or
            cannot be read.
    """
    if environ.get("REQUEST_METHOD") != "POST":
        raise Refusal(405, "Send a report with POST.", [("Allow", "POST")])
    if why_not:
        raise Refusal(403, why_not)
    try:
        return read_body(environ, MAX_BODY_BYTES)
    except BodyError as error:
        raise Refusal(error.status, str(error)) from None


def _key(number: int) -> str:
    return f"{_KEY}{number:012d}"


def _clean(value: object, limit: int) -> str:
    return clean_text(value, limit).strip() if isinstance(value, str) else ""


def _clean_path(value: object) -> str:
    """Return the path of an address, without its query, which may hold secrets."""
    try:
        return urlsplit(_clean(value, 2000)).path[:300]
    except ValueError:
        return ""


def _clean_details(fields: Mapping[str, object], environ: WSGIEnvironment) -> dict[str, object]:
    details = fields.get("details")
    cleaned: dict[str, object] = {}
    for name, value in list(details.items())[:_MAX_DETAILS] if isinstance(details, dict) else ():
        if isinstance(value, str):
            value = _clean(value, 300)
        elif isinstance(value, int):
            value = max(-(2**53), min(value, 2**53))  # what every reader of JSON can hold
        elif value is not None and not isinstance(value, bool | float):
            continue
        cleaned[_clean(name, 60)] = value
    browser = {
        "language": _clean(fields.get("language"), 40),
        "browser": _clean(environ.get("HTTP_USER_AGENT"), 200),
    }
    return cleaned | {name: text for name, text in browser.items() if text}
