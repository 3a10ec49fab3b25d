"""The numbers of all workers in Prometheus's formats: ``/_om/metrics``.

Requests, and the counters and gauges of all features, come from the totals of the monitoring; the
present state of workers, engines and alerts comes from its overview. The library
``prometheus-client`` (extra ``prometheus``) writes the text. It is imported at the first request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra
from ..plugins.kit import Kit
from ..types import Health
from ..workers.engine_health import count_fallbacks, decode_health

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Totals = Mapping[tuple[str, ...], Sequence[float]]

_ROUTE = ("method", "route", "status")
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")


class _FinishedMetrics:
    """A registry of the library, with finished metrics."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def write_metrics(kit: Kit, accept: str) -> tuple[bytes, str]:
    """Return the metrics as text.

    Args:
        kit: the parts of the application.
        accept: the request's ``Accept``. It chooses OpenMetrics or the text format 0.0.4.

    Returns:
        The text and its content type.

    Raises:
        MissingExtra: the library is not installed.
    """
    try:
        from prometheus_client.exposition import choose_encoder
    except ImportError:
        raise MissingExtra("OM_METRICS", True, "prometheus") from None
    monitoring = kit.part_of("monitoring")
    totals: Totals = monitoring.totals()
    overview = monitoring.overview(watch=False, history=False)
    # alone, this process knows its own counts only: sent as those of all, they would fall now and
    # rise later, which makes a rate of millions
    alone = kit.hub.alone
    found = [*_describe_now(overview, alone=alone)]
    if not alone:
        found += _describe_requests(totals, monitoring.bounds_s)
    kinds = ("gauge",) if alone else ("counter", "gauge")
    found += _describe_features(totals, kinds, taken={one.name for one in found})
    encode, content_type = choose_encoder(accept)
    return encode(_FinishedMetrics(found)), content_type


# --- counters ------------------------------------------------------------------------------------


def _describe_requests(totals: Totals, bounds_s: Sequence[float]) -> Iterator[Metric]:
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
    bounds = [*map(repr, bounds_s), "+Inf"]
    for (kind, *labels), numbers in sorted(totals.items()):
        if kind != "request" or len(numbers) != 4 + len(bounds_s) or len(labels) != len(_ROUTE):
            continue
        requests, size, seconds, count, *under = numbers
        answered.add_metric(labels, requests)
        sent.add_metric(labels, size)
        buckets = list(zip(bounds, (*under, count), strict=True))
        durations.add_metric(labels, buckets, sum_value=seconds)
    yield from (answered, sent, durations)


def _describe_features(totals: Totals, kinds: Sequence[str], taken: Set[str]) -> Iterator[Metric]:
    """Yield the metrics of all features, by name.

    Any worker wrote them into the hub, so names are checked: one that is wrong or that stands twice
    would make the whole answer unreadable.
    """
    from prometheus_client.core import Metric as Family

    families: dict[str, Family] = {}
    for (kind, *texts), numbers in sorted(totals.items()):
        if kind not in kinds or len(texts) < 2 or len(texts) % 2:
            continue
        name, about, *pairs = texts
        labels = dict(zip(pairs[::2], pairs[1::2], strict=True))
        if name in taken or not all(map(_NAME.fullmatch, (name, *labels))):
            continue
        family = families.setdefault(name, Family(name, about, kind))
        if family.type == kind:
            family.add_sample(name + "_total" * (kind == "counter"), labels, numbers[0])
    yield from families.values()


# --- the present state ---------------------------------------------------------------------------


def _describe_now(overview: Mapping[str, Any], *, alone: bool) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily as Gauge

    yield Gauge("om_hub_reachable", "1 while the workers see each other", value=not alone)
    yield Gauge("om_workers", "Workers that are in the picture", value=len(overview["workers"]))
    yield Gauge("om_http_requests_active", "Requests under way", value=overview["in_flight"])
    if overview["rss_bytes"] is not None:
        yield Gauge(
            "om_process_resident_memory_bytes", "Of all workers", value=overview["rss_bytes"]
        )
    if overview["memory"] is not None:
        yield Gauge(
            "om_memory_used_ratio",
            "How full the host's memory (or the container's limit) is",
            value=overview["memory"],
        )
    yield from _describe_engines(overview["engines"])
    firing = Gauge("om_alert_firing", "1 for each alert that fires", labels=("alert", "subject"))
    for alert in overview["alerts"]["active"]:
        firing.add_metric((alert["name"], alert["subject"]), 1)
    yield firing


def _describe_engines(engines: list[dict[str, Any]]) -> Iterator[Metric]:
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
