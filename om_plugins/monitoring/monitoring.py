"""The monitoring of one application: its jobs, and the overview of all workers.

Nothing runs before :meth:`Monitoring.start`. It starts two jobs: one every second in each process
(fold the counts, sample the process, publish the snapshot, hand samples to monitors), and one every
ten seconds in the elected process (alerts and trends over all workers).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import signals
from ..core.fork import CachedProperty, hold_forks
from ..core.moved import with_old_names
from ..plugins.kit import Metric
from ..protocols import Clock, Hub, Monitor, Notify, Scheduler
from ..types import CacheStats, EngineHealth, HttpCacheStats, Notification, StoreStats
from .collector import Collector, Guarded, MonitorQueues
from .counters import BOUNDS_S, SharedCounters, SignalCounter, Totals, count_metrics, count_requests
from .process import SystemSample, SystemSampler
from .windows import Slot, merge_workers
from .worker_snapshots import EVERY_S, WorkerSnapshots, WorkerView, encode_own_slots, read_own_view

if TYPE_CHECKING:
    from .alert_rules import AlertRule
    from .alerts import AlertEvent, Alerts, AlertStates
    from .trend import TrendGate

logger = logging.getLogger("om_plugins")

ALERTS_TOPIC = "alerts"
"""The hub's topic for alerts that fire, repeat or resolve."""
TICK_S = 1.0
EVALUATE_S = 10.0

_STATE = "monitor/state"
_STATE_TTL_S = 86_400.0

_TRENDS: dict[str, tuple[Callable[[Slot], float | None], float, str]] = {
    # the measure of a slot, the level below which changes mean nothing, the rule with the limit
    "response_time": (lambda s: s.durations.quantile(0.95), 0.001, "response_time"),
    "error_rate": (lambda s: s.errors / s.requests if s.requests else None, 0.005, "error_rate"),
    "memory": (lambda s: float(s.rss_bytes) or None, 2.0**20, ""),
}


@dataclass(kw_only=True, eq=False, repr=False)
@with_old_names
class Monitoring:
    """The monitoring of one application.

    Args:
        clock: time.
        hub: the hub that the workers share; used in the background and by :meth:`overview`.
        scheduler: runs the background jobs.
        emit: sends the signals ``alert_fired`` and ``alert_resolved``.
        notify: tells operators.
        monitors: returns the monitors with the names of their plugins; called once in each process.
        guarded: calls into a plugin and counts its failures.
        engines: returns the health of the engines of all chains, in this process.
        cache_stats: returns the cache's counters, in this process.
        cache_groups: returns the same by group of keys.
        page_stats: returns the counters of the shared HTTP cache.
        store_stats: returns the counters of the cache's store; ``None`` when there is none.
        metrics: returns the metrics of all features in this process. Without it no totals are
            kept for :meth:`totals`.
        signal_counts: counts what engines and fallbacks did, for :meth:`read_metrics`.
        rules: the thresholds; ``None`` for the default ones.
        own_routes: the routes of this package's own pages, which are left out of rates and
            durations.
        repeat_s: how often an alert that goes on is reported again, in seconds; ``None`` for the
            default.
        sampler: samples the process and the host.

    Attributes:
        collector: counts the requests that the monitoring layer reports.
        bounds_s: the upper bounds of durations that :meth:`totals` counts separately.
    """

    clock: Clock
    hub: Hub
    scheduler: Scheduler
    emit: signals.Emit
    notify: Notify
    monitors: Callable[[], Sequence[tuple[str, Monitor]]]
    guarded: Guarded
    engines: Callable[[], list[EngineHealth]]
    cache_stats: Callable[[], CacheStats]
    cache_groups: Callable[[], dict[str, CacheStats]] = dict
    page_stats: Callable[[], HttpCacheStats] = HttpCacheStats
    store_stats: Callable[[], StoreStats | None] = lambda: None
    metrics: Callable[[], Iterable[Metric]] | None = None
    signal_counts: SignalCounter | None = None
    rules: Sequence[AlertRule] | None = None
    own_routes: frozenset[str] = frozenset()
    repeat_s: float | None = None
    sampler: SystemSampler = field(default_factory=SystemSampler)

    def __post_init__(self) -> None:
        self.bounds_s = BOUNDS_S
        self._counters = SharedCounters(self.hub, self.clock)
        self._cpu = 0, 0.0
        self._snapshots = WorkerSnapshots(self.hub)
        self._pid = 0
        self._stops: list[Callable[[], None]] = []
        self._queues: MonitorQueues | None = None
        self._published_at = -EVERY_S
        self._rss_bytes = 0
        self._cache_seen = (0, 0)
        self.collector = Collector(self.clock, own=self.own_routes)

    @CachedProperty
    def alerts(self) -> Alerts:
        """Silences alerts."""
        from .alerts import Alerts

        return Alerts([*self._rules.values()], hub=self.hub, clock=self.clock)

    @CachedProperty
    def _rules(self) -> dict[str, AlertRule]:
        from .alert_rules import RULES

        return {rule.name: rule for rule in (RULES if self.rules is None else self.rules)}

    @CachedProperty
    def _alert_states(self) -> AlertStates:
        from .alerts import REPEAT_S, AlertStates

        repeat_s = REPEAT_S if self.repeat_s is None else self.repeat_s
        return AlertStates([*self._rules.values()], repeat_s=repeat_s)

    @CachedProperty
    def _gates(self) -> dict[str, TrendGate]:
        from .trend import TrendGate

        return {name: TrendGate() for name in _TRENDS}

    # --- the two jobs -------------------------------------------------------------------------

    @property
    def exports_metrics(self) -> bool:
        """Whether ``OM_METRICS`` is on."""
        return self.metrics is not None

    def start(self) -> None:
        """Start the jobs in this process; again in a forked child. A second call does nothing."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self._published_at = -EVERY_S
        self._queues = None
        self._stops = [
            self.scheduler.every(TICK_S, self.tick, name="monitoring"),
            self.scheduler.every(EVALUATE_S, self.evaluate, name="alerts", elected=True),
        ]

    def close(self) -> None:
        """Stop the jobs, and remove this process's snapshot from the hub."""
        if self._pid != os.getpid():
            return
        self._pid = 0
        for stop in self._stops:
            stop()
        self._stops = []
        self.collector.remove_listeners()
        self._publish_totals(gauges=False)
        self._snapshots.withdraw()

    def tick(self) -> None:
        """Run the job of every second: fold, sample, publish when it is time, feed monitors."""
        if self._queues is None:
            monitors = self.monitors()
            self._queues = MonitorQueues(monitors, scheduler=self.scheduler, guarded=self.guarded)
            if monitors:
                self.collector.add_listener(self._queues.add)
        sample = self.sampler.sample()
        stats = self.cache_stats()
        self._rss_bytes = sample.rss_bytes
        self.collector.update_slot(lambda slot: self._update_slot(slot, sample, stats))
        self._queues.deliver()
        now = self.clock.monotonic()
        due = not 0 <= now - self._published_at < EVERY_S
        if due or self._snapshots.is_watched():
            slots = encode_own_slots(self.collector, past=due)
            self._snapshots.publish(self._read_own_view(stats), slots, past=due)
            if due:
                self._publish_totals()
                self._published_at = now

    def _update_slot(self, slot: Slot, sample: SystemSample, stats: CacheStats) -> None:
        slot.cpu_s += sample.cpu_s
        pid, spent = self._cpu
        self._cpu = os.getpid(), sample.cpu_s + (spent if pid == os.getpid() else 0.0)
        slot.rss_bytes = sample.rss_bytes
        slot.memory = sample.memory
        hits, misses = self._cache_seen
        slot.cache_hits += max(0, stats.hits - hits)
        slot.cache_misses += max(0, stats.misses - misses)
        self._cache_seen = stats.hits, stats.misses

    def evaluate(self) -> None:
        """Run the job of every ten seconds, in the elected process: alerts and trends."""
        with hold_forks():
            from ..workers.engine_health import merge_health
            from .alert_rules import take_readings

        now = self.clock.time()
        state = self._read_state()
        if state.get("by") not in (None, self._snapshots.uid):  # another worker was elected before
            try:
                self._alert_states.load(state.get("alerts"))
            except ValueError as error:
                logger.debug("the alerts of another worker are left out: %s", error)
        workers = self._read_workers()
        seconds = merge_workers(worker.seconds for worker in workers)
        hour = merge_workers(worker.tens for worker in workers)
        engines = merge_health(worker.engines for worker in workers)
        readings = take_readings(seconds, hour, engines, now)
        events = self._alert_states.update(readings, now, self.alerts.read_silences())
        trends = self._evaluate_trends(hour, now)
        self.hub.put(
            _STATE,
            {"by": self._snapshots.uid, "at": now, "alerts": self._alert_states.encode()}
            | {"trends": trends},
            _STATE_TTL_S,
        )
        for event in events:
            self._report(event)
        if self.exports_metrics:
            self._counters.add_ended_workers()

    def _evaluate_trends(self, hour: list[Slot], now: float) -> dict[str, object]:
        with hold_forks():
            from .trend import POINTS

        by_index = {slot.index: slot for slot in hour}
        last = int(now) // 10
        slots = [by_index.get(index) for index in range(last - POINTS, last)]
        found: dict[str, object] = {}
        for name, (read, floor, rule) in _TRENDS.items():
            limit = self._rules[rule].limit if rule in self._rules else None
            found[name] = (
                self._gates[name]
                .update(
                    [None if slot is None else read(slot) for slot in slots],
                    now=now,
                    step_s=10,
                    floor=floor,
                    limit=limit,
                )
                .as_dict()
            )
        return found

    def _report(self, event: AlertEvent) -> None:
        what, alert = event
        data = {"event": what, "alert": asdict(alert)}
        self.hub.publish(ALERTS_TOPIC, data)
        if what == "fired":
            self.emit(signals.alert_fired, alert=alert)
        elif what == "resolved":
            self.emit(signals.alert_resolved, alert=alert)
        if alert.silenced:
            return
        over = what == "resolved"
        self.notify(
            Notification(
                kind="success" if over else alert.kind,
                message=f"Over: {alert.message}" if over else alert.message,
                to="operators",
                key=f"alert:{alert.name}:{alert.subject}",
                data=data,
            )
        )

    # --- what others read ---------------------------------------------------------------------

    def overview(self, *, watch: bool = True, history: bool = True) -> dict[str, Any]:
        """Merge the counts of all workers into one object for JSON.

        Args:
            watch: whether all workers publish every second for the next 15 s, instead of every
                10 s.
            history: whether to include the hour and the day. They change every ten seconds and
                take most of the time to read; without them, a call every second is cheap.
        """
        from .overview import build_overview

        if watch:
            self._snapshots.watch()
        picture = build_overview(
            self._read_workers(past=history),
            self.clock.time(),
            self._read_state(),
            self.sampler.source,
        )
        if not history:
            del picture["history"]
        return picture

    def totals(self) -> Totals:
        """Return what all workers counted since the application began, including ended ones."""
        self._publish_totals()  # the others must know of every count that was returned once
        return self._counters.read()

    def read_metrics(self) -> list[Metric]:
        """Return what monitoring itself counted in this process, the requests left out."""
        found = [] if self.signal_counts is None else self.signal_counts.read()
        if self._cpu[0] == os.getpid():
            about = "Processor time of all workers"
            found.append(Metric("om_process_cpu_seconds", about, self._cpu[1]))
        return found

    def _publish_totals(self, *, gauges: bool = True) -> None:
        if self.metrics is not None:
            count = partial(self._count_totals, self.metrics, gauges)
            self._counters.publish(self._snapshots.uid, count)

    def _count_totals(self, metrics: Callable[[], Iterable[Metric]], gauges: bool) -> Totals:
        found = count_metrics(one for one in metrics() if gauges or one.kind == "counter")
        return count_requests(self.collector) | found

    def _read_state(self) -> Mapping[str, Any]:
        found = self.hub.get(_STATE)
        return found if isinstance(found, dict) else {}

    def _read_workers(self, *, past: bool = True) -> list[WorkerView]:
        """Return the current view of this process, and the last views of the others."""
        return [self._read_own_view(self.cache_stats()), *self._snapshots.read_others(past=past)]

    def _read_own_view(self, stats: CacheStats) -> WorkerView:
        return read_own_view(
            self._snapshots.uid,
            self.collector,
            dropped=self._queues.dropped if self._queues is not None else 0,
            rss_bytes=self._rss_bytes,
            cache=stats,
            groups=self.cache_groups(),
            engines=self.engines(),
            pages=self.page_stats(),
            store=self.store_stats(),
        )
