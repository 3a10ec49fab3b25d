"""How decorators act on views and blueprints, and a warning for those above the route.

:class:`~om_plugins.flask.extension.OpenManager` has the decorators themselves.
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flask import Blueprint, Flask, current_app
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RoutingException

from ..csp.override import Override, add_override
from ..errors import ConfigError
from ..fallback.options import FallbackOptions
from ..headers.companions import read_changes
from .current import current_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from _typeshed.wsgi import WSGIEnvironment

V = TypeVar("V")

logger = logging.getLogger("om_plugins")

_MAX_VIEWS = 10_000
_HTTPS_WISH = "om_force_https"


class DecoratedViews:
    """The views and blueprints that one ``OpenManager`` decorated."""

    def __init__(self) -> None:
        self._views: list[tuple[str, weakref.ref[Any], weakref.ref[Any]]] = []

    def add(self, decorator: str, view: object, decorated: object) -> None:
        """Remember a view and what the decorator returned for it.

        Args:
            decorator: the decorator's name, such as ``csp``.
            view: the function that was decorated.
            decorated: the function that the decorator returned.
        """
        if len(self._views) >= _MAX_VIEWS:  # an app may decorate again in each request
            return
        try:
            self._views.append((decorator, weakref.ref(view), weakref.ref(decorated)))
        except TypeError:  # a bound method, or an object of a class with slots
            return

    def act_before(self, decorator: str, act: Callable[[], None]) -> Callable[[V], V]:
        """Return a decorator of views and blueprints that calls ``act`` before each request.

        Args:
            decorator: the decorator's name, for :meth:`warn`.
            act: is called within the request.
        """

        def decorate(view: V) -> V:
            if isinstance(view, Blueprint):
                view.before_request(act)
                return view

            if isinstance(view, type) or not callable(view) or isinstance(view, Flask):
                raise TypeError(
                    f"@om.{decorator} was given {view!r}: it is for views and blueprints; for a "
                    "class, write decorators = [om.…] inside of it; for a whole app, use settings"
                )
            called = cast("Callable[..., Any]", view)

            @functools.wraps(called)
            def acting(*args: Any, **kwargs: Any) -> Any:
                act()
                return current_app.ensure_sync(called)(*args, **kwargs)

            self.add(decorator, called, acting)
            return cast("V", acting)

        return decorate

    def warn(self, app: Flask) -> None:
        """Log each view of ``app`` whose decorator stands above its route, where it has no effect.

        ``@app.get("/")`` registers the function that it is given. Flask never calls what a
        decorator above it returns, and reports nothing.
        """
        called = {
            number: endpoint
            for endpoint, registered in app.view_functions.items()
            for number in _unwrap_ids(registered)
        }
        for decorator, view_reference, decorated_reference in self._views:
            view, decorated = view_reference(), decorated_reference()
            if view is not None and id(view) in called and id(decorated) not in called:
                logger.warning(
                    "@om.%s has no effect on the view %r: it stands above the route; put it "
                    "below, so that the route is given what it makes",
                    decorator,
                    called[id(view)],
                )


def _unwrap_ids(view: Callable[..., Any] | None) -> Iterator[int]:
    """Yield the identity of a function, and of each function that ``functools.wraps`` wrapped."""
    while view is not None:
        yield id(view)
        view = getattr(view, "__wrapped__", None)


# --- what the decorators do in a request --------------------------------------------------------


def change_csp(change: Override) -> None:
    """Change the policy of the current response."""
    add_override(current_state(), change)


def use_fallback(fallback: FallbackOptions) -> None:
    """Give the current request its fallback."""
    current_state().fallback = fallback


def change_headers(
    headers: Mapping[str, str | None],
    permissions_policy: Mapping[str, Sequence[str] | str] | None,
) -> Callable[[], None]:
    """Return a function that changes the companion headers of the current response.

    Raises:
        ConfigError: a name or value is not allowed.
    """
    changed = read_changes(headers, permissions_policy)

    def act() -> None:
        state = current_state()
        state.header_changes = (*state.header_changes, *changed)

    return act


# --- HTTPS --------------------------------------------------------------------------------------
# The layer that redirects to HTTPS is in front of the app, where the view is not known yet. The
# app's routing is asked for requests over plain HTTP, and for no other.


def wish_https(force: bool) -> Callable[[V], V]:
    """Return a decorator that records at a view or blueprint whether it is for HTTPS alone.

    Raises:
        ConfigError: ``force`` is neither ``True`` nor ``False``.
    """
    if not isinstance(force, bool):
        raise ConfigError("headers(force_https)", force, "must be True or False")

    def decorate(view: V) -> V:
        setattr(view, _HTTPS_WISH, force)
        return view

    return decorate


def read_https_wish(app: Flask) -> Callable[[WSGIEnvironment], bool | None]:
    """Return a function that finds what the view of a request declared about HTTPS.

    The function returns ``True`` for HTTPS alone, ``False`` for plain HTTP as well and ``None``
    for a view that declared nothing. What a view declares wins over its blueprint.
    """
    return functools.partial(_read_https_wish, weakref.ref(app))


def _read_https_wish(reference: weakref.ref[Flask], environ: WSGIEnvironment) -> bool | None:
    app = reference()
    if app is None:
        return None
    try:
        # a separate request object: the app's own must not find this one in the environ
        urls = app.create_url_adapter(app.request_class(environ, populate_request=False))
        endpoint = str(urls.match()[0]) if urls is not None else ""
    except (HTTPException, RoutingException):  # no view, or a host that is not trusted
        return None
    wish: bool | None = getattr(app.view_functions.get(endpoint), _HTTPS_WISH, None)
    name = endpoint
    while wish is None and "." in name:
        name = name.rpartition(".")[0]
        wish = getattr(app.blueprints.get(name), _HTTPS_WISH, None)
    return wish
