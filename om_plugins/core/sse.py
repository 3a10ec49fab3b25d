"""Server-sent events: the headers of a stream, and its events as bytes.

Source: HTML Living Standard, section 9.2 "Server-sent events".
"""

from __future__ import annotations

import msgspec

CONTENT_TYPE = "text/event-stream; charset=utf-8"

HEADERS = (
    ("Content-Type", CONTENT_TYPE),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Accel-Buffering", "no"),  # nginx then passes each event on at once
)
"""The headers of every stream."""


def encode_event(data: object, *, event: str = "", id: str = "") -> bytes:  # noqa: A002
    """Encode one event.

    JSON contains no line breaks of its own, so one ``data`` line is enough.

    Args:
        data: what the browser gets, as JSON.
        event: the event's name, without line breaks; browsers call an event without one
            ``message``.
        id: what a browser sends back as ``Last-Event-ID``, without line breaks; "" leaves its last
            id as it is.
    """
    head = b"event: %b\n" % event.encode() if event else b""
    if id:
        head += b"id: %b\n" % id.encode()
    return b"%bdata: %b\n\n" % (head, msgspec.json.encode(data))


def encode_heartbeat(id: str) -> bytes:  # noqa: A002
    """Encode a comment that keeps the connection open and sets the browser's ``Last-Event-ID``.

    A block without data triggers no event in the browser.
    """
    return b": \nid: %b\n\n" % id.encode()


def encode_retry(delay_ms: int) -> bytes:
    """Encode how many milliseconds a browser waits before it connects again."""
    return b"retry: %d\n\n" % delay_ms
