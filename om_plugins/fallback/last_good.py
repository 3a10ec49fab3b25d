"""Copies of the host app's last good responses, by address, for use when the app fails.

Only a response that is the same for everybody is copied: the response to a GET without
``Authorization`` and without cookies, that sets no cookie, does not vary with cookies and is
neither ``private`` nor ``no-store``. The body is copied while it is sent, and stored in the
background.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from ..builtin.http.forwarding import join_headers
from ..core.body import convert
from ..core.fork import renew_after_fork
from ..core.request_state import state_of
from ..protocols import Cache, Clock, Scheduler
from ..workers.signed_cookie import BROWSER_COOKIE, parse_cookies
from .options import FallbackOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("om_plugins")

Headers = list[tuple[str, str]]
Key = tuple[str, ...]

TAG = "fallback"
_FORBIDDEN = re.compile(r"(?:^|[\s,])(?:private|no-store)(?:$|[\s,=;])", re.IGNORECASE)
_NEVER_COPIED = frozenset({"set-cookie", "content-range", "transfer-encoding", "trailer"})
_NOT_STORED = frozenset(
    {"age", "cache-control", "connection", "content-length", "date", "etag", "expires"}
    | {"keep-alive", "last-modified", "pragma", "server", "server-timing", "accept-ranges"}
)
_PERSONAL_FIELDS = frozenset({"*", "cookie", "authorization"})
_MAX_VARY = 8


class _StoredCopy(msgspec.Struct):
    """A copy as it is in the cache.

    Attributes:
        vary: the request headers that the response varies with.
        nonce: the nonce in the body; "" for none.
        at: the Unix time of the response.
    """

    headers: Headers
    vary: Headers
    body: bytes
    nonce: str
    at: float


@dataclass(slots=True, weakref_slot=True, eq=False, repr=False)
class LastGoodCopies:
    """The copies of responses below one path.

    Args:
        options: how large, how old and how many copies may be.
        cache: stores the copies; when it has a store, all workers share them.
        scheduler: stores them in the background.
        clock: time.
    """

    options: FallbackOptions
    cache: Cache
    scheduler: Scheduler
    clock: Clock
    _begun_at: OrderedDict[Key, float] = field(init=False)
    _lock: threading.Lock = field(init=False)

    def __post_init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._begun_at = OrderedDict()

    # --- copying --------------------------------------------------------------------------------

    def begin(self, environ: WSGIEnvironment, headers: Headers) -> ResponseCopy | None:
        """Begin to copy a 200 response, if it is the same for everybody and a new copy is due."""
        if environ.get("REQUEST_METHOD") != "GET":
            return None
        key = _build_key(environ)
        now = self.clock.monotonic()
        at = self._begun_at.get(key)
        if at is not None and now - at < self.options.copy_every:
            return None
        if _is_personal(environ) or not self._claim(key, now):
            return None
        fields = join_headers(headers)
        vary = _read_varying(fields.get("vary", ""), environ)
        if (
            vary is None
            or not fields.keys().isdisjoint(_NEVER_COPIED)
            or _FORBIDDEN.search(fields.get("cache-control", ""))
            or fields.get("content-type", "").startswith("text/event-stream")
        ):
            return None  # the next try is after copy_every
        length = fields.get("content-length", "")
        return ResponseCopy(self, key, environ, headers, vary, length, "content-encoding" in fields)

    def _claim(self, key: Key, now: float) -> bool:
        """Whether this address may be copied.

        When ``copies`` addresses are in use, the one whose copy is oldest is dropped, unless that
        copy is younger than ``copy_every``.
        """
        dropped: Key | None = None
        with self._lock:
            if key not in self._begun_at and len(self._begun_at) >= self.options.copies:
                oldest, at = next(iter(self._begun_at.items()))
                if now - at < self.options.copy_every:
                    return False
                dropped = oldest
                del self._begun_at[oldest]
            self._begun_at[key] = now
            self._begun_at.move_to_end(key)
        if dropped is not None:
            self.store(dropped, None)
        return True

    def give_up(self, key: Key) -> None:
        """Allow the next response to be copied, because this body did not end."""
        self._begun_at.pop(key, None)

    def store(self, key: Key, copy: Mapping[str, object] | None) -> None:
        """Store a complete copy in the background; ``None`` removes the copy of the address."""

        def store() -> None:
            name: Any = ("fallback", *key)  # the cache takes tuples, too
            if copy is None:
                self.cache.remove(name)
                return
            keep_s = self.options.keep
            self.cache.set(name, copy, stale_time=keep_s, cache_time=keep_s, tags=(TAG,))

        if not self.scheduler.submit(store, name="fallback-copy"):
            self.give_up(key)

    # --- using ----------------------------------------------------------------------------------

    def find(self, environ: WSGIEnvironment) -> tuple[Headers, bytes] | None:
        """Return headers and body of the copy for this request; ``None`` when there is none."""
        name: Any = ("fallback", *_build_key(environ))
        found = self.cache.get(name)
        if found is None:
            return None
        try:
            copy = convert(found, _StoredCopy)
        except ValueError:
            logger.debug("a copy of a good answer cannot be read", exc_info=True)
            return None
        if any(_get_header(environ, header) != value for header, value in copy.vary):
            return None
        encoding = join_headers(copy.headers).get("content-encoding")
        if encoding and encoding.lower() not in environ.get("HTTP_ACCEPT_ENCODING", "").lower():
            return None
        state = state_of(environ)
        body = copy.body
        if copy.nonce:
            body = body.replace(copy.nonce.encode(), state.nonce_for_page().encode())
        elif state.plain is not None:
            state.plain = True  # the tags of the copy may have no nonces
        age = max(0, int(self.clock.time() - copy.at))
        return [*copy.headers, ("Age", str(age)), ("Cache-Control", "no-store")], body


@dataclass(slots=True, eq=False, repr=False)
class ResponseCopy:
    """A copy of one response that is being sent.

    Attributes:
        length: the declared length of the body; "" when it has none.
        encoded: whether the body has a Content-Encoding.
    """

    copies: LastGoodCopies
    key: Key
    environ: WSGIEnvironment
    headers: Headers
    vary: Headers
    length: str
    encoded: bool
    _parts: list[bytes] = field(init=False, default_factory=list)
    _size: int = field(init=False, default=0)

    def add(self, chunk: bytes) -> None:
        """Add a chunk of the body."""
        self._size += len(chunk)
        if self._size <= self.copies.options.max_copy:
            self._parts.append(chunk)
        else:
            self._parts.clear()

    def give_up(self) -> None:
        """Drop the copy: the body did not end."""
        self._parts.clear()
        self.copies.give_up(self.key)

    def end(self) -> None:
        """Store the copy: the body is complete."""
        if self._size > self.copies.options.max_copy:
            return
        if self.length and self.length != str(self._size):
            return
        body = b"".join(self._parts)
        used = state_of(self.environ).page_nonce or ""
        if used and (self.encoded or used.encode() not in body):
            return  # the nonce must be replaced in the copy, and it cannot be found
        self.copies.store(
            self.key,
            {
                "headers": [[n, v] for n, v in self.headers if n.lower() not in _NOT_STORED],
                "vary": [list(one) for one in self.vary],
                "body": body,
                "nonce": used,
                "at": self.copies.clock.time(),
            },
        )


def _build_key(environ: WSGIEnvironment) -> Key:
    return (
        environ.get("PATH_INFO", ""),
        environ.get("QUERY_STRING", ""),
        environ.get("HTTP_HOST", ""),
        environ.get("SCRIPT_NAME", ""),
        environ.get("wsgi.url_scheme", ""),
    )


def _is_personal(environ: WSGIEnvironment) -> bool:
    """Whether a request identifies the client. The cookie of our own toasts does not count."""
    if "HTTP_AUTHORIZATION" in environ or "REMOTE_USER" in environ or "HTTP_RANGE" in environ:
        return True
    cookies = environ.get("HTTP_COOKIE", "")
    return bool(cookies) and any(name != BROWSER_COOKIE for name in parse_cookies(cookies))


def _read_varying(vary: str, environ: WSGIEnvironment) -> Headers | None:
    """Return the request headers that the response varies with; ``None`` if one is personal."""
    names = sorted({name.strip().lower() for name in vary.split(",") if name.strip()})
    if len(names) > _MAX_VARY or not _PERSONAL_FIELDS.isdisjoint(names):
        return None
    return [(name, _get_header(environ, name)) for name in names]


def _get_header(environ: WSGIEnvironment, name: str) -> str:
    return str(environ.get("HTTP_" + name.upper().replace("-", "_"), ""))
