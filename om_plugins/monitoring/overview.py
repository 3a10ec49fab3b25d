"""The overview: what all workers counted, merged into one object for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from ..core.histogram import Histogram
from ..types import CacheStats, HttpCacheStats, StoreStats
from ..workers.engine_health import encode_health, merge_health
from . import alerts, trend
from .windows import Slot, merge_workers, sum_slots
from .worker_snapshots import MAX_GROUPS, RouteView, WorkerView

_Stats = TypeVar("_Stats", CacheStats, HttpCacheStats, StoreStats)

_OF_A_WORKER = ("pid", "at", "requests", "in_flight", "rss_bytes")

RATE_S = 10
"""Current rates are those of the last complete seconds, this many."""
PERCENTILES_S = 60
"""Current percentiles are those of the last seconds, this many."""


def build_overview(
    workers: Sequence[WorkerView], now: float, state: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """Merge the views of all workers.

    Args:
        workers: the views.
        now: Unix time.
        state: alerts and trends, which the elected worker keeps in the hub.
        source: where the values for processor and memory come from.
    """
    seconds = merge_workers(worker.seconds for worker in workers)
    this = int(now)
    rate = sum_slots(s for s in seconds if this - RATE_S <= s.index < this)
    minute = sum_slots(s for s in seconds if this - PERCENTILES_S <= s.index <= this)
    return {
        "at": now,
        "requests": sum(worker.requests for worker in workers),
        "requests_per_s": round(rate.requests / RATE_S, 2),
        **_percentiles(minute.durations),
        "success_rate": _success_rate(minute),
        "in_flight": sum(worker.in_flight for worker in workers),
        "cpu_percent": round(100 * rate.cpu_s / RATE_S, 2) if rate.rss_bytes else None,
        "rss_bytes": sum(worker.rss_bytes for worker in workers) or None,
        "memory": next((round(s.memory, 4) for s in reversed(seconds) if s.memory), None),
        "system_source": source,
        "dropped_samples": sum(worker.dropped for worker in workers),
        "routes": _merge_routes(row for worker in workers for row in worker.routes),
        "engines": encode_health(merge_health(worker.engines for worker in workers)),
        "cache": _merge_cache([worker.cache for worker in workers]),
        "cache_groups": _merge_groups(workers),
        "cache_store": _merge_store([worker.store for worker in workers]),
        "pages": _merge_pages([worker.pages for worker in workers]),
        "alerts": alerts.decode_alerts(state.get("alerts")),
        "trends": trend.decode_trends(state.get("trends")),
        "history": {
            "10s": [build_point(s, 10) for s in merge_workers(worker.tens for worker in workers)],
            "5min": [
                build_point(s, 300) for s in merge_workers(worker.fives for worker in workers)
            ],
        },
        "seconds": [build_point(s, 1) for s in seconds],
        "workers": [
            {"id": worker.uid} | {name: getattr(worker, name) for name in _OF_A_WORKER}
            for worker in workers
        ],
    }


def build_point(slot: Slot, width: int) -> dict[str, Any]:
    """Build one point of a chart.

    Args:
        slot: the counts.
        width: the width of the slot in seconds.
    """
    return {
        "at": slot.index * width,
        "requests": slot.requests,
        "requests_per_s": round(slot.requests / width, 3),
        "errors": slot.errors,
        "success_rate": _success_rate(slot),
        **_percentiles(slot.durations),
        "in_flight": slot.in_flight,
        "cpu_percent": round(100 * slot.cpu_s / width, 1),
        "rss_bytes": slot.rss_bytes,
        "memory": round(slot.memory, 4),
    }


def _merge_routes(rows: Iterable[RouteView]) -> list[dict[str, Any]]:
    merged: dict[tuple[str, str, int], RouteView] = {}
    for row in rows:
        found = merged.get(row.key)
        if found is None:
            found = merged[row.key] = RouteView(*row.key, 0, 0, Histogram())
        found.requests += row.requests
        found.size_bytes += row.size_bytes
        found.recent.add(row.recent)
    busiest = sorted(merged.values(), key=lambda row: (-row.recent.count, -row.requests, row.key))
    return [
        {
            "method": row.method,
            "route": row.route,
            "status": f"{row.status_class}xx",
            "requests": row.requests,
            "size_bytes": row.size_bytes,
            "recent": row.recent.count,
            **_percentiles(row.recent),
        }
        for row in busiest
    ]


def _add_up(total: _Stats, stats: Iterable[_Stats]) -> _Stats:
    for one in stats:
        total.add(one)
    return total


def _merge_cache(stats: Iterable[CacheStats]) -> dict[str, Any]:
    total = _add_up(CacheStats(), stats)
    return {**asdict(total), "hits": total.hits, "hit_rate": _round(total.hit_rate)}


def _merge_pages(stats: Iterable[HttpCacheStats]) -> dict[str, Any]:
    total = _add_up(HttpCacheStats(), stats)
    return {**asdict(total), "hit_rate": _round(total.hit_rate)}


def _merge_store(stats: Iterable[StoreStats | None]) -> dict[str, int] | None:
    known = [one for one in stats if one is not None]
    return asdict(_add_up(StoreStats(), known)) if known else None


def _round(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def _merge_groups(workers: Sequence[WorkerView]) -> list[dict[str, Any]]:
    """Merge the cache's counters by group of keys, the groups with the most look-ups first."""
    names = dict.fromkeys(name for worker in workers for name in worker.groups)
    found = [
        {"name": name, **_merge_cache([w.groups[name] for w in workers if name in w.groups])}
        for name in names
    ]
    found.sort(key=lambda one: (-one["hits"] - one["misses"], one["name"]))
    return found[:MAX_GROUPS]


def _success_rate(slot: Slot) -> float | None:
    return round(1 - slot.errors / slot.requests, 5) if slot.requests else None


def _percentiles(durations: Histogram) -> dict[str, float | None]:
    found = durations.quantiles(0.5, 0.95, 0.99)
    return {
        name: None if seconds is None else round(seconds * 1000, 3)
        for name, seconds in zip(("p50_ms", "p95_ms", "p99_ms"), found, strict=True)
    }
