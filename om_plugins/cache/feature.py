"""The smart cache: stale-while-revalidate for any data, one fetch for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..plugins.feature import Feature
from ..settings.kinds import BOOL, integer, number
from ..settings.table import Table, key

if TYPE_CHECKING:
    from ..plugins.kit import Kit
    from .cache import SmartCache


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKeys(Table):
    PREFIX: ClassVar[str] = "OM_"

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


class CacheFeature(Feature["SmartCache", CacheKeys]):
    """``om.cache``, ``@om.cached``, ``@om.memoize``; ``OM_CACHE_…``."""

    name = "cache"
    keys = CacheKeys

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
            )
        )

    def close(self, kit: Kit, part: SmartCache) -> None:
        part.internals.close()
