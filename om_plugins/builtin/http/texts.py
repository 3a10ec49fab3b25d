"""A streamed answer of any upstream as pieces of text: its media types, and what its events mean.

A stream is an answer only when it has one of these types and says something: a login page with
status 200, an event that reports an error and a stream without a word are failures, as they are
when the answer comes in one piece.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator

from ...errors import EngineError
from .sse import is_error_event, read_events

EVENT_STREAM = "text/event-stream"
TEXTS = frozenset({"text/plain", "text/markdown", "text/csv"})
"""The types whose bytes are the answer. Not all of ``text/``: HTML is a page for people, most often
that of a gateway."""

_KEEP_ALIVE = re.compile(r"ping|pong|heart[-_]?beat|keep[-_]?alive", re.IGNORECASE)
_MOST_BLANKS = 1_000


def is_text_stream(kind: str) -> bool:
    """Whether an answer of this media type (in lower case, without parameters) can be streamed."""
    return kind == EVENT_STREAM or kind in TEXTS


def keeps_alive(name: str) -> bool:
    """Whether an event of this type only keeps the connection open."""
    return _KEEP_ALIVE.fullmatch(name) is not None


def read_texts(
    pieces: Iterable[bytes],
    kind: str,
    metadata: dict[str, object],
    fail: Callable[[str, str], EngineError],
) -> Iterator[str]:
    """Yield the data of each event, or the text of any other stream as it arrives.

    Events that only keep the connection open (``ping``, ``heartbeat``) are left out.

    Args:
        pieces: the body.
        kind: its media type, see :func:`is_text_stream`.
        metadata: gets the type of each event, as ``event``, before its data is yielded.
        fail: makes the error for a stream that failed, from what happened and the data of the event
            that reports it.

    Raises:
        EngineError: the upstream reported an error, or the stream ended without a word.
    """
    texts = _read_data(pieces, fail) if kind == EVENT_STREAM else _decode(pieces)
    blanks: list[tuple[str, str]] | None = []  # white space is no answer: it waits for a word
    for event, text in texts:
        if blanks is not None:
            blanks.append((event, text))
            if not text.strip() and len(blanks) < _MOST_BLANKS:
                continue
            for blank_event, blank in blanks[:-1]:
                _note(blank_event, metadata)
                yield blank
            blanks = None
        _note(event, metadata)
        yield text
    if blanks is not None:
        raise fail("streamed no word", "")


def _note(event: str, metadata: dict[str, object]) -> None:
    if event:
        metadata["event"] = event


def _read_data(
    pieces: Iterable[bytes], fail: Callable[[str, str], EngineError]
) -> Iterator[tuple[str, str]]:
    for event in read_events(pieces):
        if is_error_event(event.event):
            raise fail("streamed an event that reports an error", event.data)
        if not keeps_alive(event.event):
            yield event.event, event.data


def _decode(pieces: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    for piece in pieces:
        if text := decoder.decode(piece):
            yield "", text
    if text := decoder.decode(b"", final=True):
        yield "", text
