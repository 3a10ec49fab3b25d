"""One HTTP exchange over pooled connections, with a bounded answer.

Needs the extra ``http``; import this module inside the function that uses it.
"""

from __future__ import annotations

import http.client
import os
import ssl
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

import urllib3
from urllib3.connectionpool import HTTPConnectionPool

from ...errors import Transient
from ...types import Call
from .network import (
    Attempt,
    DeadlineHTTPPool,
    DeadlineHTTPSPool,
    DeadlineReader,
    connect,
    current_attempt,
)
from .network__http_body import BadBodyError, Framing, body_chunks, framing_of

_READ = 65_536
_LOOK_EVERY = 64


class Exchange:
    """An answer whose head has come. Read it to its end, or close it.

    Attributes:
        status: the HTTP status.
        headers: the answer's headers, looked up without regard to case.
        framing: how its body is delimited.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse, attempt: Attempt, method: str) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._raw = raw = cast(http.client.HTTPResponse, attempt.raw)
        self._attempt = attempt
        self._open = True
        self.framing = Framing(reusable=False)
        try:
            if self.status == 101:
                raise BadBodyError("the answer switches to a protocol that nobody asked for")
            self.framing = framing_of(method, self.status, raw.version, raw.msg.items())
        except BadBodyError as error:
            self.close()
            raise self._bad(str(error)) from None

    @property
    def header_items(self) -> list[tuple[str, str]]:
        """The answer's headers as they came, in order, repeated ones apart."""
        return self._raw.msg.items()

    def read(self, limit: int, *, decoded: bool = True) -> bytes:
        """The whole body, without its Content-Encoding when ``decoded``.

        Raises:
            Transient: it is over ``limit`` bytes, cut off, or not decodable.
            AttemptTimeout, Cancelled: as always.
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
        """The body as it comes, in pieces of at most 64 KiB.

        Args:
            silence_s: from here on this bounds each wait for the upstream, and the engine's own
                limit for the whole no longer counts. A reader that takes its time is no silence.
            decoded: without its Content-Encoding.
        """
        attempt = self._attempt
        if silence_s is not None:
            attempt.allow_only_silence(silence_s)
        complete = False
        try:
            pieces = self._decoded() if decoded else self._raw_chunks()
            for count, data in enumerate(pieces, 1):
                yield data
                attempt.resumed()
                if not count % _LOOK_EVERY:  # one read may bring thousands of tiny chunks
                    attempt.left()
            complete = True
        except zlib.error:
            raise self._bad("the answer is not the gzip that it says") from None
        except BadBodyError as error:
            raise self._bad(str(error)) from None
        except Exception as error:
            raise self._attempt.error(error) from error
        finally:
            if complete:
                self._release()
            else:
                self.close()

    def close(self) -> None:
        """Give up the rest; the connection is closed."""
        if self._open:
            self._open = False
            self._attempt.detach()
            self._response.close()
            self._raw.close()
            self._response.release_conn()

    def _release(self) -> None:
        if not self.framing.reusable or self._more_came():
            self.close()
        if self._open:
            self._open = False
            self._attempt.detach()
            self._raw.close()
            self._response.release_conn()

    def _more_came(self) -> bool:
        """Whether bytes after the body are here: the next answer must not begin with them."""
        file = self._raw.fp
        cast(DeadlineReader, file.raw).ended = True
        return bool(file.peek(1))

    def _decoded(self) -> Iterator[bytes]:
        encoding = (self.headers.get("content-encoding") or "identity").strip().lower()
        if encoding == "identity":
            return self._raw_chunks()
        if encoding in ("gzip", "x-gzip"):
            return self._gunzip()
        raise self._bad("the answer has a Content-Encoding that was not asked for")

    def _raw_chunks(self) -> Iterator[bytes]:
        try:
            yield from body_chunks(self._raw.fp, self.framing)
        except BadBodyError:
            self._attempt.left()  # a cancelled call looks like the end of the body
            raise
        self._attempt.left()

    def _gunzip(self) -> Iterator[bytes]:
        # zlib's own max_length keeps a compressed bomb from ever being in memory.
        decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
        for data in self._raw_chunks():
            while data:
                if decoder.eof:  # RFC 1952: members may follow each other
                    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
                if part := decoder.decompress(data, _READ):
                    yield part
                data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
        while not decoder.eof:
            part = decoder.decompress(b"", _READ)
            if not part:
                raise self._bad("the answer's gzip ended early")
            yield part

    def _bad(self, what: str) -> Transient:
        return Transient(f"{self._attempt.where}: {what}", sent="yes", status=self.status)


class Transport:
    """Requests to one origin over a pool of connections, one pool per process.

    Args:
        scheme, host, port: the origin.
        pool_size: idle connections that are kept.
        connect_timeout: seconds for a new connection, all its addresses together; as many again
            at most for the TLS handshake.
        ssl_context: for ``https``; one with the system's certificates when not given.
    """

    def __init__(
        self,
        scheme: str,
        host: str,
        port: int,
        *,
        pool_size: int = 16,
        connect_timeout: float = 3.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._scheme = scheme
        self._host = host
        self._port = port
        self._pool_size = pool_size
        self._connect_timeout = connect_timeout
        self._ssl_context = ssl_context
        # A child never touches its parent's pool: the lock inside may have been held at the fork.
        self._pools: dict[int, HTTPConnectionPool] = {}

    def open(
        self,
        method: str,
        target: str,
        *,
        body: bytes | Iterable[bytes] | None,
        headers: Mapping[str, str],
        call: Call,
        where: str,
        limit_s: float,
    ) -> Exchange:
        """Send a request and wait for the head of its answer, whatever its status.

        Args:
            target: path and query, sent as they are.
            body: an iterable is sent in chunks unless ``headers`` has its Content-Length.
            headers: an :class:`urllib3.HTTPHeaderDict` for repeated ones.
            where: engine and address, for messages.
            limit_s: seconds that this attempt may take, whatever the call allows.

        Raises:
            Transient, AttemptTimeout, Misconfigured, Cancelled: see :meth:`Attempt.error`.
        """
        attempt = Attempt(call, where, limit_s, self._connect_timeout)
        token = current_attempt.set(attempt)
        try:
            attempt.left()
            attempt.target = target  # urllib3 would write its percent-encoding anew
            response = self._pool().urlopen(
                method,
                "/",
                body=body,
                headers=headers,
                retries=False,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
                timeout=None,
            )
        except BaseException as error:
            attempt.detach()
            if attempt.raw is not None:
                attempt.raw.close()  # what it reads from holds the socket open
            if isinstance(error, Exception):
                raise attempt.error(error) from error
            raise
        finally:
            current_attempt.reset(token)
        return Exchange(response, attempt, method)

    def reach(self, call: Call, where: str, limit_s: float) -> None:
        """Open a TCP connection and close it again.

        Raises:
            Transient, AttemptTimeout, Cancelled: it could not be made.
        """
        attempt = Attempt(call, where, limit_s, self._connect_timeout)
        try:
            connect(self._host, self._port, attempt).close()
        except Exception as error:
            raise attempt.error(error) from error
        finally:
            attempt.detach()

    def close(self) -> None:
        """Close this process's idle connections; the transport may be used again."""
        pool = self._pools.pop(os.getpid(), None)
        if pool is not None:
            pool.close()

    def _pool(self) -> HTTPConnectionPool:
        pid = os.getpid()
        pool = self._pools.get(pid)
        if pool is None:
            made = self._make()
            pool = self._pools.setdefault(pid, made)  # atomic: of two threads, one's is kept
        return pool

    def _make(self) -> HTTPConnectionPool:
        if self._scheme == "http":
            return DeadlineHTTPPool(self._host, self._port, maxsize=self._pool_size)
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
        return DeadlineHTTPSPool(
            self._host, self._port, maxsize=self._pool_size, ssl_context=self._ssl_context
        )
