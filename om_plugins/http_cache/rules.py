"""What the settings say of the shared HTTP cache, and what it asks of the rest of the house."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .rfc9111 import StorageOptions
from .stored_response import Outgoing

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["CacheRules", "PageHooks", "RouteRule"]


@dataclass(frozen=True, slots=True)
class PageHooks:
    """What the layer asks of the rest of the house, about one request's environ.

    Attributes:
        used_nonce: the CSP nonce that the page used, if it asked for one.
        fresh_nonce: the nonce of a response that the cache puts nonces into, made when there is
            none yet.
        marks: what else the environ of a request must have when it gets this response.
        fits: whether a response with these marks may answer this request.
        carried: what the request of a refresh takes over.
        outgoing: makes the headers of a page with a nonce fit for caches further out.
    """

    used_nonce: Callable[[WSGIEnvironment], str | None] = lambda environ: None
    fresh_nonce: Callable[[WSGIEnvironment], str] = lambda environ: ""
    marks: Callable[[WSGIEnvironment], dict[str, Any]] = lambda environ: {}
    fits: Callable[[WSGIEnvironment, dict[str, Any]], bool] = lambda environ, marks: True
    carried: Callable[[WSGIEnvironment], dict[str, Any]] = lambda environ: {}
    outgoing: Outgoing = list


@dataclass(frozen=True, slots=True)
class RouteRule:
    """What is different for some paths.

    Attributes:
        path: a path, or with ``*`` at its end the beginning of paths.
        store: whether responses are stored at all.
        query: whether the query is part of the key.
        options: how they are judged.
    """

    path: str
    store: bool = True
    query: bool = True
    options: StorageOptions = field(default_factory=StorageOptions)

    def matches(self, path: str) -> bool:
        """Whether it is about this path."""
        if self.path.endswith("*"):
            return path.startswith(self.path[:-1])
        return path == self.path


@dataclass(frozen=True, slots=True)
class CacheRules:
    """What the settings say.

    Attributes:
        everything: store what says that it may be stored; else only what a view marked as shared.
        client_directives: obey ``no-cache``, ``max-age`` and the like of requests.
        name: of this cache in ``Cache-Status``; "" sends none.
        max_body: a larger body is not stored, in bytes.
        variants: responses at one address, at most.
        wait_s: how long a request waits for another's trip.
        options: how responses are judged.
        routes: for some paths; the longest that matches counts.
    """

    everything: bool = False
    client_directives: bool = False
    name: str = "OpenManager"
    max_body: int = 2**21
    variants: int = 20
    wait_s: float = 10.0
    options: StorageOptions = field(default_factory=StorageOptions)
    routes: tuple[RouteRule, ...] = ()
