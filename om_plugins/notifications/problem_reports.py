"""Problem reports: a person presses "Report problem" and it becomes a numbered report.

It is kept where all workers find it, told to operators through the notifiers, and listed on the
console. Whatever arrives is hostile: it is cut while it is read, cleaned and clamped.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from .. import signals
from ..core.body import BodyError, read_body
from ..core.problem import CONTENT_TYPE, build_problem, encode_problem
from ..protocols import Clock, Hub, Notify
from ..types import Notification, ProblemReport
from .audience import OPERATORS
from .limits import cleaned

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger = logging.getLogger("om_plugins")

TOPIC = "problems"
"""The hub's topic that reports are published to."""

KEPT = 500
"""The newest reports that are kept."""

_KEPT_S = 30 * 86_400.0
_YEARS_S = 10 * 365 * 86_400.0
_KEY = "problem:"
MAX_BODY_BYTES = 8_192
_MAX_DETAILS = 20


class ProblemEndpoint:
    """A WSGI application for ``POST`` with a JSON object and the header ``X-OM: 1``.

    The object may have ``message`` (what was shown, or what the person wrote), ``url`` (the
    page's path), ``reference`` (the value of the action that was pressed, such as the fingerprint
    of an error), ``language`` and ``details`` (an object of texts and numbers). The answer is 201
    with ``{"id": "12"}``. The header is one that no form of another site can send.

    Args:
        hub: keeps and numbers the reports.
        clock: the time.
        emit: tells ``problem_reported``.
        notify: tells the operators.
    """

    def __init__(self, *, hub: Hub, clock: Clock, emit: signals.Emit, notify: Notify) -> None:
        self._hub = hub
        self._clock = clock
        self._emit = emit
        self._notify = notify

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("REQUEST_METHOD") != "POST":
            return refuse(start_response, "405 Method Not Allowed", "Send a report with POST.")
        if environ.get("HTTP_X_OM") != "1":
            return refuse(start_response, "403 Forbidden", "A report needs the header 'X-OM: 1'.")
        try:
            body = read_body(environ, MAX_BODY_BYTES)
        except BodyError as error:
            return refuse_body(start_response, error)
        try:
            said = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            said = None
        if not isinstance(said, dict):
            return refuse(start_response, "400 Bad Request", "A report is a JSON object.")
        report = self.keep(said, environ)
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

    def keep(self, said: Mapping[str, object], environ: WSGIEnvironment) -> ProblemReport:
        """Clean what was said, number it, keep it and tell of it."""
        number = self._hub.increment("problems:number", ttl=_YEARS_S)
        report = ProblemReport(
            id=str(number),
            at=self._clock.time(),
            message=_text(said.get("message"), 1000) or "Something went wrong",
            route=_path(said.get("url")),
            fingerprint=_text(said.get("reference"), 100),
            details=_details(said, environ),
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


def problems(hub: Hub, limit: int = 50) -> list[ProblemReport]:
    """The newest reports, newest first.

    Args:
        limit: how many, at most.
    """
    found = sorted(hub.scan(_KEY).items(), reverse=True)[: max(0, limit)]
    reports = []
    for _, data in found:
        try:
            reports.append(msgspec.convert(data, ProblemReport))
        except msgspec.ValidationError:
            logger.debug("a kept problem report cannot be read", exc_info=True)
    return reports


def _key(number: int) -> str:
    return f"{_KEY}{number:012d}"


def refuse(start_response: StartResponse, status: str, detail: str) -> list[bytes]:
    """Answer with a problem document."""
    body = encode_problem(build_problem(int(status[:3]), status[4:], detail))
    headers = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))]
    if status.startswith("405"):
        headers.append(("Allow", "POST"))
    start_response(status, headers)
    return [body]


def refuse_body(start_response: StartResponse, error: BodyError) -> list[bytes]:
    """Answer a report whose body cannot be read."""
    if error.status == 413:
        detail = f"A report may have {MAX_BODY_BYTES} bytes."
        return refuse(start_response, "413 Content Too Large", detail)
    return refuse(start_response, "411 Length Required", "Say how long the report is.")


def _text(value: object, limit: int) -> str:
    return cleaned(value, limit).strip() if isinstance(value, str) else ""


def _path(value: object) -> str:
    """The path of an address: its query may hold secrets."""
    try:
        return urlsplit(_text(value, 2000)).path[:300]
    except ValueError:
        return ""


def _details(said: Mapping[str, object], environ: WSGIEnvironment) -> dict[str, object]:
    value, found = said.get("details"), dict[str, object]()
    for name, one in list(value.items())[:_MAX_DETAILS] if isinstance(value, dict) else ():
        if isinstance(one, str):
            one = _text(one, 300)
        elif isinstance(one, int):
            one = max(-(2**53), min(one, 2**53))  # what every reader of JSON can hold
        elif one is not None and not isinstance(one, bool | float):
            continue
        found[_text(name, 60)] = one
    about = {
        "language": _text(said.get("language"), 40),
        "browser": _text(environ.get("HTTP_USER_AGENT"), 200),
    }
    return found | {name: text for name, text in about.items() if text}
