"""The WSGI engine: it asks a WSGI app in this process, another app or the host app itself.

::

    WsgiEngine("old-app", legacy.wsgi_app)
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import unquote_to_bytes, urlsplit

from ...core.engine import EngineTraitKeywords
from ...errors import ConfigError, InvalidRequest, Misconfigured, Transient, Unsupported
from ...settings.arguments import check_arguments
from ...settings.callbacks import explain_wsgi_app
from ...types import Answer, Call, EngineTraits, HttpRequest, HttpResponse
from ..http.forwarding import (
    BadHeaderError,
    Headers,
    check_request_headers,
    clean_response_headers,
    drop_hop_by_hop,
    join_headers,
)
from ..http.lenient_json import read_json
from ..http.status import map_status
from ..http.texts import read_charset, read_receipt
from .http import PASSED_HEADERS, read_metadata
from .payloads import encode_payload

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

_MOST_DEEP = 4
_depth: ContextVar[int] = ContextVar("om_plugins.wsgi_engine_depth", default=0)


class WsgiEngine:
    """Asks a WSGI app (PEP 3333) without a network.

    A payload that is an :class:`~om_plugins.types.HttpRequest` is passed as a whole; the answer is
    an :class:`~om_plugins.types.HttpResponse`, streamed when the call streams. Any other payload
    is sent as JSON to ``path``, and the app's JSON is the answer.

    Args:
        name: the name of the engine in chains.
        app: the app. For a Flask app, take ``app.wsgi_app`` before ``OpenManager(app)`` wraps it:
            that leaves out the layers of this package.
        path: the path of JSON requests.
        method: the method of JSON requests; ``GET`` sends the payload's keys in the query.
        headers: more headers of every request.
        url: scheme and host of the requests.
        fail_on: statuses of whole requests that count as failures of the engine. For JSON
            requests, every status other than 2xx is a failure.
        max_answer: the most bytes of an answer that is not streamed.
        **traits: fields of :class:`~om_plugins.types.EngineTraits`. Pass ``idempotent=True`` when
            calling twice does no harm.

    Raises:
        ConfigError: an argument is wrong.

    The app finds the call in ``environ["om_plugins.call"]`` and may use its ``remaining()``. It
    cannot be interrupted; the time of the call is checked between the pieces of its body.
    """

    @check_arguments(
        "WsgiEngine", usage="WsgiEngine('old', app)", keywords=EngineTraitKeywords.__annotations__
    )
    def __init__(
        self,
        name: str,
        app: WSGIApplication,
        *,
        path: str = "/",
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        url: str = "http://localhost",
        fail_on: Iterable[int] = range(500, 600),
        max_answer: int = 8 * 2**20,
        **traits: Unpack[EngineTraitKeywords],
    ) -> None:
        parts = urlsplit(url)
        problem = explain_wsgi_app(app)
        if problem:
            raise ConfigError(f"engine {name!r}: app", app, f"must be a WSGI app: {problem}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"engine {name!r}: url", url, "must be such as 'https://host'")
        if not path.startswith("/"):
            raise ConfigError(f"engine {name!r}: path", path, "must begin with '/'")
        try:
            self._headers = check_request_headers((headers or {}).items())
        except BadHeaderError as error:
            raise ConfigError(f"engine {name!r}: headers", "…", str(error)) from None
        self.name = name
        self.traits = EngineTraits(**{"streaming": True, **traits})  # type: ignore[arg-type]
        self._app = app
        self._path = path
        self._method = method.upper()
        self._scheme = parts.scheme
        self._host = parts.hostname
        self._port = str(parts.port or {"http": 80, "https": 443}[parts.scheme])
        self._netloc = parts.netloc
        self._fail_on = frozenset(fail_on)
        self._max_answer = max_answer

    def call(self, call: Call) -> Answer:
        """Ask the app.

        Returns:
            Its JSON; ``None`` when it answered 2xx without a body; the text of a 201 or 202 in
            ``text/plain``. ``metadata["location"]`` has the ``Location`` of a 2xx.

        Raises:
            EngineError: its status is a failure (:mod:`om_plugins.builtin.http.status` maps
                statuses), or it violated PEP 3333.
            Exception: the app raised it.
        """
        call.raise_if_done()
        payload = call.payload
        if isinstance(payload, HttpRequest):
            return self._pass_request(payload, call)
        target, body = encode_payload(self._method, self._path, payload, self._describe())
        headers = [("Accept", "application/json")]
        if body is not None:
            headers.append(("Content-Type", "application/json"))
        headers += [
            (name, value) for name in PASSED_HEADERS if (value := (call.headers or {}).get(name))
        ]
        if self._method in ("POST", "PATCH"):
            headers.append(("Idempotency-Key", call.idempotency_key))
        run = self._run(HttpRequest(self._method, target, headers, body or b""), call)
        answered = join_headers(run.headers)
        if not 200 <= run.status < 300:
            run.close()
            raise map_status(run.status, answered, self._describe())
        content = run.read(self._max_answer)
        metadata = read_metadata(answered) or None
        if not content.strip():  # done, as in HttpEngine
            return Answer(None, status=run.status, metadata=metadata)
        if text := read_receipt(run.status, answered, content):
            return Answer(text, status=run.status, metadata=metadata)
        try:
            payload = read_json(content, charset=read_charset(answered))
            return Answer(payload, status=run.status, metadata=metadata)
        except ValueError:
            raise Transient(
                f"{self._describe()}: answered what is not JSON", sent="yes", status=run.status
            ) from None

    def _pass_request(self, request: HttpRequest, call: Call) -> Answer:
        run = self._run(request, call)
        head = HttpResponse(run.status, drop_hop_by_hop(clean_response_headers(run.headers)))
        if run.status in self._fail_on:
            own = {name.lower() for name, _ in self._headers}
            error = map_status(
                run.status,
                join_headers(run.headers),
                self._describe(),
                sent_names=[name for name, _ in request.headers if name.lower() not in own],
            )
            try:
                head.body = run.read(self._max_answer)
                error.response = head
            except Transient:  # too large for the error
                run.close()
            raise error
        if request.method == "HEAD" or run.status in (204, 304):
            run.close()
            return Answer(head, status=run.status)
        if call.stream:
            return Answer(head, chunks=run, status=run.status)
        head.body = run.read(self._max_answer)
        return Answer(head, status=run.status)

    def _run(self, request: HttpRequest, call: Call) -> _AppRun:
        depth = _depth.get()
        if depth >= _MOST_DEEP:
            raise Misconfigured(
                f"{self._describe()}: the app asks this engine again; give it the app without the "
                "layer that does",
                sent="no",
            )
        environ = self._build_environ(request, call)
        token = _depth.set(depth + 1)
        try:
            return _AppRun(self._app, environ, call, self._describe())
        finally:
            _depth.reset(token)

    def _build_environ(self, request: HttpRequest, call: Call) -> WSGIEnvironment:
        path, _, query = request.target.partition("?")
        body = request.body
        length = len(body) if isinstance(body, bytes) else request.length
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "RAW_URI": request.target,
            "REMOTE_ADDR": "",
            "SERVER_NAME": self._host,
            "SERVER_PORT": self._port,
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": self._netloc,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": self._scheme,
            "wsgi.input": _open_input(body, self._describe()),
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "om_plugins.call": call,
        }
        if length is not None:
            environ["CONTENT_LENGTH"] = str(length)
        else:
            environ["HTTP_TRANSFER_ENCODING"] = "chunked"
        try:
            given = check_request_headers(request.headers)
        except BadHeaderError as error:
            raise InvalidRequest(f"{self._describe()}: {error}", sent="no") from None
        own = {name.lower() for name, _ in self._headers}
        kept = drop_hop_by_hop(given, drop=own | {"content-length"})
        environ.update(_encode_environ([*kept, *self._headers]))
        return environ

    def _describe(self) -> str:
        return f"engine {self.name!r}"


class _AppRun:
    """One request to an app, whose head has arrived. Iterate over the body, then close it.

    Attributes:
        status, headers: the arguments of ``start_response``.
    """

    def __init__(
        self, app: WSGIApplication, environ: WSGIEnvironment, call: Call, where: str
    ) -> None:
        self.status = 0
        self.headers: Headers = []
        self._call = call
        self._where = where
        self._written: list[bytes] = []
        self._sent = False  # a piece of the body was passed on: the head is final
        self._close: Callable[[], object] | None = None
        result = app(environ, self._start_response)
        self._close = getattr(result, "close", None)
        self._pieces = iter(result)
        try:
            # PEP 3333: start_response may come as late as the first piece that is not empty.
            while not self.status or not any(self._written):
                call.raise_if_done()
                piece = next(self._pieces, None)
                if piece is None:
                    break
                if piece:
                    self._written.append(piece)
                    if not self.status:
                        break
            if not self.status:
                raise Transient(f"{where}: the app did not call start_response", sent="yes")
        except BaseException:
            self.close()
            raise

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        if exc_info is not None and self._sent:
            raise exc_info[1].with_traceback(exc_info[2])
        if self.status and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info")
        try:
            self.status = int(status[:3])
        except ValueError:
            raise AssertionError(f"{status!r} is not an HTTP status") from None
        self.headers = list(headers)
        return self._written.append

    def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            Transient: it is over ``limit`` bytes.
        """
        parts: list[bytes] = []
        size = 0
        try:
            for piece in self:
                size += len(piece)
                if size > limit:
                    raise Transient(
                        f"{self._where}: the answer is larger than {limit} bytes",
                        sent="yes",
                        status=self.status,
                    )
                parts.append(piece)
                self._call.raise_if_done()
        finally:
            self.close()
        return b"".join(parts)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._sent = True
        while True:
            if self._written:
                return self._written.pop(0)
            try:
                piece = next(self._pieces)
            except BaseException:
                self.close()
                raise
            if piece:
                self._written.append(piece)

    def close(self) -> None:
        """Call the ``close`` of the app's iterable, once."""
        close, self._close = self._close, None
        if close is not None:
            close()


def _open_input(body: bytes | Iterable[bytes], where: str) -> io.BufferedIOBase:
    if isinstance(body, bytes):
        return io.BytesIO(body)
    if getattr(body, "started", False):
        raise Unsupported(f"{where}: the request's body was sent before and is gone", sent="no")
    return io.BufferedReader(_PieceReader(iter(body)))


class _PieceReader(io.RawIOBase):
    """A file over an iterator of bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _encode_environ(headers: Headers) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.upper().replace("-", "_")
        if "_" in name:
            continue  # X_Real_IP must not be taken for X-Real-IP
        if key != "CONTENT_TYPE":
            key = f"HTTP_{key}"
        joint = "; " if key == "HTTP_COOKIE" else ", "
        found[key] = f"{found[key]}{joint}{value}" if key in found else value
    return found
