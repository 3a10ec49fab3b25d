"""One request to a cached view: the look-up of its response, its making, and its refresh."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from flask import Flask, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from ..cache.cache import SmartCache
from ..cache.responses.decisions import CacheDecision, describe_error, find_report
from ..cache.responses.deferred import DeferredFetch
from ..cache.responses.kept import KeptResponses, ResponseQuery, StoredInputs
from ..cache.singleflight import PrivateValue
from ..core.inputs import is_identity
from ..core.observed import ObservedInputs
from ..core.request_state import RequestState, build_background_request
from ..csp.nonce import renew_notes
from .current import current_state, plain_environ
from .observed import find_session_cookie
from .view_rules import ViewResponse, ViewRules, build_cache_control, read_freshness

if TYPE_CHECKING:
    from ..http_cache.cache import CacheIntent

_GONE = frozenset({404, 410})
_ENDS = frozenset({401, 403, 404, 410, 451})
"""A refresh that ends so, or in a redirect, ends the old page: access to it was withdrawn."""
_NONCE_LENGTH = 32
_DETAILS = {
    "status": "a response with its status is not stored",
    "no-store": "it says no-store or no-cache",
    "error": "its view was not called to its end",
    "head": "only a HEAD was asked for, whose response has no body",
    "ended": "it was taken back while it was made",
}
"""Why a response was not stored, where that is no advice to the author of the view."""


# What is stored of a response: status, headers, the pieces of the body between nonces, the Unix
# time at which it was made, the hashes of the inline scripts and styles that the policy of the page
# lists, and its inputs: names, digest, names of those that known readers looked at; and of what is
# always in the key: the variables that say who the client is, and the parameters of the query.
_Stored: TypeAlias = list[Any]


@dataclass(frozen=True, slots=True)
class DecidedView:
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


_SHARED = CacheDecision(
    cache="view",
    kept=False,
    reason="shared",
    detail="its view is shared, so the cache in front decides",
)


def answer_shared(
    cache: SmartCache,
    rules: ViewRules,
    intent: CacheIntent,
    inputs: ObservedInputs,
    call: Callable[[], Any],
) -> AnyResponse:
    """Run a shared view whose response the layer in front of the application stores."""
    if request.method == "GET" and intent.collapse():
        return current_app.response_class()  # another request's response is sent instead
    report = find_report(plain_environ(request))
    if report is not None:
        report.decisions.append(_SHARED)
    run = ViewResponse(rules, inputs, current_state())
    response = run.run(call)
    reason, advice = run.find_refusal(response, outside=True)
    if reason:
        if advice:
            cache.internals.refuse(reason, f"the view {request.endpoint!r}", advice)
            state = current_state()
            state.unfinished = (*state.unfinished, DecidedView("http", reason, advice))
        intent.refuse(reason)
        return response
    if not (response.get_etag()[0] or response.is_streamed or response.direct_passthrough):
        body = response.get_data().replace((current_state().page_nonce or "\n").encode(), b"")
        response.set_etag(hashlib.blake2b(body, digest_size=16).hexdigest())
    ours = ""
    if "Cache-Control" not in response.headers:
        ours = build_cache_control(cache, rules, response.status_code)
        response.headers["Cache-Control"] = ours
    for name in rules.vary:
        response.vary.add(name)
    # with a list of parameters, the whole query is in the key of the layer in front
    query, streamed = rules.query is not False, response.is_streamed
    intent.allow(rules.tags, query=query, control=ours, streamed=streamed)
    return response


class ViewLookup:
    """The look-up of one request in the data cache, and what it makes on a miss."""

    def __init__(
        self,
        cache: SmartCache,
        rules: ViewRules,
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
            if stored is not None:
                return self.answer_hit(stored)
            self.reason = "head"
            return self.call()
        stored, self.deferred = self.responses.find_or_begin(self.query, self.make_refresh)
        self.state.unfinished = (*self.state.unfinished, self)
        if self.deferred is None:
            return self.answer_hit(stored)
        self.knew_address = self.responses.knows(self.query)
        try:
            return self.deferred.run(self.make)
        except BaseException as error:
            self.reason, self.advice = "error", self._describe_raised(error)
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
        inputs = [list(stored.names), stored.digest, list(stored.known), [], []]
        self.value = [response.status_code, headers, pieces, at, hashes, inputs]
        return self._finish_headers(response, at)

    def _check_pieces(self, pieces: list[bytes], nonce: str) -> tuple[str, str]:
        if nonce and len(pieces) == 1:
            return "nonce", (
                "it asked for a CSP nonce that is not found in its body, so it could not get a new "
                "one"
            )
        return "", ""

    def _describe_raised(self, error: BaseException) -> str:
        if not isinstance(error, HTTPException):
            return f"its view raised {describe_error(error)}"
        told = f"its view raised {type(error).__name__}, a response with the status {error.code}"
        if error.code in _GONE:
            told += ", which is stored with negative_time="
        return told

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
            scoped=kept and self.query.scope != "",
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
        names, digest, *_ = value[5]
        everything = {*self.inputs.counted, *self.inputs.known}
        known, identities = sorted(everything.difference(names)), sorted(self.inputs.identities)
        value[5] = [names, digest, known, identities, list(self.inputs.parameters)]
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
        status, headers, pieces, at, hashes, (*_, identities, parameters) = stored
        state, environ = self.state, plain_environ(request)
        # what lies around this response depends on the same
        for one in identities:
            self.inputs.note_identity(one, brought=one in environ)
        self.inputs.parameters |= frozenset(parameters)
        if state.plain is not None:
            state.plain = True  # the stored page may have tags without nonces
        body = pieces[0] if len(pieces) == 1 else state.nonce_for_page().encode().join(pieces)
        response = current_app.response_class(body, status=status)
        response.headers.clear()
        response.headers.extend([(name, value) for name, value in headers])
        renew_notes(state, hashes)
        return self._finish_headers(response, at)

    def _finish_headers(self, response: AnyResponse, at: float) -> AnyResponse:
        if "Cache-Control" not in response.headers:
            control = build_cache_control(self.cache, self.rules, response.status_code)
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
        self.made: ViewLookup | None = None

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
    names, digest, known, *_ = stored[5]
    return StoredInputs(tuple(names), digest, tuple(known))


def _compares_everything(name: str) -> bool:
    return True


def _compares_headers(name: str) -> bool:
    return not is_identity(name)


def _is_gone(stored: _Stored) -> bool:
    return stored[0] in _GONE


def _is_error(stored: _Stored) -> bool:
    return bool(stored[0] >= 400)
