"""Whether what an app answers is what its own code made: WSGI middleware inside of this package.

Middleware that was wrapped around ``app.wsgi_app`` before ``OpenManager(app)`` runs between the
caches and Flask. It may look at a visitor and change the body, and nothing observes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from types import FunctionType, MethodType

from flask import Flask

from ..core.stand_ins.transparent import find_replaced

HARMLESS = frozenset(
    {
        "werkzeug.middleware.proxy_fix:ProxyFix",
        "werkzeug.middleware.profiler:ProfilerMiddleware",
        "werkzeug.middleware.lint:LintMiddleware",
        "whitenoise.base:WhiteNoise",
        "opentelemetry.instrumentation.flask:_rewrapped_app",
    }
)
"""Middleware that puts nothing of a visitor into a response: classes, and functions around it."""


def find_unknown_middleware(app: Flask, wsgi_app: object, named: Collection[str]) -> str:
    """Find middleware that may change what Flask answers, in a way that nobody can observe.

    Args:
        app: the app.
        wsgi_app: its ``wsgi_app`` as ``OpenManager`` found it.
        named: further harmless middleware, each as ``module:Class`` or ``module:function``.

    Returns:
        Its name as ``module:name``; "" when there is none.
    """
    seen: set[int] = set()
    while not _is_of_flask(app, wsgi_app):
        name = _name(wsgi_app)
        if id(wsgi_app) in seen or not (name in HARMLESS or name in named):
            return name
        seen.add(id(wsgi_app))
        inner = [one for one in _list_held(wsgi_app) if _may_be_inner(app, one, {id(wsgi_app)})]
        if len(inner) != 1:
            return name  # which of them answers is not known
        wsgi_app = inner[0]
    return ""


def _is_of_flask(app: Flask, found: object) -> bool:
    # by its type: a middleware of this package says that it is of the class that it replaced
    if type(found) is not MethodType:
        return False
    return found.__self__ is app and found.__func__ is Flask.wsgi_app


def _may_be_inner(app: Flask, found: object, seen: set[int]) -> bool:
    """Whether an object that middleware holds may be the WSGI application that it calls."""
    if isinstance(found, MethodType):
        return found.__self__ is app
    if id(found) in seen or not callable(found) or isinstance(found, (type, Flask)):
        return False
    seen.add(id(found))
    return any(_may_be_inner(app, one, seen) for one in _list_held(found))


def _list_held(found: object) -> Iterator[object]:
    if isinstance(found, FunctionType):
        for cell in found.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:
                continue  # a variable that was never set
    elif not isinstance(found, Flask):
        yield from getattr(found, "__dict__", {}).values()


def _name(found: object) -> str:
    ours = find_replaced(found) is not None
    named = type(found) if ours or not hasattr(found, "__qualname__") else found
    outer = str(named.__qualname__).partition(".<locals>")[0]
    return f"{named.__module__}:{outer}"
