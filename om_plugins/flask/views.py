"""``@om.cached`` for Flask views: whole responses from the data cache, for whom they are right.

The look-up happens inside the view, after ``before_request``, so that logins and rate limits see
every request. A response is kept under the inputs that the code of its request looked at, and only
when the whole answer is there: after the last ``after_request`` function, and with the session
saved. What is stored is the view's own response, because a hit runs these functions again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeAlias, TypedDict

from flask import current_app, request
from flask.globals import request_ctx
from flask.views import View

from ..cache.cache import SmartCache
from ..cache.keys import (
    LIFETIMES,
    UnsupportedKey,
    check_options,
    check_texts,
    encode,
    encode_scope,
    normalize_tags,
)
from ..core.inputs import has_body
from ..core.observed import ObservedInputs
from ..core.request_state import RequestState
from ..settings.arguments import check_arguments, flag
from ..settings.callbacks import explain_callback
from .current import current_state, plain_environ
from .observation.session import check_session, find_session
from .view_lookup import DecidedView, ViewLookup, answer_shared
from .view_rules import ViewRules

P = ParamSpec("P")
Scope: TypeAlias = object


class CachedKeywords(TypedDict, total=False):
    """The keywords of :func:`cached`."""

    stale_time: float | None
    cache_time: float | None
    tags: Iterable[str]
    scope: Scope | Callable[[], Scope]
    query: bool | Iterable[str]
    shared: bool
    public: bool
    vary: Iterable[str]
    negative_time: float | None


@check_arguments(
    "@om.cached",
    renamed=LIFETIMES
    | {"query_string": "query=True, or query=['page']", "make_cache_key": "scope="},
    shared=flag(),
    public=flag(),
)
def cached(
    get_cache: Callable[[], SmartCache | None],
    /,
    *,
    stale_time: float | None = None,
    cache_time: float | None = None,
    tags: Iterable[str] = (),
    scope: Scope | Callable[[], Scope] = None,
    query: bool | Iterable[str] = True,
    shared: bool = False,
    public: bool = False,
    vary: Iterable[str] = (),
    negative_time: float | None = None,
) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """Answer a view's GET and HEAD requests from the data cache.

    A fresh response is sent from the cache, with an ETag, or as 304 when the browser has it. A
    stale response is sent as well, and the view runs again in the background, in a request of its
    own. When there is none, the view runs, and other requests for the same response wait. Requests
    with another method or with a body go to the view.

    A response is kept under the inputs that any code of its request looked at: cookies and session
    keys by name, request headers by name, the client's address, variables of the environ. It
    answers only requests that bring the same values. A page that looks at nobody is one entry for
    all; a page that greets its user is one entry for each user.

    The cache stores a response whose status is 200, 203, 204, 300 or 301 when it is whole (neither
    streamed nor a file), sets no cookie, leaves the session as it is, and has no ``no-store``,
    ``no-cache`` or ``Vary: *``. A 404 or 410 is stored with ``negative_time``, and any error with
    freshness that the view itself set (``max-age``, ``s-maxage`` or ``Expires``).
    :meth:`SmartCache.refusals` counts the responses that were not stored, and ``flask om cache
    why`` explains them.

    Args:
        get_cache: returns the cache when a request comes; ``None`` to call the view only.
        stale_time: seconds for which a response is fresh.
        cache_time: seconds after which it is removed.
        tags: the tags by which it can be invalidated. ``cache.invalidate(("view", "/path"))`` works
            too.
        scope: says by hand whose response it is: a value, or a function that returns it in each
            request, such as the user's id. The session, cookies, the address and variables of the
            environ are not compared then. ``None`` and ``""`` are no scope.
        query: the query is a part of the key. ``False`` leaves it out, a list of names leaves out
            all other parameters; a response whose code looked at one of those is not stored.
        shared: the response is the same for everybody who brings the same request headers. The
            shared HTTP cache in front of the application stores it; a hit reaches neither
            ``before_request`` nor the view. The response says ``public`` with its times, so that
            CDNs store it as well.
        public: the response is the same for everybody, and says so: ``public`` with its times. A
            response whose code looked at who the client is is not stored, with a warning.
        vary: names of request headers that select the response, such as ``Accept-Language``, when
            other code than that of the request looks at them.
        negative_time: seconds for which a 404 or 410 is stored, also one that the view raised
            (``abort(404)``). It is never served older.

    Returns:
        A decorator for functions, methods of class-based views and ``async def`` views.

    Raises:
        ValueError: ``shared`` or ``public`` was combined with ``scope``, or a time is negative.
        TypeError: an argument has a wrong type, such as a text in place of a list, or what is
            decorated is no view.
    """
    if (shared or public) and scope is not None:
        word = "shared=True" if shared else "public=True"
        raise ValueError(f"{word} is for everybody: it cannot be combined with scope=")
    check_options(stale_time=stale_time, cache_time=cache_time, negative_time=negative_time)
    if not callable(scope):
        encode_scope(scope)
    elif problem := explain_callback(scope, 0):
        raise TypeError(f"scope={scope!r} cannot be called: {problem}")
    rules = ViewRules(
        stale_time, cache_time, normalize_tags(tags), scope,
        query if isinstance(query, bool) else frozenset(check_texts("query", query)),
        shared, public, check_texts("vary", vary), negative_time,
    )  # fmt: skip

    def decorate(view: Callable[P, Any]) -> Callable[P, Any]:
        if not callable(view):
            raise TypeError(
                f"{view!r} is no view: write @om.cached, or @om.cached(stale_time=60) with the "
                "names of the arguments"
            )
        name = f"{view.__module__}.{getattr(view, '__qualname__', '')}"

        @functools.wraps(view)
        def answer(*args: P.args, **kwargs: P.kwargs) -> Any:
            cache = get_cache()

            def call() -> Any:
                return current_app.ensure_sync(view)(*args, **kwargs)

            if cache is None or request.method not in ("GET", "HEAD"):
                return call()
            environ, state = plain_environ(request), current_state()
            inputs = state.inputs
            if inputs is None:
                return call()
            reason, detail = _find_bypass(environ, inputs, state)
            if reason:
                state.unfinished = (*state.unfinished, DecidedView("view", reason, detail))
                return call()
            if rules.shared and state.cache_intent is not None and state.refresh is None:
                return answer_shared(cache, rules, state.cache_intent, inputs, call)
            extra = _find_extra_arguments(args, kwargs)
            if extra is None:
                advice = (
                    "it is called with arguments that cannot be part of a key; cache the data "
                    "that it shows instead, with cache.query"
                )
                cache.internals.refuse("arguments", f"the view {name}", advice)
                state.unfinished = (*state.unfinished, DecidedView("view", "arguments", advice))
                return call()
            return ViewLookup(cache, rules, inputs, state, name, extra, call).answer()

        return answer

    return decorate


def _find_extra_arguments(
    args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[object, ...] | None:
    """Return the arguments of a call that the URL does not tell; ``None`` when no key holds them.

    A function may be called by a view, and more than once.
    """
    if args and isinstance(args[0], View):
        args = args[1:]
    if not args and kwargs == (request.view_args or {}):
        return ()
    extra = (args, tuple(sorted(kwargs.items())))
    try:
        encode(extra)
    except UnsupportedKey:
        return None
    return extra


def _find_bypass(
    environ: dict[str, Any], inputs: ObservedInputs, state: RequestState
) -> tuple[str, str]:
    """Return why a request goes past the cache, in one word and in a clause; "" otherwise."""
    if "HTTP_RANGE" in environ:
        return "range", "the request asks for a part of the page"
    if has_body(environ):
        return "body", "the request has a body"
    if check_session(find_session(request_ctx._get_current_object()), inputs):  # type: ignore[attr-defined]
        return "session", "the session was changed before the view was called"
    if state.goes_past_caches(environ):
        return "reports", "its response asks browsers for reports on the policy, one a minute"
    return "", ""
