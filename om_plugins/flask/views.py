"""``@om.cached`` for Flask views: whole responses from the smart cache, personal ones never.

The look-up happens inside the view, after ``before_request``: logins, rate limits and the like
see every request. What a view returns is stored when it is one complete response that is the
same for all who get it; :mod:`.personal` finds what makes it personal.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any, ParamSpec, TypeAlias, TypedDict

from flask import Flask, current_app, make_response, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from ..cache.cache import SmartCache
from ..cache.keys import encode
from ..cache.singleflight import PrivateValue
from ..core.request_state import KEY
from ..csp.hashes import note_hash
from ..http_cache.cache import CacheIntent
from ..http_cache.layer import anonymous_request
from .current import current_state
from .personal import ViewWatch, find_refusal

__all__ = ["CachedKeywords", "cached"]

P = ParamSpec("P")
Scope: TypeAlias = str | Callable[[], object] | None

_GONE = frozenset({404, 410})

_STORED_VERSION = 2
"""The form of what is stored. It is a part of the key, so that workers of an older version neither
read these entries nor write others in their place."""

# What is stored of a response: status, headers, body, Unix time of its making, and the hashes of
# the inline scripts and styles that the policy of the page lists.
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

    Fresh → the stored response, with a strong ETag, or 304 when the browser has it. Stale → the
    stored response now, and the view once more in the background, in a request context of its
    own. Missing → the view; others who ask meanwhile wait for it. Other methods go to the view.

    A response is stored when its status is 200, 203, 204, 300, 301, 404 or 410 and it is whole
    (neither streamed nor a file), sets no cookie and no ``no-store``, ``no-cache``, ``Vary: *``,
    and asked for no CSP nonce. Without a scope it must also not be personal: a view that used the
    session or a cookie, or said ``private``, is not stored, and a request with Authorization goes
    straight to the view. Whatever else the view takes its answer from (``g``, headers, the
    client's address) must be in ``scope`` or ``vary``. :meth:`SmartCache.refusals` counts what
    was not stored.

    Args:
        get_cache: gives the cache at call time; with ``None`` the view is simply called.
        stale_time: seconds for which a response is fresh.
        cache_time: seconds after which it is gone.
        tags: what it can be invalidated by; ``cache.invalidate(("view", "/path"))`` works too.
        scope: keeps users apart: text, or a function called in each request that returns the
            user's id. ``None`` or ``""`` from it means nobody in particular: the rules for no
            scope hold.
        query: whether the query string is part of the key.
        shared: the response is the same for everybody: it is kept in the shared HTTP cache in
            front of the application, whose hits reach neither ``before_request`` nor the view,
            and says ``public`` with its times, so that CDNs keep it as well. A page with CSP
            nonces gets new ones on each hit.
        vary: names of request headers that the view looks at, such as ``Accept-Language``.
        negative_time: seconds for which "there is none" is kept: a 404 or 410, one that the view
            raised (``abort(404)``) as well. It is gone then, and never served older. ``None``: one
            that was returned is kept like any response, one that was raised is not.

    Returns:
        A decorator for functions, methods of class-based views and ``async def`` views.

    Raises:
        ValueError: ``shared`` together with ``scope``.
    """
    if shared and scope is not None:
        raise ValueError("shared=True is for everybody: it cannot be combined with scope=")
    if isinstance(tags, str) or isinstance(vary, str):
        raise TypeError("tags and vary are lists of texts, as ['report']")
    rules = _Rules(
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
            user = rules.user()
            if "Range" in request.headers or (not user and "Authorization" in request.headers):
                return call()
            intent = current_state().cache_intent
            if rules.shared and intent is not None:
                return _for_everybody(cache, rules, intent, call)
            return _Look(cache, rules, user, name, call).answer()

        return answer

    return decorate


class _Rules:
    """What ``cached`` was told."""

    def __init__(
        self,
        stale_time: float | None,
        cache_time: float | None,
        tags: tuple[str, ...],
        scope: Scope,
        query: bool,
        shared: bool,
        vary: tuple[str, ...],
        negative_time: float | None,
    ) -> None:
        self.stale_time = stale_time
        self.cache_time = cache_time
        self.tags = tags
        self.scope = scope
        self.query = query
        self.shared = shared
        self.vary = vary
        self.negative_time = negative_time

    def made(self, call: Callable[[], Any]) -> AnyResponse:
        """What the view answers."""
        try:
            return make_response(call())
        except HTTPException as error:
            if self.negative_time is None or error.code not in _GONE:
                raise
            answered = current_app.handle_user_exception(error)
            if isinstance(answered, HTTPException):  # as a WSGI app it would be a stream
                answered = answered.get_response(request.environ)
            return make_response(answered)

    def user(self) -> str:
        """The scope of this request; "" for nobody in particular."""
        found = self.scope() if callable(self.scope) else self.scope
        if found is None or isinstance(found, str):
            return found or ""
        return encode(found).decode("latin-1")

    def key(self, view: str) -> tuple[object, ...]:
        """The key of this request; its path first, so that a prefix can name it."""
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


def _cache_control(cache: SmartCache, rules: _Rules, status: int) -> str:
    """What the response says when the view said nothing."""
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


def _for_everybody(
    cache: SmartCache, rules: _Rules, intent: CacheIntent, call: Callable[[], Any]
) -> AnyResponse:
    """Run a shared view whose response the layer outside of the application keeps."""
    if request.method == "GET" and intent.collapse():
        return current_app.response_class()  # another request's response is sent instead
    with ViewWatch() as watch:
        made = rules.made(call)
    reason, advice = find_refusal(made, watch, "", rules.vary, outside=True)
    if reason:
        if advice:
            cache.internals.refuse(reason, f"the view {request.endpoint!r}", advice)
        intent.refuse(reason)
        return made
    if not (made.get_etag()[0] or made.is_streamed or made.direct_passthrough):
        body = made.get_data().replace((current_state().page_nonce or "\n").encode(), b"")
        made.set_etag(hashlib.blake2b(body, digest_size=16).hexdigest())
    if "Cache-Control" not in made.headers:
        made.headers["Cache-Control"] = _cache_control(cache, rules, made.status_code)
    for name in rules.vary:
        made.vary.add(name)
    intent.allow(rules.tags, query=rules.query)
    return made


class _Look:
    """One look-up of one request."""

    def __init__(
        self, cache: SmartCache, rules: _Rules, user: str, view: str, call: Callable[[], Any]
    ) -> None:
        self.cache = cache
        self.rules = rules
        self.user = user
        self.call = call
        self.key = rules.key(view)
        self.made: AnyResponse | None = None

    def answer(self) -> Any:
        if request.method == "HEAD":
            # a HEAD may be answered from a stored GET; the other way round it may have no body
            stored = self.cache.get(self.key, scope=self.user)
            return self.call() if stored is None else self.response(stored)
        found = self.cache.query(
            self.key,
            self.fetch,
            stale_time=self.rules.stale_time,
            cache_time=self.rules.cache_time,
            tags=self.rules.tags,
            scope=self.user,
            negative_time=self.rules.negative_time,
            negative=_is_gone,
            background=self.in_background,
        )
        if isinstance(found, AnyResponse):
            return found
        return self.response(found)

    def fetch(self) -> _Stored:
        """Run the view; an answer that is for this caller only leaves as :class:`PrivateValue`."""
        try:
            return self.run()
        except PrivateValue:
            raise
        except Exception as error:  # noqa: BLE001 - raised again, in this thread only:
            # what went wrong for this caller need not go wrong for those who wait
            raise PrivateValue(error=error) from None

    def run(self) -> _Stored:
        with ViewWatch() as watch:
            made = self.rules.made(self.call)
        reason, advice = find_refusal(made, watch, self.user, self.rules.vary)
        if reason:
            if advice:
                self.cache.internals.refuse(reason, f"the view {request.endpoint!r}", advice)
            raise PrivateValue(made)
        body = made.get_data()
        if not made.get_etag()[0]:
            made.set_etag(hashlib.blake2b(body, digest_size=16).hexdigest())
        self.made = made
        headers = [[name, value] for name, value in made.headers if name != "Content-Length"]
        hashes = list(current_state().hashes or ())
        return [made.status_code, headers, body, self.cache.internals.clock.time(), hashes]

    def response(self, stored: _Stored) -> AnyResponse:
        """The response to send: the view's own when it just ran, else one from what is stored."""
        made, self.made = self.made, None
        status, headers, body, at, hashes = stored
        state = current_state()
        if state.plain is not None:
            state.plain = True  # the stored page may have tags without nonces
        if made is None:
            made = current_app.response_class(body, status=status)
            made.headers.clear()
            made.headers.extend([(name, value) for name, value in headers])
            for one in hashes:
                note_hash(state, one)
        if "Cache-Control" not in made.headers:
            made.headers["Cache-Control"] = _cache_control(self.cache, self.rules, status)
        for name in self.rules.vary:
            made.vary.add(name)
        if self.rules.shared:
            made.headers["Age"] = str(max(0, int(self.cache.internals.clock.time() - at)))
        environ = request.environ
        if status == 200 and (
            "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MODIFIED_SINCE" in environ
        ):
            made.make_conditional(environ)
        return made

    def in_background(self) -> Callable[[], _Stored]:
        """The fetcher for a refresh: the view again, in a request of its own."""
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        environ = _environ(request.environ, keep_user=bool(self.user))

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
                        raise PrivateValue from error  # so the stored one goes, too
                    raise
                except PrivateValue as private:
                    made = private.value
                    if isinstance(made, AnyResponse) and made.status_code >= 500:
                        raise RuntimeError(f"the view answered {made.status}") from None
                    raise
                finally:
                    self.made = None

        return fetch


def _is_gone(stored: _Stored) -> bool:
    return stored[0] in _GONE


def _environ(environ: dict[str, Any], *, keep_user: bool) -> dict[str, Any]:
    fresh = anonymous_request(environ, keep_user=keep_user)
    fresh[KEY] = current_state().successor()
    return fresh
