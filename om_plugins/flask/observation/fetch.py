"""Observes whether a function whose value is cached for everybody looks at the current request.

Such a value would be one visitor's, and a background refresh has no request. Everything of a
request counts here, its address too, because the key of the value has none of it. The request and
its context are observed only while the function runs.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from flask import Flask, g, has_request_context
from flask.globals import request_ctx

from ...core.inputs import EnvironReader, InputRules
from ...core.observed import ObservedInputs
from .session import INPUTS, find_session, observe_session

T = TypeVar("T")

_PASSING = (
    "om_plugins.",
    "werkzeug.local",
    "flask.templating",
    "flask.ctx",
    "flask.globals",
    "flask.wrappers",
)
"""Modules that get the request to pass it on, or for what no value depends on."""
_TEMPLATES = Flask.update_template_context.__code__
_LOOKS = "_om_looks"


def run_observed(function: Callable[[], T]) -> tuple[T, str]:
    """Run a function that makes a value to cache.

    Returns:
        Its value, and what it looked at first of the current request, such as ``request.host``; ""
        for nothing, or outside of a request.
    """
    if not has_request_context():
        return function(), ""
    looks: list[str] = []
    with _observe_context(looks), _observe_globals(looks):
        value = function()
    return value, looks[0] if looks else ""


@contextmanager
def _observe_context(looks: list[str]) -> Iterator[None]:
    context = request_ctx._get_current_object()  # type: ignore[attr-defined]
    request, session = context.__dict__["request"], find_session(context)
    before = [(one, type(one)) for one in (context, request)]
    outer = [one.__dict__.get(_LOOKS) for one, _ in before]
    with _observe_session(session, looks):
        for one, kind in before:
            one.__dict__[_LOOKS] = [*(outer[0] or ()), looks]
            if outer[0] is None:
                one.__class__ = _noticing(kind, "request" if one is request else "url_for")  # type: ignore[arg-type]
        try:
            yield
        finally:
            for (one, kind), looks_before in zip(before, outer, strict=True):
                one.__class__ = kind
                if looks_before is None:
                    one.__dict__.pop(_LOOKS, None)
                else:
                    one.__dict__[_LOOKS] = looks_before


@functools.cache
def _noticing(base: Any, name: str) -> Any:
    """Return the form of a class that notices when code reads an attribute of an object of it."""
    silent = {"__dict__", "__class__"} if name == "request" else None

    def read(self: Any, attribute: str) -> Any:
        noticed = attribute not in silent if silent is not None else attribute == "url_adapter"
        if noticed:
            frame: Any = sys._getframe(1)
            while frame.f_globals.get("__name__", "").startswith("werkzeug.local"):
                frame = frame.f_back
            passes = frame.f_globals.get("__name__", "").startswith(_PASSING)
            if not passes and frame.f_code is not _TEMPLATES:
                what = "url_for()" if name == "url_for" else f"request.{attribute}"
                for looks in object.__getattribute__(self, "__dict__").get(_LOOKS, ()):
                    looks.append(what)
        return base.__getattribute__(self, attribute)

    return type(base.__name__, (base,), {"__getattribute__": read})


@contextmanager
def _observe_globals(looks: list[str]) -> Iterator[None]:
    """Notice looks at what hooks put into ``flask.g``, such as the user."""
    values: Any = g._get_current_object()
    kind = type(values)
    if issubclass(kind, _ObservedGlobals):  # the function around this one notices the same
        before = values.__dict__["_om_looks"]
        values.__dict__["_om_looks"] = [*before, looks]
    else:
        before = None
        values.__dict__["_om_names"] = frozenset(values.__dict__)
        values.__dict__["_om_looks"] = [looks]
        object.__setattr__(values, "__class__", _noticing_globals(kind))  # type: ignore[arg-type]
    try:
        yield
    finally:
        if before is not None:
            values.__dict__["_om_looks"] = before
        else:
            object.__setattr__(values, "__class__", kind)
            del values.__dict__["_om_names"], values.__dict__["_om_looks"]


class _ObservedGlobals:
    """Notices looks at attributes that were there before the function began."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_om_") and name != "__dict__":
            _notice_global(self, name)
        return super().__getattribute__(name)

    def get(self, name: str, default: Any = None) -> Any:
        _notice_global(self, name)
        return self.__dict__.get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        _notice_global(self, name)
        return self.__dict__.pop(name, *default)

    def __contains__(self, name: object) -> bool:
        _notice_global(self, name)
        return name in self.__dict__ and not str(name).startswith("_om_")

    def __iter__(self) -> Iterator[str]:
        names = [name for name in self.__dict__ if not name.startswith("_om_")]
        for name in names:
            _notice_global(self, name)
        return iter(names)


def _notice_global(values: Any, name: object) -> None:
    state = object.__getattribute__(values, "__dict__")
    if name not in state.get("_om_names", ()) or _is_resource(state.get(name)):
        return
    for looks in state["_om_looks"]:
        looks.append(f"g.{name}")


def _is_resource(value: object) -> bool:
    """Whether a value is what a function works with, such as a connection, and no data."""
    return any(callable(getattr(value, name, None)) for name in ("close", "execute", "cursor"))


@functools.cache
def _noticing_globals(base: Any) -> Any:
    return type(base.__name__, (_ObservedGlobals, base), {})


@contextmanager
def _observe_session(session: Any, looks: list[str]) -> Iterator[None]:
    if not isinstance(session, dict):
        yield
        return
    kind, values = type(session), session.__dict__
    before = values.get(INPUTS)
    inputs = _SessionLooks([], before)
    if before is None:
        observe_session(session, inputs)
    inputs.looks = looks  # what was looked at before is no look of this function
    if type(session) is kind and before is None:  # a class that cannot be observed
        yield
        return
    values[INPUTS] = inputs
    try:
        yield
    finally:
        if before is None:
            session.__class__ = kind
            values.pop(INPUTS, None)
        else:
            before.session_changed |= inputs.session_changed
            values[INPUTS] = before


class _SessionLooks(ObservedInputs):
    """Notes looks at the session for the function that runs, and for the request around it."""

    def __init__(self, looks: list[str], around: ObservedInputs | None) -> None:
        super().__init__(EnvironReader({}), InputRules())
        self.looks = looks
        self._around = around

    def note(self, name: str) -> None:
        self.looks.append("the session" if name in ("session", "session?") else name)
        if self._around is not None:
            self._around.note(name)

    def count(self, name: str) -> None:
        self.looks.append("the session")
        if self._around is not None:
            self._around.count(name)
