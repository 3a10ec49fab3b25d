"""The layer that adds nonces to pages which no template made, where the owner says that he may.

``OM_CSP_HTML_NONCES`` names the pages: they have no markup of users. The layer is the innermost
one, so that the caches outside of it find the nonce in the body and renew it. Where nothing asks
for nonces, a response passes untouched.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from werkzeug.http import parse_options_header
from werkzeug.wsgi import ClosingIterator

from ...core.body import close_body
from ...core.request_state import RequestState, StateLayer, state_of
from ...settings.paths import PathPatterns
from ..nonce import stays_plain, tag_nonce
from ..presets import PAGE, content_kind
from .document import NonceWriter

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("om_plugins")

Header = tuple[str, str]
Write = Callable[[bytes], object]

MAX_WHOLE_BYTES = 4 * 2**20
"""Larger pages, and those of unknown length, are sent in pieces, without ``Content-Length``."""

_MAX_SAID = 64
_NO_WHOLE_BODY = frozenset({"204", "206", "304"})
_OF_BYTES = frozenset({"accept-ranges", "content-digest", "content-md5", "digest", "repr-digest"})
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')
_PAGES = re.compile(r"text/html|application/xhtml\+xml", re.IGNORECASE)


class HtmlNonceLayer(StateLayer):
    """WSGI middleware that adds nonces to the literal tags of pages.

    The entity tag of such a page gets a suffix, which is removed from the conditions of requests:
    the application answers a browser that has its page with 304, and a browser that has the page
    from the time before ``OM_CSP_HTML_NONCES`` gets a new one.

    Args:
        app: the WSGI application.
        paths: of the pages, such as ``/reports/*``; ``/*`` for all.
        mark: is a part of the entity tags: another text for each way in which pages are sent.
    """

    __slots__ = ("_app", "_paths", "_said", "suffix")

    def __init__(self, app: WSGIApplication, paths: Iterable[str], mark: str = "") -> None:
        self._app = app
        self._paths = PathPatterns(paths)
        self._said: set[str] = set()
        self.suffix = f"-om{mark}"
        self.owner = self
        self.inside = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not self._paths.match(environ.get("PATH_INFO") or "/"):
            return self._app(environ, start_response)
        state = state_of(environ, self.owner)
        page = _Page(self, environ, state, start_response)
        if not stays_plain(state):
            environ = self._change_conditions(environ)
        return page.answer(self._app(environ, page.start))

    def _change_conditions(self, environ: WSGIEnvironment) -> WSGIEnvironment:
        """Return the environ for the application, with the conditions that concern its own tags."""
        if "HTTP_IF_RANGE" in environ and self.suffix in environ["HTTP_IF_RANGE"]:
            environ = {**environ}  # parts of a page whose bytes are others each time
            del environ["HTTP_IF_RANGE"]
            environ.pop("HTTP_RANGE", None)
        asked = environ.get("HTTP_IF_NONE_MATCH", "")
        if not asked and "HTTP_IF_MODIFIED_SINCE" not in environ:
            return environ
        end = f'{self.suffix}"'
        ours = [f'"{tag}"' for tag in _ETAG.findall(asked) if f'{tag}"'.endswith(end)]
        if ours:
            return {**environ, "HTTP_IF_NONE_MATCH": ", ".join(ours).replace(end, '"')}
        if asked.strip() == "*" or not _PAGES.search(environ.get("HTTP_ACCEPT", "")):
            return environ
        # a page of the time before: the browser may have it without nonces
        left_out = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE")
        return {name: value for name, value in environ.items() if name not in left_out}

    def rename_etag(self, headers: list[Header]) -> list[Header]:
        """Return the headers with the entity tag of the page with nonces; it is weak."""
        return [
            (
                name,
                _ETAG.sub(rf'W/"\g<1>{self.suffix}"', value) if name.lower() == "etag" else value,
            )
            for name, value in headers
        ]

    def warn(self, path: str, what: str, way_out: str) -> None:
        """Warn, once for each reason, that a page gets no nonces."""
        if what not in self._said and len(self._said) < _MAX_SAID:
            self._said.add(what)
            logger.warning(
                "OM_CSP_HTML_NONCES: %s has %s, so its tags get no nonces; %s", path, what, way_out
            )


class _Page:
    """One response; its headers wait for the body where its length is known."""

    def __init__(
        self,
        layer: HtmlNonceLayer,
        environ: WSGIEnvironment,
        state: RequestState,
        start_response: StartResponse,
    ) -> None:
        self._layer = layer
        self._environ = environ
        self._state = state
        self._start_response = start_response
        self._started = False
        self._writer: NonceWriter | None = None
        self._waiting: tuple[str, list[Header]] | None = None
        self._parts: list[bytes] = []
        self._sent: Write

    def start(
        self, status: str, headers: list[Header], exc_info: OptExcInfo | None = None
    ) -> Write:
        """Be the ``start_response`` of the application."""
        self._started = True
        self._writer = self._waiting = None
        self._parts.clear()
        fields = {name.lower(): value for name, value in headers}
        if not self._is_page(status, fields):
            if status[:3] == "304":
                headers = self._rename_if_asked(headers)
            return self._send(status, headers, exc_info)
        self._writer = NonceWriter(
            lambda: tag_nonce(self._state), xml="xhtml" in fields["content-type"].lower()
        )
        headers = [one for one in headers if one[0].lower() not in _OF_BYTES]
        headers = self._layer.rename_etag(headers)
        length = fields.get("content-length", "")
        known = length.isascii() and length.isdigit() and int(length) <= MAX_WHOLE_BYTES
        if known and self._environ.get("REQUEST_METHOD") != "HEAD":
            self._waiting = (status, headers)
            return self._write
        # how much longer the page becomes is not known yet
        return self._filter(self._send(status, _without_length(headers), exc_info))

    def _is_page(self, status: str, fields: dict[str, str]) -> bool:
        """Return whether the response is a page whose policy asks for nonces."""
        content_type = fields.get("content-type", "")
        if status[:3] in _NO_WHOLE_BODY or status[:1] == "1" or content_kind(content_type) != PAGE:
            return False
        if "content-security-policy" in fields:  # the application's own does not list our nonce
            return False
        if stays_plain(self._state):
            tag_nonce(self._state)  # some tag may be left alone
            return False
        encoding = fields.get("content-encoding", "").strip().lower()
        charset = parse_options_header(content_type)[1].get("charset", "utf-8")
        for wrong, what, way_out in (
            (
                encoding not in ("", "identity"),
                f"Content-Encoding: {encoding}",
                "compress outside of the application: in the server, or in middleware around it",
            ),
            (not _is_like_ascii(charset), f"the charset {charset!r}", "send it as UTF-8"),
        ):
            if wrong:
                self._layer.warn(self._environ.get("PATH_INFO", ""), what, way_out)
                return False
        return True

    def _rename_if_asked(self, headers: list[Header]) -> list[Header]:
        """Return the headers of a 304, whose entity tag is the one that the browser sent."""
        asked = self._environ.get("HTTP_IF_NONE_MATCH", "")
        return self._layer.rename_etag(headers) if self._layer.suffix in asked else headers

    def _send(self, status: str, headers: list[Header], exc_info: OptExcInfo | None) -> Write:
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def _write(self, data: bytes) -> object:
        """Be the ``write`` of PEP 3333: an application that calls it is streaming."""
        if self._waiting is not None:
            status, headers = self._waiting
            self._waiting = None
            self._sent = self._filter(self._send(status, _without_length(headers), None))
        return self._sent(data)

    def _filter(self, write: Write) -> Write:
        self._sent = lambda data: write(self._feed(data))
        return self._sent

    def _feed(self, data: bytes) -> bytes:
        if self._writer is None:
            return data
        return self._writer.feed(data.decode("latin-1")).encode("latin-1")

    def _end(self) -> bytes:
        return b"" if self._writer is None else self._writer.end().encode("latin-1")

    def answer(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return the body to send."""
        pieces: Iterable[bytes] = body
        if not self._started:  # a generator calls start_response when its first piece is due
            pieces = self._begin(body)
        if self._waiting is not None:
            return self._answer_whole(body, pieces)
        if self._writer is None:
            return body if pieces is body else ClosingIterator(pieces, [partial(close_body, body)])
        return ClosingIterator(self._stream(pieces), [partial(close_body, body)])

    def _begin(self, body: Iterable[bytes]) -> Iterator[bytes]:
        iterator = iter(body)
        try:
            first = list(itertools.islice(iterator, 1))
        except BaseException:
            close_body(body)
            raise
        return itertools.chain(first, iterator)

    def _answer_whole(self, body: Iterable[bytes], pieces: Iterable[bytes]) -> Iterable[bytes]:
        parts = self._parts
        try:
            for data in pieces:
                parts.append(self._feed(data))
            parts.append(self._end())
        finally:
            close_body(body)
        whole = b"".join(parts)
        if self._waiting is not None:
            status, headers = self._waiting
            length = ("Content-Length", str(len(whole)))
            self._send(status, [*_without_length(headers), length], None)
        return [whole]

    def _stream(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for data in pieces:
            yield self._feed(data)
        yield self._end()


def _without_length(headers: list[Header]) -> list[Header]:
    return [one for one in headers if one[0].lower() != "content-length"]


def _is_like_ascii(charset: str) -> bool:
    """Return whether the characters of tags are the bytes of ASCII, wherever they stand."""
    name = charset.strip().lower()
    try:
        found = "<script nonce>".encode(name)
    except LookupError:
        return False
    return found == b"<script nonce>" and not name.startswith(
        ("iso-2022", "iso2022", "hz", "utf-7")
    )
