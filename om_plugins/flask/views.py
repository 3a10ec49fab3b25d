"""``@om.cached`` for Flask views: whole responses from the data cache, for whom they are right.

The look-up happens inside the view, after ``before_request``, so that logins and rate limits see
every request. A response is kept under the inputs that the code of its request looked at, and only
when the whole answer is there: after the last ``after_request`` function, and with the session
saved. What is stored is the view's own response, because a hit runs these functions again.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeAlias, TypedDict

from flask import Flask, current_app, make_response, request
from flask.globals import request_ctx
from flask.views import View
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from ..cache.cache import SmartCache
from ..cache.keys import UnsupportedKey, encode
from ..cache.responses.decisions import CacheDecision
from ..cache.responses.deferred import DeferredFetch
from ..cache.responses.kept import KeptResponses, ResponseQuery, StoredInputs
from ..cache.singleflight import PrivateValue
from ..core.inputs import has_body, is_identity
from ..core.observed import ObservedInputs
from ..core.request_state import RequestState, build_background_request
from ..csp.hashes import note_hash
from .current import current_state
from .observed import find_session_cookie, list_parameters, plain_environ
from .observed_session import check_session, find_session

if TYPE_CHECKING:
    from ..http_cache.cache import CacheIntent

P = ParamSpec("P")
Scope: TypeAlias = object

STORABLE = frozenset({200, 203, 204, 300, 301})
_GONE = frozenset({404, 410})
_ENDS = frozenset({401, 403, 404, 410, 451})
"""A refresh that ends so, or in a redirect, ends the old page: access to it was withdrawn."""
_NONCE_LENGTH = 32
_DETAILS = {
    "status": "a response with its status is not stored",
    "no-store": "it says no-store or no-cache",
    "error": "its view raised an exception, or only a HEAD was asked for",
    "ended": "it was taken back while it was made",
}
"""Why a response was not stored, where that is no advice to the author of the view."""

_STORED_VERSION = 5
"""The form of what is stored. It is a part of the key, so that workers of an older version neither
read these entries nor write others in their place."""

# What is stored of a response: status, headers, the pieces of the body between nonces, the Unix
# time at which it was made, the hashes of the inline scripts and styles that the policy of the page
# lists, and its inputs: names, digest, and names of those that known readers looked at.
_Stored: TypeAlias = list[Any]


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


def cached(
    get_cache: Callable[[], SmartCache | None],
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
        ValueError: ``shared`` or ``public`` was combined with ``scope``.
        TypeError: ``tags``, ``vary`` or ``query`` is text instead of a list.
    """
    if (shared or public) and scope is not None:
        word = "shared=True" if shared else "public=True"
        raise ValueError(f"{word} is for everybody: it cannot be combined with scope=")
    if isinstance(tags, str) or isinstance(vary, str) or isinstance(query, str):
        raise TypeError("tags, vary and query are lists of texts, as ['report']")
    rules = _ViewRules(
        stale_time, cache_time, tuple(tags), scope,
        query if isinstance(query, bool) else frozenset(query),
        shared, public, tuple(vary), negative_time,
    )  # fmt: skip

    def decorate(view: Callable[P, Any]) -> Callable[P, Any]:
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
            reason, detail = _find_bypass(environ, inputs)
            if reason:
                state.unfinished = (*state.unfinished, _Decided("view", reason, detail))
                return call()
            if rules.shared and state.cache_intent is not None and state.refresh is None:
                return _answer_shared(cache, rules, state.cache_intent, inputs, call)
            extra = _find_extra_arguments(args, kwargs)
            if extra is None:
                advice = (
                    "it is called with arguments that cannot be part of a key; cache the data "
                    "that it shows instead, with cache.query"
                )
                cache.internals.refuse("arguments", f"the view {name}", advice)
                state.unfinished = (*state.unfinished, _Decided("view", "arguments", advice))
                return call()
            return _ViewLookup(cache, rules, inputs, state, name, extra, call).answer()

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


def _find_bypass(environ: Mapping[str, Any], inputs: ObservedInputs) -> tuple[str, str]:
    """Return why a request goes past the cache, in one word and in a clause; "" otherwise."""
    if "HTTP_RANGE" in environ:
        return "range", "the request asks for a part of the page"
    if has_body(environ):
        return "body", "the request has a body"
    if check_session(find_session(request_ctx._get_current_object()), inputs):  # type: ignore[attr-defined]
        return "session", "the session was changed before the view was called"
    return "", ""


@dataclass(frozen=True, slots=True)
class _Decided:
    """Tells of a request that a cache does nothing for; see :attr:`RequestState.unfinished`."""

    cache: Literal["view", "http"]
    reason: str
    detail: str

    def end(self, response: AnyResponse | None) -> None:
        """Nothing is to be stored."""

    def decide(self) -> CacheDecision:
        """Return what is told of the response."""
        return CacheDecision(
            cache=self.cache,
            kept=False,
            reason=self.reason,
            detail=self.detail,
            forward="bypass",
        )


@dataclass(frozen=True, slots=True)
class _ViewRules:
    """The arguments of :func:`cached`."""

    stale_time: float | None
    cache_time: float | None
    tags: tuple[str, ...]
    scope: Scope | Callable[[], Scope]
    query: bool | frozenset[str]
    shared: bool
    public: bool
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
                answered = answered.get_response(plain_environ(request))
            return make_response(answered)

    def get_scope(self) -> Scope:
        """Return the scope of this request; "" for none."""
        found = self.scope() if callable(self.scope) else self.scope
        return "" if found is None else found

    def build_address(
        self, view: str, extra: tuple[object, ...], inputs: ObservedInputs
    ) -> tuple[object, ...]:
        """Build the key of this request's address. The path comes first, for prefixes."""
        environ = plain_environ(request)
        return (
            "view",
            request.root_path + request.path,
            request.scheme,
            request.root_path,
            environ.get("HTTP_HOST", request.host),
            request.endpoint,
            view,
            self._select_query(),
            extra,
            inputs.rules.digest_identities(environ),
            # a page without nonces does not fit a response with them
            current_state().plain is not None,
            _STORED_VERSION,
        )

    def _select_query(self) -> tuple[tuple[str, str], ...] | None:
        if self.query is False:
            return None
        found = sorted(list_parameters(request), key=itemgetter(0))
        if self.query is True:
            return tuple(found)
        return tuple(one for one in found if one[0] in self.query)

    def find_unkeyed(self, inputs: ObservedInputs) -> str:
        """Return a parameter that code looked at and the key leaves out; "" for none."""
        if self.query is True or not inputs.parameters:
            return ""
        known = frozenset() if self.query is False else self.query
        left = sorted(str(name) for name in inputs.parameters - known if name is not None)
        return left[0] if left else "the whole query" if None in inputs.parameters else ""


def _build_cache_control(cache: SmartCache, rules: _ViewRules, status: int) -> str:
    """Build the ``Cache-Control`` of a response whose view set none."""
    if not (rules.shared or rules.public):
        return "private, max-age=0"
    if rules.negative_time is not None and status in _GONE:
        return f"public, max-age=0, s-maxage={int(rules.negative_time)}"
    fresh, kept = cache.internals.get_times(rules.stale_time, rules.cache_time)
    after = int(max(0.0, kept - fresh))
    return (
        f"public, max-age=0, s-maxage={int(fresh)}, "
        f"stale-while-revalidate={after}, stale-if-error={after}"
    )


class ViewResponse:
    """What one run of a view used, and why its response is not to be stored."""

    def __init__(self, rules: _ViewRules, inputs: ObservedInputs, state: RequestState) -> None:
        self._rules = rules
        self._inputs = inputs
        self._state = state
        self._context = request_ctx._get_current_object()  # type: ignore[attr-defined]

    def run(self, call: Callable[[], Any]) -> AnyResponse:
        """Run the view, and look at what it did beside its response."""
        functions = self._context._after_request_functions
        hooks, changes = len(functions), _count_changes(self._state)
        response = self._rules.call_view(call)
        self.hooked = len(functions) != hooks
        self.changed_policy = _count_changes(self._state) != changes
        for name in (*self._rules.vary, *response.vary):
            if name != "*":
                self._inputs.count(
                    "cookies" if name.lower() == "cookie" else f"vary:{name.lower()}"
                )
        return response

    def find_refusal(self, response: AnyResponse, *, outside: bool = False) -> tuple[str, str]:
        """Find why a response must not be stored.

        Args:
            response: what the view returned.
            outside: the layer outside of the application stores it, which renews nonces, brings
                back changes of the policy, copies streams, and compares inputs itself.

        Returns:
            The reason in one word and an advice to the author, which may be empty; two empty texts
            when the response may be stored.
        """
        rules, inputs = self._rules, self._inputs
        control = response.cache_control
        changed = check_session(find_session(self._context), inputs)
        unkeyed = rules.find_unkeyed(inputs)
        looked = next((name for name in inputs.names() if is_identity(name)), "")
        table = (
            (not self._may_store_status(response), "status", ""),
            (
                (response.is_streamed or response.direct_passthrough) and not outside,
                "streamed",
                "it is streamed",
            ),
            (bool(control.no_store or control.no_cache), "no-store", ""),
            (
                "Set-Cookie" in response.headers or self.hooked,
                "cookie",
                "it sets a cookie, or registers an after_this_request function",
            ),
            (changed, "session", "it changes the session"),
            (
                bool(control.private) and outside,
                "private",
                "it is private; without shared=True each user gets his own",
            ),
            (
                bool(looked) and rules.public,
                "public",
                f"its code looked at {looked}, so it is not the same for everybody; leave "
                "public=True out, and each user gets his own",
            ),
            (
                bool(unkeyed),
                "query",
                f"its code looked at {unkeyed}, which query= leaves out of the key; name it there",
            ),
            (
                bool(inputs.refused) and not outside,
                "input",
                f"{inputs.refused}: no other request can be compared with it",
            ),
            ("*" in response.vary, "vary", "it says Vary: *"),
            (
                self.changed_policy and not outside,
                "csp",
                "it changes its policy or security headers, which a stored response would not; put "
                "that decorator above this one",
            ),
        )
        for refused, reason, advice in table:
            if refused:
                return reason, advice
        return "", ""

    def _may_store_status(self, response: AnyResponse) -> bool:
        status = response.status_code
        if status in STORABLE:
            return True
        if status in _GONE and self._rules.negative_time is not None:
            return True
        return status >= 400 and has_own_freshness(response)


def has_own_freshness(response: AnyResponse) -> bool:
    """Whether a response has explicit freshness (RFC 9111 section 4.2.1)."""
    return read_freshness(response, 0.0) is not None


def read_freshness(response: AnyResponse, now: float) -> float | None:
    """Return the explicit freshness of a response (RFC 9111 section 4.2.1).

    Args:
        response: the response.
        now: Unix time.

    Returns:
        Seconds; ``None`` without one.
    """
    control = response.cache_control
    for seconds in (getattr(control, "s_maxage", None), control.max_age):
        if seconds is not None:
            return float(max(0, seconds))
    if response.expires is None:
        return None
    return max(0.0, response.expires.timestamp() - now)


def _count_changes(state: RequestState) -> int:
    return len(state.overrides) + len(state.header_changes)


def _answer_shared(
    cache: SmartCache,
    rules: _ViewRules,
    intent: CacheIntent,
    inputs: ObservedInputs,
    call: Callable[[], Any],
) -> AnyResponse:
    """Run a shared view whose response the layer in front of the application stores."""
    if request.method == "GET" and intent.collapse():
        return current_app.response_class()  # another request's response is sent instead
    run = ViewResponse(rules, inputs, current_state())
    response = run.run(call)
    reason, advice = run.find_refusal(response, outside=True)
    if reason:
        if advice:
            cache.internals.refuse(reason, f"the view {request.endpoint!r}", advice)
            state = current_state()
            state.unfinished = (*state.unfinished, _Decided("http", reason, advice))
        intent.refuse(reason)
        return response
    if not (response.get_etag()[0] or response.is_streamed or response.direct_passthrough):
        body = response.get_data().replace((current_state().page_nonce or "\n").encode(), b"")
        response.set_etag(hashlib.blake2b(body, digest_size=16).hexdigest())
    ours = ""
    if "Cache-Control" not in response.headers:
        ours = _build_cache_control(cache, rules, response.status_code)
        response.headers["Cache-Control"] = ours
    for name in rules.vary:
        response.vary.add(name)
    # with a list of parameters, the whole query is in the key of the layer in front
    intent.allow(rules.tags, query=rules.query is not False, control=ours)
    return response


class _ViewLookup:
    """The look-up of one request in the data cache, and what it makes on a miss."""

    def __init__(
        self,
        cache: SmartCache,
        rules: _ViewRules,
        inputs: ObservedInputs,
        state: RequestState,
        view: str,
        extra: tuple[object, ...],
        call: Callable[[], Any],
    ) -> None:
        self.cache = cache
        self.responses = cache.internals.responses
        self.rules = rules
        self.inputs = inputs
        self.state = state
        self.call = call
        scope = rules.get_scope()
        self.query = ResponseQuery(
            view=view,
            address=rules.build_address(view, extra, inputs),
            scope=scope,
            inputs=inputs,
            read=_read_inputs,
            compares=_compares_headers if scope != "" else _compares_everything,
            stale_time=rules.stale_time,
            cache_time=rules.cache_time,
            tags=rules.tags,
            negative_time=rules.negative_time,
            negative=_is_gone,
        )
        self.deferred: DeferredFetch | None = None
        self.value: _Stored | None = None
        self.error_freshness: float | None = None
        self.reason = self.advice = ""
        self.knew_address = self.hit = self.stored = False

    def answer(self) -> Any:
        refresh = self.state.refresh
        if refresh is not None and refresh.made is None and refresh.is_for(self.query):
            refresh.made = self
            return self.make()
        if request.method == "HEAD":
            # a stored GET may answer a HEAD, but the response to a HEAD has no body to store
            stored = self.responses.find(self.query, self.make_refresh)
            self.state.unfinished = (*self.state.unfinished, self)
            return self.call() if stored is None else self.answer_hit(stored)
        stored, self.deferred = self.responses.find_or_begin(self.query, self.make_refresh)
        self.state.unfinished = (*self.state.unfinished, self)
        if self.deferred is None:
            return self.answer_hit(stored)
        self.knew_address = self.responses.knows(self.query)
        try:
            return self.deferred.run(self.make)
        except BaseException:
            self.deferred.give_up()
            raise

    def answer_hit(self, stored: _Stored) -> AnyResponse:
        """Answer with what is stored."""
        self.hit, self.value = True, stored
        return self.build_response(stored)

    def make(self) -> AnyResponse:
        """Run the view, and keep a copy of its response until the answer is whole."""
        compared = self.inputs.compared
        run = ViewResponse(self.rules, self.inputs, self.state)
        response = run.run(self.call)
        reason, advice = run.find_refusal(response)
        pieces: list[bytes] = []
        if not reason:
            nonce = self.state.page_nonce or ""
            pieces = _split(response, nonce)
            reason, advice = self._check_pieces(pieces, nonce)
        stored = self.query.observe(compared) if not reason else None
        if stored is None:
            self._refuse(reason or "input", advice)
            return response
        if not response.get_etag()[0]:
            digest = hashlib.blake2b(b"".join(pieces), digest_size=16).hexdigest()
            response.set_etag(digest, weak=len(pieces) > 1)
        headers = [[name, value] for name, value in response.headers if name != "Content-Length"]
        at = self.cache.internals.clock.time()
        negative = self.rules.negative_time is not None and response.status_code in _GONE
        if response.status_code >= 400 and not negative:
            self.error_freshness = read_freshness(response, at)
        hashes = list(self.state.hashes or ())
        inputs = [list(stored.names), stored.digest, list(stored.known)]
        self.value = [response.status_code, headers, pieces, at, hashes, inputs]
        return self._finish_headers(response, at)

    def _check_pieces(self, pieces: list[bytes], nonce: str) -> tuple[str, str]:
        if nonce and len(pieces) == 1:
            return "nonce", (
                "it asked for a CSP nonce that is not found in its body, so it could not get a new "
                "one"
            )
        return "", ""

    def _refuse(self, reason: str, advice: str) -> None:
        self.reason, self.advice = reason, advice
        if advice:
            self.cache.internals.refuse(reason, f"the view {request.endpoint!r}", advice)

    def end(self, response: AnyResponse | None) -> None:
        """Store what was made, now that the whole answer is there.

        Args:
            response: the answer; ``None`` when there is none.
        """
        if response is not None:
            _tell_downstream(response, self.inputs)
        deferred, self.deferred = self.deferred, None
        if deferred is None or deferred.fetch.outcome is not None:
            return
        if response is not None and self.value is not None and self.is_whole(response):
            self.stored = self.responses.store(self._choose_times(), deferred, self.complete())
            if not self.stored:
                self.reason, self.advice = "size", "the cache cannot hold it, see the log"
        else:
            deferred.give_up()

    def decide(self) -> CacheDecision:
        """Return what the cache decided about the response, which has ended."""
        value, inputs, reason = self.value, self.inputs, self.reason
        kept = self.hit or self.stored
        if not (kept or reason):
            reason = "error" if value is None else "ended"
        cause = inputs.refused if reason == "input" else self.find_identity()
        return CacheDecision(
            cache="view",
            kept=kept,
            hit=self.hit,
            names=tuple(value[5][0]) if kept and value is not None else (),
            reason="" if kept else reason,
            detail="" if kept else self.advice or _DETAILS.get(reason, ""),
            cause=cause if reason in ("input", "public") else "",
            forward="miss" if self.knew_address else "uri-miss",
        )

    def find_identity(self) -> str:
        """Return an input that says who the client is, and was looked at; "" for none."""
        return next(filter(is_identity, self.inputs.names()), "")

    def complete(self) -> _Stored:
        """Return what is stored, with all inputs that anybody looked at until the end."""
        value = self.value
        assert value is not None  # noqa: S101 - for mypy: only what was made is stored
        names, digest, _ = value[5]
        everything = {*self.inputs.counted, *self.inputs.known}
        value[5] = [names, digest, sorted(everything.difference(names))]
        return value

    def _choose_times(self) -> ResponseQuery:
        """Return the query that an error is stored by: it is fresh for as long as its view said."""
        fresh = self.error_freshness
        if fresh is None:
            return self.query
        return replace(self.query, negative_time=fresh, negative=_is_error)

    def is_whole(self, response: AnyResponse) -> bool:
        """Whether the answer leaves the visitor as he was: it changes neither session nor cookies.

        Flask may send the cookie of an unchanged session again, to make it last longer.
        """
        if self.inputs.session_changed:
            self._refuse("session", "its request changes the session")
            return False
        cookie = find_session_cookie(current_app)
        renewed = f"{cookie}=" if cookie else "\n"
        others = [c for c in response.headers.getlist("Set-Cookie") if not c.startswith(renewed)]
        if others:
            self._refuse("cookie", "its answer sets a cookie")
        return not others

    def build_response(self, stored: _Stored) -> AnyResponse:
        """Build a response from what is stored."""
        status, headers, pieces, at, hashes, _ = stored
        state = self.state
        if state.plain is not None:
            state.plain = True  # the stored page may have tags without nonces
        body = pieces[0] if len(pieces) == 1 else state.nonce_for_page().encode().join(pieces)
        response = current_app.response_class(body, status=status)
        response.headers.clear()
        response.headers.extend([(name, value) for name, value in headers])
        for one in hashes:
            note_hash(state, one)
        return self._finish_headers(response, at)

    def _finish_headers(self, response: AnyResponse, at: float) -> AnyResponse:
        if "Cache-Control" not in response.headers:
            control = _build_cache_control(self.cache, self.rules, response.status_code)
            identities = self.inputs.rules.read_identities(plain_environ(request))
            if identities or any(map(is_identity, self.inputs.counted)):
                control = "private, max-age=0"
            response.headers["Cache-Control"] = control
        for name in self.rules.vary:
            response.vary.add(name)
        if self.rules.shared:
            response.headers["Age"] = str(max(0, int(self.cache.internals.clock.time() - at)))
        environ = plain_environ(request)
        if response.status_code == 200 and (
            "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MODIFIED_SINCE" in environ
        ):
            response.make_conditional(environ)
        return response

    def make_refresh(self, stored: _Stored) -> Callable[[], _Stored]:
        """Return the function that makes the response again, in a request of its own."""
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        inputs = _read_inputs(stored)
        names = (*inputs.names, *inputs.known)
        if self.query.scope != "":  # who the client is was said by hand, and the view looks at it
            names = (*names, "cookies", "address")
        environ = build_background_request(
            plain_environ(request),
            self.state,
            self.inputs.rules,
            names,
            find_session_cookie(app),
        )
        return functools.partial(_refresh, app, environ, self.query, inputs, self.responses)


def _tell_downstream(response: AnyResponse, inputs: ObservedInputs) -> None:
    """Tell caches further out what the response depends on (RFC 9110 section 12.5.5)."""
    for name in inputs.list_vary():
        response.vary.add(name.title())
    if inputs.is_personal():
        response.vary.add("Cookie")
        control = response.cache_control
        if not (control.public or control.private or control.no_store) and (
            getattr(control, "s_maxage", None) is None
        ):
            control.private = True


class _Refresh:
    """A request that makes a stored response again.

    Args:
        query: the look-up that found the response stale.

    Attributes:
        made: the look-up that runs the view, once it does.
    """

    def __init__(self, query: ResponseQuery) -> None:
        self._query = query
        self.made: _ViewLookup | None = None

    def is_for(self, query: ResponseQuery) -> bool:
        """Whether a look-up is for the stale response: a page may have several cached parts."""
        return query.address == self._query.address and query.scope == self._query.scope


def _refresh(
    app: Flask,
    environ: dict[str, Any],
    query: ResponseQuery,
    before: StoredInputs,
    responses: KeptResponses,
) -> _Stored:
    """Make a response again: hooks, view, and ``after_request`` functions.

    Args:
        app, environ: the request.
        query: the look-up that found the response stale.
        before: the inputs that the response was stored under.
        responses: stores responses.

    Raises:
        PrivateValue: the old response ends.
        RuntimeError: the old response stays, because the application failed.
    """
    refresh = _Refresh(query)
    beside = responses.begin_beside(query)
    try:
        with app.request_context(environ):
            current_state().refresh = refresh
            response = app.full_dispatch_request()
            made, status = refresh.made, response.status_code
            if status == 429 or status >= 500:
                raise RuntimeError(
                    f"the refresh of {environ['PATH_INFO']} ended in {response.status}"
                )
            value = None if made is None else made.value
            if made is None or value is None or not made.is_whole(response):
                raise PrivateValue
            if made.error_freshness is not None or (
                status != value[0] and (status in _ENDS or 300 <= status < 400)
            ):
                raise PrivateValue
            if not _read_inputs(value).agrees(before):
                responses.store(made.query, beside, made.complete())
                raise PrivateValue
            return made.complete()
    finally:
        beside.give_up()


def _split(response: AnyResponse, nonce: str) -> list[bytes]:
    """Return the body of a response in pieces, split where its nonce is."""
    body = response.get_data()
    if len(nonce) != _NONCE_LENGTH or "Content-Encoding" in response.headers:
        return [body]
    return body.split(nonce.encode())


def _read_inputs(stored: _Stored) -> StoredInputs:
    names, digest, known = stored[5]
    return StoredInputs(tuple(names), digest, tuple(known))


def _compares_everything(name: str) -> bool:
    return True


def _compares_headers(name: str) -> bool:
    return not is_identity(name)


def _is_gone(stored: _Stored) -> bool:
    return stored[0] in _GONE


def _is_error(stored: _Stored) -> bool:
    return bool(stored[0] >= 400)
