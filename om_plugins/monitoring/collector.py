"""The collector: counts requests. A request only appends a sample; the rest is done later.

Appending to a deque is atomic, so a request takes no lock and no count is lost. A background job
folds the samples into windows and routes once a second, and so does everybody who reads the counts.
Where no background jobs run, a request does it now and then.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any

from ..core.fork import renew_after_fork
from ..core.histogram import Histogram, bucket_of
from ..protocols import Clock, Monitor, Scheduler
from ..types import Sample
from .windows import Slot, Windows

MAX_ROUTES = 500
UNMATCHED = "<unmatched>"
OVERFLOW = "<overflow>"
FOLD_AT = 4096
"""The greatest number of samples that wait where no background jobs run."""

_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)
_LONGEST_RULE = 200
_REMEMBERED = 2048
_ROUTE_WINDOW_S = 300


FinishedRequest = tuple[str | None, str, str, float, int, float, bool]
"""A request that has ended: rule, method, status, duration in seconds, body bytes, end on the
monotonic clock, and whether it is an event stream, which is counted, but not among the durations of
ordinary requests. It is a plain tuple, because the garbage collector does not track those."""


@dataclass(slots=True, eq=False, repr=False)
class RouteRow:
    """One row of the route table: a method, a rule and a status class.

    Attributes:
        requests: how many requests there were since the process began.
        size_bytes: the bytes of their bodies.
    """

    method: str
    route: str
    status_class: int
    requests: int = 0
    size_bytes: int = 0
    _period: int = 0
    _current: Histogram = field(default_factory=Histogram)
    _before: Histogram = field(default_factory=Histogram)
    _older: Histogram = field(default_factory=Histogram)

    def at(self, now: float) -> Histogram:
        """Return the histogram for durations at Unix time ``now``."""
        period = int(now) // _ROUTE_WINDOW_S
        if period != self._period:
            self._older.add(self._before)
            if period == self._period + 1:
                self._before = self._current
            else:
                self._older.add(self._current)
                self._before = Histogram()
            self._current = Histogram()
            self._period = period
        return self._current

    def recent(self, now: float) -> Histogram:
        """Return the durations of the last five to ten minutes."""
        made = Histogram()
        made.add(self.at(now))
        made.add(self._before)
        return made

    def durations(self, now: float) -> Histogram:
        """Return all durations since the process began."""
        made = self.recent(now)
        made.add(self._older)
        return made


class Collector:
    """The counters of one process.

    Args:
        clock: time.
        own: the routes of this package's own pages. They are listed, but left out of rates and
            durations, because event streams last long by design.
        max_routes: how many rules get their own rows; the rest is ``<overflow>``.

    Attributes:
        enter: called when a request begins; cheap, and safe in any thread.
        leave: called with a :data:`FinishedRequest` when a request has ended.
        waiting: the requests that ended and are not folded yet.
    """

    def __init__(
        self, clock: Clock, *, own: frozenset[str] = frozenset(), max_routes: int = MAX_ROUTES
    ) -> None:
        self._clock = clock
        self._own = own
        self._max_routes = max_routes
        self.waiting: deque[FinishedRequest] = deque()
        self.leave: Callable[[FinishedRequest], None] = self.waiting.append
        # next() of a count is atomic: no two threads get the same number
        self._entered = itertools.count()
        self.enter: Callable[[], int] = self._entered.__next__
        self._looked = 0
        self._left = 0
        self._reset()
        renew_after_fork(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self.windows = Windows()
        self.rows: dict[tuple[str, str, int], RouteRow] = {}
        self._routes: set[str] = set()
        self._known: dict[tuple[str | None, str, str], tuple[RouteRow, int, bool]] = {}
        self._listeners: list[Callable[[Sample], None]] = []
        self.requests = 0

    def after_fork(self) -> None:
        """Start again from zero in a child: the requests of its parent are not in progress here."""
        self.waiting.clear()
        self._left = next(self._entered) - self._looked
        self._looked += 1
        self._reset()

    def add_listener(self, listener: Callable[[Sample], None]) -> None:
        """Call ``listener``, which must be quick, with every sample when it is folded."""
        self._listeners.append(listener)

    def remove_listeners(self) -> None:
        """Remove all listeners."""
        self._listeners.clear()

    def in_flight(self) -> int:
        """Return the number of requests that have begun and not ended."""
        with self._lock:
            return self.in_flight_now()

    def in_flight_now(self) -> int:
        """Return the same within :meth:`read` or :meth:`update_slot`."""
        left = self._left + len(self.waiting)  # first: a request may end in between
        entered = next(self._entered) - self._looked
        self._looked += 1
        return max(0, entered - left)

    def fold(self) -> None:
        """Fold the waiting samples into the counts, unless another thread is doing it."""
        if self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()

    def read(self, look: Callable[[Collector, float], None]) -> None:
        """Fold, then call ``look(self, now)`` with Unix time while no count changes."""
        with self._lock:
            self._fold()
            look(self, self._clock.time())

    def update_slot(self, change: Callable[[Slot], None]) -> None:
        """Fold, record the requests in flight, and call ``change`` with the current slot."""
        with self._lock:
            self._fold()
            slot = self.windows.at(self._clock.time())
            slot.in_flight = max(slot.in_flight, self.in_flight_now())
            change(slot)

    def _fold(self) -> None:
        waiting = self.waiting
        count = len(waiting)
        if not count:
            return
        to_unix = self._clock.time() - self._clock.monotonic()
        known = self._known
        second = -1
        for _ in range(count):
            rule, method, status, duration, size, ended, apart = waiting.popleft()
            now = ended + to_unix
            row, code, own = known.get((rule, method, status)) or self._classify(
                rule, method, status
            )
            row.requests += 1
            row.size_bytes += size
            bucket = bucket_of(duration)
            if not apart:
                row.at(now).put(bucket, duration)
            if not own:
                if int(now) != second:
                    second = int(now)
                    slot = self.windows.at(now)
                slot.requests += 1
                slot.size_bytes += size
                if code >= 400:
                    if code >= 500:
                        slot.errors += 1
                    else:
                        slot.refused += 1
                if not apart:
                    slot.durations.put(bucket, duration)
            for listener in self._listeners:
                listener(Sample(row.route, row.method, code, duration, size, now))
        self._left += count
        self.requests += count

    def _classify(self, rule: str | None, method: str, status: str) -> tuple[RouteRow, int, bool]:
        """Find the row, the status code, and whether it is an own page, for a kind of request."""
        code = int(status[:3]) if status[:3].isascii() and status[:3].isdecimal() else 500
        row = self._row(
            method if method in _METHODS else "_OTHER",
            rule or UNMATCHED,
            min(max(code // 100, 1), 5),
        )
        found = row, code, row.route in self._own
        if len(self._known) < _REMEMBERED:  # clients can make up methods, applications phrases
            self._known[rule, method, status] = found
        return found

    def _row(self, method: str, route: str, status_class: int) -> RouteRow:
        route = route[:_LONGEST_RULE]
        if route not in self._routes:
            if len(self._routes) >= self._max_routes and route not in (UNMATCHED, OVERFLOW):
                route = OVERFLOW
            self._routes.add(route)
        key = (method, route, status_class)
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = RouteRow(*key)
        return row


QUEUE = 10_000
"""The greatest number of samples that wait for a monitor. Older ones are dropped and counted."""

Guarded = Callable[..., tuple[bool, Any]]
"""``guarded(plugin, function, *args) -> (ok, result)``, as the plugin host gives it."""


@dataclass(slots=True, eq=False)
class _MonitorQueue:
    """The samples that wait for one monitor."""

    plugin: str
    monitor: Monitor
    waiting: deque[Sample] = field(default_factory=deque)
    busy: bool = False


@dataclass(eq=False, repr=False)
class MonitorQueues:
    """Hands samples to monitor plugins: in the background and in batches, each at its own pace.

    A slow monitor delays neither another monitor nor a request.

    Args:
        monitors: the monitors with the names of their plugins.
        scheduler: runs the deliveries.
        guarded: calls into a plugin and counts its failures.
        size: how many samples may wait for each monitor.

    Attributes:
        dropped: how many samples were dropped, summed over the monitors.
    """

    monitors: Sequence[tuple[str, Monitor]]
    _: KW_ONLY
    scheduler: Scheduler
    guarded: Guarded
    size: int = QUEUE

    def __post_init__(self) -> None:
        self._queues = [_MonitorQueue(plugin, monitor) for plugin, monitor in self.monitors]
        self.dropped = 0

    def add(self, sample: Sample) -> None:
        """Queue a sample for every monitor."""
        for queue in self._queues:
            if len(queue.waiting) >= self.size:
                queue.waiting.popleft()
                self.dropped += 1
            queue.waiting.append(sample)

    def deliver(self) -> None:
        """Start a delivery to every monitor that has samples waiting and is not busy."""
        for queue in self._queues:
            if queue.waiting and not queue.busy:
                queue.busy = True
                if not self.scheduler.submit(partial(self._deliver, queue), name="monitor"):
                    queue.busy = False

    def _deliver(self, queue: _MonitorQueue) -> None:
        try:
            batch: list[Sample] = []
            while len(batch) < self.size and queue.waiting:
                batch.append(queue.waiting.popleft())
            self.guarded(queue.plugin, queue.monitor.record, batch)
        finally:
            queue.busy = False
