"""The shared HTTP cache of one application: its parts, and what operators ask of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .. import signals
from ..cache.keys import normalize_tags
from ..protocols import CacheStore, Clock, Scheduler
from ..signals import Emit
from ..types import HttpCacheStats, StoreStats
from ..workers.invalidation_bus import InvalidationBus
from .context import CacheRules, NoPageHooks, PageHooks
from .keys import origin_and_path, query_of
from .store import ResponseStore
from .store__purges import Purge

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from .layer import HttpCacheLayer

__all__ = ["HttpCache", "HttpCachePart"]


class HttpCache:
    """Responses that are the same for everybody, stored in front of the application.

    Args:
        store: of the responses.
        clock: time.
        emit: sends signals; ``None`` sends none.
    """

    def __init__(self, store: ResponseStore, clock: Clock, emit: Emit | None = None) -> None:
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
            origin, path = origin_and_path(key)
            query = query_of(key)
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
    ) -> None:
        self.wanted = rules.everything
        self._rules = rules
        self._clock = clock
        self._scheduler = scheduler
        self._trusted_hosts = trusted_hosts
        self._hooks = hooks = hooks or NoPageHooks()
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
        )
        self.cache = HttpCache(self.store, clock, emit)

    def layer(self, app: WSGIApplication) -> HttpCacheLayer:
        """Build the layer around ``app``."""
        from .layer import HttpCacheLayer

        return HttpCacheLayer(
            app,
            self.store,
            self._rules,
            clock=self._clock,
            scheduler=self._scheduler,
            trusted_hosts=self._trusted_hosts,
            hooks=self._hooks,
        )
