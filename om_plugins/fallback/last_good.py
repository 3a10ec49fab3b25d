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
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..core.body import convert
from ..core.fork import renew_after_fork
from ..core.request_state import state_of
from ..protocols import Cache, Clock, Scheduler
from ..workers.signed_cookie import BROWSER_COOKIE, parse_cookies
from .options import FallbackOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["LastGoodCopies", "ResponseCopy"]

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


class LastGoodCopies:
    """The copies of responses below one path.

    Args:
        options: how large, how old and how many copies may be.
        cache: stores the copies; when it has a store, all workers share them.
        scheduler: stores them in the background.
        clock: time.
    """

    def __init__(
        self, options: FallbackOptions, cache: Cache, scheduler: Scheduler, clock: Clock
    ) -> None:
        self._options = options
        self._cache = cache
        self._scheduler = scheduler
        self._clock = clock
        self._monotonic = clock.monotonic
        self._every_s = options.copy_every
        self._begun_at: OrderedDict[Key, float] = OrderedDict()
        self._lock = threading.Lock()
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
        now = self._monotonic()
        at = self._begun_at.get(key)
        if at is not None and now - at < self._every_s:
            return None
        if _is_personal(environ) or not self._claim(key, now):
            return None
        fields = _join_fields(headers)
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
            if key not in self._begun_at and len(self._begun_at) >= self._options.copies:
                oldest, at = next(iter(self._begun_at.items()))
                if now - at < self._every_s:
                    return False
                dropped = oldest
                del self._begun_at[oldest]
            self._begun_at[key] = now
            self._begun_at.move_to_end(key)
        if dropped is not None:
            self._store_later(dropped, None)
        return True

    def give_up(self, key: Key) -> None:
        """Allow the next response to be copied, because this body did not end."""
        self._begun_at.pop(key, None)

    def store(self, key: Key, copy: Mapping[str, object]) -> None:
        """Store a complete copy in the background."""
        self._store_later(key, copy)

    def _store_later(self, key: Key, copy: Mapping[str, object] | None) -> None:
        def store() -> None:
            name: object = (
                "fallback",
                *key,
            )  # the cache takes tuples, too
            if copy is None:
                self._cache.remove(name)  # type: ignore[arg-type]
                return
            keep_s = self._options.keep
            self._cache.set(
                name,  # type: ignore[arg-type]
                copy,
                stale_time=keep_s,
                cache_time=keep_s,
                tags=(TAG,),
            )

        if not self._scheduler.submit(store, name="fallback-copy"):
            self.give_up(key)

    # --- using ----------------------------------------------------------------------------------

    def find(self, environ: WSGIEnvironment) -> tuple[Headers, bytes] | None:
        """Return headers and body of the copy for this request; ``None`` when there is none."""
        name: object = ("fallback", *_build_key(environ))
        copy = self._cache.get(name)  # type: ignore[arg-type]
        if not isinstance(copy, Mapping):
            return None
        try:
            headers = convert(copy.get("headers"), list[tuple[str, str]])
            vary = convert(copy.get("vary"), list[tuple[str, str]])
            body = convert(copy.get("body"), bytes)
            at = convert(copy.get("at"), float)
            old = convert(copy.get("nonce"), str)
        except ValueError:
            logger.debug("a copy of a good answer cannot be read", exc_info=True)
            return None
        if any(_get_header(environ, field) != value for field, value in vary):
            return None
        encoding = _join_fields(headers).get("content-encoding")
        if encoding and encoding.lower() not in environ.get("HTTP_ACCEPT_ENCODING", "").lower():
            return None
        state = state_of(environ)
        if old:
            body = body.replace(old.encode(), state.nonce_for_page().encode())
        elif state.plain is not None:
            state.plain = True  # the tags of the copy may have no nonces
        age = max(0, int(self._clock.time() - at))
        return [*headers, ("Age", str(age)), ("Cache-Control", "no-store")], body

    @property
    def now(self) -> float:
        """Unix time in seconds."""
        return self._clock.time()

    @property
    def max_bytes(self) -> int:
        """The largest body that is copied, in bytes."""
        return self._options.max_copy


class ResponseCopy:
    """A copy of one response that is being sent."""

    __slots__ = (
        "_copies", "_encoded", "_environ", "_headers", "_key", "_length", "_parts", "_size", "_vary"
    )  # fmt: skip

    def __init__(
        self,
        copies: LastGoodCopies,
        key: Key,
        environ: WSGIEnvironment,
        headers: Headers,
        vary: Headers,
        length: str,
        encoded: bool,
    ) -> None:
        self._copies = copies
        self._key = key
        self._environ = environ
        self._headers = headers
        self._vary = vary
        self._length = length
        self._encoded = encoded
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        """Add a chunk of the body."""
        self._size += len(chunk)
        if self._size <= self._copies.max_bytes:
            self._parts.append(chunk)
        else:
            self._parts.clear()

    def give_up(self) -> None:
        """Drop the copy: the body did not end."""
        self._parts.clear()
        self._copies.give_up(self._key)

    def end(self) -> None:
        """Store the copy: the body is complete."""
        if self._size > self._copies.max_bytes:
            return
        if self._length and self._length != str(self._size):
            return
        body = b"".join(self._parts)
        used = state_of(self._environ).page_nonce or ""
        if used and (self._encoded or used.encode() not in body):
            return  # the nonce must be replaced in the copy, and it cannot be found
        self._copies.store(
            self._key,
            {
                "headers": [[n, v] for n, v in self._headers if n.lower() not in _NOT_STORED],
                "vary": [list(one) for one in self._vary],
                "body": body,
                "nonce": used,
                "at": self._copies.now,
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


def _join_fields(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        found[lower] = f"{found[lower]}, {value}" if lower in found else value
    return found


def _read_varying(vary: str, environ: WSGIEnvironment) -> Headers | None:
    """Return the request headers that the response varies with; ``None`` if one is personal."""
    names = sorted({name.strip().lower() for name in vary.split(",") if name.strip()})
    if len(names) > _MAX_VARY or not _PERSONAL_FIELDS.isdisjoint(names):
        return None
    return [(name, _get_header(environ, name)) for name in names]


def _get_header(environ: WSGIEnvironment, name: str) -> str:
    return str(environ.get("HTTP_" + name.upper().replace("-", "_"), ""))
