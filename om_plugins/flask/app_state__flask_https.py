"""What a Flask view says about plain HTTP, read from the view that a request would reach.

The layer that redirects to HTTPS stands in front of the app, where no view is known yet: for what
comes over plain HTTP, and only then, the app's routing is asked beforehand.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RoutingException

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["say", "wish_of"]

_SAID = "om_force_https"


def say(view_or_blueprint: object, force: bool) -> None:
    """Keep with a view or a blueprint whether it is for HTTPS alone."""
    setattr(view_or_blueprint, _SAID, force)


def wish_of(app: Flask) -> Callable[[WSGIEnvironment], bool | None]:
    """A function that says what the view of a request wants: HTTPS alone (``True``), plain HTTP as
    well (``False``), or nothing (``None``). A view's own word comes before its blueprint's."""
    return functools.partial(_wish, weakref.ref(app))


def _wish(reference: weakref.ref[Flask], environ: WSGIEnvironment) -> bool | None:
    app = reference()
    if app is None:
        return None
    try:
        # a request of its own: the app's must not find this one in the environ
        urls = app.create_url_adapter(app.request_class(environ, populate_request=False))
        endpoint = str(urls.match()[0]) if urls is not None else ""
    except (HTTPException, RoutingException):  # no view, a host that is not trusted
        return None
    said: bool | None = getattr(app.view_functions.get(endpoint), _SAID, None)
    name = endpoint
    while said is None and "." in name:
        name = name.rpartition(".")[0]
        said = getattr(app.blueprints.get(name), _SAID, None)
    return said
