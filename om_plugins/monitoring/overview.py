"""All workers as one picture, ready for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from ..core.histogram import Histogram
from ..types import CacheStats, HttpCacheStats, StoreStats
from ..workers.engine_health import as_dicts, merged_health
from . import alerts, trend
from .windows import Slot, added_up, side_by_side
from .worker_snapshots import MAX_GROUPS, Route, WorkerView

__all__ = ["RATE_S", "overview", "point"]

RATE_S = 10
"""Rates and percentiles of the present are those of so many complete seconds."""
PERCENTILES_S = 60


def overview(
    workers: Sequence[WorkerView], now: float, state: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """One picture of all workers.

    Args:
        workers: their views.
        now: Unix time.
        state: alerts and trends, as the elected worker keeps them.
        source: where processor and memory figures come from.
    """
    seconds = side_by_side(worker.seconds for worker in workers)
    this = int(now)
    rate = added_up(s for s in seconds if this - RATE_S <= s.index < this)
    minute = added_up(s for s in seconds if this - PERCENTILES_S <= s.index <= this)
    p50, p95, p99 = minute.durations.quantiles(0.5, 0.95, 0.99)
    return {
        "at": now,
        "requests": sum(worker.requests for worker in workers),
        "requests_per_s": round(rate.requests / RATE_S, 2),
        "p50_ms": _ms(p50),
        "p95_ms": _ms(p95),
        "p99_ms": _ms(p99),
        "success_rate": _success(minute),
        "in_flight": sum(worker.in_flight for worker in workers),
        "cpu_percent": round(100 * rate.cpu_s / RATE_S, 2) if rate.rss_bytes else None,
        "rss_bytes": sum(worker.rss_bytes for worker in workers) or None,
        "memory": next((round(s.memory, 4) for s in reversed(seconds) if s.memory), None),
        "system_source": source,
        "dropped_samples": sum(worker.dropped for worker in workers),
        "routes": _routes(row for worker in workers for row in worker.routes),
        "engines": as_dicts(merged_health(worker.engines for worker in workers)),
        "cache": _cache([worker.cache for worker in workers]),
        "cache_groups": _groups(workers),
        "cache_store": _store([worker.store for worker in workers]),
        "pages": _pages([worker.pages for worker in workers]),
        "alerts": alerts.shown(state.get("alerts")),
        "trends": trend.shown(state.get("trends")),
        "history": {
            "10s": [point(s, 10) for s in side_by_side(worker.tens for worker in workers)],
            "5min": [point(s, 300) for s in side_by_side(worker.fives for worker in workers)],
        },
        "seconds": [point(s, 1) for s in seconds],
        "workers": [
            {
                "id": worker.uid,
                "pid": worker.pid,
                "at": worker.at,
                "requests": worker.requests,
                "in_flight": worker.in_flight,
                "rss_bytes": worker.rss_bytes,
            }
            for worker in workers
        ],
    }


def point(slot: Slot, width: int) -> dict[str, Any]:
    """One point of a chart."""
    p50, p95, p99 = slot.durations.quantiles(0.5, 0.95, 0.99)
    return {
        "at": slot.index * width,
        "requests": slot.requests,
        "requests_per_s": round(slot.requests / width, 3),
        "errors": slot.errors,
        "success_rate": _success(slot),
        "p50_ms": _ms(p50),
        "p95_ms": _ms(p95),
        "p99_ms": _ms(p99),
        "in_flight": slot.in_flight,
        "cpu_percent": round(100 * slot.cpu_s / width, 1),
        "rss_bytes": slot.rss_bytes,
        "memory": round(slot.memory, 4),
    }


def _routes(rows: Iterable[Route]) -> list[dict[str, Any]]:
    merged: dict[tuple[str, str, int], Route] = {}
    for row in rows:
        found = merged.get(row.key)
        if found is None:
            found = merged[row.key] = Route(*row.key, 0, 0, Histogram())
        found.requests += row.requests
        found.size_bytes += row.size_bytes
        found.recent.add(row.recent)
    busiest = sorted(merged.values(), key=lambda row: (-row.recent.count, -row.requests, row.key))
    table = []
    for row in busiest:
        p50, p95, p99 = row.recent.quantiles(0.5, 0.95, 0.99)
        table.append(
            {
                "method": row.method,
                "route": row.route,
                "status": f"{row.status_class}xx",
                "requests": row.requests,
                "size_bytes": row.size_bytes,
                "recent": row.recent.count,
                "p50_ms": _ms(p50),
                "p95_ms": _ms(p95),
                "p99_ms": _ms(p99),
            }
        )
    return table


def _cache(stats: Sequence[CacheStats]) -> dict[str, Any]:
    total = CacheStats()
    for one in stats:
        total.add(one)
    found: dict[str, Any] = {each.name: getattr(total, each.name) for each in fields(CacheStats)}
    found["hits"] = total.hits
    found["hit_rate"] = None if total.hit_rate is None else round(total.hit_rate, 4)
    return found


def _pages(stats: Sequence[HttpCacheStats]) -> dict[str, Any]:
    total = HttpCacheStats()
    for one in stats:
        total.add(one)
    rate = total.hit_rate
    return {**asdict(total), "hit_rate": None if rate is None else round(rate, 4)}


def _store(stats: Sequence[StoreStats | None]) -> dict[str, int] | None:
    known = [one for one in stats if one is not None]
    if not known:
        return None
    total = StoreStats()
    for one in known:
        total.add(one)
    return asdict(total)


def _groups(workers: Sequence[WorkerView]) -> list[dict[str, Any]]:
    """The cache's counters by group of keys, those that are asked for most first."""
    names = dict.fromkeys(name for worker in workers for name in worker.groups)
    found = [
        {"name": name, **_cache([w.groups[name] for w in workers if name in w.groups])}
        for name in names
    ]
    found.sort(key=lambda one: (-one["hits"] - one["misses"], one["name"]))
    return found[:MAX_GROUPS]


def _success(slot: Slot) -> float | None:
    return round(1 - slot.errors / slot.requests, 5) if slot.requests else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
