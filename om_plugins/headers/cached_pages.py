"""What the shared HTTP cache must know of policies, nonces and headers.

The cache lies inside the layers that add headers and count requests. A response that comes out of
it brings along *marks*: what the application would have put into the environ for those layers. They
are the changes to its policy and headers, its hashes, its route, and whether its tags were left
without nonces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ..csp.hashes import HASHES, checked_notes
from ..csp.nonce import ASKS, NONCE, PLAIN, SENT, Nonces, stays_plain, used_nonce
from ..csp.override import OVERRIDE, Override
from ..settings.kinds import HEADERS
from .caching import kept_private
from .companions import CHANGED
from .layer import HeaderPolicy

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["CachedPages", "HitHeaderPolicy"]

Header = tuple[str, str]

_CHANGES = frozenset({CHANGED, HASHES, OVERRIDE})

_encode = msgspec.msgpack.Encoder().encode
_Packed = tuple[
    bool, list[dict[str, Any]] | None, str, list[tuple[str, str | None]], list[str]
]  # fmt: skip
_decode = msgspec.msgpack.Decoder(_Packed).decode


class CachedPages:
    """The hooks of one application's cache; see :class:`om_plugins.http_cache.context.PageHooks`.

    Args:
        route_key: the environ key under which an app without werkzeug routing names its route.
    """

    def __init__(self, route_key: str) -> None:
        self._route_key = route_key
        self._nonces = Nonces()

    def used_nonce(self, environ: WSGIEnvironment) -> str | None:
        """Return the nonce that the page used; ``None`` when it asked for none."""
        return used_nonce(environ)

    def fresh_nonce(self, environ: WSGIEnvironment) -> str:
        """Return the nonce of a response that the cache puts nonces into."""
        return self._nonces.stitched(environ)

    def read_marks(self, environ: WSGIEnvironment) -> dict[str, Any]:
        """Return the marks that a response put into the environ of its request."""
        found: dict[str, Any] = {}
        if environ.get(PLAIN):
            found[PLAIN] = True
        for name in (OVERRIDE, CHANGED, HASHES):
            if environ.get(name):
                found[name] = tuple(environ[name])
        rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
        route = rule.rule if rule is not None else environ.get(self._route_key)
        if route:
            found[self._route_key] = route
        return found

    def fits(self, environ: WSGIEnvironment, marks: dict[str, Any]) -> bool:
        """Whether a response with these marks may answer this request.

        A browser reports tags without nonces where the policy asks for nonces. Such a page is
        replaced by one with nonces, which fits everywhere.
        """
        return PLAIN not in marks or PLAIN in environ

    def refresh_environ(self, environ: WSGIEnvironment) -> dict[str, Any]:
        """Return what the request of a refresh takes over from this request."""
        found: dict[str, Any] = {PLAIN: False} if stays_plain(environ) else {}
        if HASHES in environ:
            found[HASHES] = {}
        return found

    def make_private(self, headers: list[Header]) -> list[Header]:
        """Return the headers with ``Cache-Control: private``; see :func:`.kept_private`."""
        return kept_private(headers)

    def pack_marks(self, marks: Mapping[str, Any]) -> bytes:
        """Encode the marks of a response for a store."""
        changes = [one.as_data() for one in marks[OVERRIDE]] if OVERRIDE in marks else None
        headers, hashes = marks.get(CHANGED, ()), marks.get(HASHES, ())
        return _encode((PLAIN in marks, changes, marks.get(self._route_key, ""), headers, hashes))

    def unpack_marks(self, data: bytes) -> dict[str, Any]:
        """Decode what :meth:`pack_marks` returned.

        Raises:
            ValueError: the data is damaged or has another format.
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
            found[self._route_key] = route
        return found


class HitHeaderPolicy:
    """The headers of hits that pass the layers; see :class:`om_plugins.http_cache.fast_path`.

    Args:
        policy: of the layer that adds headers; it must be :attr:`~.HeaderPolicy.alike`.
    """

    pending = _CHANGES | {ASKS, NONCE, PLAIN, SENT}
    report_key = ASKS

    def __init__(self, policy: HeaderPolicy) -> None:
        self._policy = policy
        self.take_nonce = policy.nonces.take
        self.sampler = policy

    def prepare(
        self,
        environ: WSGIEnvironment,
        status: str,
        headers: list[Header],
        marks: Mapping[str, Any],
    ) -> tuple[list[Header], list[tuple[str, tuple[str, ...]]]] | None:
        """Work out what is added to every hit of a page.

        Returns:
            Whole headers, and name and pieces of those with a nonce. ``None`` when it depends on
            the request: the view changed its headers, or a setting changes them for this path.
        """
        policy = self._policy
        plain = PLAIN in marks
        if (
            not marks.keys().isdisjoint(_CHANGES)
            or (plain and not policy.may_stay_plain)
            or (policy.by_path and policy.paths.changes(environ.get("PATH_INFO", "")))
        ):
            return None
        root = environ.get("SCRIPT_NAME", "")
        return policy.lasting(environ["wsgi.url_scheme"], root, status, headers, plain=plain)
