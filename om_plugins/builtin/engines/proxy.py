"""The proxy engine: it passes whole HTTP requests to an upstream, as a reverse proxy does.

::

    ProxyEngine("app-1", "http://10.0.0.7:8000")

The payload of a call is an :class:`~om_plugins.types.HttpRequest`, that of the answer an
:class:`~om_plugins.types.HttpResponse`. :class:`~om_plugins.builtin.engines.proxy_app.ProxyApp`
builds the request from a WSGI request and serves the response. Needs the extra ``http``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Unpack
from urllib.parse import unquote

from ...errors import (
    CallerDeadline,
    Cancelled,
    ConfigError,
    EngineError,
    InvalidRequest,
    Misconfigured,
    Unsupported,
)
from ...settings.arguments import check_arguments
from ...types import Answer, Call, EngineTraits, HttpRequest, HttpResponse
from ..http.forwarding import (
    BadHeaderError,
    add_via,
    check_request_headers,
    clean_response_headers,
    count_via,
    drop_hop_by_hop,
    wants_websocket,
)
from ..http.status import map_status
from ..http.texts import StreamedPieces
from .http import ConnectionOptions, HttpEngine

if TYPE_CHECKING:
    from ..http.transport import HttpExchange

_METHOD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,40}")
_TARGET = re.compile(r"/[\x21\x22\x24-\x7e]*")
_DOTS = re.compile(r"(^|[/\\])\.{1,2}([/\\;]|$)")
_DROPPED = ("content-length", "expect", "max-forwards", "proxy")  # httpoxy: CVE-2016-5385
_ERROR_BODY = 65_536
_MOST_ROUNDS = 8


class ProxyEngine(HttpEngine):
    """Passes whole HTTP requests to an upstream and returns its responses unchanged.

    - Hop-by-hop headers are dropped (RFC 9110 section 7.6.1). All other headers are passed on,
      including repeated and empty ones; ``Set-Cookie`` and ``Location`` stay unchanged.
    - Bodies keep their Content-Encoding. They are streamed when the call streams; the body of the
      response is read as fast as the client reads it.
    - WebSockets, ``CONNECT`` and ``TRACE`` are refused. Other upgrades are ignored, trailers are
      dropped, interim responses are skipped.
    - A body that is an iterable is sent once: a second attempt raises ``Unsupported``.

    Args:
        name: the name of the engine in chains.
        base_url: the upstream. A path in it is a prefix for the path of every request, and no
            request can leave it with ``..``.
        host: the ``Host`` for the upstream: its own (``upstream``), the client's (``client``), or
            this text.
        fail_on: statuses of the upstream that count as failures of the engine. Every other status
            is an answer. The error of a failure has the upstream's response as ``response``.
        via: the name of this gateway in ``Via``; ``None`` adds no ``Via``.
        headers: headers of every request; they replace the client's of the same name.
        pass_deadline: send the remaining time of the call in ``x-envoy-expected-rq-timeout-ms``.
        timeout: the most seconds until the head of the response has arrived, including the body of
            the request; also the limit for the whole of a response that is not streamed.
        idle_timeout: the most seconds of silence within a streamed response; ``timeout`` when not
            given.
        max_answer: the most bytes of the body of a response that is not streamed.
        connect_timeout, pool_size, health_url, max_concurrency, ssl_context, proxy: as for
            :class:`~om_plugins.builtin.engines.http.HttpEngine`.

    Raises:
        ConfigError: an argument is wrong.
        MissingExtra: h11 is not installed.
    """

    @check_arguments(
        "ProxyEngine",
        usage="ProxyEngine('old', 'https://host')",
        keywords=ConnectionOptions.__annotations__,
    )
    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        host: str = "upstream",
        fail_on: Iterable[int] = (502, 503, 504),
        via: str | None = "om-plugins",
        pass_deadline: bool = True,
        timeout: float = 30.0,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        super().__init__(
            name, base_url, method="GET", timeout=timeout, pass_headers=(),
            pass_deadline=pass_deadline, **options,
        )  # fmt: skip
        if "?" in self._target:
            raise ConfigError(f"engine {name!r}: base_url", base_url, "must have no query")
        if via is not None and not _METHOD.fullmatch(via):
            raise ConfigError(f"engine {name!r}: via", via, "must be one word, or None")
        if not host or not re.fullmatch(r"[A-Za-z0-9._:\[\]-]+", host):
            raise ConfigError(
                f"engine {name!r}: host", host, "must be 'upstream', 'client' or a host"
            )
        self._fail_on = frozenset(fail_on)
        for status in self._fail_on:
            if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
                raise ConfigError(
                    f"engine {name!r}: fail_on", status, "must be statuses from 400 to 599"
                )
        limit = options.get("max_concurrency")
        self.traits = EngineTraits(streaming=True, cancellable=True, max_concurrency=limit)
        self._base = self._target.rstrip("/")
        self._host = host
        self._via = via

    def call(self, call: Call) -> Answer:
        """Pass the request to the upstream.

        Returns:
            An answer whose payload is an :class:`~om_plugins.types.HttpResponse`, with ``chunks``
            as its body when ``call.stream`` and there is one.

        Raises:
            InvalidRequest: the request must not be passed on.
            Unsupported: the payload is not an ``HttpRequest``, its method or a WebSocket is not
                passed on, or its body was sent before.
            EngineError: the request failed, or the status is in ``fail_on``.
            Cancelled: the call was cancelled, or the client's body ended early.
        """
        request = call.payload
        if not isinstance(request, HttpRequest):
            raise Unsupported(
                f"engine {self.name!r}: takes an HttpRequest, not {type(request).__name__}",
                sent="no",
            )
        target = self._build_target(request)
        headers, final = self._build_headers(request)
        if final:
            return Answer(HttpResponse(200, [("Content-Length", "0")]))
        exchange = self._transport.open(
            request.method,
            target,
            body=self._check_body(request, call),
            headers=self._complete_headers(request, headers, call),
            call=call,
            where=self._describe(),
            limit_s=self._timeout,
        )
        if exchange.status in self._fail_on or exchange.status > 599:
            raise self._read_failure(exchange, [name for name, _ in headers])
        return self._read_answer(exchange, call)

    # --- the request ---

    def _build_target(self, request: HttpRequest) -> str:
        method, target = request.method, request.target
        if not _METHOD.fullmatch(method):
            raise self._invalid("its method is no token")
        if method in ("CONNECT", "TRACE"):
            raise Unsupported(f"{self._describe()}: {method} is not passed on", sent="no")
        if target == "*" and method == "OPTIONS":
            return target
        if not _TARGET.fullmatch(target):
            raise self._invalid("its target is no path")
        if self._base and _DOTS.search(unquote(target.partition("?")[0])):
            raise self._invalid("its path leads out of the upstream's own")
        return self._base + target

    def _build_headers(self, request: HttpRequest) -> tuple[list[tuple[str, str]], bool]:
        """The headers to send, and whether this gateway answers itself (``Max-Forwards: 0``)."""
        try:
            headers = check_request_headers(request.headers)
        except BadHeaderError as error:
            raise self._invalid(str(error)) from None
        lower = {name.lower(): value for name, value in headers}
        if wants_websocket(lower.get("connection", ""), lower.get("upgrade", "")):
            raise Unsupported(f"{self._describe()}: a WebSocket is not passed on", sent="no")
        if self._via and count_via(headers, self._via) >= _MOST_ROUNDS:
            raise Misconfigured(
                f"{self._describe()}: the request goes in a circle; base_url leads back here",
                sent="no",
            )
        kept = drop_hop_by_hop(headers, drop=_DROPPED)
        if request.method == "OPTIONS" and (hops := lower.get("max-forwards", "")).isdecimal():
            if int(hops[:9]) == 0:
                return kept, True
            kept.append(("Max-Forwards", str(int(hops[:9]) - 1)))
        if self._via:
            kept = add_via(kept, "1.1", self._via)
        if self._host != "client":
            kept = [(name, value) for name, value in kept if name.lower() != "host"]
            if self._host != "upstream":
                kept.insert(0, ("Host", self._host))
        return kept, False

    def _complete_headers(
        self, request: HttpRequest, headers: list[tuple[str, str]], call: Call
    ) -> list[tuple[str, str]]:
        own = {**self._headers, **self._deadline_header(call)}
        replaced = {name.lower() for name in own}
        sent = [(name, value) for name, value in headers if name.lower() not in replaced]
        sent += own.items()
        body = request.body
        if isinstance(body, bytes):
            if body or request.method in ("POST", "PUT", "PATCH"):
                sent.append(("Content-Length", str(len(body))))
        elif request.length is not None:
            sent.append(("Content-Length", str(request.length)))
        return sent

    def _check_body(self, request: HttpRequest, call: Call) -> bytes | Iterator[bytes] | None:
        body = request.body
        if isinstance(body, bytes):
            return body or None
        if getattr(body, "started", False):
            raise Unsupported(
                f"{self._describe()}: the request's body was sent before and is gone", sent="no"
            )
        return self._check_length(body, request.length, call)

    def _check_length(
        self, body: Iterable[bytes], length: int | None, call: Call
    ) -> Iterator[bytes]:
        """The body, checked against its declared length and the time of the call."""
        left = length
        for data in body:
            if call.remaining() <= 0:  # a slow client is not the upstream's fault
                raise CallerDeadline(f"{self._describe()}: the request's body came too slowly")
            if left is not None:
                left -= len(data)
                if left < 0:
                    raise self._invalid("its body is longer than it says", sent="maybe")
            yield data
        if left:
            raise Cancelled(f"{self._describe()}: the client's body broke off")

    # --- the answer ---

    def _read_answer(self, exchange: HttpExchange, call: Call) -> Answer:
        head = self._build_head(exchange)
        if exchange.length == 0:
            exchange.read(0, decoded=False)
            return Answer(head, status=head.status)
        if call.stream:
            chunks = exchange.chunks(silence_s=self._idle_timeout, decoded=False)
            return Answer(head, chunks=StreamedPieces(chunks, exchange), status=head.status)
        head.body = exchange.read(self._max_answer, decoded=False)
        return Answer(head, status=head.status)

    def _build_head(self, exchange: HttpExchange) -> HttpResponse:
        headers = clean_response_headers(exchange.header_items)
        kept = drop_hop_by_hop(headers, drop=["content-length"])
        declared = exchange.headers.get("content-length")
        if exchange.length:
            kept.append(("Content-Length", str(exchange.length)))
        elif exchange.length == 0 and declared is not None and exchange.status != 204:
            length = declared.partition(",")[0].strip()  # of a HEAD or 304: the length for a GET
            if length.isdecimal():
                kept.append(("Content-Length", length))
        return HttpResponse(exchange.status, kept)

    def _read_failure(self, exchange: HttpExchange, sent_names: list[str]) -> EngineError:
        where = self._describe()
        own = {name.lower() for name in self._headers}
        callers = [name for name in sent_names if name.lower() not in own]
        error = map_status(exchange.status, exchange.headers, where, sent_names=callers)
        head = self._build_head(exchange)
        try:
            head.body = exchange.read(_ERROR_BODY, decoded=False)
        except (EngineError, Cancelled):
            return error
        if exchange.status <= 599:
            error.response = head
        return error

    def _invalid(self, what: str, sent: str = "no") -> InvalidRequest:
        return InvalidRequest(
            f"{self._describe()}: the request is not passed on: {what}",
            sent="maybe" if sent == "maybe" else "no",
        )

    def _describe(self) -> str:
        scheme, host, port = self._origin
        return f"{self.name!r} {scheme}://{host}:{port}{self._target}"
