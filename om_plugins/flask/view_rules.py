"""What the arguments of ``@om.cached`` mean for one run of a view, and what may be stored of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, ParamSpec, TypeAlias

from flask import current_app, make_response, request
from flask.globals import request_ctx
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from ..cache.cache import SmartCache
from ..core.inputs import is_identity
from ..core.observed import ObservedInputs
from ..core.request_state import RequestState
from .current import current_state, plain_environ
from .observation.session import check_session, find_session
from .observed import list_parameters

P = ParamSpec("P")
Scope: TypeAlias = object


STORABLE = frozenset({200, 203, 204, 300, 301})
_GONE = frozenset({404, 410})

_STORED_VERSION = 5
"""The form of what is stored. It is a part of the key, so that workers of an older version neither
read these entries nor write others in their place."""


@dataclass(frozen=True, slots=True)
class ViewRules:
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


def build_cache_control(cache: SmartCache, rules: ViewRules, status: int) -> str:
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

    def __init__(self, rules: ViewRules, inputs: ObservedInputs, state: RequestState) -> None:
        self._rules = rules
        self._inputs = inputs
        self._state = state
        self._context = request_ctx._get_current_object()  # type: ignore[attr-defined]

    def run(self, call: Callable[[], Any]) -> AnyResponse:
        """Run the view, and look at what it did beside its response."""
        functions = self._context._after_request_functions
        hooks, changes = len(functions), count_changes(self._state)
        response = self._rules.call_view(call)
        self.hooked = len(functions) != hooks
        self.changed_policy = count_changes(self._state) != changes
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


def count_changes(state: RequestState) -> int:
    return len(state.overrides) + len(state.header_changes)
