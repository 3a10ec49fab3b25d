"""The application's response on its way to the client: held back, then copied while it passes.

:class:`AppCall` calls the application and holds back what it passes to ``start_response``.
:class:`BodyTee` passes the body on and copies it for the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from ...core.body import close_body

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_UNSET = object()


class AppCall:
    """One call of the application, whose ``start_response`` is held back.

    Args:
        app: the application.
        environ, start_response: the request.
        passes: called when the application calls ``start_response``; whether its response passes
            unchanged.
        on_write: called when the application first sends by the imperative ``write()``.

    Attributes:
        status, headers: what the application passed to ``start_response``; "" before it did.
        sent: the server's ``start_response`` was called.
        conditional: validators were added to the request.
    """

    def __init__(
        self,
        app: WSGIApplication,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        passes: Callable[[], bool],
        on_write: Callable[[], None],
    ) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.sent = False
        self.conditional = False
        self._app = app
        self._environ = environ
        self._start_response = start_response
        self._passes = passes
        self._on_write = on_write
        self._server_write: Callable[[bytes], object]

    def run(self, validators: Mapping[str, str]) -> Iterable[bytes]:
        """Call the application.

        Args:
            validators: conditions for this call only, by environ key; an empty value removes one.
                They are added when at least one has a value.

        Returns:
            Its body. ``start_response`` was called, unless the body ended without it.
        """
        environ = self._environ
        before: dict[str, Any] = {}
        if validators and any(validators.values()):
            self.conditional = True
            before = {name: environ.get(name, _UNSET) for name in validators}
            _replace(environ, {name: value or _UNSET for name, value in validators.items()})
        try:
            body = self._app(environ, self._hold)
            if not self.status and not self.sent:
                body = self._read_until_started(body)
        finally:
            if before:
                _replace(environ, before)
        return body

    def _read_until_started(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Read until ``start_response`` was called: a generator may do it with its first chunk."""
        iterator = iter(body)
        first: list[bytes] = []
        while not self.status and not self.sent:
            try:
                first.append(next(iterator))
            except StopIteration:
                break
            except BaseException:
                close_body(body)
                raise
        return ResumedBody(body, first, iterator)

    def _hold(
        self, status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None
    ) -> Callable[[bytes], object]:
        if self.sent:
            return self._start(status, headers, exc_info)
        # a second call needs no exc_info, because nothing of the first was sent
        self.status, self.headers = status, headers
        if self._passes():
            self.sent = True
            return self._start(status, headers, None)
        return self._write

    def _write(self, data: bytes) -> object:
        if not self.sent:
            self.sent = True
            self._server_write = self._start(self.status, list(self.headers), None)
            self._on_write()
        return self._server_write(data)

    def _start(
        self, status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None
    ) -> Callable[[bytes], object]:
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def send(self, extra: Iterable[tuple[str, str]]) -> None:
        """Call the server's ``start_response`` with what was held back, and more headers."""
        self.sent = True
        self._start(self.status, [*self.headers, *extra], None)


def _replace(environ: WSGIEnvironment, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if value is _UNSET:
            environ.pop(name, None)
        else:
            environ[name] = value


class TeeTarget(Protocol):
    """What receives the copy of a body."""

    @property
    def followed(self) -> bool:
        """Whether others stream this body, so that it must be read to its end."""

    def receive(self, chunk: bytes) -> None:
        """Take the next chunk, before the client gets it."""

    def complete(self, body: bytes) -> None:
        """Take the whole body."""

    def overflow(self) -> None:
        """Note that the body grew over the limit and is not copied any more."""

    def end_unstored(self) -> None:
        """Note that a body over the limit has ended well."""

    def abort(self, reason: str) -> None:
        """Note that the body did not end well: ``broken``, or ``unfinished`` by its client."""


class BodyTee:
    """Passes a body on and copies it.

    Args:
        body: the application's.
        target: what receives the copy.
        length: the body's declared length in bytes; ``None`` when it has none.
        limit: a larger body is not copied to its end, in bytes.
    """

    def __init__(
        self, body: Iterable[bytes], target: TeeTarget, length: int | None, limit: int
    ) -> None:
        self._body = body
        self._target = target
        self._length = length
        self._limit = limit
        self._chunks: list[bytes] | None = []
        self._size = 0
        self._done = False
        if self._length == 0:
            self._complete()

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._body:
                self._take(chunk)
                yield chunk
        except Exception:
            self._abort("broken")
            raise
        self._end()

    def close(self) -> None:
        """Close the body. The server calls it, whether it sent the whole body or not."""
        try:
            if not self._done and self._target.followed:
                for chunk in self._body:  # this client left; those who follow it have not
                    self._take(chunk)
                self._end()
        finally:
            self._abort("unfinished")
            close_body(self._body)

    def _take(self, chunk: bytes) -> None:
        self._target.receive(chunk)
        if self._chunks is None or self._done:
            return
        self._size += len(chunk)
        self._chunks.append(chunk)
        if self._size > self._limit:
            self._chunks = None
            self._target.overflow()
        elif self._length is not None and self._size >= self._length:
            # before the last chunk leaves: the client may ask again as soon as it has it
            self._complete()

    def _end(self) -> None:
        if self._done:
            return
        if self._chunks is None:
            self._done = True
            self._target.end_unstored()
        elif self._length is not None and self._size != self._length:
            self._abort("broken")
        else:
            self._complete()

    def _complete(self) -> None:
        self._done = True
        chunks = self._chunks or []
        if self._length is not None and self._size != self._length:
            self._target.abort("broken")
            return
        self._target.complete(chunks[0] if len(chunks) == 1 else b"".join(chunks))

    def _abort(self, reason: str) -> None:
        if not self._done:
            self._done = True
            self._target.abort(reason)


class ResumedBody:
    """A body whose first chunks were read already."""

    def __init__(self, body: Iterable[bytes], first: list[bytes], rest: Iterator[bytes]) -> None:
        self._body = body
        self._chunks = chain(first, rest)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        close_body(self._body)
