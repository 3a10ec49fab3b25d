"""Reads server-sent events from bytes that arrive in arbitrary pieces.

It follows the WHATWG HTML standard, section 9.2.6 (interpreting an event stream): LF, CR and CRLF
end a line, a line that begins with a colon is a comment, one space after the colon of a field is
not part of its value. Lines and events have a size limit, because the upstream is not trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ...errors import Transient

_LINE_END = re.compile(rb"\r\n|\n|\r")


class ServerEvent(NamedTuple):
    """One event: its type (``message`` by default) and its data."""

    event: str
    data: str


def read_events(chunks: Iterable[bytes], *, max_event: int = 2**20) -> Iterator[ServerEvent]:
    """Yield the events of a stream, each as soon as its blank line has arrived.

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
            if data:
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
    if data:
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
