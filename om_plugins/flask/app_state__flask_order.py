"""Notices a view's decorator that stands above its route, where it has no effect.

``@app.get("/")`` registers the function that it is given: what is put around it afterwards is
never called, and nothing says so.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask

__all__ = ["Decorated"]

logger = logging.getLogger("om_plugins")

_MOST = 10_000


class Decorated:
    """The views that one ``OpenManager`` put something around."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, weakref.ref[Any], weakref.ref[Any]]] = []

    def keep(self, what: str, view: object, around: object) -> None:
        """Remember a view and what was put around it.

        Args:
            what: the decorator, such as ``csp``.
        """
        if len(self._kept) >= _MOST:  # made anew in each request
            return
        try:
            self._kept.append((what, weakref.ref(view), weakref.ref(around)))
        except TypeError:  # a bound method, or an object of a class with slots
            return

    def warn(self, app: Flask) -> None:
        """Log each view of ``app`` that is registered without what was put around it."""
        called = {
            number: endpoint
            for endpoint, registered in app.view_functions.items()
            for number in _inner(registered)
        }
        for what, reference, put_around in self._kept:
            view, around = reference(), put_around()
            if view is not None and id(view) in called and id(around) not in called:
                logger.warning(
                    "@om.%s has no effect on the view %r: it stands above the route; put it "
                    "below, so that the route is given what it makes",
                    what,
                    called[id(view)],
                )


def _inner(view: Callable[..., Any] | None) -> Iterator[int]:
    """A function and those that it was put around, by ``functools.wraps``."""
    while view is not None:
        yield id(view)
        view = getattr(view, "__wrapped__", None)
