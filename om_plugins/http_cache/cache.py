"""The shared HTTP cache of one application: its store, its layer, and what operators ask of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import signals
from ..cache.keys import normalize_tags
from ..errors import ConfigError
from ..protocols import CacheStore, Clock, Hub, Scheduler
from ..signals import Emit
from ..types import HttpCacheStats, StoreStats
from .keys import origin_and_path, query_of
from .layer import HttpCacheLayer
from .rfc9111 import StorageOptions
from .rules import CacheRules, PageHooks, RouteRule
from .store import ResponseStore
from .store__purges import Purge
from .stored_response import PackMarks, ReadMarks, StoredResponse

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..settings.settings import Settings

__all__ = ["HttpCache"]


class HttpCache:
    """Responses that are the same for everybody, kept in front of the application.

    Nothing is opened or started here.

    Args:
        rules: what the settings say.
        l1_bytes: bound on the memory of this process.
        clock, scheduler: time and background jobs.
        hub: carries purges to other workers.
        store: what workers share; ``None`` keeps everything in this process.
        trusted_hosts: host names to answer for; ``None`` for all.
        hooks: about nonces, and what else a request must have.
        pack_marks, read_marks: how these are written for the store.
        emit: how signals are sent.

    Attributes:
        wanted: whether the layer is to be composed: ``OM_HTTP_CACHE`` is on, or a view is shared.
    """

    def __init__(
        self,
        rules: CacheRules,
        *,
        l1_bytes: int,
        clock: Clock,
        scheduler: Scheduler,
        hub: Hub | None = None,
        store: CacheStore | None = None,
        trusted_hosts: Sequence[str] | None = None,
        hooks: PageHooks | None = None,
        pack_marks: PackMarks = lambda marks: b"",
        read_marks: ReadMarks = lambda data: {},
        emit: Emit | None = None,
    ) -> None:
        self.rules = rules
        self.wanted = rules.everything
        self._clock = clock
        self._scheduler = scheduler
        self._trusted_hosts = trusted_hosts
        self._hooks = hooks
        self._emit = emit
        self.store = ResponseStore(
            l1_bytes=l1_bytes,
            max_body=rules.max_body,
            clock=clock,
            scheduler=scheduler,
            hub=hub,
            store=store,
            pack_marks=pack_marks,
            read_marks=read_marks,
        )

    def layer(self, app: WSGIApplication) -> HttpCacheLayer:
        """The layer around ``app``."""
        return HttpCacheLayer(
            app,
            self.store,
            self.rules,
            clock=self._clock,
            scheduler=self._scheduler,
            trusted_hosts=self._trusted_hosts,
            hooks=self._hooks,
        )

    def purge(
        self,
        url: str = "",
        *,
        prefix: str | None = None,
        tags: Iterable[str] = (),
        soft: bool = False,
    ) -> int:
        """Take responses back, in all workers.

        Args:
            url: ``/report`` on any host or ``https://example.com/report``: with all its queries,
                or with ``?a=1`` that one only.
            prefix: the beginning of a path or of a whole URL; ``"/"`` is everything.
            tags: those that have any of these tags.
            soft: they become stale instead: still served where the response allows it, while a
                new one is fetched.

        Returns:
            How many this process had in memory.

        Raises:
            ValueError: nothing was named, or it is neither a path nor a URL.
        """
        named = normalize_tags(tags)
        if not url and prefix is None and not named:
            raise ValueError('say what to purge: a url, a prefix ("/" for everything) or tags')
        for text in (url, prefix or ""):
            if text and not text.startswith(("/", "http://", "https://")):
                raise ValueError(f"{text!r} is neither a path such as '/report' nor a whole URL")
        count = self.store.purge(Purge(url=url, prefix=prefix, tags=named, soft=soft))
        if self._emit is not None and signals.cache_invalidated.receivers:
            about = url or prefix or ""
            self._emit(signals.cache_invalidated, prefix=about, tags=named, count=count)
        return count

    def follow(self, sender: object, *, prefix: object, tags: tuple[str, ...], **_: object) -> None:
        """A receiver of ``cache_invalidated``: pages with these tags become stale, too.

        Args:
            prefix: ``("view", "/path")`` is a page, ``None`` without tags is everything.
        """
        if not self.wanted or isinstance(prefix, str):
            return
        url, everything = "", None
        if isinstance(prefix, tuple) and prefix[:1] == ("view",):
            url = str(prefix[1]) if len(prefix) > 1 else ""
            everything = None if url else "/"
        elif prefix is None and not tags:
            everything = "/"
        if url or everything or tags:
            self.store.purge(Purge(url=url, prefix=everything, tags=tags, soft=True), later=True)

    def stats(self) -> HttpCacheStats:
        """The counters of this process, exact."""
        return self.store.stats()

    def store_stats(self) -> StoreStats | None:
        """What this process asked of the shared store for pages; ``None`` when there is none."""
        return self.store.store_stats()

    def refusals(self) -> dict[str, int]:
        """How many responses were not stored, by reason, exact."""
        with self.store.lock:
            return dict(self.store.refused)

    def entries(self) -> list[dict[str, Any]]:
        """What this process's memory holds: URL, status, age, size, tags."""
        now = self._clock.monotonic()
        found = []
        for ident, held in self.store.urls():
            kept = held.kept
            if isinstance(kept, StoredResponse):
                origin, path = origin_and_path(ident)
                query = query_of(ident)
                found.append(
                    {
                        "url": origin + path + (f"?{query}" if query else ""),
                        "status": kept.code,
                        "age_s": now - held.stored,
                        "fresh": now < held.expires,
                        "size_bytes": kept.size,
                        "tags": list(kept.tags),
                    }
                )
        return found

    def close(self) -> None:
        """Stop the background job of this process."""
        self.store.close()


def rules_from(settings: Settings) -> CacheRules:
    """The rules that the ``OM_HTTP_CACHE_…`` keys ask for."""
    options = StorageOptions(
        heuristic=settings.http_cache_heuristic,
        cookies=settings.http_cache_compliance,
        targets=tuple(name.lower() for name in settings.http_cache_targets),
        longest_s=settings.http_cache_max_age,
        stale_if_error_s=settings.http_cache_stale_if_error,
    )
    return CacheRules(
        everything=settings.http_cache,
        client_directives=settings.http_cache_client_directives,
        name=settings.http_cache_status,
        max_body=settings.http_cache_max_body,
        variants=settings.http_cache_variants,
        wait_s=settings.http_cache_wait,
        options=options,
        routes=tuple(_rules_of(settings.http_cache_routes, options)),
    )


def _rules_of(routes: Mapping[str, Any], options: StorageOptions) -> Iterable[RouteRule]:
    for path, route in routes.items():
        if not path.startswith("/") or "*" in path[:-1]:
            raise ConfigError(
                "OM_HTTP_CACHE_ROUTES",
                path,
                "must be a path that begins with '/', with '*' only at its end, as '/news/*'",
            )
        changes = {
            name: value
            for name, value in (
                ("default_s", route.max_age),
                ("stale_while_revalidate_s", route.stale_while_revalidate),
                ("stale_if_error_s", route.stale_if_error),
            )
            if value is not None
        }
        yield RouteRule(path, route.store, route.query, replace(options, **changes))
