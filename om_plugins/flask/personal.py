"""What gives away that a view's answer is personal, or is not to be stored for another reason.

:class:`Watch` notices what the view does, :func:`refusal` looks at what it returned.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from flask import request
from flask.globals import request_ctx
from flask.sessions import SecureCookieSession
from werkzeug.wrappers import Response as AnyResponse

from ..csp.nonce import NONCE
from ..csp.override import OVERRIDE as CSP
from ..headers.companions import CHANGED

__all__ = ["Watch", "refusal"]

STORABLE = frozenset({200, 203, 204, 300, 301, 404, 410})


class Watch:
    """Notices what a view does that makes its answer personal."""

    def __enter__(self) -> Watch:
        context = request_ctx._get_current_object()  # type: ignore[attr-defined]
        self._context = context
        self._flashes_before = context.flashes
        self._after_before = len(context._after_request_functions)
        self._csp_before = self._changes()
        self._session = session = _session_of(context)
        self.session_before = getattr(session, "accessed", False)
        if session is not None:
            session.accessed = False
        # a cached property: when it is there again afterwards, the view has read the cookies
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
        self.nonce = NONCE in request.environ
        self.csp = self._changes() != self._csp_before

    def _changes(self) -> int:
        return sum(len(request.environ.get(name, ())) for name in (CSP, CHANGED))


def _session_of(context: Any) -> Any:
    # Flask >= 3.1.3 counts a look at context.session as access, so look behind it
    found = context.__dict__.get("_session")
    return found if found is not None else context.__dict__.get("session")


def _is_tracked(context: Any, session: object) -> bool:
    """Whether access to this session can be noticed: by the context, or by the session itself."""
    return "_session" in context.__dict__ or isinstance(session, SecureCookieSession)


def refusal(
    made: AnyResponse, watch: Watch, user: str, vary: Collection[str], *, outside: bool = False
) -> tuple[str, str]:
    """Why a response is not stored, and what to say about it; two empty texts when it is.

    Args:
        made: what the view returned.
        watch: what was noticed while it ran.
        user: whose answer it is; "" for everybody's.
        vary: request headers that the look-up minds.
        outside: it is for the layer outside of the application, which renews nonces, brings back
            changes of the policy, records streams and reads ``Vary`` itself.
    """
    control = made.cache_control
    minded = {*(name.lower() for name in vary), "cookie" if user else ""}
    unknown = {name.lower() for name in made.vary} - minded
    table = (
        (made.status_code not in STORABLE, "status", ""),
        (
            (made.is_streamed or made.direct_passthrough) and not outside,
            "streamed",
            "it is streamed",
        ),
        (bool(control.no_store or control.no_cache), "no-store", ""),
        (
            "Set-Cookie" in made.headers or watch.hooked,
            "cookie",
            "it sets a cookie, or registers an after_this_request function",
        ),
        (
            bool(control.private) and not user,
            "private",
            "it is private; scope= keeps users apart",
        ),
        (
            # Flask before 2.3.2 says nothing of a session that was looked at and is empty
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
