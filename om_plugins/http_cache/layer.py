"""The shared HTTP cache: a WSGI layer that answers from stored responses (RFC 9111).

Fresh → the stored response, with its ``Age``, or 304, or a part of it. Stale → the stored response
while it is refreshed in the background (RFC 5861), or a conditional request to the application.
Missing → one trip to the application for all who wait (:mod:`.trip`). An unsafe request that
succeeds takes back what is stored at its address.

A fresh hit is one look-up by key and a few checks; everything else goes on in :meth:`_other`.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from werkzeug.http import http_date as http_date_of

from ..cache.refresh import draw_backoff
from ..core.fork import renew_after_fork
from ..protocols import Clock, Scheduler
from .collapsing import RequestCollapser
from .fields import Directives, directives, http_date, ranges, same_tag
from .keys import AddressKeys, environ_name, favourite_language, variant
from .layer__background_request import anonymous_request
from .origin_fetch import OriginFetch
from .rfc9111 import (
    CacheVerdict,
    ForwardReason,
    Headers,
    ResponseFacts,
    StorageOptions,
    allows,
    cache_status,
    is_unsafe,
    matches,
)
from .rules import CacheRules, PageHooks, RouteRule
from .store import MemoryEntry, ResponseStore
from .store__purges import Purge
from .stored_response import StoredResponse, Variants, in_pieces

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["HttpCacheLayer"]

logger = logging.getLogger("om_plugins")

Details = Iterable[tuple[str, object]]

_SPECIAL = frozenset(
    {"HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE"}
    | {"HTTP_RANGE", "HTTP_AUTHORIZATION", "HTTP_CACHE_CONTROL", "HTTP_PRAGMA"}
)
_BYPASSING = ("HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_UPGRADE")
_IN_304 = frozenset(
    {"cache-control", "cdn-cache-control", "content-location", "date", "etag", "expires", "vary"}
    | {"last-modified"}
)
_NOT_IN_206 = frozenset({"content-length", "content-range"})
_NONE: Directives = {}
_ENCODED = ("accept-encoding",)


class HttpCacheLayer:
    """WSGI middleware: a shared cache in front of ``app``.

    Args:
        app: the host app.
        store: where responses are kept.
        rules: what the settings say.
        clock, scheduler: time, and refreshes.
        trusted_hosts: host names to answer for; ``None`` for all.
        hooks: about nonces, and what else a request must have.

    Attributes:
        board: trips to the application that others may wait for.
    """

    def __init__(
        self,
        app: WSGIApplication,
        store: ResponseStore,
        rules: CacheRules,
        *,
        clock: Clock,
        scheduler: Scheduler,
        trusted_hosts: Sequence[str] | None = None,
        hooks: PageHooks | None = None,
    ) -> None:
        self.app = app
        self.store = store
        self.rules = rules
        self.clock = clock
        self.hooks = hooks or PageHooks()
        self.everything = rules.everything
        self.max_body = rules.max_body
        self.wait_s = rules.wait_s
        self.board = RequestCollapser(rules.max_body, clock)
        self._scheduler = scheduler
        self._keys = AddressKeys(trusted_hosts)
        self._key = self._keys.of
        self._entries = store.entries
        self._now = clock.monotonic
        self._fits = self.hooks.fits
        self._routes = sorted(rules.routes, key=lambda rule: -len(rule.path))
        self._some_without_query = any(not rule.query for rule in rules.routes)
        self._lock = threading.Lock()
        self._refreshing: set[str] = set()
        self._said_compressed = False
        self._hit = f"{rules.name}; hit; ttl=%d" if rules.name else ""
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child: locks may be held by threads that are not here."""
        self._lock = threading.Lock()
        self._refreshing = set()
        self.board.after_fork()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        found = self.fresh(environ)
        if found is not None:
            held, kept, now = found
            if not kept.marks or self._fits(environ, kept.marks):
                return self._fresh(environ, start_response, held, kept, now)
        return self._other(environ, start_response)

    def fresh(self, environ: WSGIEnvironment) -> tuple[MemoryEntry, StoredResponse, float] | None:
        """The whole response in memory that answers this request, and the monotonic time now.

        It is not counted yet; see :meth:`said_of`.
        """
        if environ["REQUEST_METHOD"] == "GET":
            ident = self._key(environ)
            held: Any = self._entries.get(ident) if ident is not None else None
            if held is not None:
                now = self._now()
                if now < held.fresh_until and environ.keys().isdisjoint(_SPECIAL):
                    kept = held.kept
                    if type(kept) is StoredResponse:
                        return held, kept, now
        return None

    def said_of(self, held: MemoryEntry, kept: StoredResponse, now: float) -> Headers:
        """Count a hit; returns the header fields that tell of it."""
        held.count_hit()
        held.visited = True
        age = now - held.stored
        said = [("Age", str(int(age)))]
        if self._hit:
            said.append(("Cache-Status", self._hit % (kept.verdict.lifetime_s - age)))
        return said

    def _fresh(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        held: MemoryEntry,
        kept: StoredResponse,
        now: float,
    ) -> Iterable[bytes]:
        """The whole stored response."""
        if kept.marks:
            environ.update(kept.marks)
        nonce = "" if kept.pieces is None else self.hooks.fresh_nonce(environ)
        headers, body = kept.answer(nonce)
        headers += self.said_of(held, kept, now)
        start_response(kept.status, headers)
        return [body]

    # --- every other request --------------------------------------------------------------------

    def _other(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            if is_unsafe(method):
                return self._unsafe(environ, start_response)
            return self.app(environ, start_response)
        ident = self._address(environ)
        if ident is None or any(name in environ for name in _BYPASSING):
            self.store.count("passed")
            return self.app(environ, start_response)
        held, forward = self._select(ident, environ)
        if held is None and self._some_without_query and environ.get("QUERY_STRING"):
            other = self.without_query(environ)
            if other is not None:
                held, _ = self._select(other, environ)
                ident = ident if held is None else other
        asked = self.request_directives(environ)
        kept = None if held is None else held.kept
        if held is not None and isinstance(kept, StoredResponse):
            if "HTTP_AUTHORIZATION" in environ and not kept.verdict.public:
                held, forward = None, ForwardReason.BYPASS
            else:
                answer = self._reused(environ, start_response, ident, held, kept, asked)
                if answer is not None:
                    return answer
                forward = ForwardReason.REQUEST if self._is_fresh(held) else ForwardReason.STALE
        if "only-if-cached" in asked and (self.everything or held is not None):
            return self._only_if_cached(start_response)
        if forward is not ForwardReason.BYPASS and (self.everything or held is not None):
            self.store.count("misses")
        return OriginFetch(self, environ, start_response, ident, held, forward).go()

    def _address(self, environ: WSGIEnvironment) -> str | None:
        for rule in self._routes:
            if not rule.query and rule.matches(_path(environ)):
                return self.without_query(environ)
        return self._key(environ)

    def without_query(self, environ: WSGIEnvironment) -> str | None:
        """The key of an address whose query does not count."""
        self._some_without_query = True
        return self._key({**environ, "QUERY_STRING": "", "RAW_URI": _raw_path(environ)})

    def _select(
        self, ident: str, environ: WSGIEnvironment
    ) -> tuple[MemoryEntry | None, ForwardReason]:
        """What is stored for a request, fresh or not, or why there is nothing."""
        held = self.store.find(ident)
        if held is None:
            return None, ForwardReason.MISS
        kept = held.kept
        if isinstance(kept, StoredResponse):
            fits = self._fits(environ, kept.marks)
            return (held, ForwardReason.STALE) if fits else (None, ForwardReason.MISS)
        held.visited = True
        idents = [self._variant(ident, kept, names, environ) for names in kept.names]
        wanted = environ.get("HTTP_ACCEPT_LANGUAGE")
        if wanted and kept.languages:
            idents.append(kept.languages.get(favourite_language(wanted), ""))
        for one in idents:
            found = self.store.find(one) if one else None
            if found is not None and isinstance(found.kept, StoredResponse):
                if self._fits(environ, found.kept.marks):
                    return found, ForwardReason.STALE
                break
        return None, ForwardReason.VARY

    @staticmethod
    def _variant(
        ident: str, kept: Variants, names: tuple[str, ...], environ: WSGIEnvironment
    ) -> str:
        values = (names, *(environ.get(environ_name(name)) for name in names))
        found = kept.memo.get(values)
        if found is None:
            found = variant(ident, kept.generation, names, environ)
            if len(kept.memo) >= 256:
                kept.memo.clear()
            kept.memo[values] = found
        return found

    def _is_fresh(self, held: MemoryEntry) -> bool:
        return self._now() < held.expires

    def _reused(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        ident: str,
        held: MemoryEntry,
        kept: StoredResponse,
        asked: Directives,
    ) -> Iterable[bytes] | None:
        """The stored response as the answer; ``None`` when the application must be asked."""
        now = self._now()
        age, verdict = now - held.stored, kept.verdict
        left = verdict.lifetime_s - age
        details = [("hit", True), ("ttl", math.floor(left))]
        if self.rules.client_directives and not _usable(asked, environ, age, verdict):
            return None
        if verdict.validate:
            return None
        if now < held.expires:
            held.count_hit()
            held.visited = True
            return self.answer(environ, start_response, kept, details)
        if "max-stale" in asked and self.rules.client_directives and held.base > 0:
            self.store.count("stale")
            return self.answer(environ, start_response, kept, details)
        if -left > verdict.while_revalidating_s:
            return None
        held.visited = True
        self.store.count("stale")
        self.refresh_later(ident, environ, held)
        return self.answer(environ, start_response, kept, details)

    # --- answers --------------------------------------------------------------------------------

    def answer(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        kept: StoredResponse,
        details: Details,
    ) -> Iterable[bytes]:
        """Send a stored response: whole, a part of it, or 304."""
        if kept.marks:
            environ.update(kept.marks)
        age = kept.verdict.age_s + max(0.0, self.clock.time() - kept.received)
        more = [("Age", str(int(age))), *self.status(details)]
        verdict = kept.verdict
        if kept.code == 200 and matches(environ, verdict.etag, verdict.modified, kept.made):
            headers = [(n, v) for n, v in kept.sent if n.lower() in _IN_304]
            start_response("304 Not Modified", headers + more)
            return []
        nonce = "" if kept.pieces is None else self.hooks.fresh_nonce(environ)
        headers, body = kept.answer(nonce)
        ranged = "HTTP_RANGE" in environ and environ["REQUEST_METHOD"] == "GET"
        if ranged and kept.code == 200 and kept.pieces is None:
            part = self._part(environ, kept)
            if part is not None:
                status, changed, body = part
                headers = [(n, v) for n, v in headers if n.lower() not in _NOT_IN_206] + changed
                start_response(status, headers + more)
                return [body]
        start_response(kept.status, headers + more)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _part(
        self, environ: WSGIEnvironment, kept: StoredResponse
    ) -> tuple[str, list[tuple[str, str]], bytes] | None:
        """A range of a stored response (RFC 9110 section 14); ``None`` for the whole."""
        if_range = environ.get("HTTP_IF_RANGE")
        if if_range is not None:
            if if_range.startswith(('"', "W/")):
                if not same_tag(if_range.strip(), kept.verdict.etag, strong=True):
                    return None
            elif http_date(if_range, kept.made) != kept.verdict.modified:
                return None
        found = ranges(environ["HTTP_RANGE"], kept.size)
        if found is None:
            return None
        if not found:
            changed = [("Content-Range", f"bytes */{kept.size}"), ("Content-Length", "0")]
            return "416 Range Not Satisfiable", changed, b""
        first, end = found[0]
        changed = [
            ("Content-Range", f"bytes {first}-{end - 1}/{kept.size}"),
            ("Content-Length", str(end - first)),
        ]
        return "206 Partial Content", changed, kept.body[first:end]

    def status(self, details: Details) -> list[tuple[str, str]]:
        """The ``Cache-Status`` header, when it is wanted."""
        if not self.rules.name:
            return []
        return [("Cache-Status", cache_status(self.rules.name, details))]

    def _only_if_cached(self, start_response: StartResponse) -> Iterable[bytes]:
        headers = [("Content-Length", "0"), ("Cache-Control", "no-store")]
        start_response("504 Gateway Timeout", headers + self.status([("fwd", ForwardReason.MISS)]))
        return []

    # --- what a trip asks for -------------------------------------------------------------------

    def request_directives(self, environ: WSGIEnvironment) -> Directives:
        """The request's own ``Cache-Control``."""
        value = environ.get("HTTP_CACHE_CONTROL")
        return directives(value) if value else _NONE

    def judging(self, ident: str) -> StorageOptions:
        """How responses at an address are judged."""
        rule = self._rule(ident)
        return self.rules.options if rule is None else rule.options

    def may_store(self, ident: str) -> bool:
        """Whether responses at an address may be stored at all."""
        rule = self._rule(ident)
        return rule is None or rule.store

    def _rule(self, ident: str) -> RouteRule | None:
        if not self._routes:
            return None
        path = ident.partition("\n")[0]
        path = path[path.find("/", 8) :]
        return next((rule for rule in self._routes if rule.matches(path)), None)

    def made(
        self,
        status: str,
        facts: ResponseFacts,
        verdict: CacheVerdict,
        body: bytes,
        before: StoredResponse | None,
    ) -> StoredResponse:
        """A response as it is stored.

        Args:
            before: the one that a 304 freshened; its body stays.
        """
        left_out = verdict.left_out | {"age", "content-length", "cache-status"}
        headers = self.dated(facts.headers, facts.received_at)
        headers = [(n, v) for n, v in headers if n.lower() not in left_out]
        made = http_date(facts.one("date"), facts.received_at)
        made_at = facts.received_at if made is None else made
        found = StoredResponse(
            facts.status, status, headers, body, verdict, made_at, facts.received_at
        )
        if before is None:
            return found
        found.fetch_s, found.tags, found.marks = before.fetch_s, before.tags, before.marks
        if before.pieces is None:
            return found
        return in_pieces(found, before.pieces, before.nonce, self.hooks.outgoing)

    @staticmethod
    def dated(headers: Headers, at: float) -> list[tuple[str, str]]:
        """The headers with a ``Date``: that of the arrival when there is none (RFC 9110 6.6.1)."""
        if any(name.lower() == "date" for name, _ in headers):
            return list(headers)
        return [*headers, ("Date", http_date_of(at))]

    def keep(
        self,
        ident: str,
        made: StoredResponse,
        environ: Mapping[str, object],
        mark: tuple[int, float],
    ) -> bool:
        """Store a response at an address, among its variants when it has some."""
        self.board.forget(ident)
        names = made.verdict.vary
        if not names:
            held: Any = self.store.entries.get(ident)
            if held is None or _ENCODED not in getattr(held.kept, "names", ()):
                return self.store.keep(ident, made, mark)
            names = _ENCODED  # the plain one beside those that are compressed
        with self._lock:
            index = self.store.find(ident)
            kept = index.kept if index is not None else None
            if not isinstance(kept, Variants):
                kept = Variants([], os.urandom(8).hex())
            one = variant(ident, kept.generation, names, environ)
            changed = one not in kept.idents or kept.names[:1] != [names]
            if changed:
                kept = replace(
                    kept,
                    names=[names, *(n for n in kept.names if n != names)][:4],
                    idents=[*(i for i in kept.idents if i != one), one],
                    languages=dict(kept.languages),
                    memo={},
                )
                if names == ("accept-language",) and made.language:
                    kept.languages[made.language] = one
                while len(kept.idents) > self.rules.variants:
                    oldest = kept.idents.pop(0)
                    self.store.drop(oldest)
                self.store.keep(ident, kept, mark)
        return self.store.keep(one, made, mark)

    def say_compressed(self, ident: str) -> None:
        """The application compresses pages that it puts nonces into: say so once."""
        if not self._said_compressed:
            self._said_compressed = True
            logger.warning(
                "%s is not kept by the shared HTTP cache: it has a CSP nonce and the application "
                "compressed it, so hits could not get a new one; compress HTML in the server in "
                "front instead (with Flask-Compress: leave text/html out of COMPRESS_MIMETYPES)",
                ident.partition("\n")[0],
            )

    def forget(self, ident: str, held: MemoryEntry) -> None:
        """What is stored is no longer what the application answers."""
        self.store.drop(str(held.ident))

    @staticmethod
    def variant_of(names: tuple[str, ...], environ: Mapping[str, object]) -> str:
        """Tells whether two requests select the same response."""
        return variant("", "", names, environ) if names else ""

    # --- refreshing -----------------------------------------------------------------------------

    def refresh_later(self, ident: str, environ: WSGIEnvironment, held: MemoryEntry | None) -> None:
        """Fetch a page again in the background: bounded, one at a time per address."""
        now = self._now()
        job = ident if held is None else str(held.ident)
        with self._lock:
            if job in self._refreshing or (held is not None and now < held.retry_at):
                return
            self._refreshing.add(job)
        request = anonymous_request(environ) | self.hooks.carried(environ)
        accepted = self._scheduler.submit(
            partial(self._refresh, job, ident, request, held), name="http-cache-refresh"
        )
        if not accepted:
            self.store.count("dropped")
            with self._lock:
                self._refreshing.discard(job)

    def _refresh(
        self, job: str, ident: str, environ: WSGIEnvironment, held: MemoryEntry | None
    ) -> None:
        trip = OriginFetch(
            self, environ, _nobody, ident, held, ForwardReason.STALE, background=True
        )
        try:
            body = trip.go()
            try:
                for _ in body:
                    pass
            finally:
                close = getattr(body, "close", None)
                if close is not None:
                    close()
        except Exception as error:
            trip.outcome = "failed"
            logger.warning(
                "the refresh of %s failed, the stored page stays: %s: %s",
                ident.partition("\n")[0],
                type(error).__name__,
                error,
                exc_info=error,
            )
        finally:
            with self._lock:
                self._refreshing.discard(job)
            good = trip.outcome in ("stored", "validated", "refused", "")
            self.store.count("refreshes" if good else "failures")
            if not good and held is not None:
                held.failures += 1
                held.retry_at = self._now() + max(1.0, draw_backoff(held.failures, 3, 1.0))

    # --- unsafe methods -------------------------------------------------------------------------

    def _unsafe(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """What a successful unsafe request may have changed is taken back (RFC 9111 4.4)."""

        def start(
            status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None
        ) -> Callable[[bytes], object]:
            if status[:1] in "23":
                self._take_back(environ, headers)
            if exc_info is None:
                return start_response(status, headers)
            return start_response(status, headers, exc_info)

        return self.app(environ, start)

    def _take_back(self, environ: WSGIEnvironment, headers: Headers) -> None:
        idents = {self._address(environ)}
        for name, value in headers:
            if name.lower() in ("location", "content-location"):
                idents.add(self._keys.of_url(environ, value.strip()))
        known = tuple(ident for ident in idents if ident is not None)
        if known:
            self.store.purge(Purge(idents=known), later=True)


def _usable(asked: Directives, environ: WSGIEnvironment, age: float, verdict: CacheVerdict) -> bool:
    if not asked and "no-cache" in environ.get("HTTP_PRAGMA", "").lower():
        return False
    stale_allowed = verdict.if_error_s > 0 or verdict.while_revalidating_s > 0
    if {"no-cache", "no-store", "max-age", "min-fresh"}.isdisjoint(asked):
        return True
    return allows(asked, age_s=age, lifetime_s=verdict.lifetime_s, stale_allowed=stale_allowed)


def _path(environ: WSGIEnvironment) -> str:
    return str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", ""))


def _raw_path(environ: WSGIEnvironment) -> str:
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    return str(raw).partition("?")[0]


def _nobody(
    status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None
) -> Callable[[bytes], object]:
    """The ``start_response`` of a refresh."""
    return lambda data: None
