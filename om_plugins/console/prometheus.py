"""The numbers of all workers in Prometheus's formats: ``/_om/metrics``.

Counters come from :mod:`om_plugins.monitoring.counters`, what is true now from the monitoring's
overview. The text is made by the library ``prometheus-client`` (extra ``prometheus``), which is
imported on the first request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra
from ..monitoring.counters import BOUNDS_S, Totals
from ..plugins.kit import Kit
from ..types import Health
from ..workers.engine_health import count_fallbacks, decode_health

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["exposition"]

_ROUTE = ("method", "route", "status")
_OF_CACHE = {
    "fetches": ("fetches", "Fetchers run in the foreground"),
    "refreshes": ("refreshes", "Refreshes in the background that succeeded"),
    "failures": ("failures", "Fetches and refreshes that failed"),
    "evictions": ("evictions", "Entries pushed out by the bound of memory"),
    "dropped": ("dropped_refreshes", "Refreshes that found no room in the queue"),
    "stored": ("stored", "Responses kept"),
    "bytes_saved": ("saved_bytes", "Bytes of all hits"),
    "saved_us": ("saved_seconds", "What making the hits anew would have taken"),
    "fetch_s_saved": ("saved_seconds", "What making the hits anew would have taken"),
}
_LOOKUPS = {
    "cache": {"fresh": "fresh", "stale": "stale", "negative": "negative",
              "coalesced": "coalesced", "misses": "miss"},
    "page": {"hits": "fresh", "stale": "stale", "validated": "validated",
             "coalesced": "coalesced", "misses": "miss", "passed": "bypass"},
}  # fmt: skip
_OF_STORE = {
    "hits": ("store_hits", "Reads of the shared store that found an entry"),
    "misses": ("store_misses", "Reads of the shared store that found none"),
    "writes": ("store_writes", "Entries written to the shared store"),
    "deletes": ("store_deletes", "Entries deleted from the shared store"),
    "failures": ("store_failures", "Times that the shared store failed"),
    "read_bytes": ("store_read_bytes", "Bytes read from the shared store"),
    "written_bytes": ("store_written_bytes", "Bytes written to the shared store"),
}
_OF_ENGINE = {
    "answered": ("answers", "Attempts that an engine answered"),
    "failed": ("failures", "Attempts that failed"),
    "outages": ("outages", "Times that one worker found an engine offline"),
    "fallbacks": ("fallbacks", "Answers of an engine that is not on its chain's first tier"),
}

_FALLBACK_KINDS = frozenset({"stale", "engine", "page"})


class _Collected:
    """What the library wants of a registry."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def exposition(kit: Kit, accept: str) -> tuple[bytes, str]:
    """The metrics as text.

    Args:
        kit: the application's parts.
        accept: the request's ``Accept``: OpenMetrics where it is asked for, else the text format
            0.0.4.

    Returns:
        The text and its content type.

    Raises:
        MissingExtra: the library is not installed.
    """
    try:
        from prometheus_client.exposition import choose_encoder
    except ImportError:
        raise MissingExtra("OM_METRICS", True, "prometheus") from None
    picture = kit.part_of("monitoring").overview(watch=False, history=False)
    found = [*_now(picture, alone=kit.hub.alone)]
    totals = kit.part_of("monitoring").totals()
    # alone, this process knows of its own numbers only: told for those of all, they would fall now
    # and rise later, which makes a rate of millions
    if not kit.hub.alone:
        found += _requests(totals)
        found += _counted(totals)
    encode, content_type = choose_encoder(accept)
    return encode(_Collected(found)), content_type


# --- counters ------------------------------------------------------------------------------------


def _requests(totals: Totals) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    answered = CounterMetricFamily(
        "om_http_requests", "Requests answered, to the end of their bodies", labels=_ROUTE
    )
    sent = CounterMetricFamily("om_http_response_bytes", "Body bytes sent", labels=_ROUTE)
    durations = HistogramMetricFamily(
        "om_http_request_duration_seconds",
        "Time to the end of the body, event streams left out",
        labels=_ROUTE,
    )
    bounds = [*map(repr, BOUNDS_S), "+Inf"]
    for (kind, *labels), numbers in sorted(totals.items()):
        if kind != "request" or len(numbers) != 4 + len(BOUNDS_S) or len(labels) != len(_ROUTE):
            continue
        requests, size, seconds, count, *under = numbers
        answered.add_metric(labels, requests)
        sent.add_metric(labels, size)
        buckets = list(zip(bounds, (*under, count), strict=True))
        durations.add_metric(labels, buckets, sum_value=seconds)
    yield from (answered, sent, durations)


def _counted(totals: Totals) -> Iterator[Metric]:
    """Counters that are one number each, by name and labels."""
    from prometheus_client.core import CounterMetricFamily

    families: dict[str, CounterMetricFamily] = {}
    for (kind, *rest), numbers in sorted(totals.items()):
        for name, about, labels in _named(kind, rest):
            family = families.get(name)
            if family is None:
                family = CounterMetricFamily(name, about, labels=list(labels))
                families[name] = family
            unit = 1e-6 if rest[-1:] == ["saved_us"] else 1
            family.add_metric(list(labels.values()), numbers[0] * unit)
    yield from families.values()


def _named(kind: str, rest: list[str]) -> Iterator[tuple[str, str, dict[str, str]]]:
    match kind, rest:
        case "cpu", []:
            yield "om_process_cpu_seconds", "Processor time of all workers", {}
        case "engine", [chain, engine, what] if what in _OF_ENGINE:
            name, about = _OF_ENGINE[what]
            yield f"om_engine_{name}", about, {"chain": chain, "engine": engine}
        case "fallback", [what] if what in _FALLBACK_KINDS:
            yield "om_fallback_answers", "Answers in place of views that failed", {"kind": what}
        case "store", [what] if what in _OF_STORE:
            name, about = _OF_STORE[what]
            yield f"om_cache_{name}", about, {}
        case (("cache" | "page"), [what]):
            yield from _of_cache("om_cache" if kind == "cache" else "om_http_cache", kind, what, {})
        case "group", [group, what]:
            yield from _of_cache("om_cache_group", "cache", what, {"group": group})


def _of_cache(
    prefix: str, kind: str, what: str, labels: dict[str, str]
) -> Iterator[tuple[str, str, dict[str, str]]]:
    lookup = _LOOKUPS[kind].get(what)
    if lookup is not None:
        yield f"{prefix}_lookups", "Look-ups by how they were answered", {**labels, "kind": lookup}
    elif what in _OF_CACHE:
        name, about = _OF_CACHE[what]
        yield f"{prefix}_{name}", about, labels


# --- what is true now ----------------------------------------------------------------------------


def _now(picture: Mapping[str, Any], *, alone: bool) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily as Gauge

    yield Gauge("om_hub_reachable", "1 while the workers see each other", value=not alone)
    yield Gauge("om_workers", "Workers that are in the picture", value=len(picture["workers"]))
    yield Gauge("om_http_requests_active", "Requests under way", value=picture["in_flight"])
    if picture["rss_bytes"] is not None:
        yield Gauge(
            "om_process_resident_memory_bytes", "Of all workers", value=picture["rss_bytes"]
        )
    if picture["memory"] is not None:
        yield Gauge(
            "om_memory_used_ratio",
            "How full the host's memory (or the container's limit) is",
            value=picture["memory"],
        )
    for prefix, stats in (("om_cache", picture["cache"]), ("om_http_cache", picture["pages"])):
        yield Gauge(f"{prefix}_entries", "Entries in memory", value=stats["entries"])
        yield Gauge(f"{prefix}_size_bytes", "Their size in bytes", value=stats["size_bytes"])
    yield Gauge(
        "om_cache_subscriptions",
        "Callbacks that are told of changes",
        value=picture["cache"]["subscriptions"],
    )
    yield from _groups(picture["cache_groups"])
    yield from _engines(picture["engines"])
    firing = Gauge("om_alert_firing", "1 for each alert that fires", labels=("alert", "subject"))
    for alert in picture["alerts"]["active"]:
        firing.add_metric((alert["name"], alert["subject"]), 1)
    yield firing


def _groups(groups: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily as Gauge

    entries = Gauge("om_cache_group_entries", "Entries in memory", labels=("group",))
    sizes = Gauge("om_cache_group_size_bytes", "Their size in bytes", labels=("group",))
    for group in groups:
        entries.add_metric((group["name"],), group["entries"])
        sizes.add_metric((group["name"],), group["size_bytes"])
    yield from (entries, sizes)


def _engines(engines: list[dict[str, Any]]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily as Gauge

    names = ("chain", "engine", "tier")
    health = Gauge("om_engine_health", "1 at the state it is in", labels=(*names, "state"))
    forced = Gauge(
        "om_engine_breaker_forced", "1 where an operator forced it", labels=(*names, "to")
    )
    ejected = Gauge("om_engine_ejected", "1 while it is asked last of its tier", labels=names)
    failing = Gauge("om_engine_failure_ratio", "In the breaker's window", labels=names)
    slow = Gauge("om_engine_slow_ratio", "In the breaker's window", labels=names)
    calls = Gauge("om_engine_window_calls", "Calls in the breaker's window", labels=names)
    for one in engines:
        labels = (one["chain"], one["engine"], str(one["tier"]))
        for state in Health:
            health.add_metric((*labels, state.value), one["state"] == state.value)
        for to in ("open", "closed"):
            forced.add_metric((*labels, to), one["forced"] == to)
        ejected.add_metric(labels, one["ejected"])
        failing.add_metric(labels, one["failure_rate"])
        slow.add_metric(labels, one["slow_rate"])
        calls.add_metric(labels, one["samples"])
    lower = Gauge(
        "om_chain_fallback_ratio",
        "Answers of later tiers in the breakers' window",
        labels=("chain",),
    )
    for chain, counted in count_fallbacks(decode_health(engines)).items():
        if counted.answered:
            lower.add_metric((chain,), counted.fell_back / counted.answered)
    yield from (health, forced, ejected, failing, slow, calls, lower)
