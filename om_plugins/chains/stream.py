"""Streamed answers: the first chunk commits the chain to an engine; the end is counted and closed.

The chain waits for the first chunk while it can still retry or fall back. After that chunk it never
asks again: half an answer of one engine and half of another are no answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, cast

from ..plugins.checks import refuse_chunk
from ..types import Answer, Call

logger = logging.getLogger("om_plugins")

End = Literal["done", "failed", "closed"]
OnEnd = Callable[[End, Exception | None], None]


@dataclass(slots=True, eq=False, repr=False)
class ChunkStream:
    """The chunks of a streamed answer, as ``Answer.chunks``.

    Args:
        chunks: the engine's iterator. It is closed when it ends, fails, is closed here or is
            garbage-collected unread.
        call: the call it answers.
        wait_s: how long each chunk after the first may take: the total deadline is for the first
            one, and an answer that goes on coming is not cut.
        monotonic: the clock of ``call``.

    Closing it early cancels the call and does not count as a failure.
    """

    chunks: Iterator[object]
    call: Call
    wait_s: float
    monotonic: Callable[[], float]
    _first: list[object] = field(default_factory=list, init=False)
    _on_end: list[OnEnd] = field(default_factory=list, init=False)
    _ended: bool = field(default=False, init=False)

    def pull_first(self) -> None:
        """Wait for the first chunk. Raises what the engine raises, after closing everything."""
        try:
            for chunk in self.chunks:
                self._first.append(refuse_chunk(chunk))
                break
        except BaseException:
            self._end("failed", None)
            raise

    def on_end(self, callback: OnEnd) -> None:
        """Call ``callback`` once with how the stream ended."""
        self._on_end.append(callback)

    def __iter__(self) -> Iterator[object]:
        return self

    def __next__(self) -> object:
        if self._first:
            return self._first.pop()
        if self._ended:
            raise StopIteration
        call = self.call
        call.deadline = call.attempt_deadline = self.monotonic() + self.wait_s
        try:
            return next(self.chunks)
        except StopIteration:
            self._end("done", None)
            raise
        except Exception as error:
            self._end("failed", error)
            raise
        except BaseException:
            self._end("closed", None)
            raise

    def close(self) -> None:
        """Drop the rest of the stream. May be called at any time, also twice."""
        if not self._ended:
            if self._on_end:  # committed: no other engine works on this call
                try:
                    self.call.cancel()
                finally:  # whatever an engine does on cancel, the permit must be given back
                    self._end("closed", None)
            else:
                self._end("closed", None)

    def __del__(self) -> None:
        self.close()

    def _end(self, end: End, error: Exception | None) -> None:
        self._ended = True
        self._first.clear()
        try:
            close_upstream(self.chunks)
        finally:
            try:
                tell = self._on_end.pop()  # one step: a reader and a closer may meet here
            except IndexError:
                pass
            else:
                tell(end, error)


def close_upstream(chunks: object) -> None:
    """Close an engine's iterator, if it can be closed."""
    close = getattr(chunks, "close", None)
    if close is None:
        return
    try:
        close()
    except Exception:  # the answer has ended already; its reader can do nothing about this
        logger.debug("closing an engine's stream failed", exc_info=True)


def is_stream(result: object) -> bool:
    """Return True for an iterator, not for a list or another container."""
    return hasattr(result, "__next__")


def begin(result: object, call: Call, wait_s: float, monotonic: Callable[[], float]) -> Answer:
    """Return an answer for the result of a streaming engine, inside the attempt.

    Args:
        result: an iterator of chunks, or an ``Answer`` with ``chunks``.
        call: when it does not want a stream, the chunks are joined here.
        wait_s, monotonic: for :class:`ChunkStream`.

    Returns:
        An answer whose ``chunks`` are a :class:`ChunkStream` with its first chunk pulled, or
        whose ``payload`` is the whole: text and bytes joined, anything else in a list.
    """
    answer = result if isinstance(result, Answer) else Answer(chunks=cast(Iterator[object], result))
    chunks = iter(answer.chunks or ())
    if call.stream:
        answer.chunks = stream = ChunkStream(chunks, call, wait_s, monotonic)
        stream.pull_first()
    else:
        answer.payload, answer.chunks = _whole(chunks, call), None
    return answer


def _whole(chunks: Iterator[object], call: Call) -> object:
    parts = []
    try:
        for chunk in chunks:
            call.raise_if_done()  # a stream may be endless
            parts.append(chunk)
    finally:
        close_upstream(chunks)
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) == len(parts):
        return "".join(texts)
    data = [part for part in parts if isinstance(part, bytes)]
    return b"".join(data) if len(data) == len(parts) else [refuse_chunk(part) for part in parts]
