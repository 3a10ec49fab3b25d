"""Write an answer: as JSON, or as server-sent events while it comes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Generator, Iterator

import msgspec
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from ..core import sse
from ..core.problem import CONTENT_TYPE, encoded
from ..core.sse import encode_event
from ..errors import Cancelled
from ..types import Answer
from .deadline__ending import restarted
from .response__refusal import Headers, Refusal

_NOT_TOKEN = re.compile(r"[^A-Za-z0-9._~-]")
_KIND = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,80}/[A-Za-z0-9!#$&^_.+-]{1,80}(; ?[\x21-\x7e ]{1,80})?")
_COMMON = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]


def wants_events(accept: str | None) -> bool:
    """Whether the client asks for ``text/event-stream`` by name, and likes it no less than JSON
    (RFC 9110 section 12.5.1)."""
    if not accept or "text/event-stream" not in accept.lower():
        return False
    accepted = parse_accept_header(accept, MIMEAccept)
    named = [q for kind, q in accepted if kind.partition(";")[0].lower() == "text/event-stream"]
    return bool(named) and max(named) > 0 and max(named) >= accepted.quality("application/json")


def about(answer: Answer) -> Headers:
    """How the answer came about, as headers (booleans as in RFC 9651)."""
    headers = [
        ("OM-Engine", _NOT_TOKEN.sub("-", answer.engine)[:128] or "-"),
        ("OM-Tier", str(answer.tier)),
        ("OM-Attempts", str(answer.attempts)),
    ]
    if answer.degraded:
        headers.append(("OM-Degraded", "?1"))
    if answer.stale:
        headers.append(("OM-Stale", "?1"))
    return headers


def as_json(answer: Answer) -> tuple[int, Headers, bytes]:
    """Status, headers and body of a whole answer. A text becomes ``{"answer": text}``."""
    try:
        payload = _joined(answer) if answer.streamed else answer.payload
    finally:
        answer.close()
    body = msgspec.json.encode({"answer": payload} if isinstance(payload, str) else payload)
    status = answer.status if answer.status in (200, 201, 202, 203) else 200
    headers = [("Content-Type", "application/json"), *_COMMON, *about(answer)]
    return status, [*headers, ("Content-Length", str(len(body)))], body


def as_answered(answer: Answer) -> tuple[int, Headers, bytes]:
    """As :func:`as_json`; text and bytes are sent as they are when the engine's ``metadata`` names
    their ``content_type``."""
    kind = (answer.metadata or {}).get("content_type")
    if isinstance(answer.payload, str | bytes) and isinstance(kind, str) and _KIND.fullmatch(kind):
        body = answer.payload.encode() if isinstance(answer.payload, str) else answer.payload
        headers = [("Content-Type", kind), *_COMMON, *about(answer)]
        return 200, [*headers, ("Content-Length", str(len(body)))], body
    return as_json(answer)


def as_problem(refusal: Refusal) -> tuple[int, Headers, bytes]:
    """Status, headers and body of a refusal."""
    body = encoded(refusal.document)
    headers = [("Content-Type", CONTENT_TYPE), *_COMMON, *refusal.headers]
    return refusal.status, [*headers, ("Content-Length", str(len(body)))], body


def event_headers(answer: Answer) -> Headers:
    """The headers of an answer that is sent as events."""
    return [*sse.HEADERS, *about(answer)]


DONE = b"event: done\n"
"""How the last event of a whole stream begins."""


class EventStream:
    """An answer as server-sent events: ``meta``, then a ``chunk`` each, then ``done`` or ``error``.

    Args:
        answer: closed when the stream ends, also when the client leaves early.
        refuse: what a client is told of an error that comes in the middle.
        ending: says that answers under way must end, because the server does.
    """

    def __init__(
        self,
        answer: Answer,
        refuse: Callable[[Exception], Refusal],
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self._answer = answer
        self._refuse = refuse
        self._ending = ending
        self._events = self._run()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._events)

    def close(self) -> None:
        self._events.close()
        self._answer.close()

    def _run(self) -> Generator[bytes, None, None]:
        answer = self._answer
        yield encode_event(_meta(answer), event="meta")
        try:
            for chunk in _texts(answer):
                yield encode_event(chunk, event="chunk")
                if self._ending():
                    last = encode_event(restarted().document, event="error")
                    break
            else:
                last = encode_event({}, event="done")
        except Exception as error:  # noqa: BLE001 - the client gets a typed event, the log the rest
            cut = isinstance(error, Cancelled) and self._ending()
            refusal = restarted() if cut else self._refuse(error)
            last = encode_event(refusal.document, event="error")
        finally:
            answer.close()
        yield last


def _meta(answer: Answer) -> dict[str, object]:
    return {
        "engine": answer.engine,
        "tier": answer.tier,
        "attempts": answer.attempts,
        "degraded": answer.degraded,
        "stale": answer.stale,
    }


def _texts(answer: Answer) -> Iterator[object]:
    """The chunks; bytes become text, also where a piece ends inside a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for chunk in answer:
        if isinstance(chunk, bytes | bytearray | memoryview):
            chunk = decoder.decode(bytes(chunk))
            if not chunk:
                continue
        yield chunk
    if rest := decoder.decode(b"", final=True):
        yield rest


def _joined(answer: Answer) -> object:
    """A streamed answer as a whole, for a client that takes no stream."""
    chunks = list(_texts(answer))
    if all(isinstance(chunk, str) for chunk in chunks):
        return "".join(str(chunk) for chunk in chunks)
    return chunks[0] if len(chunks) == 1 else chunks
