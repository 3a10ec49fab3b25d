"""A WSGI app that answers every request with a chain of HTTP engines.

::

    chain = EngineChain("web")
    chain.add(EngineSpec(ProxyEngine("app-1", "http://10.0.0.7:8000"), "web", tier=1))
    chain.add(EngineSpec(ProxyEngine("app-2", "http://10.0.0.8:8000"), "web", tier=2))
    application = ProxyApp(chain)

or, with one engine and without retries, ``application = ProxyApp(ProxyEngine(...))``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote_to_bytes, urlsplit

import msgspec
from werkzeug.wsgi import ClosingIterator

from ...core.body import BodyError, limit_reads, parse_length
from ...core.call import caller_gone
from ...core.problem import Refusal, get_phrase
from ...errors import (
    AttemptTimeout,
    CallerDeadline,
    Cancelled,
    ChainExhausted,
    EngineError,
    InvalidRequest,
    OpenManagerError,
    TooLong,
    Unsupported,
)
from ...protocols import Chain, Engine
from ...settings.arguments import check_arguments
from ...types import Answer, Call, HttpRequest, HttpResponse
from ..http.forwarding import (
    IDEMPOTENT_METHODS,
    Headers,
    add_forwarded,
    drop_hop_by_hop,
    wants_websocket,
)
from .client_socket import watch_client

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_READ = 65_536
_READ_ELSEWHERE = ("HTTP_HOST", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH")
_PATH_SAFE = "/:@!$&'()*+,;=~-._"


class RefusedRequest(Refusal):
    """The request is not passed to any upstream."""


class ProxyApp:
    """Answers WSGI requests with a chain, or with one engine, of whole HTTP requests.

    Args:
        ask: a chain of engines that take :class:`~om_plugins.types.HttpRequest`, or one engine.
        trust_forwarded: the peer is a trusted proxy, and its ``Forwarded`` and ``X-Forwarded-*``
            are extended. Without it, they are replaced.
        max_body: the most bytes of a request's body.
        replay_bytes: a body up to this size is read before the first attempt, so that it can be
            sent again. A longer one is streamed; its call is retried only if it was not sent.

    The methods GET, HEAD, OPTIONS, PUT and DELETE are idempotent (RFC 9110 section 9.2.2). When no
    engine answers, the client gets the last upstream's own response if there is one, else a problem
    document (RFC 9457) with 502, 503 or 504.
    """

    @check_arguments("ProxyApp", usage="ProxyApp(chain)")
    def __init__(
        self,
        ask: Chain | Engine,
        *,
        trust_forwarded: bool = False,
        max_body: int = 64 * 2**20,
        replay_bytes: int = 65_536,
    ) -> None:
        self._ask = _make_caller(ask)
        self._read = partial(
            read_request,
            trust_forwarded=trust_forwarded,
            max_body=max_body,
            replay_bytes=replay_bytes,
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            request = self._read(environ)
        except RefusedRequest as refusal:
            return refusal.send(environ, start_response)
        watching = caller_gone.set(watch_client(environ))
        try:
            answer = self._ask(request)
        except OpenManagerError as error:
            return _answer_error(start_response, environ, error)
        finally:
            caller_gone.reset(watching)
        return respond(answer, start_response, head_only=request.method == "HEAD")


def read_request(
    environ: WSGIEnvironment,
    *,
    trust_forwarded: bool = False,
    max_body: int = 64 * 2**20,
    replay_bytes: int = 65_536,
) -> HttpRequest:
    """The whole request of a WSGI environ, with the headers that describe the client.

    Args: as for :class:`ProxyApp`.

    Raises:
        RefusedRequest: the length of the body is unclear, the body is too large or ended early, or
            the request asks for a WebSocket.
    """
    if wants_websocket(environ.get("HTTP_CONNECTION", ""), environ.get("HTTP_UPGRADE", "")):
        raise RefusedRequest(501, "WebSockets are not passed on here.")
    host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    client = environ.get("REMOTE_ADDR", "")
    # werkzeug's ProxyFix has replaced the address of the proxy by that of the client
    asked_by = environ.get("werkzeug.proxy_fix.orig", {}).get("REMOTE_ADDR") or client
    try:
        body, length = _read_body(environ, max_body, replay_bytes)
    except Cancelled:
        raise RefusedRequest(400, "The request's body broke off.") from None
    return HttpRequest(
        environ["REQUEST_METHOD"],
        _read_target(environ),
        add_forwarded(
            # before the additions: a client could name them in its Connection header
            drop_hop_by_hop(_read_headers(environ, host)),
            client=client,
            host=host,
            scheme=environ["wsgi.url_scheme"],
            prefix=environ.get("SCRIPT_NAME", ""),
            peer="" if asked_by == client else asked_by,
            trusted=trust_forwarded,
        ),
        body,
        length,
    )


def respond(
    answer: Answer, start_response: StartResponse, *, head_only: bool = False
) -> Iterable[bytes]:
    """Serve an answer whose payload is an :class:`~om_plugins.types.HttpResponse`.

    Any other payload, for example that of a static engine, is served as text or JSON.
    """
    head = answer.payload
    if not isinstance(head, HttpResponse):
        head = _build_response(answer)
    start_response(f"{head.status} {get_phrase(head.status)}", list(head.headers))
    if answer.chunks is None:
        return [head.body] if head.body and not head_only else []
    if answer.payload is head:
        return cast(Iterable[bytes], answer.chunks)
    return ClosingIterator(map(_encode_chunk, answer.chunks), [answer.close])


@dataclass(slots=True, eq=False, repr=False)
class StreamedBody:
    """The body of a request, which can be read once.

    Attributes:
        started: whether reading has begun, so that a part may be gone.
    """

    before: bytes
    read: Callable[[int], bytes]
    limit: int
    started: bool = field(init=False, default=False)

    def __iter__(self) -> Iterator[bytes]:
        """The body in pieces.

        Raises:
            Cancelled: the client left.
            InvalidRequest: the body is too large.
        """
        self.started = True
        size = len(self.before)
        yield self.before
        while data := _read_piece(self.read, _READ):
            size += len(data)
            if size > self.limit:
                raise InvalidRequest("the request's body is too large", status=413)
            yield data


# --- the request ---


def _read_headers(environ: WSGIEnvironment, host: str) -> Headers:
    headers = [("Host", host)]
    for key, value in environ.items():
        if key.startswith("HTTP_") and key not in _READ_ELSEWHERE:
            headers.append((key[5:].replace("_", "-").title(), value))
    if environ.get("CONTENT_TYPE"):
        headers.append(("Content-Type", environ["CONTENT_TYPE"]))
    return headers


def _read_target(environ: WSGIEnvironment) -> str:
    """Path and query as the client sent them, if the server keeps them and no middleware changed
    the path; else as PEP 3333 decodes them."""
    path = environ.get("PATH_INFO", "")
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    if raw == "*":
        return raw
    if not raw.startswith("/") and "://" in raw:
        parts = urlsplit(raw)
        raw = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    query = environ.get("QUERY_STRING", "")  # no server decodes it
    rest = f"?{_escape(query)}" if query else "?" if raw.endswith("?") else ""
    raw_path = raw.partition("?")[0]
    prefix = quote(environ.get("SCRIPT_NAME", ""), _PATH_SAFE, "latin-1")
    if raw_path.startswith(prefix or "/"):
        mine = raw_path[len(prefix) :]
        if unquote_to_bytes(mine) == path.encode("latin-1", "replace"):
            return (_escape(mine) or "/") + rest
    return (quote(path, _PATH_SAFE, "latin-1") or "/") + rest


def _escape(text: str) -> str:
    """Percent-encode the bytes that are not allowed in a request line; keep existing escapes."""
    return re.sub(r"[^\x21\x22\x24-\x7e]", lambda found: quote(found[0], "", "latin-1"), text)


def _read_body(
    environ: WSGIEnvironment, max_body: int, replay_bytes: int
) -> tuple[bytes | Iterable[bytes], int | None]:
    declared = environ.get("CONTENT_LENGTH") or ""
    coding = environ.get("HTTP_TRANSFER_ENCODING", "").strip().lower()
    stream = environ["wsgi.input"]
    left: int | None
    if coding:
        if declared:
            raise RefusedRequest(400, "The request's body is framed in two ways.")
        if coding != "chunked":
            raise RefusedRequest(501, "The request's Transfer-Encoding is not known here.")
        if not environ.get("wsgi.input_terminated"):
            raise RefusedRequest(411, "This server needs the length of the request's body.")
        left = None
    elif not declared:
        return b"", None
    else:
        try:
            left = parse_length(environ, max_body)
        except BodyError as error:
            raise RefusedRequest(error.status, str(error)) from None
    read = stream.read if left is None else limit_reads(stream.read, left)
    parts: list[bytes] = []
    size = 0
    while size <= replay_bytes and (data := _read_piece(read, replay_bytes + 1 - size)):
        parts.append(data)
        size += len(data)
    before = b"".join(parts)
    if left is None and size > max_body:
        raise RefusedRequest(413, f"The request is too large: at most {max_body:,} bytes.")
    if size <= replay_bytes:
        if left is not None and size < left:
            raise RefusedRequest(400, "The request's body broke off.")
        return before, None
    if left == size:
        return before, None
    return StreamedBody(before, read, max_body), left


def _read_piece(read: Callable[[int], bytes], size: int) -> bytes:
    try:
        return read(size)
    except Exception as error:  # each server raises its own errors when a client leaves
        raise Cancelled(f"the request's body broke off: {type(error).__name__}") from error


# --- the answer ---


def _make_caller(ask: Chain | Engine) -> Callable[[HttpRequest], Answer]:
    if isinstance(ask, Engine):
        engine = ask

        def ask_engine(request: HttpRequest) -> Answer:
            result = engine.call(Call(request, stream=True, method=request.method))
            return result if isinstance(result, Answer) else Answer(result)

        return ask_engine
    chain = ask

    def ask_chain(request: HttpRequest) -> Answer:
        again = request.method in IDEMPOTENT_METHODS and isinstance(request.body, bytes)
        return chain.call(request, stream=True, idempotent=again, method=request.method)

    return ask_chain


def _build_response(answer: Answer) -> HttpResponse:
    payload = answer.payload
    if isinstance(payload, bytes | str):
        body = payload.encode() if isinstance(payload, str) else payload
        kind = "text/plain; charset=utf-8" if isinstance(payload, str) else _BYTES
    elif answer.chunks is not None:
        return HttpResponse(answer.status, [("Content-Type", _BYTES)])
    else:
        body, kind = msgspec.json.encode(payload), "application/json"
    length = ("Content-Length", str(len(body)))
    return HttpResponse(answer.status, [("Content-Type", kind), length], body)


_BYTES = "application/octet-stream"


def _encode_chunk(chunk: object) -> bytes:
    if isinstance(chunk, bytes):
        return chunk
    return chunk.encode() if isinstance(chunk, str) else msgspec.json.encode(chunk) + b"\n"


def _answer_error(
    start_response: StartResponse, environ: WSGIEnvironment, error: Exception
) -> Iterable[bytes]:
    errors: Sequence[Exception] = (
        error.exceptions if isinstance(error, ExceptionGroup) else (error,)
    )
    own = [one.response for one in errors if isinstance(one, EngineError) and one.response]
    if own:
        head_only = environ["REQUEST_METHOD"] == "HEAD"
        return respond(Answer(own[-1]), start_response, head_only=head_only)
    status, detail = _map_error(error, errors)
    headers: Headers = []
    wait = getattr(error, "retry_after", None)
    if status == 503 and wait is not None:
        headers.append(("Retry-After", str(max(round(wait), 1))))
    return Refusal(status, detail, headers).send(environ, start_response)


_IF_ALL: Sequence[tuple[type[EngineError], int, str]] = (
    (Unsupported, 501, "No upstream takes such a request."),
    (TooLong, 413, "The request is too large for every upstream."),
    (AttemptTimeout, 504, "No upstream answered in time."),
)
"""The status and text for a client when the errors of all upstreams are of one class."""


def _map_error(error: Exception, errors: Sequence[Exception]) -> tuple[int, str]:
    if isinstance(error, InvalidRequest):
        return (413 if error.status == 413 else 400), "The request cannot be passed on."
    if isinstance(error, CallerDeadline):
        return 504, "No upstream answered in time."
    if isinstance(error, Cancelled):
        return 400, "The request broke off."
    if isinstance(error, ChainExhausted) and error.all_rate_limited:
        return 503, "Every upstream asks for patience. Try again later."
    for kind, status, detail in _IF_ALL:
        if all(isinstance(one, kind) for one in errors):
            return status, detail
    return 502, "No upstream answered."
