"""Problem documents: what a client is told when something went wrong (RFC 9457)."""

from __future__ import annotations

import uuid
from http import HTTPStatus

import msgspec

CONTENT_TYPE = "application/problem+json"


def problem(status: int, title: str, detail: str, **extra: object) -> dict[str, object]:
    """A problem document.

    Args:
        status: the HTTP status.
        title: the kind of problem in a few words; the status's own phrase when "". The type is
            ``about:blank``, so nothing more than the status stands behind it (section 4.2.1).
        detail: what happened and what to do, in plain words for the person who asked.
        extra: more members; one that is ``None`` is left out.

    Returns:
        The members; ``instance`` is new each time and fit for a log.
    """
    document: dict[str, object] = {
        "type": "about:blank",
        "title": title or phrase(status),
        "status": status,
        "detail": detail,
        "instance": f"urn:uuid:{uuid.uuid4()}",
    }
    document.update((name, value) for name, value in extra.items() if value is not None)
    return document


def encoded(document: dict[str, object]) -> bytes:
    """The document as the body of an answer of :data:`CONTENT_TYPE`."""
    return msgspec.json.encode(document)


def phrase(status: int) -> str:
    """The phrase of a status; "Unknown" for one that has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
