"""What the shared HTTP cache must know of the other rooms: nonces, policies, routes.

The cache lies inside the layers that add headers and count requests. A response that comes out of
it brings along what the application would have put into the environ: the changes to its policy, its
route's name, and whether its tags were left without nonces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .caching.responses import Hooks
from .errors import ConfigError
from .monitoring.observe import ROUTE
from .security.nonce import NONCE, PLAIN, nonce
from .security.override import OVERRIDE, Override

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["HOOKS", "pack_marks", "read_marks"]


def _used_nonce(environ: WSGIEnvironment) -> str | None:
    found: str | None = environ.get(NONCE)
    return found


def _marks(environ: WSGIEnvironment) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if environ.get(PLAIN):
        found[PLAIN] = True
    if OVERRIDE in environ:
        found[OVERRIDE] = tuple(environ[OVERRIDE])
    rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
    route = rule.rule if rule is not None else environ.get(ROUTE)
    if route:
        found[ROUTE] = route
    return found


HOOKS = Hooks(used_nonce=_used_nonce, fresh_nonce=nonce, marks=_marks)

_Change = tuple[
    dict[str, list[str]], dict[str, list[str]], list[str], bool, bool | None
]  # update, replace, remove, exempt, report_only
_Marks = tuple[bool, list[_Change] | None, str]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Marks).decode


def pack_marks(marks: Mapping[str, Any]) -> bytes:
    """The marks of a response as bytes, for a store."""
    changes = None
    if OVERRIDE in marks:
        changes = [
            (
                {name: list(sources) for name, sources in one.update.items()},
                {name: list(sources) for name, sources in one.replace.items()},
                list(one.remove),
                one.exempt,
                one.report_only,
            )
            for one in marks[OVERRIDE]
        ]
    return _encode((PLAIN in marks, changes, marks.get(ROUTE, "")))


def read_marks(data: bytes) -> dict[str, Any]:
    """Read what :func:`pack_marks` wrote.

    Raises:
        ValueError: it is something else.
    """
    found: dict[str, Any] = {}
    try:
        plain, changes, route = _decode(data)
        if plain:
            found[PLAIN] = True
        if changes is not None:
            found[OVERRIDE] = tuple(_override(*one) for one in changes)
    except (msgspec.MsgspecError, ConfigError) as error:
        raise ValueError(str(error)) from None
    if route:
        found[ROUTE] = route
    return found


def _override(
    update: dict[str, list[str]],
    replace: dict[str, list[str]],
    remove: list[str],
    exempt: bool,
    report_only: bool | None,
) -> Override:
    replacing: dict[str, list[str] | None] = {**replace, **dict.fromkeys(remove)}
    return Override(update=update, replace=replacing, exempt=exempt, report_only=report_only)
