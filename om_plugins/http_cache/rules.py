"""The rules of one cache, as the settings give them, and what it asks of other features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .rfc9111 import StorageOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


__all__ = ["CacheRules", "NoPageHooks", "PageHooks", "RouteRule"]

Header = tuple[str, str]


class PageHooks(Protocol):
    """What the cache asks of the features that change pages: nonces, policies, routes.

    The cache lies inside the layers that add headers and count requests. A stored response must
    bring along its *marks*: what the application would have put into the environ for those layers.
    """

    def used_nonce(self, environ: WSGIEnvironment) -> str | None:
        """Return the CSP nonce that the page used; ``None`` when it asked for none."""

    def fresh_nonce(self, environ: WSGIEnvironment) -> str:
        """Return the nonce of a response that the cache puts nonces into; make it if needed."""

    def read_marks(self, environ: WSGIEnvironment) -> dict[str, Any]:
        """Return the marks that a response put into the environ of its request."""

    def fits(self, environ: WSGIEnvironment, marks: dict[str, Any]) -> bool:
        """Whether a response with these marks may answer this request."""

    def refresh_environ(self, environ: WSGIEnvironment) -> dict[str, Any]:
        """Return what the request of a refresh takes over from this request."""

    def make_private(self, headers: list[Header]) -> list[Header]:
        """Return the headers of a page with a nonce so that no cache downstream may store it."""

    def pack_marks(self, marks: Mapping[str, Any]) -> bytes:
        """Encode marks for a store."""

    def unpack_marks(self, data: bytes) -> dict[str, Any]:
        """Decode marks.

        Raises:
            ValueError: the data is damaged.
        """


class NoPageHooks:
    """The hooks of a cache whose pages have neither nonces nor marks."""

    def used_nonce(self, environ: WSGIEnvironment) -> str | None:
        return None

    def fresh_nonce(self, environ: WSGIEnvironment) -> str:
        return ""

    def read_marks(self, environ: WSGIEnvironment) -> dict[str, Any]:
        return {}

    def fits(self, environ: WSGIEnvironment, marks: dict[str, Any]) -> bool:
        return True

    def refresh_environ(self, environ: WSGIEnvironment) -> dict[str, Any]:
        return {}

    def make_private(self, headers: list[Header]) -> list[Header]:
        return list(headers)

    def pack_marks(self, marks: Mapping[str, Any]) -> bytes:
        return b""

    def unpack_marks(self, data: bytes) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, slots=True)
class RouteRule:
    """What is different for some paths.

    Attributes:
        path: a path, or with ``*`` at its end the beginning of paths.
        store: whether responses are stored at all.
        query: whether the query is part of the key.
        options: how responses are judged.
    """

    path: str
    store: bool = True
    query: bool = True
    options: StorageOptions = field(default_factory=StorageOptions)

    def matches(self, path: str) -> bool:
        """Whether the rule applies to this path."""
        if self.path.endswith("*"):
            return path.startswith(self.path[:-1])
        return path == self.path


@dataclass(frozen=True, slots=True)
class CacheRules:
    """The rules of one cache.

    Attributes:
        everything: store every response that its headers allow to store; else only responses of
            views that are marked as shared.
        client_directives: obey ``no-cache``, ``max-age`` and the like of requests.
        name: of this cache in ``Cache-Status``; "" sends no such header.
        max_body: a larger body is not stored, in bytes.
        variants: bound on the responses at one address.
        wait_s: how long a request waits for another's response.
        options: how responses are judged.
        routes: rules for some paths, longest path first; the first that matches counts.
    """

    everything: bool = False
    client_directives: bool = False
    name: str = "OpenManager"
    max_body: int = 2**21
    variants: int = 20
    wait_s: float = 10.0
    options: StorageOptions = field(default_factory=StorageOptions)
    routes: tuple[RouteRule, ...] = ()

    def __post_init__(self) -> None:
        longest_first = sorted(self.routes, key=lambda rule: -len(rule.path))
        object.__setattr__(self, "routes", tuple(longest_first))

    def ignores_query(self, path: str) -> bool:
        """Whether a rule takes the query out of the keys of this path."""
        return any(not rule.query and rule.matches(path) for rule in self.routes)

    def options_for(self, key: str) -> StorageOptions:
        """Return how responses at an address are judged."""
        rule = self._find_rule(key)
        return self.options if rule is None else rule.options

    def may_store(self, key: str) -> bool:
        """Whether responses at an address may be stored at all."""
        rule = self._find_rule(key)
        return rule is None or rule.store

    def _find_rule(self, key: str) -> RouteRule | None:
        if not self.routes:
            return None
        path = key.partition("\n")[0]
        path = path[path.find("/", 8) :]
        return next((rule for rule in self.routes if rule.matches(path)), None)
