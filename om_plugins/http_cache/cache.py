"""The shared HTTP cache of one application: its rules, its parts, and what operators ask of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .. import signals
from ..cache.keys import normalize_tags
from ..core.inputs import InputRules
from ..core.moved import with_old_names
from ..core.request_state import state_of
from ..protocols import CacheStore, Clock, Scheduler
from ..signals import Emit
from ..types import HttpCacheStats, StoreStats
from ..workers.invalidation_bus import InvalidationBus
from .keys import AddressKeys, read_query, read_url
from .origin.collapsing import RequestCollapser
from .purges import Purge
from .rfc9111 import StorageOptions, cache_status
from .store import ResponseStore
from .stored_response import MemoryEntry, StoredResponse
from .variants import Looks

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("om_plugins")

Header = tuple[str, str]
Details = Iterable[tuple[str, object]]


class PageHooks(Protocol):
    """What the cache asks of the features that change pages: nonces and policies.

    The cache lies inside the layers that add headers and count requests. A stored response must
    bring along its *marks*: what the application would have written into the request's state for
    those layers (:meth:`om_plugins.core.request_state.RequestState.marks`).
    """

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
    """The hooks of a cache that nothing else stands around."""

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
        cookies: a response that depends on cookies is stored for each of their values; else it is
            stored only for requests without them.
        detail: ``Cache-Status`` says why a response was not stored.
        options: how responses are judged.
        routes: rules for some paths, longest path first; the first that matches counts.
    """

    everything: bool = False
    client_directives: bool = False
    name: str = "OpenManager"
    max_body: int = 2**21
    variants: int = 20
    wait_s: float = 10.0
    cookies: bool = False
    detail: bool = True
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


@dataclass(slots=True)
class CacheContext:
    """What the requests of one cache share.

    Attributes:
        app: the application.
        store: of the responses.
        rules: of the settings.
        hooks: of the features that change pages.
        clock: time.
        keys: builds the keys of addresses.
        collapser: the requests that others may wait for.
        refresh: fetches an address in the background; given its key, a request, its entry, and
            what is looked at there.
        inputs: how the inputs of requests are compared.
        observes: what the code of the application looks at is observed.
    """

    app: WSGIApplication
    store: ResponseStore
    rules: CacheRules
    hooks: PageHooks
    clock: Clock
    keys: AddressKeys
    collapser: RequestCollapser
    refresh: Callable[[str, WSGIEnvironment, MemoryEntry | None, Looks | None], None]
    inputs: InputRules
    observes: bool
    _warned: list[str] = field(default_factory=list)

    def send(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        response: StoredResponse,
        status_header: list[Header],
    ) -> Iterable[bytes]:
        """Send a stored response: whole, a part of it, or 304.

        Args:
            environ, start_response: the request.
            response: what to send.
            status_header: what :meth:`status_header` returned.
        """
        state = state_of(environ)
        if response.marks:
            state.apply(response.marks)
        age = response.verdict.age_s + max(0.0, self.clock.time() - response.received_at)
        status, headers, body = response.answer(environ, state.nonce_for_stored_page)
        headers.append(("Age", str(int(age))))
        headers += status_header
        start_response(status, headers)
        return body

    def status_header(self, details: Details) -> list[Header]:
        """Return the ``Cache-Status`` header; an empty list when the settings want none."""
        if not self.rules.name:
            return []
        return [("Cache-Status", cache_status(self.rules.name, details))]

    def ignores_query(self, environ: WSGIEnvironment) -> bool:
        """Whether a rule takes the query out of the key of a request."""
        if not self.rules.routes:
            return False
        path = str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", ""))
        return self.rules.ignores_query(path)

    def warn_compressed(self, key: str) -> None:
        """Warn once that the application compresses pages that contain nonces."""
        if not self._warned:
            path = key.partition("\n")[0]
            self._warned.append(path)
            logger.warning(
                "%s is not kept by the shared HTTP cache: it has a CSP nonce and the application "
                "compressed it, so hits could not get a new one; compress HTML in the server in "
                "front instead (with Flask-Compress: leave text/html out of COMPRESS_MIMETYPES)",
                path,
            )


class CacheIntent:
    """What the application's framework says about a response before it starts.

    Args:
        collapse: waits for a request that is fetching this very response, if there is one, and
            returns whether its response is for this client, too. The caller's own response is then
            dropped, and the other request's response is sent with the caller's cookies. Otherwise
            the view runs at once.

    Attributes:
        allowed: the response is meant for everybody (``@om.cached(shared=True)``).
        refused: why it is not to be stored; "" when nobody objects.
        tags: what it can be purged by.
        query: whether the query is part of its key.
        control: the ``Cache-Control`` that this package wrote; "" when the view wrote its own.
        streamed: code runs while the body is sent, and may look at inputs then.
    """

    __slots__ = ("allowed", "collapse", "control", "query", "refused", "streamed", "tags")

    def __init__(self, collapse: Callable[[], bool]) -> None:
        self.collapse = collapse
        self.allowed = False
        self.refused = ""
        self.tags: tuple[str, ...] = ()
        self.query = True
        self.control = ""
        self.streamed = False

    def allow(
        self,
        tags: tuple[str, ...] = (),
        *,
        query: bool = True,
        control: str = "",
        streamed: bool = False,
    ) -> None:
        """Say that the response is meant for everybody."""
        self.allowed = True
        self.tags = tags
        self.query = query
        self.control = control
        self.streamed = streamed

    def refuse(self, reason: str) -> None:
        """Say that the response is meant for this client only. The first reason counts."""
        self.refused = self.refused or reason


@with_old_names
class HttpCache:
    """Responses that are the same for everybody, stored in front of the application.

    Args:
        store: of the responses.
        clock: time.
        emit: sends signals; ``None`` sends none.
    """

    def __init__(
        self,
        store: ResponseStore,
        clock: Clock,
        emit: Emit | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._emit = emit

    def purge(
        self,
        url: str = "",
        *,
        prefix: str | None = None,
        tags: Iterable[str] = (),
        soft: bool = False,
    ) -> int:
        """Purge responses in all workers.

        Args:
            url: ``/report`` on any host or ``https://example.com/report``: with all its queries,
                or with ``?a=1`` that query only.
            prefix: the beginning of a path or of a whole URL; ``"/"`` is everything.
            tags: purge the responses that have any of these tags.
            soft: make them stale instead: they are still served where the response allows it,
                while a new one is fetched.

        Returns:
            How many responses this process had in memory.

        Raises:
            ValueError: nothing was named, or it is neither a path nor a URL.
        """
        named = normalize_tags(tags)
        if not url and prefix is None and not named:
            raise ValueError('say what to purge: a url, a prefix ("/" for everything) or tags')
        for text in (url, prefix or ""):
            if text and not text.startswith(("/", "http://", "https://")):
                raise ValueError(f"{text!r} is neither a path such as '/report' nor a whole URL")
        count = self._store.purge(Purge(url=url, prefix=prefix, tags=named, soft=soft))
        if self._emit is not None and signals.cache_invalidated.receivers:
            about = url or prefix or ""
            self._emit(signals.cache_invalidated, prefix=about, tags=named, count=count)
        return count

    def stats(self) -> HttpCacheStats:
        """Return the counters of this process, exact."""
        return self._store.stats()

    def store_stats(self) -> StoreStats | None:
        """Return what this process asked of the shared store for pages; ``None`` without one."""
        return self._store.store_stats()

    def refusals(self) -> dict[str, int]:
        """Return how many responses were not stored, by reason, exact."""
        with self._store.lock:
            return dict(self._store.refused)

    def entries(self) -> list[dict[str, Any]]:
        """Return what this process's memory holds: URL, status, age, freshness, size and tags."""
        now = self._clock.monotonic()
        found = []
        for entry, response in self._store.responses():
            key = str(entry.ident)
            origin, path = read_url(key)
            query = read_query(key)
            found.append(
                {
                    "url": origin + path + (f"?{query}" if query else ""),
                    "status": response.code,
                    "age_s": now - entry.stored,
                    "fresh": now < entry.expires,
                    "size_bytes": response.size,
                    "tags": list(response.tags),
                }
            )
        return found


class HttpCachePart:
    """The parts of one application's shared HTTP cache. It opens and starts nothing.

    Args:
        rules: of the settings.
        l1_bytes: bound on the memory of this process.
        clock, scheduler: time and background jobs.
        bus: carries purges, and the invalidations of data that pages follow.
        store: what workers share; ``None`` keeps everything in this process.
        trusted_hosts: host names to answer for; ``None`` for all.
        hooks: of the features that change pages.
        emit: sends signals.
        inputs: how the inputs of requests are compared.
        observes: what the code of the application looks at is observed.

    Attributes:
        wanted: whether the layer is composed: ``OM_HTTP_CACHE`` is on, or a view is shared.
        store: of the responses.
        cache: what users and operators call.
    """

    def __init__(
        self,
        rules: CacheRules,
        *,
        l1_bytes: int,
        clock: Clock,
        scheduler: Scheduler,
        bus: InvalidationBus,
        store: CacheStore | None = None,
        trusted_hosts: Sequence[str] | None = None,
        hooks: PageHooks | None = None,
        emit: Emit | None = None,
        inputs: InputRules | None = None,
        observes: bool = False,
    ) -> None:
        self.inputs = inputs = inputs or InputRules()
        self.observes = observes
        self.wanted = rules.everything
        self.rules = rules
        self.clock = clock
        self.scheduler = scheduler
        self.trusted_hosts = trusted_hosts
        self.hooks = hooks = hooks or NoPageHooks()
        self.store = ResponseStore(
            l1_bytes=l1_bytes,
            max_body=rules.max_body,
            clock=clock,
            scheduler=scheduler,
            bus=bus,
            store=store,
            pack_marks=hooks.pack_marks,
            read_marks=hooks.unpack_marks,
            follows_data=lambda: self.wanted,
            inputs=inputs,
        )
        self.cache = HttpCache(self.store, clock, emit)
