"""Server-sent events: written as bytes, and read from bytes that arrive in arbitrary pieces.

Reading follows the WHATWG HTML standard, section 9.2.6 (interpreting an event stream): LF, CR and
CRLF end a line, a line that begins with a colon is a comment, one space after the colon of a field
is not part of its value. Lines and events have a size limit, because the upstream is not trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from ...errors import Transient

# --- writing -----------------------------------------------------------------------------------

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


# --- reading -----------------------------------------------------------------------------------

_LINE_END = re.compile(rb"\r\n|\n|\r")
_ERROR = re.compile(
    r"(?:(?:response|stream|server|upstream|chat|completion|message|(?:thread\.)?run|internal|fatal"
    r"|api|model|provider|gateway|generation)[._:-])?"
    r"(?:errors?|err|exception|failed|failure|fatal|abort(?:ed)?)",
    re.IGNORECASE,
)


class ServerEvent(NamedTuple):
    """One event: its type (``message`` by default) and its data."""

    event: str
    data: str


def is_error_event(name: str) -> bool:
    """Whether an event of this type reports that the answer failed, as ``error`` and
    ``response.failed`` do. An event ``payment.failed`` may be what the answer is about."""
    return _ERROR.fullmatch(name[:100]) is not None


def read_events(chunks: Iterable[bytes], *, max_event: int = 2**20) -> Iterator[ServerEvent]:
    """Yield the events of a stream, each as soon as its blank line has arrived.

    An event without data is none (as in browsers), unless its type reports an error.

    Args:
        chunks: the body in pieces, which may end within a character.
        max_event: the most bytes of a line, and of the data of one event.

    Raises:
        Transient: a line or an event is too large.
    """
    name, size = "", 0
    data: list[str] = []
    for line in _split_lines(chunks, max_event):
        if not line:
            if data or is_error_event(name):
                yield ServerEvent(name or "message", "\n".join(data))
            name, data, size = "", [], 0
            continue
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            size += len(value) + 1
            if size > max_event:
                raise Transient(f"an event is larger than {max_event} bytes", sent="yes")
            data.append(value.decode("utf-8", "replace"))
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"error":  # of llama.cpp; the standard knows no such field
            name = "error"
            data.append(value.decode("utf-8", "replace"))
    if data or is_error_event(name):
        # The standard drops an event without its blank line. But many servers end with a bare
        # "data: [DONE]", and a truncated JSON fails when it is parsed.
        yield ServerEvent(name or "message", "\n".join(data))


def _split_lines(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    rest = bytearray()
    first = True
    after_cr = False
    for chunk in chunks:
        if after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # a CRLF that was split between two pieces
            after_cr = False
        if chunk:
            after_cr = chunk.endswith(b"\r")
        start = 0
        for end in _LINE_END.finditer(chunk):
            line = bytes(rest) + chunk[start : end.start()]
            rest.clear()
            start = end.end()
            if len(line) > limit:
                raise _make_error(limit)
            yield line.removeprefix(b"\xef\xbb\xbf") if first else line
            first = False
        rest += chunk[start:]
        if len(rest) > limit:
            raise _make_error(limit)
    if rest:
        yield bytes(rest)


def _make_error(limit: int) -> Transient:
    return Transient(f"a line of the event stream is longer than {limit} bytes", sent="yes")
