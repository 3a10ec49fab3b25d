"""What the shared HTTP cache needs from the features policies and headers.

The cache lies inside the layers that add headers and count requests. A stored response therefore
keeps *marks*: what the application wrote into the request's state for those layers. They are the
changes to its policy and headers, its hashes, its route, and whether its tags have no nonces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ..csp.hashes import check_notes
from ..csp.override import Override
from ..settings.kinds import HEADERS
from .downstream_caching import make_private
from .layer import HeaderPolicy

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Header = tuple[str, str]

_CHANGES = frozenset({"header_changes", "hashes", "overrides"})

_encode = msgspec.msgpack.Encoder().encode
_Packed = tuple[
    bool, list[dict[str, Any]] | None, str, list[tuple[str, str | None]], list[str]
]  # fmt: skip
_decode = msgspec.msgpack.Decoder(_Packed).decode


class CachedPages:
    """The hooks of one cache; see :class:`om_plugins.http_cache.cache.PageHooks`."""

    def make_private(self, headers: list[Header]) -> list[Header]:
        """Return the headers with ``Cache-Control: private``; see :func:`.make_private`."""
        return make_private(headers)

    def pack_marks(self, marks: Mapping[str, Any]) -> bytes:
        """Encode the marks of a response for a store."""
        changes = [one.as_data() for one in marks["overrides"]] if "overrides" in marks else None
        headers, hashes = marks.get("header_changes", ()), marks.get("hashes", ())
        return _encode(("plain" in marks, changes, marks.get("route", ""), headers, hashes))

    def unpack_marks(self, data: bytes) -> dict[str, Any]:
        """Decode what :meth:`pack_marks` returned.

        The changes are checked as if a view had made them: whoever can write to the store could
        otherwise plant a change that opens the policy.

        Raises:
            ValueError: the data is damaged or has another format.
        """
        found: dict[str, Any] = {}
        try:
            plain, changes, route, headers, hashes = _decode(data)
            if plain:
                found["plain"] = True
            if changes is not None:
                found["overrides"] = tuple(Override.from_data(one) for one in changes)
            if headers:
                HEADERS.read(dict(headers))
                found["header_changes"] = tuple(headers)
            if hashes:
                found["hashes"] = check_notes(hashes)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise ValueError(str(error)) from None
        if route:
            found["route"] = route
        return found


class HitHeaderPolicy:
    """The headers of hits that skip the layers; see
    :class:`om_plugins.http_cache.fast_path.HitHeaders`.

    Args:
        policy: of the layer that adds headers; it must be :attr:`~.HeaderPolicy.alike`.
    """

    def __init__(self, policy: HeaderPolicy) -> None:
        self._policy = policy
        self.sampler = policy

    def prepare(
        self,
        environ: WSGIEnvironment,
        status: str,
        headers: list[Header],
        marks: Mapping[str, Any],
    ) -> tuple[list[Header], list[tuple[str, tuple[str, ...]]]] | None:
        """Compute what is added to every hit of a page.

        Returns:
            Whole headers, and the name and pieces of those that contain a nonce. ``None`` when they
            depend on the request: the view changed its headers, or a setting changes them for this
            path.
        """
        policy = self._policy
        plain = "plain" in marks
        if (
            not marks.keys().isdisjoint(_CHANGES)
            or (plain and not policy.may_stay_plain)
            or (policy.by_path and policy.paths.changes(environ.get("PATH_INFO", "")))
        ):
            return None
        root = environ.get("SCRIPT_NAME", "")
        return policy.lasting(environ["wsgi.url_scheme"], root, status, headers, plain=plain)
