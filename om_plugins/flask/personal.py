"""Why the response of a view is personal, or must not be stored for another reason.

:class:`ViewWatch` records what the view uses while it runs, and :func:`find_refusal` decides by
that and by the response.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from flask import request
from flask.globals import request_ctx
from flask.sessions import SecureCookieSession
from werkzeug.wrappers import Response as AnyResponse

from ..core.request_state import RequestState
from .current import current_state

STORABLE = frozenset({200, 203, 204, 300, 301, 404, 410})


class ViewWatch:
    """Records what a view uses that makes its response personal; a context manager around it.

    Attributes:
        session_before: the session was used before the view ran.
        used_session, used_cookies: the view used the session, or read cookies.
        flashed: the view shows or sets flashed messages.
        hooked: the view registered an ``after_this_request`` function.
        nonce: the response has a CSP nonce.
        csp: the view changed its policy or its headers.
    """

    def __enter__(self) -> ViewWatch:
        context = request_ctx._get_current_object()  # type: ignore[attr-defined]
        self._context = context
        self._flashes_before = context.flashes
        self._after_before = len(context._after_request_functions)
        self._state = current_state()
        self._csp_before = _count_changes(self._state)
        self._session = session = _find_session(context)
        self.session_before = getattr(session, "accessed", False)
        if session is not None:
            session.accessed = False
        # a cached property: if it is set again afterwards, the view has read the cookies
        self._cookies_before = request.__dict__.pop("cookies", None)
        return self

    def __exit__(self, *exc: object) -> None:
        session = self._session
        self.used_session = False
        if session is not None:
            self.used_session = bool(session.accessed) or not _is_tracked(self._context, session)
            session.accessed = bool(session.accessed) or self.session_before
        self.used_cookies = "cookies" in request.__dict__
        if not self.used_cookies and self._cookies_before is not None:
            request.__dict__["cookies"] = self._cookies_before
        self.flashed = bool(self._flashes_before) or bool(self._context.flashes)
        self.hooked = len(self._context._after_request_functions) != self._after_before
        self.nonce = self._state.page_nonce is not None
        self.csp = _count_changes(self._state) != self._csp_before


def _count_changes(state: RequestState) -> int:
    return len(state.overrides) + len(state.header_changes)


def _find_session(context: Any) -> Any:
    # Flask >= 3.1.3 counts reading context.session as access, so read what it is kept in
    found = context.__dict__.get("_session")
    return found if found is not None else context.__dict__.get("session")


def _is_tracked(context: Any, session: object) -> bool:
    """Whether the context or the session itself records access to this session."""
    return "_session" in context.__dict__ or isinstance(session, SecureCookieSession)


def find_refusal(
    response: AnyResponse,
    watch: ViewWatch,
    user: str,
    vary: Collection[str],
    *,
    outside: bool = False,
) -> tuple[str, str]:
    """Find why a response must not be stored.

    Args:
        response: what the view returned.
        watch: what the view used.
        user: whose response it is; "" for everybody's.
        vary: request headers that are part of the key.
        outside: the response is stored by the layer outside of the application, which renews
            nonces, brings back changes of the policy, copies streams and reads ``Vary`` itself.

    Returns:
        The reason in one word and an advice to the author, which may be empty; two empty texts when
        the response may be stored.
    """
    control = response.cache_control
    known = {*(name.lower() for name in vary), "cookie" if user else ""}
    unknown = {name.lower() for name in response.vary} - known
    table = (
        (response.status_code not in STORABLE, "status", ""),
        (
            (response.is_streamed or response.direct_passthrough) and not outside,
            "streamed",
            "it is streamed",
        ),
        (bool(control.no_store or control.no_cache), "no-store", ""),
        (
            "Set-Cookie" in response.headers or watch.hooked,
            "cookie",
            "it sets a cookie, or registers an after_this_request function",
        ),
        (
            bool(control.private) and not user,
            "private",
            "it is private; scope= keeps users apart",
        ),
        (
            # Flask before 2.3.2 sets no Vary for a session that was read and is empty
            (
                (outside and watch.session_before)
                or watch.used_session
                or watch.used_cookies
                or watch.flashed
            )
            and not user,
            "session",
            "it used the session, a cookie or a flashed message; scope= keeps users apart",
        ),
        (watch.flashed, "session", "it shows flashed messages, which are meant for one request"),
        (
            bool(unknown) and not outside,
            "vary",
            f"it depends on {', '.join(sorted(unknown))}; name the headers with vary=",
        ),
        (
            watch.nonce and not outside,
            "nonce",
            "it asked for a CSP nonce, which must not be sent twice; cache the data it shows "
            "instead, with cache.query",
        ),
        (
            watch.csp and not outside,
            "csp",
            "it changes its policy or security headers, which a stored response would not; put "
            "that decorator above this one",
        ),
    )
    for refused, reason, advice in table:
        if refused:
            return reason, advice
    return "", ""
