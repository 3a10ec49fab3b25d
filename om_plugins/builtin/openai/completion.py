"""One answer of an OpenAI-compatible service, read from its documents, streamed or not.

A stream has one event for each piece, a whole answer is one document. Both are read by the same
reader, so both are judged alike: an error anywhere in a document fails the attempt, and so does an
answer without a word. Tool calls and refusals are answers with types of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Final

from ...errors import EngineError, NoAnswer, TooLong, Transient, Unsupported
from ...types import ModelRefusal, ToolCalls
from ..http.lenient_json import SurrogateJoiner, decode_json, join_surrogates, read_json
from ..http.sse import ServerEvent, is_error_event, read_events
from ..http.texts import BLANK, EVENT_STREAM, keeps_alive
from .refusals import find_error, judge
from .tool_calls import ToolCallJoiner

# --- the documents --------------------------------------------------------------------------------

_NO_JSON = re.compile(r"text/(html|xml|css)|application/(xhtml\+xml|xml)|(image|audio|video)/.*")
_FIELD = re.compile(rb"(\xef\xbb\xbf)?\s?(data|event|id|retry|error)?:")
_JSON_TEXT = re.compile(rb"(\xef\xbb\xbf)?\s?[{\[]")
_FIELD_SIZE = 16
"""Within so many bytes the name of a first field has ended, with the marks before it."""


def read_answer_events(
    pieces: Iterable[bytes], kind: str, max_bytes: int, where: str, charset: str = ""
) -> Iterator[ServerEvent]:
    """Yield the events of a stream; of any other answer, its whole text as one event ``whole``.

    Services and the gateways in front of them send streams under other media types, and whole
    answers as ``text/plain`` or without a type. So the type decides only where it is clear.

    Args:
        pieces: the body.
        kind: its media type.
        max_bytes: the most bytes of a whole answer.
        where: the engine and its URL, for messages.
        charset: the encoding of a whole answer in none of JSON's own.

    Raises:
        Transient: the answer is neither, or too large.
    """
    if _NO_JSON.fullmatch(kind):
        raise Transient(f"{where}: answered {kind[:60]!r}, not JSON", sent="yes")
    pieces = iter(pieces)
    first = b""
    for piece in pieces:
        first = (first + piece).lstrip()
        if len(first) >= _FIELD_SIZE:
            break
    start = first[:_FIELD_SIZE]
    if _JSON_TEXT.match(start) if kind == EVENT_STREAM else not _FIELD.match(start):
        parts, size = [first], len(first)
        for piece in pieces:
            parts.append(piece)
            size += len(piece)
            if size > max_bytes:
                break
        if size > max_bytes:
            raise Transient(f"{where}: the answer is larger than {max_bytes} bytes", sent="yes")
        yield ServerEvent("whole", decode_json(b"".join(parts), charset))
        return
    yield from read_events(chain((first,), pieces))


# --- the answer -----------------------------------------------------------------------------------

Piece = str | ToolCalls | ModelRefusal

_REFUSED: Final = "refusal"
_FINISHES: Final = (
    ("filtered", r"content_?filter|sensitive|safety|recitation|prohibited|blocklist|spii|guardrail"
                 r"|moderation|toxic|language|refus"),
    ("failed", r"error|abort|cancel|timeout|time_limit|fail|exception|malformed|interrupt"
               r"|insufficient_system_resource"),
    ("cut off", r"length|max_\w*tokens|context_window|token_limit"),
)  # fmt: skip
"""What a reason to finish means, by a part of it: Gemini says ``content_filter: RECITATION``,
Cohere ``ERROR_TOXIC``. Any other one is the end of an answer."""
_NO_FINISH: Final = frozenset({"", "null", "none"})

_ANSWERS: Final = ("refusal", "tool_calls", "function_call")
_DONE: Final = "[DONE]"
_MOST_CALLS = 1000

_THOUGHT, _END_OF_THOUGHT = "<think>", "</think>"


class FirstWord:
    """Whether a text that comes in pieces has a word yet. Blanks are none, and neither is what a
    model thinks before it answers (``<think>…</think>``)."""

    __slots__ = ("_rest", "_thinks", "found")

    def __init__(self) -> None:
        self.found = False
        self._rest = ""
        self._thinks = False

    def add(self, piece: str) -> bool:
        """Read the next piece; return whether there is a word now."""
        while not self.found and piece:
            self._rest += piece
            piece = ""
            if self._thinks:
                _, end, after = self._rest.partition(_END_OF_THOUGHT)
                if end:
                    self._thinks, self._rest, piece = False, "", after
                else:
                    self._rest = self._rest[1 - len(_END_OF_THOUGHT) :]
                continue
            self._rest = self._rest[BLANK.match(self._rest).end() :]  # type: ignore[union-attr]
            if self._rest.startswith(_THOUGHT):
                self._thinks, self._rest, piece = True, "", self._rest[len(_THOUGHT) :]
            elif not _THOUGHT.startswith(self._rest):
                self.found = True
        return self.found

    def end(self) -> bool:
        """Return whether the whole text had a word."""
        return self.found or (bool(self._rest) and not self._thinks)


class CompletionReader:
    """Reads the events of one answer.

    Args:
        where: the engine and its URL, for messages.
        headers: the headers of the response.
        model: the model that was asked, for services that do not repeat it.
        max_size: the most letters of an answer.

    Attributes:
        metadata: ``model``, ``usage``, ``finish_reason`` and ``truncated``, as they arrive.
        whole: the answer came at once, not in pieces.
    """

    def __init__(
        self, *, where: str, headers: Mapping[str, str], model: str, max_size: int
    ) -> None:
        self.metadata: dict[str, object] = {"model": model}
        self.whole = False
        self._where = where
        self._headers = headers
        self._max_size = max_size
        self._size = 0
        self._finish = ""
        self._done = False
        self._known = False  # some document was that of a chat completion
        self._joiner = SurrogateJoiner()
        self._word = FirstWord()
        self._held: list[str] = []  # blanks and thoughts before the first word
        self._texts: list[str] = []
        self._refusal: list[str] = []
        self._calls = ToolCallJoiner()

    def read(self, events: Iterable[ServerEvent]) -> Iterator[str]:
        """Yield the pieces of the answer's text, from its first word on.

        Raises:
            EngineError: an event contains an error or cannot be read.
        """
        for event in events:
            whole = event.event == "whole"
            for document in self._parse(event):
                if text := self._take(document, whole):
                    yield text
            if self._done:
                break
        if text := self._say(self._joiner.end()):
            yield text
        if not self._word.found and self._word.end():  # it looked like the beginning of a thought
            yield "".join(self._held)

    def conclude(self) -> ToolCalls | ModelRefusal | None:
        """Return what the answer has beside its text, after its last event.

        Raises:
            Transient: the service failed while it answered, or the answer is not complete.
            Unsupported: its content filter refused.
            TooLong: its tokens were used up before the first word.
            NoAnswer: there is no word, no tool call and no refusal.
        """
        finish = _classify_finish(self._finish)
        if not (self._known or self._done):
            raise self._fail("the answer is no chat completion")
        if finish == "failed":
            raise self._fail("failed while it answered")
        if not self._finish and not self._done and not self.whole:
            raise self._fail("the stream ended before the answer did")
        self.metadata["finish_reason"] = self._finish or "stop"
        if finish == "cut off":
            self.metadata["truncated"] = True
        if finish == "filtered" and not (self._finish == _REFUSED and self._refusal):
            raise Unsupported(f"{self._where}: the service's content filter refused", sent="yes")
        model = str(self.metadata["model"])
        if calls := self._calls.end():
            return ToolCalls(calls, model=model)
        if refusal := join_surrogates("".join(self._refusal)):
            return ModelRefusal(refusal, model=model)
        if not self._word.end():
            if finish == "cut off":
                raise TooLong(
                    f"{self._where}: used up its tokens before it answered a word", sent="yes"
                )
            raise NoAnswer(f"{self._where}: answered without a word", sent="yes")
        return None

    # --- one document ---

    def _parse(self, event: ServerEvent) -> Iterable[object]:
        if event.event == "message" and event.data.startswith("{"):
            try:
                return (read_json(event.data, halves=True),)
            except ValueError:
                pass
        return self._parse_other(event)

    def _parse_other(self, event: ServerEvent) -> Iterator[object]:
        data = event.data.strip()
        if not (fails := is_error_event(event.event)) and (not data or keeps_alive(event.event)):
            return
        if data.strip('"') == _DONE:
            self._done = True
            return
        try:
            document = read_json(data, halves=True)
        except ValueError:
            if fails:
                document = data
            else:
                yield from self._parse_lines(data)
                return
        if fails:
            raise self._judge(find_error(document, expected=True) or {})
        yield document

    def _parse_lines(self, data: str) -> Iterator[object]:
        """Documents of which each is one line, without blank lines between them."""
        lines = [line.strip().removeprefix("data:").strip() for line in data.splitlines()]
        if len(lines) < 2:
            raise self._fail("the answer is broken JSON")
        for line in lines:
            if line == _DONE:
                self._done = True
                return
            if line:
                try:
                    yield read_json(line, halves=True)
                except ValueError:
                    raise self._fail("the answer is broken JSON") from None

    def _take(self, document: object, whole: bool) -> str:
        if (error := find_error(document)) is not None:
            raise self._judge(error)
        if not isinstance(document, dict):
            raise self._fail("answered JSON that is no chat completion")
        if isinstance(model := document.get("model"), str) and model:
            self.metadata["model"] = join_surrogates(model)
        if isinstance(usage := document.get("usage"), dict):
            # some services send a growing count with every piece
            self.metadata["usage"] = usage
        choice = _find_choice(document)
        if choice is None:
            return ""  # only the usage, say
        finish = choice.get("finish_reason")
        if isinstance(finish, dict):  # SGLang's own protocol
            finish = finish.get("type")
        if isinstance(finish, str) and finish.lower() not in _NO_FINISH:
            self._finish = join_surrogates(finish)
        else:
            finish = ""
        message, part = _find_message(choice)
        if message is None:
            return ""
        self._known = True
        if part != "delta" and (whole or (finish and not self._texts)):
            self.whole = True
        again = part == "message"  # some end with the whole message, or send all of it each time
        content = message.get("content")
        if refusal := _read_text(message.get("refusal"), "refusal") or _read_refusal(content):
            if again:
                refusal = refusal.removeprefix("".join(self._refusal))
            self._count_size(len(refusal))
            self._refusal.append(refusal)
        if (message.get("tool_calls") or message.get("function_call")) and not (
            again and self._calls
        ):
            self._count_size(self._calls.add(message))
            if len(self._calls) > _MOST_CALLS:
                raise self._fail(f"asked for more than {_MOST_CALLS} tools")
        text = _read_text(content)
        if again and self._texts:
            text = text.removeprefix("".join(self._texts))
        if not text:
            return ""
        self._texts.append(text)
        self._count_size(len(text))
        return self._say(self._joiner.add(text))

    def _say(self, text: str) -> str:
        if self._word.found:
            return text
        self._held.append(text)
        if not self._word.add(text):
            return ""
        held, self._held = "".join(self._held), []
        return held

    def _count_size(self, letters: int) -> None:
        self._size += letters
        if self._size > self._max_size:
            raise self._fail(f"streamed more than {self._max_size} letters")

    # --- errors ---

    def _judge(self, fields: Mapping[str, object]) -> EngineError:
        return judge(fields, None, self._headers, self._where)

    def _fail(self, what: str) -> Transient:
        return Transient(f"{self._where}: {what}", sent="yes")


def _classify_finish(reason: str) -> str:
    """Return ``filtered``, ``failed``, ``cut off``, or "" for the end of an answer."""
    words = re.sub(r"[^a-z]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", reason[:100]).lower())
    return next((kind for kind, parts in _FINISHES if re.search(parts, words)), "")


def _find_choice(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The first choice; a document of Ollama's own protocol is one itself."""
    choices = document.get("choices")
    if isinstance(choices, list):
        if len(choices) == 1 and isinstance(choices[0], dict):
            return choices[0]
        found = [choice for choice in choices if isinstance(choice, dict)]
        first = [choice for choice in found if choice.get("index") in (0, None)]
        return next(iter(first or found), None)
    if isinstance(document.get("message"), dict):
        return {**document, "finish_reason": document.get("done_reason")}
    return None


def _find_message(choice: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str]:
    """The new part of a message, and the field it was in: ``delta``, ``message``, or the ``text``
    of completions as they were before chats."""
    delta, message = choice.get("delta"), choice.get("message")
    if not isinstance(delta, dict):
        delta = None
    if delta is None or not (delta.get("content") or any(map(delta.get, _ANSWERS))):
        if isinstance(message, dict):
            return message, "message"
        if isinstance(choice.get("text"), str):
            return {"content": choice["text"]}, "text"
    return delta, "delta"


def _read_text(content: object, field: str = "text") -> str:
    """The text of a message, which may consist of parts. Thoughts are no part of the answer."""
    if isinstance(content, str):
        return content
    if isinstance(content, int | float) and not isinstance(content, bool):
        return str(content)  # some gateways parse what a model wrote
    if not isinstance(content, list):
        return ""
    parts = [
        (part.get(field) or part.get("text")) if isinstance(part, dict) else part
        for part in content
        if not isinstance(part, dict) or part.get("type") not in _NO_TEXT[field]
    ]
    return "".join(part for part in parts if isinstance(part, str))


def _read_refusal(content: object) -> str:
    """The refusal within the parts of a message."""
    if not isinstance(content, list):
        return ""
    parts = [part for part in content if isinstance(part, dict) and part.get("type") == "refusal"]
    return _read_text(parts, "refusal")


_NO_TEXT: Final = {"text": ("thinking", "reasoning", "refusal"), "refusal": ("thinking",)}
"""The types of the parts that do not belong to a text, and to a refusal."""
