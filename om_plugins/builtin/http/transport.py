"""HTTP/1.1 requests over pooled connections, with answers of bounded size.

h11 reads and writes the messages (RFC 9112), strictly: what one side could take for the end of a
body and the other for the next answer ("response smuggling") is an error. ``http.client`` takes
``-5``, ``+5`` and ``0x5`` for lengths, the first of several, and anything for the end of a chunk.
Needs the extra ``http``: import this module inside the function that uses it.
"""

from __future__ import annotations

import socket
import ssl
import zlib
from collections.abc import Iterable, Iterator
from functools import partial

import h11

from ...core.fork import PerProcess
from ...errors import InvalidRequest, Misconfigured, Transient
from ...types import Call
from .connections import ConnectionPool, PooledConnection, open_tunnel
from .forwarding import IDEMPOTENT_METHODS, join_headers, parse_keep_alive
from .network import READ_BYTES, HttpAttempt, connect, make_printable, start_tls
from .outbound_proxy import OutboundProxy

_LOOK_EVERY = 64

HeaderItems = Iterable[tuple[str, str]]


class HttpExchange:
    """An answer whose head has arrived. Read it to its end, or close it.

    Attributes:
        status: the HTTP status.
        header_items: the answer's headers as they came, in order, repeated ones apart.
        headers: the same by name in lower case, repeated ones joined by commas.
        length: the bytes of the body if they are declared; 0 when there is no body.
    """

    def __init__(
        self,
        connection: PooledConnection,
        attempt: HttpAttempt,
        method: str,
        response: h11.Response,
        pool: ConnectionPool,
    ) -> None:
        self.status = response.status_code
        self.header_items = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in response.headers.raw_items()
        ]
        self.headers = join_headers(self.header_items)
        if (said := self.headers.get("keep-alive")) is not None:
            connection.keep_s = parse_keep_alive(said)
            connection.is_promised = True
        elif self.headers.get("connection", "").lower() == "keep-alive":
            connection.is_promised = True
        chunked = "transfer-encoding" in self.headers
        declared = self.headers.get("content-length")
        self.length: int | None = None
        if method == "HEAD" or self.status in (204, 304):
            self.length = 0
        elif declared is not None and not chunked:
            self.length = int(declared.partition(",")[0])  # h11 has checked that all are equal
        # RFC 9112 section 6.3: an answer with both may be an attempt at smuggling.
        self._reusable = not (chunked and declared is not None)
        self._connection = connection
        self._attempt = attempt
        self._pool = pool
        self._open = True

    def read(self, limit: int, *, decoded: bool = True) -> bytes:
        """The whole body, without its Content-Encoding when ``decoded``.

        Raises:
            Transient: it has more than ``limit`` bytes, is cut off, or cannot be decoded.
            AttemptTimeout, Cancelled: as for :meth:`Transport.open`.
        """
        parts: list[bytes] = []
        size = 0
        for part in self.chunks(decoded=decoded):
            size += len(part)
            if size > limit:
                self.close()
                raise self._bad(f"the answer is larger than {limit} bytes")
            parts.append(part)
        return b"".join(parts)

    def chunks(self, *, silence_s: float | None = None, decoded: bool = True) -> Iterator[bytes]:
        """The body as it arrives, in pieces of at most 128 KiB.

        Args:
            silence_s: from now on limits each wait for the upstream, instead of the limit for the
                whole attempt. The time that the reader takes does not count.
            decoded: remove the Content-Encoding.
        """
        attempt = self._attempt
        if silence_s is not None:
            attempt.allow_only_silence(silence_s)
        complete = False
        try:
            pieces = self._decode() if decoded else self._receive()
            for count, data in enumerate(pieces, 1):
                yield data
                attempt.resume()
                if not count % _LOOK_EVERY:  # one read may contain thousands of tiny chunks
                    attempt.remaining()
            complete = True
        except zlib.error:
            raise self._bad("the answer is not the gzip that it says") from None
        except h11.RemoteProtocolError as error:
            raise self._bad(make_printable(f"the answer's body is garbled: {error}")) from None
        except Exception as error:
            raise attempt.map_error(error) from error
        finally:
            if complete:
                self._release()
            else:
                self.close()

    def close(self) -> None:
        """Drop the rest of the answer and close the connection."""
        if self._open:
            self._open = False
            self._attempt.detach()
            self._connection.close()

    def _release(self) -> None:
        if self._open:
            self._open = False
            self._attempt.detach()  # before another attempt can take the connection
            if self._reusable and self._connection.renew():
                self._pool.put(self._connection)
            else:
                self._connection.close()

    def _receive(self) -> Iterator[bytes]:
        while isinstance(event := self._connection.receive(self._attempt), h11.Data):
            yield bytes(event.data)
        self._attempt.remaining()

    def _decode(self) -> Iterator[bytes]:
        if self.length == 0:  # some servers name a Content-Encoding of nothing
            return self._receive()
        encoding = (self.headers.get("content-encoding") or "identity").strip().lower()
        if encoding == "identity":
            return self._receive()
        if encoding in ("gzip", "x-gzip"):
            return self._gunzip()
        raise self._bad("the answer has a Content-Encoding that was not asked for")

    def _gunzip(self) -> Iterator[bytes]:
        # max_length keeps a decompression bomb out of memory.
        decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
        empty = True
        for data in self._receive():
            empty = empty and not data
            while data:
                if decoder.eof:  # RFC 1952: members may follow each other
                    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
                if part := decoder.decompress(data, READ_BYTES):
                    yield part
                data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
        while not decoder.eof and not empty:
            part = decoder.decompress(b"", READ_BYTES)
            if not part:
                raise self._bad("the answer's gzip ended early")
            yield part

    def _bad(self, what: str) -> Transient:
        return Transient(f"{self._attempt.where}: {what}", sent="yes", status=self.status)


class Transport:
    """Requests to one origin over a pool of connections, one pool per process.

    Args:
        scheme, host, port: the origin.
        pool_size: the most idle connections.
        connect_timeout_s: the most seconds for a new connection, all its addresses together, and
            the most seconds for the TLS handshake after it.
        ssl_context: for ``https``; by default one with the system's certificates.
        proxy: the forward proxy through which connections go: plain HTTP in absolute form (RFC 9112
            section 3.2.2), ``https`` through a tunnel. ``None``: direct.

    Attributes:
        host_header: the ``Host`` of a request whose headers have none.
    """

    def __init__(
        self,
        scheme: str,
        host: str,
        port: int,
        *,
        pool_size: int = 16,
        connect_timeout_s: float = 3.0,
        ssl_context: ssl.SSLContext | None = None,
        proxy: OutboundProxy | None = None,
    ) -> None:
        self._proxy = proxy
        self._through = f" through the proxy {proxy.host}:{proxy.port}" if proxy else ""
        self._host = host
        self._port = port
        self._secure = scheme == "https"
        self._connect_timeout_s = connect_timeout_s
        self._ssl_context = ssl_context
        name = f"[{host.partition('%')[0]}]" if ":" in host else host
        self.host_header = name if port == (443 if self._secure else 80) else f"{name}:{port}"
        # A child must not use its parent's connections: two processes would read one answer.
        self._pools = PerProcess(partial(ConnectionPool, pool_size))

    def open(
        self,
        method: str,
        target: str,
        *,
        body: bytes | Iterable[bytes] | None,
        headers: HeaderItems,
        call: Call,
        where: str,
        limit_s: float,
        idempotent: bool | None = None,
    ) -> HttpExchange:
        """Send a request and wait for the head of its answer, whatever its status.

        A pooled connection that the upstream had closed costs nothing where it can be helped: the
        request is sent once more, over a new connection, when it is idempotent or when nothing of
        it was processed. A body that can be read once goes over a new connection at once.

        Args:
            target: path and query, sent as they are.
            body: an iterable is sent in chunks unless ``headers`` has its Content-Length.
            headers: in order, repeated ones apart. ``Host`` and the framing of the body are added
                when they are missing, nothing else.
            where: the engine and its URL, for messages.
            limit_s: the most seconds for this attempt, in addition to the limits of the call.
            idempotent: whether the request may be sent twice, unless the call says it; ``None``
                derives it from the method.

        Raises:
            InvalidRequest: a header or the target cannot be sent.
            Transient, AttemptTimeout, Misconfigured, Cancelled: see :meth:`HttpAttempt.map_error`.
        """
        request = self._request(method, target, headers, body, where)
        if call.idempotent is not None:
            idempotent = call.idempotent
        elif idempotent is None:
            idempotent = method in IDEMPOTENT_METHODS
        can_repeat = body is None or isinstance(body, bytes)
        attempt = HttpAttempt(call, where + self._through, limit_s, self._connect_timeout_s)
        connection = None
        try:
            attempt.remaining()
            pool = self._pools.get()
            connection = pool.take(repeatable=idempotent) if can_repeat else None
            response = None
            if connection is not None:
                try:
                    response = self._try_idle(connection, request, body, attempt, idempotent)
                finally:
                    pool.learn(kept=response is not None)
            if connection is None or response is None:
                connection = PooledConnection(self._connect(attempt, call))
                attempt.attach(connection.sock)
                connection.send(request, body, attempt)
                response = connection.receive_head(attempt)
            if response.status_code == 407 and self._proxy is not None:
                raise Misconfigured(f"{attempt.where}: it wants other credentials", sent="no")
            return HttpExchange(connection, attempt, method, response, pool)
        except BaseException as error:
            attempt.detach()
            if connection is not None:
                connection.close()
            if isinstance(error, Exception):
                raise attempt.map_error(error) from error
            raise

    def _try_idle(
        self,
        connection: PooledConnection,
        request: h11.Request,
        body: bytes | Iterable[bytes] | None,
        attempt: HttpAttempt,
        idempotent: bool,
    ) -> h11.Response | None:
        """Send a request over a connection that was idle.

        Returns:
            ``None`` when the upstream had closed it and the request may be sent over a new one: an
            idempotent one always (RFC 9110 section 9.2.2), another one when the upstream has
            processed nothing of it.
        """
        attempt.attach(connection.sock)
        if not idempotent:
            connection.mark()
        lost: OSError | None = None
        response = None
        try:
            connection.send(request, body, attempt)
            response = connection.receive_head(attempt)
        except OSError as error:
            if isinstance(error, TimeoutError) or attempt.sent == "yes":
                raise
            lost = error
        if response is not None and response.status_code != 408:
            return response
        # some servers end an idle connection with a 408 (RFC 9110 section 15.5.9)
        if idempotent or attempt.sent == "no" or connection.is_unprocessed():
            connection.close()
            return None
        if lost is not None:
            raise lost
        return response

    def reach(self, call: Call, where: str, limit_s: float) -> None:
        """Open a connection and close it again: to the origin, or to the proxy in front of it,
        which for ``https`` opens a tunnel to the origin.

        Raises:
            Transient, AttemptTimeout, Misconfigured, Cancelled: the connection could not be made.
        """
        attempt = HttpAttempt(call, where + self._through, limit_s, self._connect_timeout_s)
        try:
            self._open_socket(attempt, call).close()
        except Exception as error:
            raise attempt.map_error(error) from error
        finally:
            attempt.detach()

    def close(self) -> None:
        """Close this process's idle connections; the transport may be used again."""
        pool = self._pools.pop()
        if pool is not None:
            pool.close()

    def _connect(self, attempt: HttpAttempt, call: Call) -> socket.socket:
        sock = self._open_socket(attempt, call)
        if not self._secure:
            return sock
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
        return start_tls(sock, self._ssl_context, self._host, attempt)

    def _open_socket(self, attempt: HttpAttempt, call: Call) -> socket.socket:
        """A TCP connection over which the origin, or a proxy that is asked for each request, hears
        what is written."""
        proxy = self._proxy
        if proxy is None:
            return connect(self._host, self._port, attempt)
        sock = connect(proxy.host, proxy.port, attempt)
        if not self._secure:
            return sock
        # the tunnel is a part of the connection: it has the same limit, and sends no request
        tunnel = HttpAttempt(call, attempt.where, self._connect_timeout_s)
        try:
            tunnel.attach(sock, new=True)
            open_tunnel(sock, proxy, self._host.partition("%")[0], self._port, tunnel)
        except BaseException:
            sock.close()
            raise
        finally:
            tunnel.detach()
        return sock

    def _request(
        self,
        method: str,
        target: str,
        headers: HeaderItems,
        body: bytes | Iterable[bytes] | None,
        where: str,
    ) -> h11.Request:
        items = [
            (name.encode("latin-1"), value.strip(" \t").encode("latin-1"))
            for name, value in headers
        ]
        names = {name.lower() for name, _ in items}
        if b"host" not in names:
            items.insert(0, (b"Host", self.host_header.encode("ascii")))
        if self._proxy is not None and not self._secure:
            target = f"http://{self.host_header}{'' if target == '*' else target}"
            items += [
                (name.encode("ascii"), value.encode("ascii"))
                for name, value in self._proxy.headers
                if b"proxy-authorization" not in names
            ]
        if body is not None and not names & {b"content-length", b"transfer-encoding"}:
            if isinstance(body, bytes):
                items.append((b"Content-Length", b"%d" % len(body)))
            else:
                items.append((b"Transfer-Encoding", b"chunked"))
        try:
            return h11.Request(method=method, target=target, headers=items)
        except h11.LocalProtocolError as error:
            raise InvalidRequest(f"{where}: the request is not sent: {error}", sent="no") from None
