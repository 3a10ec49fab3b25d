"""The language of a page, and of everything that is said about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import has_request_context, request
from werkzeug.wrappers import Request

from om_plugins.core.call import current_request

from .questions.query import Language

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["LanguageSwitch", "language_now", "language_of"]


class LanguageSwitch:
    """The page's switch counts more than the browser's language, for the library's words too.

    Args:
        app: what is asked with an ``Accept-Language`` that says what was chosen.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Go on with the language that was chosen."""
        incoming = Request(environ)
        chosen = incoming.args.get("lang") or incoming.cookies.get("lang")
        if chosen in ("en", "ko"):
            environ["HTTP_ACCEPT_LANGUAGE"] = chosen
        return self._app(environ, start_response)


def language_of(incoming: Request) -> Language:
    """The language of a request."""
    return "ko" if incoming.accept_languages.best_match(["en", "ko"], "en") == "ko" else "en"


def language_now() -> Language | None:
    """The language of the request under way, a view's or an engine route's; ``None`` outside."""
    environ = current_request.get()
    if environ is not None:
        return language_of(Request(environ))
    return language_of(request) if has_request_context() else None
