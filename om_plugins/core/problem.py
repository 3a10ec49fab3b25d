"""Problem documents (RFC 9457), and the exception that becomes one."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CONTENT_TYPE = "application/problem+json"

Headers = list[tuple[str, str]]


def build_problem(status: int, title: str, detail: str, **extra: object) -> dict[str, object]:
    """Build a problem document.

    Args:
        status: the HTTP status.
        title: the kind of problem in a few words; the status's own phrase when "". The type is
            ``about:blank``, so the document says no more than the status (section 4.2.1).
        detail: what happened and what to do, in plain words for the person who asked.
        extra: more members; one that is ``None`` is left out.

    Returns:
        The members. ``instance`` is new each time, so that a log line can name this answer.
    """
    document: dict[str, object] = {
        "type": "about:blank",
        "title": title or get_phrase(status),
        "status": status,
        "detail": detail,
        "instance": f"urn:uuid:{uuid.uuid4()}",
    }
    document.update((name, value) for name, value in extra.items() if value is not None)
    return document


def encode_problem(document: dict[str, object]) -> bytes:
    """Encode a document as the body of an answer of :data:`CONTENT_TYPE`."""
    return msgspec.json.encode(document)


def get_phrase(status: int) -> str:
    """Return the phrase of a status; "Unknown" for a status without one."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


class Refusal(Exception):
    """A request is not answered, and the client gets a problem document that says why.

    Args:
        status: the HTTP status.
        detail: what happened and what to do, in plain words.
        headers: more headers of the answer.
        extra: more members of the problem document.
    """

    def __init__(
        self, status: int, detail: str, headers: Sequence[tuple[str, str]] = (), **extra: object
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = list(headers)
        self.document = build_problem(status, "", detail, **extra)

    def render(self) -> tuple[int, Headers, bytes]:
        """Return the status, headers and body of the answer."""
        body = encode_problem(self.document)
        headers = [
            ("Content-Type", CONTENT_TYPE),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *self.headers,
            ("Content-Length", str(len(body))),
        ]
        return self.status, headers, body

    def send(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        headers: Sequence[tuple[str, str]] = (),
    ) -> list[bytes]:
        """Answer a WSGI request with this refusal.

        Args:
            headers: more headers, besides those of the refusal.

        Returns:
            The body; empty for a HEAD request.
        """
        status, own, body = self.render()
        start_response(f"{status} {get_phrase(status)}", [*own, *headers])
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]
