"""Counts what requests did: an append on the way of a request, everything else later.

Threads only append to a deque, which is atomic, so no lock is on the way of a request and no
count is lost. Folding the samples into windows and routes is done once a second in the background,
or when somebody reads; where no background work runs, by a request now and then.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..core.fork import renew_after_fork
from ..core.histogram import Histogram, bucket_of
from ..protocols import Clock, Monitor, Scheduler
from ..types import Sample
from .windows import Slot, Windows

__all__ = [
    "MAX_ROUTES",
    "OVERFLOW",
    "QUEUE",
    "UNMATCHED",
    "Collector",
    "Delivery",
    "RouteRow",
    "Seen",
]


MAX_ROUTES = 500
UNMATCHED = "<unmatched>"
OVERFLOW = "<overflow>"
FOLD_AT = 4096
"""So many samples wait at most where no background work runs."""

_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)
_LONGEST_RULE = 200
_REMEMBERED = 2048
_ROUTE_WINDOW_S = 300


Seen = tuple[str | None, str, str, float, int, float, bool]
"""One answered request as the layer saw it: rule, method, status, duration in seconds, body bytes,
when it ended on the monotonic clock, and whether it stands apart: an event stream is counted, but
not among the durations of ordinary requests. A plain tuple, because the garbage collector need
not look at those."""


class RouteRow:
    """One row of the route table: a method, a rule and a status class.

    Attributes:
        requests, size_bytes: since the process began.
        recent: durations of the last five to ten minutes.
    """

    __slots__ = ("_before", "_current", "_older", "_period", "method", "requests", "route",
                 "size_bytes", "status_class")  # fmt: skip

    def __init__(self, method: str, route: str, status_class: int) -> None:
        self.method = method
        self.route = route
        self.status_class = status_class
        self.requests = 0
        self.size_bytes = 0
        self._period = 0
        self._current = Histogram()
        self._before = Histogram()
        self._older = Histogram()

    def at(self, now: float) -> Histogram:
        """Where durations at Unix time ``now`` are recorded."""
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
        """The durations of the last five to ten minutes."""
        made = Histogram()
        made.add(self.at(now))
        made.add(self._before)
        return made

    def durations(self, now: float) -> Histogram:
        """All durations since the process began."""
        made = self.recent(now)
        made.add(self._older)
        return made


class Collector:
    """The counters of one process.

    Args:
        clock: time.
        own: routes that are listed, but left out of rates and durations: this package's own
            pages, whose event streams last for long by design.
        max_routes: rules that get rows of their own; the rest is ``<overflow>``.

    Attributes:
        enter: called when a request begins; cheap and safe in any thread.
        leave: called with a :data:`Seen` when it has ended.
        waiting: what ended and is not folded yet.
    """

    def __init__(
        self, clock: Clock, *, own: frozenset[str] = frozenset(), max_routes: int = MAX_ROUTES
    ) -> None:
        self._clock = clock
        self._own = own
        self._max_routes = max_routes
        self.waiting: deque[Seen] = deque()
        self.leave: Callable[[Seen], None] = self.waiting.append
        # next() of a count is one step for the interpreter: no two threads get the same number
        self._entered = itertools.count()
        self.enter: Callable[[], int] = self._entered.__next__
        self._looked = 0
        self._left = 0
        self._started_anew()
        renew_after_fork(self)

    def _started_anew(self) -> None:
        self._lock = threading.Lock()
        self.windows = Windows()
        self.rows: dict[tuple[str, str, int], RouteRow] = {}
        self._routes: set[str] = set()
        self._known: dict[tuple[str | None, str, str], tuple[RouteRow, int, bool]] = {}
        self._listeners: list[Callable[[Sample], None]] = []
        self.requests = 0

    def after_fork(self) -> None:
        """A child counts for itself: what its parent had under way is not under way here."""
        self.waiting.clear()
        self._left = next(self._entered) - self._looked
        self._looked += 1
        self._started_anew()

    def listen(self, listener: Callable[[Sample], None]) -> None:
        """Hand every sample to ``listener``, which must be quick, when it is folded."""
        self._listeners.append(listener)

    def unlisten(self) -> None:
        """Hand samples to nobody any more."""
        self._listeners.clear()

    def in_flight(self) -> int:
        """Requests that have begun and not ended."""
        with self._lock:
            return self.in_flight_now()

    def in_flight_now(self) -> int:
        """The same, for one who looks within :meth:`read`."""
        left = self._left + len(self.waiting)  # first: a request may end in between
        entered = next(self._entered) - self._looked
        self._looked += 1
        return max(0, entered - left)

    def fold(self) -> None:
        """Work in what waits; leaves it to another thread that does so just now."""
        if self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()

    def read(self, look: Callable[[Collector, float], None]) -> None:
        """Fold, then call ``look(self, now)`` while nothing changes; ``now`` is Unix time."""
        with self._lock:
            self._fold()
            look(self, self._clock.time())

    def mark(self, change: Callable[[Slot], None]) -> None:
        """Fold, note the requests in flight, and call ``change`` with the present slot."""
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
            row, code, own = known.get((rule, method, status)) or self._know(rule, method, status)
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

    def _know(self, rule: str | None, method: str, status: str) -> tuple[RouteRow, int, bool]:
        """What a kind of request is counted as."""
        code = int(status[:3]) if status[:3].isascii() and status[:3].isdecimal() else 500
        row = self._row(
            method if method in _METHODS else "_OTHER",
            rule or UNMATCHED,
            min(max(code // 100, 1), 5),
        )
        found = row, code, row.route in self._own
        if len(self._known) < _REMEMBERED:  # methods and phrases are anybody's to make up
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


# Hands samples to monitor plugins: in the background, in batches, each at its own pace.

QUEUE = 10_000
"""So many samples wait for a monitor at most; older ones are dropped, and counted."""

Guarded = Callable[..., tuple[bool, Any]]
"""``guarded(plugin, function, *args) -> (ok, result)``, as the plugin host gives it."""


class _Queue:
    """What waits for one monitor."""

    __slots__ = ("busy", "monitor", "plugin", "waiting")

    def __init__(self, plugin: str, monitor: Monitor) -> None:
        self.plugin = plugin
        self.monitor = monitor
        self.waiting: deque[Sample] = deque()
        self.busy = False


class Delivery:
    """The queues before the monitors. A slow monitor holds up no other, and no request.

    Args:
        monitors: the monitors with the names of their plugins.
        scheduler: runs the deliveries.
        guarded: calls into a plugin, counting its failures.

    Attributes:
        dropped: samples that no monitor's queue had room for, summed over monitors.
    """

    def __init__(
        self,
        monitors: Sequence[tuple[str, Monitor]],
        *,
        scheduler: Scheduler,
        guarded: Guarded,
        size: int = QUEUE,
    ) -> None:
        self._queues = [_Queue(plugin, monitor) for plugin, monitor in monitors]
        self._scheduler = scheduler
        self._guarded = guarded
        self._size = size
        self.dropped = 0

    def take(self, sample: Sample) -> None:
        """Queue a sample for every monitor."""
        for queue in self._queues:
            if len(queue.waiting) >= self._size:
                queue.waiting.popleft()
                self.dropped += 1
            queue.waiting.append(sample)

    def send(self) -> None:
        """Have every monitor that is not at work get what waits for it."""
        for queue in self._queues:
            if queue.waiting and not queue.busy:
                queue.busy = True
                if not self._scheduler.submit(partial(self._deliver, queue), name="monitor"):
                    queue.busy = False

    def _deliver(self, queue: _Queue) -> None:
        try:
            batch: list[Sample] = []
            while len(batch) < self._size and queue.waiting:
                batch.append(queue.waiting.popleft())
            self._guarded(queue.plugin, queue.monitor.record, batch)
        finally:
            queue.busy = False
