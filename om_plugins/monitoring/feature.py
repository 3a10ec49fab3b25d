"""Monitoring: counts and times of requests, over all workers; trends and alerts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..plugins.feature import Feature
from ..plugins.kit import Card, Metric
from ..settings.extras import check_installed
from ..settings.kinds import BOOL, number, table
from ..settings.table import Table, key
from ..types import CacheStats, EngineHealth, HttpCacheStats, Notification, StoreStats

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..plugins.kit import Kit
    from .monitoring import Monitoring


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertOptions(Table):
    """One alert's threshold; what is ``None`` is the rule's default."""

    TITLE: ClassVar[str] = "An alert's options"
    RENAMED: ClassVar[Mapping[str, str]] = {"for_s": "fire_after", "keep_s": "resolve_after"}

    enabled: bool = key(True, BOOL, "false switches this alert off")
    limit: float | None = key(
        None, number(0, 1e9), "crossed from here on: seconds, or a share from 0 to 1"
    )
    clear: float | None = key(
        None, number(0, 1e9), "over again below this; in the default's proportion when not set"
    )
    fire_after: float | None = key(
        None, number(0, 86_400, "seconds"), "how long it must be crossed before the alert fires"
    )
    resolve_after: float | None = key(
        None, number(0, 86_400, "seconds"), "how long it must be clear before the alert is over"
    )


_key = partial(key, group="Monitoring")


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringKeys(Table):
    """The settings of monitoring, alerts and metrics."""

    PREFIX: ClassVar[str] = "OM_"

    monitoring: bool = _key(True, BOOL, "count and time requests, sample the process, raise alerts")
    alerts: dict[str, AlertOptions] = _key(
        {},
        table(AlertOptions, "OM_ALERTS"),
        "thresholds of `response_time`, `error_rate`, `memory`, `engine_offline`, "
        "`fallback_rate` and `cache_hits`",
    )
    metrics: bool = _key(
        False,
        BOOL,
        "serve counters of all workers at `/_om/metrics` in Prometheus's formats, to whoever may "
        "open the console; needs the extra `prometheus`",
    )


class MonitoringFeature(Feature["Monitoring", MonitoringKeys]):
    """``OM_MONITORING``, ``OM_ALERTS``, ``OM_METRICS``."""

    name = "monitoring"
    keys = MonitoringKeys

    def build(self, kit: Kit, keys: MonitoringKeys) -> Monitoring:
        from .counters import SignalCounter
        from .layer import own_route
        from .monitoring import Monitoring

        rules = None
        if keys.alerts:
            from .alert_rules import build_rules

            rules = build_rules(keys.alerts)
        if keys.metrics:
            check_installed("OM_METRICS", True, "prometheus")
        used = _UsedParts(kit)
        return Monitoring(
            clock=kit.clock,
            hub=kit.hub,
            scheduler=kit.scheduler,
            emit=kit.emit,
            notify=partial(_notify, kit),
            monitors=lambda: kit.plugin_parts.monitors,
            guarded=kit.plugins.call_guarded,
            engines=used.read_health,
            cache_stats=used.count_look_ups,
            cache_groups=used.count_groups,
            page_stats=used.count_pages,
            store_stats=used.count_store,
            metrics=kit.metrics if keys.metrics else None,
            signal_counts=SignalCounter(kit.sender) if keys.metrics else None,
            rules=rules,
            own_routes=frozenset({own_route(kit.keys.prefix)}),
        )

    def layer(self, kit: Kit, part: Monitoring, app: WSGIApplication) -> WSGIApplication | None:
        if not _keys(kit).monitoring:
            return None
        from .layer import MonitoringLayer

        return MonitoringLayer(
            app,
            part.collector,
            clock=kit.clock,
            paths=kit.part_of("gateway") or {},
            prefix=kit.keys.prefix,
            on_wrong_method=partial(_count_wrong_method, kit),
        )

    def card(self, kit: Kit, part: Monitoring) -> Card:
        return Card("Alerts", data={"silences": part.alerts.read_silences()})

    def metrics(self, kit: Kit, part: Monitoring) -> Iterable[Metric]:
        return part.read_metrics()

    def start(self, kit: Kit, part: Monitoring) -> None:
        if _keys(kit).monitoring:
            part.start()

    def close(self, kit: Kit, part: Monitoring) -> None:
        part.close()


class _UsedParts:
    """The counts of other features in this process; a part that is not built has counted nothing.

    Args:
        kit: finds the parts.
    """

    def __init__(self, kit: Kit) -> None:
        self._kit = kit

    def read_health(self) -> list[EngineHealth]:
        """The health of the engines of all chains."""
        chains = self._kit.find_built("chains")
        if chains is None:
            return []
        return [one for chain in chains.by_name.values() for one in chain.health()]

    def count_look_ups(self) -> CacheStats:
        """The counters of the cache."""
        cache = self._kit.find_built("cache")
        return CacheStats() if cache is None else cache.stats()

    def count_groups(self) -> dict[str, CacheStats]:
        """The same by group of keys."""
        cache = self._kit.find_built("cache")
        return {} if cache is None else cache.groups()

    def count_pages(self) -> HttpCacheStats:
        """The counters of the shared HTTP cache."""
        pages = self._kit.find_built("http_cache")
        return HttpCacheStats() if pages is None else pages.cache.stats()

    def count_store(self) -> StoreStats | None:
        """What this process asked of the store, for data and for pages; ``None`` without one."""
        cache = self._kit.find_built("cache")
        found: StoreStats | None = None if cache is None else cache.store_stats()
        pages = self._kit.find_built("http_cache")
        of_pages = None if pages is None else pages.cache.store_stats()
        if found is not None and of_pages is not None:
            found.add(of_pages)
        return found


def _notify(kit: Kit, notification: Notification) -> None:
    kit.part_of("notifications")(notification)


def _count_wrong_method(kit: Kit, route: str, method: str, allowed: Sequence[str]) -> None:
    kit.part_of("recovery").wrong_methods.note(route, method, allowed)


def _keys(kit: Kit) -> MonitoringKeys:
    return kit.settings.of(MonitoringKeys)
