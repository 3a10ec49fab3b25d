"""A WSGI request as a call to a chain, and a chain's answer as an HTTP response."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from ..core.call import current_request
from ..protocols import Chain
from ..types import Answer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Headers = list[tuple[str, str]]

RETRY_AFTER_S = 5
"""The ``Retry-After`` when no engine says when to come back."""

_FORWARDED_HEADERS = {
    "HTTP_TRACEPARENT": "traceparent",
    "HTTP_TRACESTATE": "tracestate",
    "HTTP_ACCEPT_LANGUAGE": "accept-language",
    "HTTP_X_REQUEST_ID": "x-request-id",
}
_VALUE = re.compile(r"[\x20-\x7e]{1,1024}")
_NOT_TOKEN = re.compile(r"[^A-Za-z0-9._~-]")
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,80}/[A-Za-z0-9!#$&^_.+-]{1,80}(; ?[\x21-\x7e ]{1,80})?")
_COMMON = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]


# --- the call -------------------------------------------------------------------------------------


def call_chain(chain: Chain, environ: WSGIEnvironment, payload: object, **options: Any) -> Answer:
    """Call a chain for a WSGI request.

    The call carries the request's method and a few of its headers. Whoever is called from inside
    the chain finds the request in :data:`~om_plugins.core.call.current_request`.

    Args:
        options: further keywords of the chain's ``call``.
    """
    before = current_request.set(environ)
    try:
        return chain.call(
            payload,
            headers=_select_headers(environ),
            method=environ.get("REQUEST_METHOD", ""),
            **options,
        )
    finally:
        current_request.reset(before)


def _select_headers(environ: WSGIEnvironment) -> dict[str, str]:
    """Select the headers that a call carries, where their value is a line of plain ASCII."""
    headers = {}
    for name, lower in _FORWARDED_HEADERS.items():
        value = environ.get(name)
        if value and _VALUE.fullmatch(value):
            headers[lower] = value
    return headers


# --- the answer -----------------------------------------------------------------------------------


def describe_answer(answer: Answer) -> Headers:
    """Describe in headers which engine answered and how (booleans as in RFC 9651)."""
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


def render_json(answer: Answer) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of an answer as JSON. Text becomes ``{"answer": text}``.

    Raises:
        TypeError: it cannot be JSON; the error names the engine.
    """
    try:
        payload = _join(answer) if answer.streamed else answer.payload
    finally:
        answer.close()
    try:
        body = msgspec.json.encode({"answer": payload} if isinstance(payload, str) else payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"the engine {answer.engine!r} answered with an object of type "
            f"{type(payload).__name__!r}, which cannot be JSON ({error}); let it return a dict, a "
            "list, a text or a number"
        ) from error
    status = answer.status if answer.status in (200, 201, 202, 203) else 200
    headers = [("Content-Type", "application/json"), *_COMMON, *describe_answer(answer)]
    return status, [*headers, ("Content-Length", str(len(body)))], body


def render_payload(answer: Answer) -> tuple[int, Headers, bytes]:
    """As :func:`render_json`, but text and bytes are the body itself when the engine's
    ``metadata`` names their ``content_type``."""
    kind = (answer.metadata or {}).get("content_type")
    if isinstance(answer.payload, str | bytes) and isinstance(kind, str) and _TYPE.fullmatch(kind):
        body = answer.payload.encode() if isinstance(answer.payload, str) else answer.payload
        headers = [("Content-Type", kind), *_COMMON, *describe_answer(answer)]
        return 200, [*headers, ("Content-Length", str(len(body)))], body
    return render_json(answer)


def iterate_text(answer: Answer) -> Iterator[object]:
    """Yield the chunks of a stream, bytes as text. A chunk may end inside a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for chunk in answer:
        if isinstance(chunk, bytes | bytearray | memoryview):
            chunk = decoder.decode(bytes(chunk))
            if not chunk:
                continue
        yield chunk
    if rest := decoder.decode(b"", final=True):
        yield rest


def _join(answer: Answer) -> object:
    """Join a stream to one payload, for a client that takes no stream."""
    chunks = list(iterate_text(answer))
    if all(isinstance(chunk, str) for chunk in chunks):
        return "".join(str(chunk) for chunk in chunks)
    return chunks[0] if len(chunks) == 1 else chunks


def prefers(accept: str | None, kind: str) -> bool:
    """Whether a client asks for a media type by name, and likes it no less than JSON (RFC 9110
    section 12.5.1).

    Args:
        accept: the request's ``Accept``.
        kind: the media type in lower case, such as ``text/html``.
    """
    if not accept or kind not in accept.lower():
        return False
    accepted = parse_accept_header(accept, MIMEAccept)
    named = [q for name, q in accepted if name.partition(";")[0].lower() == kind]
    return bool(named) and max(named) > 0 and max(named) >= accepted.quality("application/json")


def limit_retry_after(seconds: float | None) -> int:
    """Return whole seconds for ``Retry-After``: at least one and at most an hour."""
    if seconds is None or math.isnan(seconds):
        return RETRY_AFTER_S
    return math.ceil(min(max(seconds, 1.0), 3600.0))
