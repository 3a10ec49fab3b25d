"""How workers show each other what they counted: one snapshot each in the hub.

A snapshot has two keys: what is new each second (totals, the last two minutes, engines, routes)
and what is new every ten seconds (the hour and the day). Both run out soon, so a worker that was
killed is gone from the picture without anybody cleaning up. What others wrote is checked before
it is used; a damaged snapshot is left out.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Annotated

import msgspec

from ..core.histogram import Histogram
from ..core.problem__conversion import converted
from ..protocols import Hub
from ..types import CacheStats, EngineHealth, HttpCacheStats, StoreStats
from ..workers.engine_health import as_dicts, decoded_health
from .collector import Collector
from .windows import Slot, decoded

__all__ = ["EVERY_S", "TTL_S", "Exchange", "Route", "Slots", "WorkerView", "own_slots", "own_view"]

logger = logging.getLogger("om_plugins")

EVERY_S = 10.0
"""How often a snapshot is published when nobody watches."""
TTL_S = 25.0
"""How long it lasts: two may be late."""
WATCHED_TTL_S = 15.0
MAX_PUBLISHED_ROUTES = 200
MAX_WORKERS = 256
MAX_GROUPS = 50

_NOW = "monitor/now/"
_PAST = "monitor/past/"
_WATCHING = "monitor/watching"

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Amount = _Count | Annotated[float, msgspec.Meta(ge=0, le=2**53)]
_Text = Annotated[str, msgspec.Meta(max_length=200)]


@dataclass(slots=True)
class Route:
    """One row of the route table, as it is shown."""

    method: str
    route: str
    status_class: int
    requests: int
    size_bytes: int
    recent: Histogram

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes rows of several workers the same row."""
        return self.method, self.route, self.status_class


@dataclass(slots=True)
class WorkerView:
    """What one worker has told of itself.

    Attributes:
        uid: unique to the process.
        groups: the cache's counters by group of keys.
        store: what it asked of a shared store; ``None`` when there is none.
        seconds: the last two minutes; ``tens`` the last hour, ``fives`` the last day.
    """

    uid: str
    pid: int = 0
    at: float = 0.0
    requests: int = 0
    in_flight: int = 0
    rss_bytes: int = 0
    dropped: int = 0
    cache: CacheStats = field(default_factory=CacheStats)
    groups: dict[str, CacheStats] = field(default_factory=dict)
    pages: HttpCacheStats = field(default_factory=HttpCacheStats)
    store: StoreStats | None = None
    engines: list[EngineHealth] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    seconds: list[Slot] = field(default_factory=list)
    tens: list[Slot] = field(default_factory=list)
    fives: list[Slot] = field(default_factory=list)


class _RouteWire(msgspec.Struct, array_like=True):
    method: _Text
    route: _Text
    status_class: Annotated[int, msgspec.Meta(ge=1, le=5)]
    requests: _Count
    size_bytes: _Count
    recent: bytes


class _NowWire(msgspec.Struct):
    pid: _Count
    at: float
    requests: _Count
    in_flight: _Count
    rss_bytes: _Count
    dropped: _Count
    cache: dict[str, _Count]
    groups: Annotated[dict[_Text, dict[str, _Count]], msgspec.Meta(max_length=MAX_GROUPS)]
    engines: object
    routes: Annotated[list[_RouteWire], msgspec.Meta(max_length=MAX_PUBLISHED_ROUTES)]
    seconds: object
    pages: dict[str, _Amount] = {}
    store: dict[str, _Count] | None = None


class _PastWire(msgspec.Struct):
    tens: object
    fives: object


@dataclass(slots=True)
class Slots:
    """Encoded slots: the closed ones are encoded once."""

    seconds: list[list[object]]
    tens: list[list[object]] = field(default_factory=list)
    fives: list[list[object]] = field(default_factory=list)


class Exchange:
    """This worker's side of the exchange. One for each process, see :attr:`uid`.

    Args:
        hub: what the workers share; asked from background threads and by those who look.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._pid = 0
        self._uid = ""
        self._published = False

    @property
    def uid(self) -> str:
        """This process's name in the hub; a child after a fork gets its own."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._uid = f"{self._pid}-{secrets.token_hex(4)}"
            self._published = False
        return self._uid

    def publish(self, view: WorkerView, slots: Slots, *, past: bool) -> None:
        """Put this worker's snapshot.

        Args:
            slots: the encoded slots that go with the view.
            past: the hour and the day, too.
        """
        uid = self.uid
        self._published = True
        routes = sorted(view.routes, key=lambda row: row.requests, reverse=True)
        now: dict[str, object] = {
            "pid": view.pid,
            "at": view.at,
            "requests": view.requests,
            "in_flight": view.in_flight,
            "rss_bytes": view.rss_bytes,
            "dropped": view.dropped,
            "cache": asdict(view.cache),
            "groups": _busiest(view.groups),
            "pages": asdict(view.pages),
            "store": None if view.store is None else asdict(view.store),
            "engines": as_dicts(view.engines),
            "routes": [
                [*row.key, row.requests, row.size_bytes, row.recent.encode()]
                for row in routes[:MAX_PUBLISHED_ROUTES]
            ],
            "seconds": slots.seconds,
        }
        self._hub.put(_NOW + uid, now, TTL_S)
        if past:
            self._hub.put(_PAST + uid, {"tens": slots.tens, "fives": slots.fives}, TTL_S)

    def withdraw(self) -> None:
        """Take this worker's snapshot back, when it was published: the process ends."""
        if self._published and self._pid == os.getpid():
            self._hub.put(_NOW + self._uid, None, TTL_S)
            self._hub.put(_PAST + self._uid, None, TTL_S)
            self._published = False

    def others(self, *, past: bool = True) -> list[WorkerView]:
        """What the other workers published and has not run out.

        Args:
            past: the hour and the day, too; reading them takes most of the time.
        """
        views = []
        long_ago = self._hub.scan(_PAST) if past else {}
        for key, data in list(self._hub.scan(_NOW).items())[:MAX_WORKERS]:
            uid = key.removeprefix(_NOW)
            if uid == self.uid:
                continue
            try:
                views.append(_view(uid, data, long_ago.get(_PAST + uid)))
            except (ValueError, TypeError) as error:
                logger.debug("the snapshot of worker %r is left out: %s", uid, error)
        return views

    def watch(self) -> None:
        """Ask all workers to publish every second for a while."""
        self._hub.put(_WATCHING, True, WATCHED_TTL_S)

    def watched(self) -> bool:
        """Whether somebody watches."""
        return self._hub.get(_WATCHING) is not None


def own_view(
    uid: str,
    collector: Collector,
    *,
    dropped: int,
    rss_bytes: int,
    cache: CacheStats,
    groups: dict[str, CacheStats] | None = None,
    engines: Iterable[EngineHealth],
    pages: HttpCacheStats | None = None,
    store: StoreStats | None = None,
) -> WorkerView:
    """This worker's own view, live."""
    view = WorkerView(
        uid, os.getpid(), dropped=dropped, rss_bytes=rss_bytes, cache=cache, groups=groups or {},
        engines=list(engines),
    )  # fmt: skip
    view.pages = pages or HttpCacheStats()
    view.store = store

    def look(counted: Collector, now: float) -> None:
        view.at = now
        view.requests = counted.requests
        view.in_flight = counted.in_flight_now()
        view.routes = [
            Route(*key, row.requests, row.size_bytes, row.recent(now))
            for key, row in counted.rows.items()
        ]
        view.seconds = counted.windows.snapshot(1, now)
        view.tens = counted.windows.snapshot(10, now)
        view.fives = counted.windows.snapshot(300, now)

    collector.read(look)
    return view


def _busiest(groups: dict[str, CacheStats]) -> dict[str, dict[str, int]]:
    """The groups that are asked for most; of each the counters that have counted."""
    order = sorted(groups.items(), key=lambda one: -one[1].hits - one[1].misses)
    return {
        name: {key: count for key, count in asdict(one).items() if count}
        for name, one in order[:MAX_GROUPS]
    }


def own_slots(collector: Collector, *, past: bool) -> Slots:
    """This worker's slots as hub data."""
    slots = Slots([])

    def look(counted: Collector, now: float) -> None:
        slots.seconds = counted.windows.encoded(1, now)
        if past:
            slots.tens = counted.windows.encoded(10, now)
            slots.fives = counted.windows.encoded(300, now)

    collector.read(look)
    return slots


def _view(uid: str, now: object, past: object) -> WorkerView:
    wire = converted(now, _NowWire)
    view = WorkerView(
        uid,
        wire.pid,
        wire.at,
        wire.requests,
        wire.in_flight,
        wire.rss_bytes,
        wire.dropped,
        converted(wire.cache, CacheStats),
        {name: converted(one, CacheStats) for name, one in wire.groups.items()},
        engines=decoded_health(wire.engines),
        routes=[
            Route(
                row.method,
                row.route,
                row.status_class,
                row.requests,
                row.size_bytes,
                Histogram.decode(row.recent),
            )
            for row in wire.routes
        ],
        seconds=decoded(wire.seconds),
    )
    view.pages = converted(wire.pages, HttpCacheStats)
    view.store = None if wire.store is None else converted(wire.store, StoreStats)
    if past is not None:
        long_ago = converted(past, _PastWire)
        view.tens, view.fives = decoded(long_ago.tens), decoded(long_ago.fives)
    return view
