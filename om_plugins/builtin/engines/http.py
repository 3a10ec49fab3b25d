"""The HTTP engine: it asks an HTTP upstream and sends and receives JSON.

::

    HttpEngine("search", "https://search.internal/api/ask", timeout=2.0)

Needs the extra ``http``.
"""

from __future__ import annotations

import copy
import re
import ssl
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Self, TypedDict

from ...errors import ConfigError, EngineError, MissingExtra, Transient
from ...settings.arguments import check_arguments
from ...types import Answer, Call, EngineTraits
from ..address import check_headers, parse_url
from ..http.caller import identifies_caller
from ..http.forwarding import IDEMPOTENT_METHODS
from ..http.lenient_json import decode_json, read_json
from ..http.outbound_proxy import find_proxy
from ..http.status import find_status, map_status
from ..http.texts import (
    DONE,
    StreamedPieces,
    has_no_content,
    is_text_stream,
    read_charset,
    read_content_type,
    read_receipt,
    read_texts,
    resume,
)
from .payloads import encode_payload

if TYPE_CHECKING:
    from ...protocols import PluginContext
    from ..http.transport import HttpExchange, Transport

PASSED_HEADERS = ("traceparent", "tracestate", "accept-language", "x-request-id")
"""Headers of a call that are passed to the upstream by default."""

DEADLINE_HEADER = "x-envoy-expected-rq-timeout-ms"
"""Envoy's header for an upstream: how many milliseconds the client still waits."""

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_NO_CONTENT = (204, 205)  # RFC 9110 sections 15.3.5 and 15.3.6
_ERROR_BODY = 65_536
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{1,8192}")
_JSON = re.compile(r"(application|text)/(x-)?json|[a-z]+/[a-z0-9.!#$&^_-]+\+json")
_PAGES = ("text/html", "application/xhtml+xml")
_STREAMS = "text/event-stream, application/json;q=0.9, text/plain;q=0.5"


class ConnectionOptions(TypedDict, total=False):
    """Keywords that all HTTP engines share; see :class:`HttpEngine`."""

    headers: Mapping[str, str] | None
    connect_timeout: float
    pool_size: int
    health_url: str | None
    max_answer: int
    idle_timeout: float | None
    max_concurrency: int | None
    ssl_context: ssl.SSLContext | None
    proxy: str | None


class HttpEngine:
    """Asks one URL of an HTTP upstream.

    Args:
        name: the name of the engine in chains, logs and on the console.
        url: the ``http`` or ``https`` URL. Redirects are not followed.
        method: the HTTP method. ``GET`` sends the payload's keys in the query, the others send
            the payload as a JSON body.
        headers: headers of every request, for example credentials. They are never shown.
        idempotent: whether the same call may be sent twice; ``None`` derives it from the method
            (RFC 9110 section 9.2.2: true for GET, PUT and DELETE, false for POST and PATCH).
        timeout: the most seconds for one attempt from start to end; the deadline of the call
            counts when it is earlier.
        connect_timeout: the most seconds for a new connection.
        pool_size: the most idle connections of a process.
        health_url: a URL that answers 2xx when the upstream is healthy. Without it, the health
            check opens a TCP connection.
        max_answer: the most bytes of an answer, after decompression.
        pass_headers: names of headers of the call that are passed to the upstream.
        pass_deadline: send the remaining time of the call in ``x-envoy-expected-rq-timeout-ms``.
        streaming: the upstream may answer a streaming call with server-sent events (the data of
            each event is a chunk, its type is in ``answer.metadata["event"]`` until the next one)
            or with plain text, Markdown or CSV (passed on as it arrives). JSON is one answer.
        idle_timeout: the most seconds of silence within a streamed answer; ``timeout`` when not
            given.
        max_concurrency: the most calls that the upstream handles at once; ``None``: no limit.
        ssl_context: for ``https``, for example with your own certificates.
        proxy: the forward proxy to the upstream: ``environment`` reads ``HTTP_PROXY``,
            ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` now, as curl and requests do; or a URL
            such as ``http://user:password@proxy.internal:3128``; or ``direct``. ``None``: as
            ``OM_OUTBOUND_PROXY`` says in an application, else directly.

    Raises:
        ConfigError: an argument is wrong.
        MissingExtra: h11 is not installed.
    """

    @check_arguments("HttpEngine", usage="HttpEngine('model', 'https://host/path')")
    def __init__(
        self,
        name: str,
        url: str,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        idempotent: bool | None = None,
        timeout: float = 30.0,
        connect_timeout: float = 3.0,
        pool_size: int = 16,
        health_url: str | None = None,
        max_answer: int = 8 * 2**20,
        pass_headers: Iterable[str] = PASSED_HEADERS,
        pass_deadline: bool = True,
        streaming: bool = False,
        idle_timeout: float | None = None,
        max_concurrency: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        method = method.upper()
        if method not in _METHODS:
            raise ConfigError(f"engine {name!r}: method", method, f"must be one of {_METHODS}")
        self.name = name
        may_repeat = method in IDEMPOTENT_METHODS if idempotent is None else idempotent
        self.traits = EngineTraits(
            streaming=streaming,
            idempotent=may_repeat,
            hedge_safe=may_repeat,
            cancellable=True,
            max_concurrency=max_concurrency,
        )
        self._method = method
        self._origin, self._target = parse_url(f"engine {name!r}: url", url)
        self._headers = check_headers(f"engine {name!r}: headers", headers or {})
        self._pass = tuple(header.lower() for header in pass_headers)
        self._timeout = _check_positive(name, "timeout", timeout)
        self._idle_timeout = _check_positive(
            name, "idle_timeout", timeout if idle_timeout is None else idle_timeout
        )
        self._pass_deadline = pass_deadline
        self._max_answer = int(_check_positive(name, "max_answer", max_answer))
        self._proxy = proxy
        self._open_pool = partial(_open_transport, name, connect_timeout, ssl_context)
        self._pool_size = pool_size
        self._health_target = (
            None if health_url is None else parse_url(f"engine {name!r}: health_url", health_url)
        )
        self._open_transports(f"engine {name!r}: proxy", proxy)

    def _open_transports(self, key: str, proxy: str | None) -> None:
        """Make the pools of connections, empty, for the upstream and its health check."""
        self._transport = self._open_pool(self._origin, self._pool_size, key, proxy)
        self._health: tuple[Transport, str] | None = None
        if self._health_target is not None:
            origin, target = self._health_target
            same = origin == self._origin
            transport = self._transport if same else self._open_pool(origin, 1, key, proxy)
            self._health = (transport, target)

    def attach(self, context: PluginContext) -> Self | None:
        """A copy that goes through the application's proxy, when there is one and the engine was
        made without ``proxy``."""
        if self._proxy is not None or context.outbound_proxy is None:
            return None
        mine = copy.copy(self)
        mine._open_transports("OM_OUTBOUND_PROXY", context.outbound_proxy)
        return mine

    def call(self, call: Call) -> Answer | object:
        """Ask the upstream.

        Returns:
            The upstream's JSON; ``None`` when it answered 2xx without a body; ``chunks`` of text
            when call and upstream stream. ``metadata["location"]`` has the ``Location`` of a 2xx.

        Raises:
            EngineError: the request failed; :mod:`om_plugins.builtin.http.status` maps statuses. A
                stream that begins with an error, or ends without a word, failed as well.
            Cancelled: the call was cancelled.
        """
        stream = call.stream and self.traits.streaming
        accept = _STREAMS if stream else "application/json"
        encoding = "identity" if stream else "gzip"
        target, body = encode_payload(self._method, self._target, call.payload, self._describe())
        exchange = self._open(call, target, body, accept, encoding)
        metadata = read_metadata(exchange.headers)
        kind = read_content_type(exchange.headers) if stream else ""
        if is_text_stream(kind) and exchange.status not in _NO_CONTENT:
            return self._stream(call, exchange, kind, metadata)
        try:
            payload = self._read_json(exchange)
        except Transient as error:
            # most often a page to sign in: the upstream answers others
            page = read_content_type(exchange.headers) in _PAGES
            error.concerns_caller = page and identifies_caller(self._list_passed(call))
            raise
        return Answer(payload, status=exchange.status, metadata=metadata or None)

    def probe(self, call: Call) -> None:
        """Ask ``health_url``, or open a TCP connection.

        Raises:
            EngineError: the upstream is not healthy.
        """
        if self._health is None:
            self._transport.reach(call, self._describe(), self._timeout)
            return
        transport, target = self._health
        where = f"engine {self.name!r}, health"
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", **self._headers}
        exchange = transport.open(
            "GET", target, body=None, headers=headers.items(), call=call, where=where,
            limit_s=self._timeout,
        )  # fmt: skip
        if not 200 <= exchange.status < 300:
            exchange.close()
            raise map_status(exchange.status, exchange.headers, where)
        exchange.read(_ERROR_BODY)

    def close(self) -> None:
        """Close the idle connections. The engine may be used again."""
        self._transport.close()
        if self._health is not None:
            self._health[0].close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._describe()}>"

    # --- for engines built on this one ---

    def _open(
        self, call: Call, target: str, body: bytes | None, accept: str, encoding: str = "gzip"
    ) -> HttpExchange:
        """Send the request. Return the exchange of a 2xx, raise an error for any other status."""
        where = self._describe()
        headers = {"Accept": accept, "Accept-Encoding": encoding, "User-Agent": "om-plugins"}
        for name in self._pass:
            value = call.headers.get(name) if call.headers else None
            if value is not None and _HEADER_VALUE.fullmatch(value):
                headers[name] = value
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._method in ("POST", "PATCH"):
            headers["Idempotency-Key"] = call.idempotency_key
        headers.update(self._deadline_header(call))
        headers.update(self._headers)
        exchange = self._transport.open(
            self._method, target, body=body, headers=headers.items(), call=call, where=where,
            limit_s=self._timeout, idempotent=self.traits.idempotent,
        )  # fmt: skip
        if 200 <= exchange.status < 300:
            return exchange
        raise self._read_refusal(exchange, where, self._list_passed(call))

    def _deadline_header(self, call: Call) -> dict[str, str]:
        """The header with the remaining time, or nothing when ``pass_deadline`` is off."""
        if not self._pass_deadline:
            return {}
        left_s = min(call.remaining(), self._timeout)
        return {DEADLINE_HEADER: str(max(int(left_s * 1000), 1))}

    def _list_passed(self, call: Call) -> list[str]:
        """The names of the call's own headers that the request carries."""
        own = {name.lower() for name in self._headers}
        return [name for name in self._pass if name in (call.headers or ()) and name not in own]

    def _read_refusal(
        self, exchange: HttpExchange, where: str, passed: Iterable[str]
    ) -> EngineError:
        """The error for a status other than 2xx. Reads the body, so that the connection can be
        reused, and closes the connection when the body is too long."""
        try:
            body = exchange.read(_ERROR_BODY)
        except EngineError:
            body = b""
        document = _decode_refusal(body)
        error = map_status(exchange.status, exchange.headers, where, document, sent_names=passed)
        return self._explain(error, body)

    def _explain(self, error: EngineError, body: bytes) -> EngineError:
        """A more specific error, from the body of the response."""
        return error

    def _stream(
        self, call: Call, exchange: HttpExchange, kind: str, metadata: dict[str, object]
    ) -> Answer:
        """The answer of a 2xx as it comes, or ``None`` as its payload where it has no body and its
        status says what was done."""
        done = exchange.status in DONE
        texts = read_texts(
            exchange.chunks(silence_s=self._idle_timeout),
            kind,
            metadata,
            partial(self._judge_event, exchange, self._list_passed(call)),
            charset=read_charset(exchange.headers),
            may_be_empty=done,
        )
        chunks = StreamedPieces(texts, exchange)
        if done:
            first = next(chunks, None)
            if first is None:
                return Answer(None, status=exchange.status, metadata=metadata or None)
            chunks = StreamedPieces(resume(first, chunks), exchange)
        return Answer(chunks=chunks, status=exchange.status, metadata=metadata)

    def _judge_event(
        self, exchange: HttpExchange, passed: Iterable[str], what: str, data: str
    ) -> EngineError:
        """The error for a stream that failed: by the status that its data names, if any."""
        status = find_status(document := _decode_refusal(data.encode()))
        if status is None:
            return self._make_error(exchange, what)
        where = f"{self._describe()}: {what}"
        return map_status(status, exchange.headers, where, document, sent_names=passed)

    def _read_json(self, exchange: HttpExchange) -> object:
        """The answer of a 2xx as a whole; ``None`` for one without a body, whatever its type: a
        service that says "done" with an empty hand has done the work."""
        if exchange.status in _NO_CONTENT and exchange.length != 0:
            exchange.close()
            return None
        kind = read_content_type(exchange.headers)
        if not _JSON.fullmatch(kind):
            if exchange.status in DONE and kind == "text/plain":
                body = exchange.read(self._max_answer)
                return read_receipt(exchange.status, exchange.headers, body)
            if has_no_content(exchange):
                return None
            raise self._make_error(exchange, f"answered {kind[:60]!r}, not JSON")
        body = exchange.read(self._max_answer)
        if not body.strip():
            return None
        try:
            return read_json(body, charset=read_charset(exchange.headers))
        except ValueError as error:
            raise self._make_error(exchange, f"answered broken JSON: {error}"[:200]) from None

    def _make_error(self, exchange: HttpExchange, what: str) -> Transient:
        return Transient(f"{self._describe()}: {what}", sent="yes", status=exchange.status)

    def _describe(self) -> str:
        scheme, host, port = self._origin
        path = self._target.partition("?")[0]  # a query may contain a secret
        return f"{self.name!r} {self._method} {scheme}://{host}:{port}{path}"


def read_metadata(headers: Mapping[str, str]) -> dict[str, object]:
    """What the headers of a 2xx tell beside its body."""
    location = headers.get("location")
    return {} if location is None else {"location": location}


def _decode_refusal(body: bytes) -> object:
    """The body of a refusal: decoded where it is JSON, else as text."""
    try:
        return read_json(body)
    except ValueError:
        return decode_json(body)


def _open_transport(
    name: str,
    connect_timeout: float,
    ssl_context: ssl.SSLContext | None,
    origin: tuple[str, str, int],
    pool_size: int,
    key: str,
    proxy: str | None,
) -> Transport:
    try:
        from ..http.transport import Transport
    except ImportError as error:
        if not (error.name or "").startswith("h11"):
            raise
        raise MissingExtra(f"engine {name!r}", f"{origin[0]}://{origin[1]}", "http") from None
    return Transport(
        *origin,
        pool_size=int(_check_positive(name, "pool_size", pool_size)),
        connect_timeout_s=_check_positive(name, "connect_timeout", connect_timeout),
        ssl_context=ssl_context,
        proxy=find_proxy(key, proxy, *origin),
    )


def _check_positive(name: str, key: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**40:
        raise ConfigError(f"engine {name!r}: {key}", value, "must be a number above 0")
    return value
