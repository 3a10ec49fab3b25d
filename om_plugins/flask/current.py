"""The request under way, as this package's layers see it: its environ and its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Request, current_app, request

from ..core.request_state import RequestState, state_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def current_environ() -> WSGIEnvironment | None:
    """Return the WSGI environ of the request under way, ``None`` outside one."""
    try:
        # what the proxy itself does with each attribute costs every tag of every page
        return plain_environ(request._get_current_object())  # type: ignore[attr-defined]
    except RuntimeError:  # and so would asking first
        return None


def current_state() -> RequestState:
    """Return the state of the request under way, as far as it belongs to the current app.

    Raises:
        RuntimeError: there is no request.
    """
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    return state_of(plain_environ(request._get_current_object()), app)  # type: ignore[attr-defined]


def plain_environ(request: Request) -> WSGIEnvironment:
    """Return the environ of a request, to be read without a note."""
    environ: WSGIEnvironment | None = request.__dict__.get("environ")
    # a class of the application may keep it elsewhere
    return request.environ if environ is None else environ
