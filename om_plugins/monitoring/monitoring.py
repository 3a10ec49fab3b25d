"""The monitoring of one application: what counts, what samples, what judges, and the picture.

Nothing runs before :meth:`Monitoring.start`. Then two jobs do: one a second in every process
(fold, sample the process, publish, hand samples to monitors) and one every ten seconds in the one
elected process (alerts and trends over all workers).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from .. import signals
from ..protocols import Clock, Hub, Monitor, Notify, Scheduler
from ..types import CacheStats, EngineHealth, HttpCacheStats, Notification, StoreStats
from ..workers.engine_health import merged_health
from .alert_rules import RULES, Rule, read_all
from .alerts import REPEAT_S, Alerts, Event
from .collector import Collector, Delivery, Guarded
from .counters import Ledger, SignalCounts, Totals, counters, of_requests
from .overview import overview
from .process import SystemSample, SystemSampler
from .trend import POINTS, Gate
from .windows import Slot, side_by_side
from .worker_snapshots import EVERY_S, Exchange, WorkerView, own_slots, own_view

__all__ = ["ALERTS_TOPIC", "EVALUATE_S", "Monitoring"]

logger = logging.getLogger("om_plugins")

ALERTS_TOPIC = "alerts"
"""The hub topic where alerts that fire, repeat or resolve are published."""
TICK_S = 1.0
EVALUATE_S = 10.0

_STATE = "monitor/state"
_STATE_TTL_S = 86_400.0
_SILENCE = "monitor/silence/"

_TRENDS: dict[str, tuple[Callable[[Slot], float | None], float, str]] = {
    # what is read of a slot, below what a change is nothing, and the rule whose limit counts
    "response_time": (lambda s: s.durations.quantile(0.95), 0.001, "response_time"),
    "error_rate": (lambda s: s.errors / s.requests if s.requests else None, 0.005, "error_rate"),
    "memory": (lambda s: float(s.rss_bytes) or None, 2.0**20, ""),
}


class Monitoring:
    """Watches one application.

    Args:
        clock: time.
        hub: what the workers share; asked in the background and by :meth:`overview`.
        scheduler: runs the background jobs.
        emit: tells ``alert_fired`` and ``alert_resolved``.
        notify: tells operators.
        monitors: the monitors with the names of their plugins; asked once in each process.
        guarded: calls into a plugin, counting its failures.
        engines: the health of every chain's engines, in this process.
        cache_stats: the cache's counters, in this process; cache_groups: by group of keys.
        page_stats: those of the shared HTTP cache; store_stats: those of the cache's store.
        signal_counts: what engines and fallbacks did; given when totals are to be kept for
            :meth:`totals`.
        rules: the thresholds.
        own_routes: routes left out of rates and durations: this package's own pages.
        repeat_s: how often people are told again of an alert that goes on.
        sampler: looks at the process and the host.

    Attributes:
        collector: what the observe layer tells of requests.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        hub: Hub,
        scheduler: Scheduler,
        emit: signals.Emit,
        notify: Notify,
        monitors: Callable[[], Sequence[tuple[str, Monitor]]],
        guarded: Guarded,
        engines: Callable[[], list[EngineHealth]],
        cache_stats: Callable[[], CacheStats],
        cache_groups: Callable[[], dict[str, CacheStats]] = dict,
        page_stats: Callable[[], HttpCacheStats] = HttpCacheStats,
        store_stats: Callable[[], StoreStats | None] = lambda: None,
        signal_counts: SignalCounts | None = None,
        rules: Sequence[Rule] = RULES,
        own_routes: frozenset[str] = frozenset(),
        repeat_s: float = REPEAT_S,
        sampler: SystemSampler | None = None,
    ) -> None:
        self._clock = clock
        self._hub = hub
        self._scheduler = scheduler
        self._emit = emit
        self._notify = notify
        self._monitors = monitors
        self._guarded = guarded
        self._engines = engines
        self._cache_stats = cache_stats
        self._cache_groups = cache_groups
        self._page_stats = page_stats
        self._store_stats = store_stats
        self._signal_counts = signal_counts
        self._ledger = Ledger(hub, clock)
        self._cpu = 0, 0.0
        self._rules = {rule.name: rule for rule in rules}
        self._sampler = sampler or SystemSampler()
        self._exchange = Exchange(hub)
        self._alerts = Alerts(rules, repeat_s=repeat_s)
        self._gates = {name: Gate() for name in _TRENDS}
        self._pid = 0
        self._stops: list[Callable[[], None]] = []
        self._delivery: Delivery | None = None
        self._published_at = -EVERY_S
        self._rss_bytes = 0
        self._cache_seen = (0, 0)
        self.collector = Collector(clock, own=own_routes)

    # --- the two jobs -------------------------------------------------------------------------

    def start(self) -> None:
        """Begin in this process; a second call does nothing. A forked child begins anew."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self._published_at = -EVERY_S
        self._delivery = None
        self._stops = [
            self._scheduler.every(TICK_S, self.tick, name="monitoring"),
            self._scheduler.every(EVALUATE_S, self.evaluate, name="alerts", elected=True),
        ]

    def close(self) -> None:
        """Stop, and take this process's snapshot out of the picture."""
        if self._pid != os.getpid():
            return
        self._pid = 0
        for stop in self._stops:
            stop()
        self._stops = []
        self.collector.unlisten()
        self._put_totals()
        self._exchange.withdraw()

    def tick(self) -> None:
        """Once a second: fold, sample the process, publish when it is time, feed monitors."""
        if self._delivery is None:
            monitors = self._monitors()
            self._delivery = Delivery(monitors, scheduler=self._scheduler, guarded=self._guarded)
            if monitors:
                self.collector.listen(self._delivery.take)
        sample = self._sampler.sample()
        stats = self._cache_stats()
        self._rss_bytes = sample.rss_bytes
        self.collector.mark(lambda slot: self._note(slot, sample, stats))
        self._delivery.send()
        now = self._clock.monotonic()
        due = not 0 <= now - self._published_at < EVERY_S
        if due or self._exchange.watched():
            slots = own_slots(self.collector, past=due)
            self._exchange.publish(self._own(stats), slots, past=due)
            if due:
                self._put_totals()
                self._published_at = now

    def _note(self, slot: Slot, sample: SystemSample, stats: CacheStats) -> None:
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
        """Every ten seconds, in one process of all: alerts and trends."""
        now = self._clock.time()
        state = self._state()
        if state.get("by") not in (None, self._exchange.uid):  # another worker did it until now
            try:
                self._alerts.load(state.get("alerts"))
            except ValueError as error:
                logger.debug("the alerts of another worker are left out: %s", error)
        workers = self._workers()
        seconds = side_by_side(worker.seconds for worker in workers)
        hour = side_by_side(worker.tens for worker in workers)
        engines = merged_health(worker.engines for worker in workers)
        readings = read_all(seconds, hour, engines, now)
        events = self._alerts.update(readings, now, self.silences())
        trends = self._trends(hour, now)
        self._hub.put(
            _STATE,
            {"by": self._exchange.uid, "at": now, "alerts": self._alerts.encoded()}
            | {"trends": trends},
            _STATE_TTL_S,
        )
        for event in events:
            self._tell(event)
        if self._signal_counts is not None:
            self._ledger.settle()

    def _trends(self, hour: list[Slot], now: float) -> dict[str, object]:
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

    def _tell(self, event: Event) -> None:
        what, alert = event
        data = {"event": what, "alert": asdict(alert)}
        self._hub.publish(ALERTS_TOPIC, data)
        if what == "fired":
            self._emit(signals.alert_fired, alert=alert)
        elif what == "resolved":
            self._emit(signals.alert_resolved, alert=alert)
        if alert.silenced:
            return
        over = what == "resolved"
        self._notify(
            Notification(
                kind="success" if over else alert.kind,
                message=f"Over: {alert.message}" if over else alert.message,
                to="operators",
                key=f"alert:{alert.name}:{alert.subject}",
                data=data,
            )
        )

    # --- what others ask ----------------------------------------------------------------------

    def overview(self, *, watch: bool = True, history: bool = True) -> dict[str, Any]:
        """All workers as one picture, for JSON.

        Args:
            history: with the hour and the day, which change every ten seconds and take most of
                the time to read; the present alone is cheap enough for every second.
            watch: have all workers publish every second for the next 15 s, instead of every ten.
        """
        if watch:
            self._exchange.watch()
        picture = overview(
            self._workers(past=history), self._clock.time(), self._state(), self._sampler.source
        )
        if not history:
            del picture["history"]
        return picture

    def totals(self) -> Totals:
        """What all workers counted since the application began, also those that have ended."""
        self._put_totals()  # what is told once must be known to the others
        return self._ledger.read()

    def _put_totals(self) -> None:
        if self._signal_counts is not None:
            self._ledger.put(self._exchange.uid, partial(self._own_totals, self._signal_counts))

    def _own_totals(self, told: SignalCounts) -> Totals:
        levels = ("entries", "size_bytes", "subscriptions")
        found = of_requests(self.collector)
        found |= told.totals()
        found |= counters("cache", self._cache_stats(), levels=levels)
        for name, one in self._cache_groups().items():
            found |= counters("group", one, name[:200], levels=levels)
        found |= counters("page", self._page_stats(), levels=levels)
        store = self._store_stats()
        if store is not None:
            found |= counters("store", store)
        if self._cpu[0] == os.getpid():
            found["cpu",] = [self._cpu[1]]
        return found

    def silence(self, rule: str, seconds: float) -> None:
        """Tell nobody of a rule's alerts for a while; they are listed and signalled all the same.

        Args:
            rule: its name, such as ``error_rate``.
            seconds: for how long; 0 ends the silence.

        Raises:
            ValueError: there is no such rule.
        """
        if rule not in self._rules:
            raise ValueError(f"no alert is named {rule!r}; known are {', '.join(self._rules)}")
        until = self._clock.time() + seconds if seconds > 0 else None
        self._hub.put(_SILENCE + rule, until, max(1.0, seconds))

    def silences(self) -> dict[str, float]:
        """The rules that are silenced, and until when (Unix time)."""
        now = self._clock.time()
        return {
            key.removeprefix(_SILENCE): float(until)
            for key, until in self._hub.scan(_SILENCE).items()
            if isinstance(until, int | float) and until > now
        }

    def _state(self) -> Mapping[str, Any]:
        found = self._hub.get(_STATE)
        return found if isinstance(found, dict) else {}

    def _workers(self, *, past: bool = True) -> list[WorkerView]:
        """This process as it is now, and the others as they said last."""
        return [self._own(self._cache_stats()), *self._exchange.others(past=past)]

    def _own(self, stats: CacheStats) -> WorkerView:
        return own_view(
            self._exchange.uid,
            self.collector,
            dropped=self._delivery.dropped if self._delivery is not None else 0,
            rss_bytes=self._rss_bytes,
            cache=stats,
            groups=self._cache_groups(),
            engines=self._engines(),
            pages=self._page_stats(),
            store=self._store_stats(),
        )
