"""The short way of a page that the shared HTTP cache holds: past the layers around the cache.

What they add to a hit follows from the page and its address. It is worked out once for each page;
a hit then has its nonce put in, is counted, and leaves. Whatever is not like that goes through all
layers: other methods, requests with headers that a cache or a policy must look at, pages whose view
changed something about its headers, and the share of pages that ask browsers for reports.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..csp.hashes import HASHES
from ..csp.nonce import ASKS, NONCE, PLAIN, SENT
from ..csp.override import OVERRIDE
from ..headers.companions import CHANGED
from ..headers.layer import HeaderPolicy
from ..monitoring.layer import ObserveLayer
from .layer import HttpCacheLayer
from .stored_response import StoredResponse

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["FastPath"]

_CHANGES = frozenset({CHANGED, HASHES, OVERRIDE})
_MARKS = _CHANGES | {ASKS, NONCE, PLAIN, SENT}
"""In the environ when a layer further out has something to do with this response's policy."""


@dataclass(frozen=True, slots=True)
class _PreparedHit:
    """How the hits of one page are answered.

    Attributes:
        root: for requests with this ``SCRIPT_NAME`` only.
        headers: all fields but those that tell of the hit; ``None``: all layers must be asked.
        nonced: index, name and pieces of those with a nonce.
        route: what the page is counted under.
    """

    root: str
    headers: list[tuple[str, str]] | None = None
    nonced: tuple[tuple[int, str, tuple[str, ...]], ...] = ()
    route: str | None = None


class FastPath:
    """WSGI middleware: answers hits itself, and leaves the rest to ``layers``.

    Args:
        layers: the composed layers, of which ``pages`` is one.
        pages: the cache.
        policy: of the layer that adds headers; :attr:`~.security.headers.HeaderPolicy.alike`.
        observe: counts requests, if anybody does.
    """

    def __init__(
        self,
        layers: WSGIApplication,
        pages: HttpCacheLayer,
        policy: HeaderPolicy,
        observe: ObserveLayer | None,
    ) -> None:
        self._layers = layers
        self._pages = pages
        self._policy = policy
        self._observe = observe
        self._take = policy.nonces.take

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        found = self._pages.fresh(environ)
        if found is None:
            return self._layers(environ, start_response)
        held, kept, now = found
        root = environ.get("SCRIPT_NAME", "")
        plan: _PreparedHit | None = kept.plan
        if plan is None or plan.root != root:
            plan = kept.plan = self._planned(environ, root, kept)
        if plan.headers is None or not environ.keys().isdisjoint(_MARKS):
            return self._layers(environ, start_response)
        if self._policy.draw():
            environ[ASKS] = True
            return self._layers(environ, start_response)
        headers = plan.headers.copy()
        body = kept.body
        if plan.nonced or kept.pieces is not None:
            nonce = self._take()
            for index, name, pieces in plan.nonced:
                headers[index] = (name, nonce.join(pieces))
            if kept.pieces is not None:
                body = nonce.encode("ascii").join(kept.pieces)
        headers += self._pages.said_of(held, kept, now)
        start_response("200 OK", headers)
        return [body] if self._observe is None else self._observe.whole(body, plan.route, now)

    def _planned(self, environ: WSGIEnvironment, root: str, kept: StoredResponse) -> _PreparedHit:
        policy = self._policy
        plain = PLAIN in kept.marks
        if (
            kept.status != "200 OK"
            or not kept.marks.keys().isdisjoint(_CHANGES)
            or (plain and not policy.may_stay_plain)
            or (policy.by_path and policy.paths.changes(environ.get("PATH_INFO", "")))
        ):
            return _PreparedHit(root)
        headers, nonced = kept.outline()
        added, waiting = policy.lasting(
            environ["wsgi.url_scheme"], root, kept.status, headers, plain=plain
        )
        headers = [*headers, *added]
        at = len(headers)
        headers += [(name, "") for name, _ in waiting]
        return _PreparedHit(
            root,
            headers,
            (*nonced, *((at + i, name, pieces) for i, (name, pieces) in enumerate(waiting))),
            None if self._observe is None else self._observe.named({**environ, **kept.marks}),
        )
