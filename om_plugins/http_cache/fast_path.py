"""The fast path of a hit: past the layers around the shared HTTP cache.

What those layers add to a hit follows from the page and its address. It is worked out once per
page. A hit then gets its nonce, is counted and leaves. Everything else goes through all layers:
other methods, requests with headers that a cache or a policy must look at, pages whose view changed
its own headers, and the share of pages that ask browsers for reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..core.request_state import KEY, StateLayer, begin, take_nonce
from .layer import HttpCacheLayer
from .stored_response import StoredResponse

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Header = tuple[str, str]
NoncedHeader = tuple[str, tuple[str, ...]]
"""The name of a header, and its value split where a nonce belongs."""


class ReportSampler(Protocol):
    """Chooses the responses that ask browsers for reports."""

    def draw(self) -> bool:
        """Decide by chance whether a response asks for reports."""

    def can_ask(self, environ: WSGIEnvironment) -> bool:
        """Return whether the browser could report on the response of this request."""


class HitHeaders(Protocol):
    """What the fast path asks of the layer that adds headers."""

    @property
    def sampler(self) -> ReportSampler:
        """What chooses the responses that ask for reports; asked directly, to save a call a hit."""

    def prepare(
        self,
        environ: WSGIEnvironment,
        status: str,
        headers: list[Header],
        marks: Mapping[str, Any],
    ) -> tuple[list[Header], list[NoncedHeader]] | None:
        """Work out what is added to every hit of a page.

        Returns:
            Whole headers, and those with a nonce; ``None`` when that depends on the request.
        """


@runtime_checkable
class HitCounter(Protocol):
    """What the fast path asks of the layer that counts requests."""

    def wrap_body(self, body: bytes, route: str | None, started: float) -> Iterable[bytes]:
        """Return a body that counts its request until it is closed."""

    def find_route(self, environ: WSGIEnvironment, route: str | None) -> str | None:
        """Return the route that a request is counted under, when the app named it ``route``."""


@dataclass(frozen=True, slots=True)
class _PreparedHit:
    """How the hits of one page are answered.

    Attributes:
        root: valid for requests with this ``SCRIPT_NAME`` only.
        headers: all headers but those about the hit itself; ``None`` sends hits through all layers.
        nonced: index, name and pieces of the headers that contain a nonce.
        route: what the page is counted under.
    """

    root: str
    headers: list[Header] | None = None
    nonced: tuple[tuple[int, str, tuple[str, ...]], ...] = ()
    route: str | None = None


class FastPath(StateLayer):
    """WSGI middleware: answers hits itself, and leaves the rest to ``layers``.

    It is the outermost layer that makes the request's state, but only for requests that it leaves
    to ``layers``: a hit needs none.

    Args:
        layers: the composed layers, of which ``cache`` is one.
        cache: the layer of the shared HTTP cache.
        headers: of the layer that adds headers.
        counter: of the layer that counts requests, if there is one.
    """

    def __init__(
        self,
        layers: WSGIApplication,
        cache: HttpCacheLayer,
        headers: HitHeaders,
        counter: HitCounter | None,
    ) -> None:
        self._layers = layers
        self._cache = cache
        self._headers = headers
        self._sampler = headers.sampler
        self._counter = counter
        self.owner = self
        self.inside = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        found = self._cache.find_fresh(environ)
        if found is None:
            begin(environ, self.owner)
            return self._layers(environ, start_response)
        entry, response, now = found
        root = environ.get("SCRIPT_NAME", "")
        hit: _PreparedHit | None = response.prepared
        if hit is None or hit.root != root:
            hit = response.prepared = self._prepare(environ, root, response)
        # in a request that is nested in another one, the nonces of both must agree
        if hit.headers is None or KEY in environ:
            begin(environ, self.owner)
            return self._layers(environ, start_response)
        if self._sampler.draw() and self._sampler.can_ask(environ):
            begin(environ, self.owner).asks_for_reports = True
            return self._layers(environ, start_response)
        headers = hit.headers.copy()
        body = response.body
        if hit.nonced or response.pieces is not None:
            nonce = take_nonce()
            for index, name, pieces in hit.nonced:
                headers[index] = (name, nonce.join(pieces))
            if response.pieces is not None:
                body = nonce.encode("ascii").join(response.pieces)
        headers += self._cache.count_hit(entry, response, now)
        start_response("200 OK", headers)
        return [body] if self._counter is None else self._counter.wrap_body(body, hit.route, now)

    def _prepare(
        self, environ: WSGIEnvironment, root: str, response: StoredResponse
    ) -> _PreparedHit:
        if response.status != "200 OK":
            return _PreparedHit(root)
        headers, nonced = response.header_template()
        found = self._headers.prepare(environ, response.status, headers, response.marks)
        if found is None:
            return _PreparedHit(root)
        added, waiting = found
        headers = [*headers, *added]
        at = len(headers)
        headers += [(name, "") for name, _ in waiting]
        counter, route = self._counter, response.marks.get("route")
        return _PreparedHit(
            root,
            headers,
            (*nonced, *((at + i, name, pieces) for i, (name, pieces) in enumerate(waiting))),
            None if counter is None else counter.find_route(environ, route),
        )
