"""What the shared HTTP cache must know of the other rooms: nonces, policies, routes.

The cache lies inside the layers that add headers and count requests. A response that comes out of
it brings along what the application would have put into the environ: the changes to its policy, its
route's name, and whether its tags were left without nonces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ..csp.hashes import HASHES, checked_notes
from ..csp.nonce import PLAIN, Nonces, stays_plain, used_nonce
from ..csp.override import OVERRIDE, Override
from ..headers.caching import kept_private
from ..headers.companions import CHANGED
from ..monitoring.layer import ROUTE
from ..settings.kinds import HEADERS
from .rules import PageHooks

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["hooks", "pack_marks", "read_marks"]


def _marks(environ: WSGIEnvironment) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if environ.get(PLAIN):
        found[PLAIN] = True
    for name in (OVERRIDE, CHANGED, HASHES):
        if environ.get(name):
            found[name] = tuple(environ[name])
    rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
    route = rule.rule if rule is not None else environ.get(ROUTE)
    if route:
        found[ROUTE] = route
    return found


def _fits(environ: WSGIEnvironment, marks: dict[str, Any]) -> bool:
    """Tags that were left without nonces are blamed where the policy asks for them: such a page
    gives way to one with nonces, which fits everywhere."""
    return PLAIN not in marks or PLAIN in environ


def _carried(environ: WSGIEnvironment) -> dict[str, Any]:
    carried: dict[str, Any] = {PLAIN: False} if stays_plain(environ) else {}
    if HASHES in environ:
        carried[HASHES] = {}
    return carried


def hooks() -> PageHooks:
    """What one application's cache asks."""
    return PageHooks(
        used_nonce=used_nonce,
        fresh_nonce=Nonces().stitched,
        marks=_marks,
        fits=_fits,
        carried=_carried,
        outgoing=kept_private,
    )


_encode = msgspec.msgpack.Encoder().encode
_Packed = tuple[
    bool, list[dict[str, Any]] | None, str, list[tuple[str, str | None]], list[str]
]  # fmt: skip
_decode = msgspec.msgpack.Decoder(_Packed).decode


def pack_marks(marks: Mapping[str, Any]) -> bytes:
    """The marks of a response as bytes, for a store."""
    changes = [one.as_data() for one in marks[OVERRIDE]] if OVERRIDE in marks else None
    headers, hashes = marks.get(CHANGED, ()), marks.get(HASHES, ())
    return _encode((PLAIN in marks, changes, marks.get(ROUTE, ""), headers, hashes))


def read_marks(data: bytes) -> dict[str, Any]:
    """Read what :func:`pack_marks` wrote.

    Raises:
        ValueError: it is something else.
    """
    found: dict[str, Any] = {}
    try:
        plain, changes, route, headers, hashes = _decode(data)
        if plain:
            found[PLAIN] = True
        if changes is not None:
            found[OVERRIDE] = tuple(Override.from_data(one) for one in changes)
        if headers:
            HEADERS.read(dict(headers))
            found[CHANGED] = tuple(headers)
        if hashes:
            found[HASHES] = checked_notes(hashes)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise ValueError(str(error)) from None
    if route:
        found[ROUTE] = route
    return found
