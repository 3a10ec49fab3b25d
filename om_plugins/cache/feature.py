"""The smart cache: stale-while-revalidate for any data, one fetch for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..plugins.feature import Feature
from ..plugins.kit import Metric
from ..settings.kinds import BOOL, FUNCTIONS, VARIABLES, integer, number
from ..settings.table import Table, key

if TYPE_CHECKING:
    from ..core.inputs import InputRules
    from ..plugins.kit import Kit
    from ..types import CacheStats, HttpCacheStats, StoreStats
    from .cache import SmartCache


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKeys(Table):
    """The settings of the smart cache."""

    PREFIX: ClassVar[str] = "OM_"
    SHORTER: ClassVar[Mapping[str, str]] = {"cache_stale_time": "cache_time"}

    cache_stale_time: float = key(
        300.0, number(0, 31_536_000, "seconds"), "how long a value is fresh", "Cache"
    )
    cache_time: float = key(
        1800.0, number(0, 31_536_000, "seconds"), "how long a value is kept at all", "Cache"
    )
    cache_jitter: float = key(
        0.1,
        number(0, 0.9),
        "both times of a value are shortened by a random share of up to this, so that what was "
        "stored together does not end together; none under `TESTING`",
        "Cache",
    )
    cache_l1_bytes: int = key(
        64 * 2**20, integer(0, 2**40, "bytes"), "memory for cached values in a process", "Cache"
    )
    cache_pickle: bool = key(
        False,
        BOOL,
        "keep values of any type: what nothing else can write is pickled, and signed with "
        "`OM_SECRET_KEY` (or Flask's `SECRET_KEY`) in a store that others share",
        "Cache",
    )
    cache_max_value: int = key(
        4 * 2**20, integer(1, 2**31, "bytes"), "largest value that is cached", "Cache"
    )
    cache_variants: int = key(
        1000,
        integer(1, 1_000_000),
        "responses of a view with `@om.cached` at one address, by what the view looked at; the "
        "oldest go",
        "Cache",
    )
    cache_identities: tuple[str, ...] = key(
        (),
        VARIABLES,
        "further variables of the WSGI environ that say who the client is, such as "
        "`HTTP_X_FORWARDED_USER`: each client then has pages of its own in every cache",
        "Cache",
    )
    cache_readers: tuple[str, ...] = key(
        (),
        FUNCTIONS,
        "functions that look at a request and keep it to themselves, such as "
        "`shop.hooks:log_request`: no response depends on what they look at",
        "Cache",
    )


class CacheFeature(Feature["SmartCache", CacheKeys]):
    """``om.cache``, ``@om.cached``, ``@om.memoize``; ``OM_CACHE_…``."""

    name = "cache"
    keys = CacheKeys

    def is_needed(self, kit: Kit, keys: CacheKeys) -> bool:
        return False

    def build(self, kit: Kit, keys: CacheKeys) -> SmartCache:
        from .cache import CacheOptions, SmartCache
        from .subscriptions import BrowserAnnouncer
        from .values import PickleEncoder

        given = kit.host.secret_key
        notifications = kit.part_of("notifications")

        def shrink_pages() -> int:
            shrunk: int = kit.part_of("http_cache").store.shrink()
            return shrunk

        return SmartCache(
            CacheOptions(
                stale_time=keys.cache_stale_time,
                cache_time=keys.cache_time,
                l1_bytes=keys.cache_l1_bytes,
                max_value=keys.cache_max_value,
                clock=kit.clock,
                scheduler=kit.scheduler,
                hub=kit.hub,
                store=kit.store,
                emit=kit.emit,
                context=kit.host.work_context,
                jitter=0.0 if kit.host.testing else keys.cache_jitter,
                refreshes=max(1, kit.keys.workers - 1),
                queue=kit.keys.worker_queue,
                pickles=PickleEncoder(lambda: kit.keys.secret_key or given())
                if keys.cache_pickle
                else None,
                announcer=BrowserAnnouncer(
                    notifications.changed_keys.publish, notifications.check_address
                ),
                shrink_also=shrink_pages,
                inputs=build_input_rules(kit.secret, keys),
                observe=kit.host.observe_fetch,
            )
        )

    def metrics(self, kit: Kit, part: SmartCache) -> Iterable[Metric]:
        stats = part.stats()
        yield from cache_metrics("om_cache", stats, _LOOKUPS)
        about = "Callbacks that get changes"
        yield Metric("om_cache_subscriptions", about, stats.subscriptions, kind="gauge")
        for name, one in part.groups().items():
            yield from cache_metrics("om_cache_group", one, _LOOKUPS, {"group": name[:200]})
        yield from store_metrics(part.store_stats())

    def close(self, kit: Kit, part: SmartCache) -> None:
        part.internals.close()


def build_input_rules(secret: Callable[[], bytes], keys: CacheKeys) -> InputRules:
    """Build the rules by which the inputs of requests are compared."""
    from ..core.inputs import IDENTITIES, InputRules, KnownReader

    reason = "`OM_CACHE_READERS` names it"
    readers = [name.partition(":") for name in keys.cache_readers]
    return InputRules(
        secret,
        IDENTITIES.union(keys.cache_identities),
        {(module, function): KnownReader(reason) for module, _, function in readers},
        keys.cache_variants,
    )


_LOOKUPS = {
    "fresh": "fresh",
    "stale": "stale",
    "negative": "negative",
    "coalesced": "coalesced",
    "misses": "miss",
}
_COUNTERS = {
    # a field of the counters: the rest of the metric's name, its help, its unit
    "fetches": ("fetches", "Fetchers run in the foreground", 1),
    "refreshes": ("refreshes", "Refreshes in the background that succeeded", 1),
    "failures": ("failures", "Fetches and refreshes that failed", 1),
    "evictions": ("evictions", "Entries pushed out by the bound of memory", 1),
    "dropped": ("dropped_refreshes", "Refreshes that found no room in the queue", 1),
    "stored": ("stored", "Responses kept", 1),
    "bytes_saved": ("saved_bytes", "Bytes of all hits", 1),
    "saved_us": ("saved_seconds", "What it would have taken to make the hits again", 1e-6),
    "fetch_s_saved": ("saved_seconds", "What it would have taken to make the hits again", 1),
}
_OF_STORE = {
    "hits": "Reads of the shared store that found an entry",
    "misses": "Reads of the shared store that found none",
    "writes": "Entries written to the shared store",
    "deletes": "Entries deleted from the shared store",
    "failures": "Times that the shared store failed",
    "read_bytes": "Bytes read from the shared store",
    "written_bytes": "Bytes written to the shared store",
}


def cache_metrics(
    prefix: str,
    stats: CacheStats | HttpCacheStats,
    lookups: Mapping[str, str],
    labels: Mapping[str, str] | None = None,
) -> Iterator[Metric]:
    """The metrics of a cache. Counters that are zero are left out.

    Args:
        prefix: begins their names.
        stats: the counters of the cache.
        lookups: fields of the counters, with the kind of look-up that each one counts.
        labels: of every metric.
    """
    for field, kind in lookups.items():
        if value := getattr(stats, field):
            about = "Look-ups by how they were answered"
            yield Metric(f"{prefix}_lookups", about, value, {**(labels or {}), "kind": kind})
    for field, (name, about, unit) in _COUNTERS.items():
        if field not in lookups and (value := getattr(stats, field, 0)):
            yield Metric(f"{prefix}_{name}", about, value * unit, labels)
    yield Metric(f"{prefix}_entries", "Entries in memory", stats.entries, labels, "gauge")
    yield Metric(f"{prefix}_size_bytes", "Their size in bytes", stats.size_bytes, labels, "gauge")


def store_metrics(stats: StoreStats | None) -> Iterator[Metric]:
    """The metrics of the store that a cache shares with other workers, if there is one.

    Counters that are zero are left out.
    """
    for field, about in _OF_STORE.items() if stats is not None else ():
        if value := getattr(stats, field):
            yield Metric(f"om_cache_store_{field}", about, value)
