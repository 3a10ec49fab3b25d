"""The shared HTTP cache: a WSGI layer that answers from stored responses (RFC 9111).

A fresh response is sent from the store, whole, in part, or as 304. A stale one is sent while it is
refreshed in the background (RFC 5861), or the application gets a conditional request. When nothing
is stored, one request goes to the application for all that wait (:mod:`.origin_fetch`). A
successful unsafe request purges what is stored at its address.

A fresh hit is one look-up by key and a few checks. :meth:`HttpCacheLayer._answer_other` handles
every other request.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..cache.refresh import draw_backoff
from ..core.body import close_body
from ..core.fork import renew_after_fork
from ..core.inputs import has_body
from ..core.request_state import CONDITIONS, KEY, RequestState, build_background_request, state_of
from .cache import CacheContext, HttpCachePart
from .fields import Directives
from .keys import FORWARDED_INPUTS, AddressKeys
from .origin.collapsing import RequestCollapser
from .origin.origin_fetch import OriginFetch
from .origin.response_judge import request_directives
from .purges import Purge
from .rfc9111 import CacheVerdict, ForwardReason, Headers, allows, is_unsafe
from .store import Selection
from .stored_response import MemoryEntry, StoredResponse
from .variants import Looks

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("om_plugins")

_NOT_PLAIN = frozenset(
    {*CONDITIONS, "HTTP_RANGE", "HTTP_CACHE_CONTROL", "HTTP_PRAGMA", "HTTP_TRANSFER_ENCODING"}
)
"""A request with one of these is no plain hit: a cache must look at it."""
_BYPASSING = frozenset({"HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_UPGRADE"})


class HttpCacheLayer:
    """WSGI middleware: a shared cache in front of ``app``.

    Args:
        app: the host app.
        part: the parts of the cache.
    """

    def __init__(self, app: WSGIApplication, part: HttpCachePart) -> None:
        self._app = app
        self._store = store = part.store
        self._rules = rules = part.rules
        self._inputs = part.inputs
        self._keys = AddressKeys(part.trusted_hosts, part.inputs if part.observes else None)
        self._keys.query_ignored = any(not rule.query for rule in rules.routes)
        self._context = CacheContext(
            app,
            store,
            rules,
            part.hooks,
            part.clock,
            self._keys,
            RequestCollapser(rules.max_body, part.clock),
            self._refresh_later,
            part.inputs,
            part.observes,
        )
        self._scheduler = part.scheduler
        self._build_key = self._keys.build
        self._entries = store.entries
        self._now = part.clock.monotonic
        # where the host is observed, the key says who the client is
        self._not_plain = _NOT_PLAIN if part.observes else _NOT_PLAIN | part.inputs.identities
        self._not_plain_or_long = self._not_plain | {"CONTENT_LENGTH"}
        self._lock = threading.Lock()
        self._refreshing: set[str] = set()
        self._hit_status = f"{rules.name}; hit; ttl=%d" if rules.name else ""
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Renew the locks in a child process: a thread of the parent may hold them."""
        self._lock = threading.Lock()
        self._refreshing = set()
        self._context.collapser.after_fork()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        key = self._build_key(environ) if environ["REQUEST_METHOD"] == "GET" else None
        found = None if key is None else self.find_fresh(environ, key)
        if found is None:
            return self._answer_other(environ, start_response, key)
        entry, response, now = found
        marks = response.marks
        if "plain" in marks and not state_of(environ).fits(marks):
            return self._answer_other(environ, start_response, key)
        nonce = ""
        if marks or response.pieces is not None:
            state: RequestState | None = environ.get(KEY)
            if state is None:  # no layer of ours is further out, but other code may ask
                state = environ[KEY] = RequestState(None)
            for name, value in marks.items():  # `apply`, without the price of a call
                setattr(state, name, value)
            if response.pieces is not None:
                nonce = state.nonce_for_stored_page()
        headers, body = response.render(nonce)
        headers += self.count_hit(entry, response, now)
        start_response(response.status, headers)
        return [body]

    def find_fresh(
        self, environ: WSGIEnvironment, key: str | None = None
    ) -> tuple[MemoryEntry, StoredResponse, float] | None:
        """Find the fresh response in memory that answers this request as a whole.

        The hit is not counted yet; see :meth:`count_hit`.

        Args:
            environ: the request.
            key: of its address, if it is known and the request is a GET.

        Returns:
            Its entry, the response, and the monotonic time now; ``None`` when there is none.
        """
        if key is None and environ["REQUEST_METHOD"] == "GET":
            key = self._build_key(environ)
        entry: Any = self._entries.get(key) if key is not None else None
        if entry is not None:
            now = self._now()
            if now < entry.fresh_until and (
                environ.keys().isdisjoint(self._not_plain_or_long) or self._is_plain(environ)
            ):
                response = entry.content
                if type(response) is StoredResponse:
                    cookies = response.cookies
                    if cookies:
                        sent = environ.get("HTTP_COOKIE")
                        if sent and any(name in sent for name in cookies):
                            return None  # it may bring one: `_answer_other` reads their names
                    return entry, response, now
        return None

    def _is_plain(self, environ: WSGIEnvironment) -> bool:
        return environ.keys().isdisjoint(self._not_plain) and not has_body(environ)

    def count_hit(self, entry: MemoryEntry, response: StoredResponse, now: float) -> Headers:
        """Count a hit.

        Args:
            entry, response, now: what :meth:`find_fresh` returned.

        Returns:
            The ``Age`` and ``Cache-Status`` headers of the hit.
        """
        entry.count_hit()
        entry.visited = True
        age = now - entry.stored
        headers = [("Age", str(int(age)))]
        if self._hit_status:
            left = response.verdict.lifetime_s - age
            headers.append(("Cache-Status", self._hit_status % left))
        return headers

    # --- every other request --------------------------------------------------------------------

    def _answer_other(
        self, environ: WSGIEnvironment, start_response: StartResponse, key: str | None
    ) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            if is_unsafe(method):
                return self._answer_unsafe(environ, start_response)
            return self._app(environ, start_response)
        if method != "GET" or self._rules.routes:
            key = self._find_key(environ)
        if key is None or has_body(environ) or not environ.keys().isdisjoint(_BYPASSING):
            self._store.count("passed")
            return self._app(environ, start_response)
        state = state_of(environ)
        # otherwise the view says whether its response is kept
        if (self._rules.everything or key in self._entries) and state.goes_past_caches(environ):
            self._store.count("passed")
            return self._app(environ, start_response)
        fits = state.fits
        selected = self._store.select(key, environ, fits)
        if selected.entry is None and self._keys.query_ignored and environ.get("QUERY_STRING"):
            without_query = self._keys.build_without_query(environ)
            if without_query is not None:
                other = self._store.select(without_query, environ, fits)
                found = None if other.entry is None else other.entry.content
                if isinstance(found, StoredResponse) and found.any_query:
                    selected, key = other, without_query
        request = request_directives(environ)
        entry = selected.entry
        response = None if entry is None else entry.content
        if isinstance(response, StoredResponse) and not self._is_for_client(environ, response):
            selected = Selection(None, ForwardReason.BYPASS, selected.names, selected.cookies)
            entry = None
        elif entry is not None and isinstance(response, StoredResponse):
            answer = self._reuse(environ, start_response, key, entry, response, request)
            if answer is not None:
                return answer
            fresh = self._now() < entry.expires
            reason = ForwardReason.REQUEST if fresh else ForwardReason.STALE
            selected = replace(selected, reason=reason)
        known = self._rules.everything or entry is not None
        if "only-if-cached" in request and known:
            return self._refuse_only_if_cached(start_response)
        if selected.reason is ForwardReason.BYPASS:
            self._store.count("passed")
        elif known:
            self._store.count("misses")
        return OriginFetch(self._context, environ, start_response, key, selected).run()

    def _is_for_client(self, environ: WSGIEnvironment, response: StoredResponse) -> bool:
        """Whether a response may answer a client who says who it is (RFC 9111 section 3.5)."""
        verdict = response.verdict
        if self._context.observes or verdict.shared:
            return True
        if "HTTP_AUTHORIZATION" in environ:
            return verdict.public
        return not self._inputs.brings_identity(environ)

    def _find_key(self, environ: WSGIEnvironment, *, for_client: bool = True) -> str | None:
        """Return the key of a request's address, without its query where a rule ignores it."""
        if self._context.ignores_query(environ):
            return self._keys.build_without_query(environ, for_client=for_client)
        return self._keys.build(environ, for_client=for_client)

    def _reuse(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        key: str,
        entry: MemoryEntry,
        response: StoredResponse,
        request: Directives,
    ) -> Iterable[bytes] | None:
        """Answer with a stored response; ``None`` when the application must be asked."""
        now = self._now()
        age, verdict = now - entry.stored, response.verdict
        left = verdict.lifetime_s - age
        client_directives = self._rules.client_directives
        if client_directives and not _client_allows(request, environ, age, verdict):
            return None
        if verdict.validate:
            return None
        if now < entry.expires:
            entry.count_hit()
            entry.visited = True
        elif "max-stale" in request and client_directives and entry.base > 0:
            self._store.count("stale")
        elif -left <= verdict.while_revalidating_s:
            entry.visited = True
            self._store.count("stale")
            self._refresh_later(key, environ, entry, response.looks)
        else:
            return None
        status_header = []
        if self._hit_status:
            status_header.append(("Cache-Status", self._hit_status % math.floor(left)))
        return self._context.send(environ, start_response, response, status_header)

    def _refuse_only_if_cached(self, start_response: StartResponse) -> Iterable[bytes]:
        """Answer 504: nothing usable is stored (RFC 9111 section 5.2.1.7)."""
        headers = [("Content-Length", "0"), ("Cache-Control", "no-store")]
        details = [("fwd", ForwardReason.MISS)]
        start_response("504 Gateway Timeout", headers + self._context.status_header(details))
        return []

    # --- refreshing -----------------------------------------------------------------------------

    def _refresh_later(
        self,
        key: str,
        environ: WSGIEnvironment,
        entry: MemoryEntry | None,
        looks: Looks | None = None,
    ) -> None:
        """Fetch a page in the background, one fetch at a time per address.

        Args:
            key: of its address.
            environ: a request for it.
            entry: the stored response, if there is one.
            looks: what the code looks at to make it; the request brings nothing else. ``None``
                where that cannot be observed.
        """
        now = self._now()
        job = key if entry is None else str(entry.ident)
        with self._lock:
            if job in self._refreshing or (entry is not None and now < entry.retry_at):
                return
            self._refreshing.add(job)
        if looks is None:
            request = build_background_request(environ, state_of(environ))
        else:
            names = (*looks.every, *FORWARDED_INPUTS)  # these are part of the key
            request = build_background_request(
                environ, state_of(environ), self._inputs, names, looks.session_cookie
            )
        accepted = self._scheduler.submit(
            partial(self._refresh, job, key, request, entry), name="http-cache-refresh"
        )
        if not accepted:
            self._store.count("dropped")
            with self._lock:
                self._refreshing.discard(job)

    def _refresh(
        self, job: str, key: str, environ: WSGIEnvironment, entry: MemoryEntry | None
    ) -> None:
        selected = Selection(entry, ForwardReason.STALE)
        fetch = OriginFetch(self._context, environ, _ignore_start, key, selected, background=True)
        try:
            body = fetch.run()
            try:
                for _ in body:
                    pass
            finally:
                close_body(body)
        except Exception as error:
            fetch.result = "failed"
            logger.warning(
                "the refresh of %s failed, the stored page stays: %s: %s",
                key.partition("\n")[0],
                type(error).__name__,
                error,
                exc_info=error,
            )
        finally:
            with self._lock:
                self._refreshing.discard(job)
            good = fetch.result in ("stored", "validated", "refused", "")
            self._store.count("refreshes" if good else "failures")
            if not good and entry is not None:
                entry.failures += 1
                entry.retry_at = self._now() + max(1.0, draw_backoff(entry.failures, 3, 1.0))

    # --- unsafe methods -------------------------------------------------------------------------

    def _answer_unsafe(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Pass an unsafe request on; purge what it may have changed (RFC 9111 section 4.4)."""

        def start(
            status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None
        ) -> Callable[[bytes], object]:
            if status[:1] in "23":
                self._purge_changed(environ, headers)
            if exc_info is None:
                return start_response(status, headers)
            return start_response(status, headers, exc_info)

        return self._app(environ, start)

    def _purge_changed(self, environ: WSGIEnvironment, headers: Headers) -> None:
        keys = {self._find_key(environ), self._find_key(environ, for_client=False)}
        for name, value in headers:
            if name.lower() in ("location", "content-location"):
                keys.add(self._keys.build_for_url(environ, value.strip()))
        known = tuple(key for key in keys if key is not None)
        if known:
            self._store.purge(Purge(idents=known), later=True)


def _client_allows(
    request: Directives, environ: WSGIEnvironment, age: float, verdict: CacheVerdict
) -> bool:
    """Whether the directives of a request allow to answer it with a stored response."""
    if not request and "no-cache" in environ.get("HTTP_PRAGMA", "").lower():
        return False
    stale_allowed = verdict.if_error_s > 0 or verdict.while_revalidating_s > 0
    if {"no-cache", "no-store", "max-age", "min-fresh"}.isdisjoint(request):
        return True
    return allows(request, age_s=age, lifetime_s=verdict.lifetime_s, stale_allowed=stale_allowed)


def _ignore_start(
    status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None
) -> Callable[[bytes], object]:
    """The ``start_response`` of a refresh, which has no client."""
    return lambda data: None
