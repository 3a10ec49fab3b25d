"""A streamed answer of any upstream as pieces of text: its media types, and what its events mean.

A stream is an answer only when it has one of these types and says something: a login page with
status 200, an event that reports an error and a stream without a word are failures, as they are
when the answer comes in one piece.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from ...errors import EngineError
from .sse import is_error_event, read_events

if TYPE_CHECKING:
    from .transport import HttpExchange

T = TypeVar("T")

EVENT_STREAM = "text/event-stream"
DONE = (201, 202)
"""The statuses that say themselves what was done (RFC 9110 sections 15.3.2 and 15.3.3)."""
UTF_8 = "utf-8-sig"
"""With or without a byte order mark."""
TEXTS = frozenset({"text/plain", "text/markdown", "text/csv"})
"""The types whose bytes are the answer. Not all of ``text/``: HTML is a page for people, most often
that of a gateway."""

BLANK = re.compile("[\\s\x00-\x1f\x7f\xad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]*")
"""What prints nothing and is no word: white space, controls, marks of width zero."""

_KEEP_ALIVE = re.compile(r"ping|pong|heart[-_]?beat|keep[-_]?alive|no[-_]?op", re.IGNORECASE)
_END_OF_EVENTS = "[DONE]"
"""What many services send as the data of their last event. It is no word of an answer."""
_CHARSET = re.compile(
    r";\s*charset\s*=\s*['\"]?(utf-?16(?:-?[lb]e)?|utf-?32(?:-?[lb]e)?|iso-?8859-?[0-9]{1,2}|latin-?1"
    r"|windows-?125[0-9]|cp[0-9]{3,4}|euc-?kr|euc-?jp|shift[-_]?jis|gb(?:k|2312|18030)|big5"
    r"|koi8-[ru])(?![^'\";\s])",
    re.IGNORECASE,
)
_MOST_BLANKS = 1_000
_MOST_BLANK_BYTES = 65_536


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
    *,
    charset: str = UTF_8,
    may_be_empty: bool = False,
) -> Iterator[str]:
    """Yield the data of each event, or the text of any other stream as it arrives.

    Events that only keep the connection open (``ping``, ``heartbeat``) are left out.

    Args:
        pieces: the body.
        kind: its media type, see :func:`is_text_stream`.
        metadata: gets the type of each event, as ``event``, before its data is yielded.
        fail: makes the error for a stream that failed, from what happened and the data of the event
            that reports it.
        charset: the encoding of a text; events are always in UTF-8.
        may_be_empty: a stream without a word is one, because its status says what was done.

    Raises:
        EngineError: the upstream reported an error, or the stream ended without a word.
    """
    texts = _read_data(pieces, fail) if kind == EVENT_STREAM else _decode(pieces, charset)
    blanks: list[tuple[str, str]] | None = []  # white space is no answer: it waits for a word
    size = 0
    for event, text in texts:
        if blanks is not None:
            blanks.append((event, text))
            size += len(text)
            if BLANK.fullmatch(text) or (event and text.strip() == _END_OF_EVENTS):
                if len(blanks) < _MOST_BLANKS and size <= _MOST_BLANK_BYTES:
                    continue
                break
            for blank_event, held in blanks[:-1]:
                _note(blank_event, metadata)
                yield held
            blanks = None
        _note(event, metadata)
        yield text
    if blanks is not None and not may_be_empty:
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


def _decode(pieces: Iterable[bytes], charset: str) -> Iterator[tuple[str, str]]:
    decoder = codecs.getincrementaldecoder(charset)("replace")
    for piece in pieces:
        if text := decoder.decode(piece):
            yield "", text
    if text := decoder.decode(b"", final=True):
        yield "", text


# --- an answer of any kind ------------------------------------------------------------------------


class StreamedPieces(Generic[T]):
    """The pieces of a streamed answer. ``close`` closes the connection at any time."""

    def __init__(self, pieces: Iterator[T], exchange: HttpExchange) -> None:
        self._pieces = pieces
        self._exchange = exchange

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            return self._pieces.__next__()
        except BaseException:
            # The stream ended or failed. If the whole body was read, the connection is in the
            # pool already and this does nothing; else the events ended before the body did.
            self._exchange.close()
            raise

    def close(self) -> None:
        self._pieces.close()  # type: ignore[attr-defined]  # a generator
        self._exchange.close()


def resume(first: T, rest: Iterator[T]) -> Iterator[T]:
    """Yield a piece that was read to see whether there is one, and then the others."""
    yield first
    yield from rest


def read_content_type(headers: Mapping[str, str]) -> str:
    """The media type of an answer, without parameters, in lower case; the last one where the
    header came twice, as in browsers."""
    kinds = headers.get("content-type") or ""
    return kinds.rpartition(",")[2].partition(";")[0].strip().lower()


def read_charset(headers: Mapping[str, str]) -> str:
    """Return the encoding of a text as Python calls it: what its type says, else UTF-8. An encoding
    that no web page has is taken for UTF-8."""
    found = _CHARSET.search((headers.get("content-type") or "").rpartition(",")[2])
    try:
        return UTF_8 if found is None else codecs.lookup(found[1]).name
    except LookupError:  # cp999
        return UTF_8


def read_receipt(status: int, headers: Mapping[str, str], body: bytes) -> str | None:
    """Return the text of an answer that says "done" in words for people: 201 and 202 say it
    themselves (RFC 9110 sections 15.3.2 and 15.3.3). ``None`` for any other answer, or no text."""
    if status not in DONE or read_content_type(headers) != "text/plain":
        return None
    return body.decode(read_charset(headers), "replace").strip() or None


def has_no_content(exchange: HttpExchange) -> bool:
    """Whether the body of an answer has nothing but white space. It reads no further than needed,
    and closes the connection of an answer that has more."""
    size = 0
    pieces = cast(Generator[bytes, None, None], exchange.chunks())
    try:
        for piece in pieces:
            size += len(piece)
            if piece.strip() or size > _MOST_BLANK_BYTES:
                return False
        return True
    finally:
        pieces.close()
