"""The language of a page, and of every text about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import has_request_context, request
from werkzeug.wrappers import Request

from om_plugins.core.call import current_request

from .questions.query import Language

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["LanguageSwitch", "find_current_language", "find_language"]


class LanguageSwitch:
    """WSGI middleware: puts the language chosen on the page into ``Accept-Language``.

    The library's own texts then have the chosen language, too, and not the browser's.

    Args:
        app: the application.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Call the application with the chosen language."""
        incoming = Request(environ)
        chosen = incoming.args.get("lang") or incoming.cookies.get("lang")
        if chosen in ("en", "ko"):
            environ["HTTP_ACCEPT_LANGUAGE"] = chosen
        return self._app(environ, start_response)


def find_language(incoming: Request) -> Language:
    """Return the language of a request."""
    return "ko" if incoming.accept_languages.best_match(["en", "ko"], "en") == "ko" else "en"


def find_current_language() -> Language | None:
    """Return the language of the current request, of a view or an engine route.

    Returns:
        ``None`` outside of a request.
    """
    environ = current_request.get()
    if environ is not None:
        return find_language(Request(environ))
    return find_language(request) if has_request_context() else None
