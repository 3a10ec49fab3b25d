"""``@om.cached`` for Flask views: whole responses from the smart cache, but no personal ones.

The look-up happens inside the view, after ``before_request``, so that logins and rate limits see
every request. The cache stores a response when it is complete and the same for all who get it.
:mod:`.personal` finds what makes a response personal.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypedDict

from flask import Flask, current_app, make_response, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from ..cache.cache import SmartCache
from ..cache.keys import encode
from ..cache.singleflight import PrivateValue
from ..core.inputs import IDENTITIES
from ..core.request_state import build_background_request
from ..csp.hashes import note_hash
from .current import current_state
from .personal import ViewWatch, find_refusal

if TYPE_CHECKING:
    from ..http_cache.cache import CacheIntent

P = ParamSpec("P")
Scope: TypeAlias = str | Callable[[], object] | None

_GONE = frozenset({404, 410})
_USER = (*IDENTITIES, "HTTP_COOKIE")

_STORED_VERSION = 2
"""The form of what is stored. It is a part of the key, so that workers of an older version neither
read these entries nor write others in their place."""

# What is stored of a response: status, headers, body, the Unix time at which it was made, and the
# hashes of the inline scripts and styles that the policy of the page lists.
_Stored: TypeAlias = list[Any]


class CachedKeywords(TypedDict, total=False):
    """The keywords of :func:`cached`."""

    stale_time: float | None
    cache_time: float | None
    tags: Iterable[str]
    scope: Scope
    query: bool
    shared: bool
    vary: Iterable[str]
    negative_time: float | None


def cached(
    get_cache: Callable[[], SmartCache | None],
    *,
    stale_time: float | None = None,
    cache_time: float | None = None,
    tags: Iterable[str] = (),
    scope: Scope = None,
    query: bool = True,
    shared: bool = False,
    vary: Iterable[str] = (),
    negative_time: float | None = None,
) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """Answer a view's GET and HEAD requests from the smart cache.

    A fresh response is sent from the cache, with a strong ETag, or as 304 when the browser has it.
    A stale response is sent as well, and the view runs again in the background, in a separate
    request context. When there is none, the view runs, and other requests for it wait. Requests
    with other methods go to the view.

    The cache stores a response whose status is 200, 203, 204, 300, 301, 404 or 410 when it is whole
    (neither streamed nor a file), sets no cookie, has no ``no-store``, ``no-cache`` or ``Vary: *``,
    and uses no CSP nonce. Without a scope it must also not be personal: the cache does not store
    the response of a view that used the session or a cookie or that sent ``private``, and a request
    with ``Authorization`` goes straight to the view. Everything else that the response depends on
    (``g``, headers, the client's address) must be in ``scope`` or ``vary``.
    :meth:`SmartCache.refusals` counts the responses that were not stored.

    Args:
        get_cache: returns the cache when a request comes; ``None`` to call the view only.
        stale_time: seconds for which a response is fresh.
        cache_time: seconds after which it is removed.
        tags: the tags by which it can be invalidated. ``cache.invalidate(("view", "/path"))`` works
            too.
        scope: separates users: text, or a function that returns the user's id in each request. When
            it returns ``None`` or ``""``, the rules for no scope apply.
        query: whether the query string is part of the key.
        shared: the response is the same for everybody. The shared HTTP cache in front of the
            application stores it; a hit reaches neither ``before_request`` nor the view. The
            response says ``public`` with its times, so that CDNs store it as well. A page with CSP
            nonces gets new ones on each hit.
        vary: names of request headers that the view reads, such as ``Accept-Language``.
        negative_time: seconds for which a 404 or 410 is stored, also one that the view raised
            (``abort(404)``). It is never served older. With ``None``, a returned one is stored like
            any response, and a raised one is not stored.

    Returns:
        A decorator for functions, methods of class-based views and ``async def`` views.

    Raises:
        ValueError: ``shared`` was combined with ``scope``.
        TypeError: ``tags`` or ``vary`` is text instead of a list.
    """
    if shared and scope is not None:
        raise ValueError("shared=True is for everybody: it cannot be combined with scope=")
    if isinstance(tags, str) or isinstance(vary, str):
        raise TypeError("tags and vary are lists of texts, as ['report']")
    rules = _ViewRules(
        stale_time, cache_time, tuple(tags), scope, query, shared, tuple(vary), negative_time
    )

    def decorate(view: Callable[P, Any]) -> Callable[P, Any]:
        name = f"{view.__module__}.{getattr(view, '__qualname__', '')}"

        @functools.wraps(view)
        def answer(*args: P.args, **kwargs: P.kwargs) -> Any:
            cache = get_cache()

            def call() -> Any:
                return current_app.ensure_sync(view)(*args, **kwargs)

            if cache is None or request.method not in ("GET", "HEAD"):
                return call()
            user = rules.get_user()
            if "Range" in request.headers or (not user and "Authorization" in request.headers):
                return call()
            intent = current_state().cache_intent
            if rules.shared and intent is not None:
                return _answer_shared(cache, rules, intent, call)
            return _ViewLookup(cache, rules, user, name, call).answer()

        return answer

    return decorate


@dataclass(frozen=True, slots=True)
class _ViewRules:
    """The arguments of :func:`cached`."""

    stale_time: float | None
    cache_time: float | None
    tags: tuple[str, ...]
    scope: Scope
    query: bool
    shared: bool
    vary: tuple[str, ...]
    negative_time: float | None

    def call_view(self, call: Callable[[], Any]) -> AnyResponse:
        """Return the response of the view, also of a 404 or 410 that it raised."""
        try:
            return make_response(call())
        except HTTPException as error:
            if self.negative_time is None or error.code not in _GONE:
                raise
            answered = current_app.handle_user_exception(error)
            if isinstance(answered, HTTPException):  # as a WSGI app it would be a stream
                answered = answered.get_response(request.environ)
            return make_response(answered)

    def get_user(self) -> str:
        """Return the scope of this request; "" for no user."""
        found = self.scope() if callable(self.scope) else self.scope
        if found is None or isinstance(found, str):
            return found or ""
        return encode(found).decode("latin-1")

    def build_key(self, view: str) -> tuple[object, ...]:
        """Build the key of this request. The path comes first, so that a prefix can name it."""
        return (
            "view",
            request.root_path + request.path,
            request.scheme,
            request.host,
            request.endpoint,
            view,
            tuple(sorted(request.args.items(multi=True), key=itemgetter(0)))
            if self.query
            else None,
            tuple((name.lower(), request.headers.get(name)) for name in self.vary),
            # a page without nonces does not fit a response with them
            current_state().plain is not None,
            _STORED_VERSION,
        )


def _build_cache_control(cache: SmartCache, rules: _ViewRules, status: int) -> str:
    """Build the ``Cache-Control`` of a response whose view set none."""
    if not rules.shared:
        return "private, max-age=0"
    if rules.negative_time is not None and status in _GONE:
        return f"public, max-age=0, s-maxage={int(rules.negative_time)}"
    fresh, kept = cache.internals.get_times(rules.stale_time, rules.cache_time)
    after = int(max(0.0, kept - fresh))
    return (
        f"public, max-age=0, s-maxage={int(fresh)}, "
        f"stale-while-revalidate={after}, stale-if-error={after}"
    )


def _answer_shared(
    cache: SmartCache, rules: _ViewRules, intent: CacheIntent, call: Callable[[], Any]
) -> AnyResponse:
    """Run a shared view whose response the layer in front of the application stores."""
    if request.method == "GET" and intent.collapse():
        return current_app.response_class()  # another request's response is sent instead
    with ViewWatch() as watch:
        response = rules.call_view(call)
    reason, advice = find_refusal(response, watch, "", rules.vary, outside=True)
    if reason:
        if advice:
            cache.internals.refuse(reason, f"the view {request.endpoint!r}", advice)
        intent.refuse(reason)
        return response
    if not (response.get_etag()[0] or response.is_streamed or response.direct_passthrough):
        body = response.get_data().replace((current_state().page_nonce or "\n").encode(), b"")
        response.set_etag(hashlib.blake2b(body, digest_size=16).hexdigest())
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = _build_cache_control(cache, rules, response.status_code)
    for name in rules.vary:
        response.vary.add(name)
    intent.allow(rules.tags, query=rules.query)
    return response


class _ViewLookup:
    """The look-up of one request in the smart cache."""

    def __init__(
        self, cache: SmartCache, rules: _ViewRules, user: str, view: str, call: Callable[[], Any]
    ) -> None:
        self.cache = cache
        self.rules = rules
        self.user = user
        self.call = call
        self.key = rules.build_key(view)
        self.own_response: AnyResponse | None = None

    def answer(self) -> Any:
        if request.method == "HEAD":
            # a stored GET may answer a HEAD, but the response to a HEAD has no body to store
            stored = self.cache.get(self.key, scope=self.user)
            return self.call() if stored is None else self.build_response(stored)
        found = self.cache.query(
            self.key,
            self.fetch,
            stale_time=self.rules.stale_time,
            cache_time=self.rules.cache_time,
            tags=self.rules.tags,
            scope=self.user,
            negative_time=self.rules.negative_time,
            negative=_is_gone,
            background=self.make_background_fetch,
        )
        if isinstance(found, AnyResponse):
            return found
        return self.build_response(found)

    def fetch(self) -> _Stored:
        """Run the view. A response for this caller alone is raised as :class:`PrivateValue`."""
        try:
            return self.run()
        except PrivateValue:
            raise
        except Exception as error:  # noqa: BLE001 - raised again, in this thread only:
            # an error of this caller need not be an error of those who wait
            raise PrivateValue(error=error) from None

    def run(self) -> _Stored:
        with ViewWatch() as watch:
            response = self.rules.call_view(self.call)
        reason, advice = find_refusal(response, watch, self.user, self.rules.vary)
        if reason:
            if advice:
                self.cache.internals.refuse(reason, f"the view {request.endpoint!r}", advice)
            raise PrivateValue(response)
        body = response.get_data()
        if not response.get_etag()[0]:
            response.set_etag(hashlib.blake2b(body, digest_size=16).hexdigest())
        self.own_response = response
        headers = [[name, value] for name, value in response.headers if name != "Content-Length"]
        hashes = list(current_state().hashes or ())
        return [response.status_code, headers, body, self.cache.internals.clock.time(), hashes]

    def build_response(self, stored: _Stored) -> AnyResponse:
        """Return the view's own response when it just ran, else build one from what is stored."""
        response, self.own_response = self.own_response, None
        status, headers, body, at, hashes = stored
        state = current_state()
        if state.plain is not None:
            state.plain = True  # the stored page may have tags without nonces
        if response is None:
            response = current_app.response_class(body, status=status)
            response.headers.clear()
            response.headers.extend([(name, value) for name, value in headers])
            for one in hashes:
                note_hash(state, one)
        if "Cache-Control" not in response.headers:
            response.headers["Cache-Control"] = _build_cache_control(self.cache, self.rules, status)
        for name in self.rules.vary:
            response.vary.add(name)
        if self.rules.shared:
            response.headers["Age"] = str(max(0, int(self.cache.internals.clock.time() - at)))
        environ = request.environ
        if status == 200 and (
            "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MODIFIED_SINCE" in environ
        ):
            response.make_conditional(environ)
        return response

    def make_background_fetch(self) -> Callable[[], _Stored]:
        """Make the fetcher of a refresh. It runs the view again, in a separate request."""
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        environ = build_background_request(request.environ, current_state())
        if self.user:
            environ |= {name: request.environ[name] for name in _USER if name in request.environ}

        def fetch() -> _Stored:
            with app.request_context(environ):
                answered = app.preprocess_request()
                if answered is not None:
                    raise RuntimeError(
                        f"a before_request function answered the refresh of {environ['PATH_INFO']}"
                        + ("" if self.user else ", which carries no cookie: use scope= with it")
                    )
                try:
                    return self.run()
                except HTTPException as error:
                    if error.code in _GONE:
                        raise PrivateValue from error  # so that the stored response is removed, too
                    raise
                except PrivateValue as private:
                    response = private.value
                    if isinstance(response, AnyResponse) and response.status_code >= 500:
                        raise RuntimeError(f"the view answered {response.status}") from None
                    raise
                finally:
                    self.own_response = None

        return fetch


def _is_gone(stored: _Stored) -> bool:
    return stored[0] in _GONE
