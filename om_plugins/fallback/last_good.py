"""Copies of the last good answers of the host app, by address, for when it fails.

Only what is the same for everybody is copied: the answer to a GET without ``Authorization`` and
without cookies, that sets none, varies with none and says neither ``private`` nor ``no-store``.
The body is collected while it passes; it is stored in the background.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from werkzeug.http import parse_cookie

from ..core.body import convert
from ..core.fork import renew_after_fork
from ..csp.nonce import NONCE, PLAIN, nonce
from ..notifications.audience import COOKIE
from ..protocols import Cache, Clock, Scheduler
from .options import FallbackOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["Copies", "Copying"]

logger = logging.getLogger("om_plugins")

Headers = list[tuple[str, str]]
Key = tuple[str, ...]

TAG = "fallback"
_FORBIDDEN = re.compile(r"(?:^|[\s,])(?:private|no-store)(?:$|[\s,=;])", re.IGNORECASE)
_NEVER = frozenset({"set-cookie", "content-range", "transfer-encoding", "trailer"})
_NOT_KEPT = frozenset(
    {"age", "cache-control", "connection", "content-length", "date", "etag", "expires"}
    | {"keep-alive", "last-modified", "pragma", "server", "server-timing", "accept-ranges"}
)
_PERSONAL = frozenset({"*", "cookie", "authorization"})
_MAX_VARY = 8


class Copies:
    """The copies below one path.

    Args:
        options: how large, how old and how many.
        cache: keeps them; with a store behind it, for all workers.
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
        self._every_s = options.copy_every_s
        self._began: OrderedDict[Key, float] = OrderedDict()
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._began = OrderedDict()

    # --- making ---------------------------------------------------------------------------------

    def begin(self, environ: WSGIEnvironment, headers: Headers) -> Copying | None:
        """Begin a copy of the 200 that starts now, if it is for everybody and it is time."""
        if environ.get("REQUEST_METHOD") != "GET":
            return None
        key = _key(environ)
        now = self._monotonic()
        at = self._began.get(key)
        if at is not None and now - at < self._every_s:
            return None
        if _is_personal(environ) or not self._claim(key, now):
            return None
        found = _fields(headers)
        vary = _varied(found.get("vary", ""), environ)
        if (
            vary is None
            or not found.keys().isdisjoint(_NEVER)
            or _FORBIDDEN.search(found.get("cache-control", ""))
            or found.get("content-type", "").startswith("text/event-stream")
        ):
            return None  # not before its time comes again
        length = found.get("content-length", "")
        return Copying(self, key, environ, headers, vary, length, "content-encoding" in found)

    def _claim(self, key: Key, now: float) -> bool:
        """Whether this address may be copied: when all places are taken, the one that nobody
        renewed for longest makes room, unless it is still young."""
        gone: Key | None = None
        with self._lock:
            if key not in self._began and len(self._began) >= self._options.copies:
                oldest, at = next(iter(self._began.items()))
                if now - at < self._every_s:
                    return False
                gone = oldest
                del self._began[oldest]
            self._began[key] = now
            self._began.move_to_end(key)
        if gone is not None:
            self._in_background(gone, None)
        return True

    def give_up(self, key: Key) -> None:
        """The body did not end: the next answer may be copied."""
        self._began.pop(key, None)

    def keep(self, key: Key, copy: Mapping[str, object]) -> None:
        """Store a finished copy, in the background."""
        self._in_background(key, copy)

    def _in_background(self, key: Key, copy: Mapping[str, object] | None) -> None:
        def store() -> None:
            name: object = (
                "fallback",
                *key,
            )  # the cache takes tuples, too
            if copy is None:
                self._cache.remove(name)  # type: ignore[arg-type]
                return
            kept_s = self._options.keep_s
            self._cache.set(
                name,  # type: ignore[arg-type]
                copy,
                stale_time=kept_s,
                cache_time=kept_s,
                tags=(TAG,),
            )

        if not self._scheduler.submit(store, name="fallback-copy"):
            self.give_up(key)

    # --- using ----------------------------------------------------------------------------------

    def find(self, environ: WSGIEnvironment) -> tuple[Headers, bytes] | None:
        """The copy that may answer this request, with its age; ``None`` when there is none."""
        name: object = ("fallback", *_key(environ))
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
        if any(_header(environ, field) != value for field, value in vary):
            return None
        encoding = _fields(headers).get("content-encoding")
        if encoding and encoding.lower() not in environ.get("HTTP_ACCEPT_ENCODING", "").lower():
            return None
        if old:
            body = body.replace(old.encode(), nonce(environ).encode())
        elif PLAIN in environ:
            environ[PLAIN] = True  # its tags may have no nonces
        age = max(0, int(self._clock.time() - at))
        return [*headers, ("Age", str(age)), ("Cache-Control", "no-store")], body

    @property
    def now(self) -> float:
        """Unix time."""
        return self._clock.time()

    @property
    def max_bytes(self) -> int:
        """The largest body that is copied."""
        return self._options.max_copy


class Copying:
    """One copy under way: told of every chunk, then that the body ended."""

    __slots__ = (
        "_copies", "_encoded", "_environ", "_headers", "_key", "_length", "_parts", "_size", "_vary"
    )  # fmt: skip

    def __init__(
        self,
        copies: Copies,
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
        """One more piece of the body, sent as it is."""
        self._size += len(chunk)
        if self._size <= self._copies.max_bytes:
            self._parts.append(chunk)
        else:
            self._parts.clear()

    def give_up(self) -> None:
        """The body did not end."""
        self._parts.clear()
        self._copies.give_up(self._key)

    def end(self) -> None:
        """The body was whole."""
        if self._size > self._copies.max_bytes:
            return
        if self._length and self._length != str(self._size):
            return
        body = b"".join(self._parts)
        used = self._environ.get(NONCE) or ""
        if used and (self._encoded or used.encode() not in body):
            return  # a nonce must not be sent twice, and this one cannot be found
        self._copies.keep(
            self._key,
            {
                "headers": [[n, v] for n, v in self._headers if n.lower() not in _NOT_KEPT],
                "vary": [list(one) for one in self._vary],
                "body": body,
                "nonce": used,
                "at": self._copies.now,
            },
        )


def _key(environ: WSGIEnvironment) -> Key:
    return (
        environ.get("PATH_INFO", ""),
        environ.get("QUERY_STRING", ""),
        environ.get("HTTP_HOST", ""),
        environ.get("SCRIPT_NAME", ""),
        environ.get("wsgi.url_scheme", ""),
    )


def _is_personal(environ: WSGIEnvironment) -> bool:
    """Whether a request says who asks. The cookie of our own toasts does not count."""
    if "HTTP_AUTHORIZATION" in environ or "REMOTE_USER" in environ or "HTTP_RANGE" in environ:
        return True
    cookies = environ.get("HTTP_COOKIE")
    return bool(cookies) and any(name != COOKIE for name in parse_cookie(cookies))


def _fields(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        found[lower] = f"{found[lower]}, {value}" if lower in found else value
    return found


def _varied(said: str, environ: WSGIEnvironment) -> Headers | None:
    """The request's headers that the answer depends on; ``None`` when one is personal."""
    names = sorted({name.strip().lower() for name in said.split(",") if name.strip()})
    if len(names) > _MAX_VARY or not _PERSONAL.isdisjoint(names):
        return None
    return [(name, _header(environ, name)) for name in names]


def _header(environ: WSGIEnvironment, name: str) -> str:
    return str(environ.get("HTTP_" + name.upper().replace("-", "_"), ""))
