"""Worker snapshots: each worker puts its counts into the hub, where the others read them.

A snapshot has two keys: one for what changes each second (totals, the last two minutes, engines,
routes), one for what changes every ten seconds (the hour and the day). Both expire soon, so the
snapshot of a killed worker disappears by itself. A snapshot is checked before it is used; a damaged
one is left out.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Annotated

import msgspec

from ..core.body import convert
from ..core.histogram import Histogram
from ..protocols import Hub
from ..types import CacheStats, EngineHealth, HttpCacheStats, StoreStats
from ..workers.engine_health import decode_health, encode_health
from .collector import Collector
from .windows import Slot, decode_slots

logger = logging.getLogger("om_plugins")

EVERY_S = 10.0
"""How often a worker publishes its snapshot when nobody watches, in seconds."""
TTL_S = 25.0
"""How long a snapshot lasts in the hub: longer than two intervals, so one may be late."""
WATCHED_TTL_S = 15.0
"""How long workers publish every second after somebody looked."""
MAX_PUBLISHED_ROUTES = 200
MAX_WORKERS = 256
MAX_GROUPS = 50

_NUMBERS = ("pid", "at", "requests", "in_flight", "rss_bytes", "dropped")
"""The fields of a view that are stored as they are."""

_NOW = "monitor/now/"
_PAST = "monitor/past/"
_WATCHING = "monitor/watching"

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Amount = _Count | Annotated[float, msgspec.Meta(ge=0, le=2**53)]
_Text = Annotated[str, msgspec.Meta(max_length=200)]


@dataclass(slots=True)
class RouteView:
    """One row of the route table."""

    method: str
    route: str
    status_class: int
    requests: int
    size_bytes: int
    recent: Histogram

    @property
    def key(self) -> tuple[str, str, int]:
        """The method, the route and the status class, by which the rows of workers are merged."""
        return self.method, self.route, self.status_class


@dataclass(slots=True)
class WorkerView:
    """The counts of one worker.

    Attributes:
        uid: the unique name of the process.
        groups: the cache's counters by group of keys.
        store: the counters of the shared store; ``None`` when there is none.
        seconds: one-second slots of the last two minutes.
        tens: ten-second slots of the last hour.
        fives: five-minute slots of the last day.
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
    routes: list[RouteView] = field(default_factory=list)
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
class EncodedSlots:
    """The slots of this worker, encoded for the hub. A closed slot is encoded only once."""

    seconds: list[list[object]]
    tens: list[list[object]] = field(default_factory=list)
    fives: list[list[object]] = field(default_factory=list)


class WorkerSnapshots:
    """Publishes this worker's snapshot and reads those of the others.

    Args:
        hub: the hub that the workers share.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._pid = 0
        self._uid = ""
        self._published = False

    @property
    def uid(self) -> str:
        """The name of this process in the hub. A forked child gets its own."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._uid = f"{self._pid}-{secrets.token_hex(4)}"
            self._published = False
        return self._uid

    def publish(self, view: WorkerView, slots: EncodedSlots, *, past: bool) -> None:
        """Publish this worker's snapshot.

        Args:
            view: the counts of this worker.
            slots: the same worker's slots, encoded.
            past: whether to publish the hour and the day, too.
        """
        uid = self.uid
        self._published = True
        routes = sorted(view.routes, key=lambda row: row.requests, reverse=True)
        now: dict[str, object] = {name: getattr(view, name) for name in _NUMBERS} | {
            "cache": asdict(view.cache),
            "groups": _select_busiest(view.groups),
            "pages": asdict(view.pages),
            "store": None if view.store is None else asdict(view.store),
            "engines": encode_health(view.engines),
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
        """Remove this worker's snapshot from the hub, because the process ends."""
        if self._published and self._pid == os.getpid():
            self._hub.put(_NOW + self._uid, None, TTL_S)
            self._hub.put(_PAST + self._uid, None, TTL_S)
            self._published = False

    def read_others(self, *, past: bool = True) -> list[WorkerView]:
        """Read the snapshots of the other workers.

        Args:
            past: whether to read the hour and the day, too, which takes most of the time.
        """
        views = []
        long_ago = self._hub.scan(_PAST) if past else {}
        for key, data in list(self._hub.scan(_NOW).items())[:MAX_WORKERS]:
            uid = key.removeprefix(_NOW)
            if uid == self.uid:
                continue
            try:
                views.append(_decode_view(uid, data, long_ago.get(_PAST + uid)))
            except (ValueError, TypeError) as error:
                logger.debug("the snapshot of worker %r is left out: %s", uid, error)
        return views

    def watch(self) -> None:
        """Ask all workers to publish every second for a while."""
        self._hub.put(_WATCHING, True, WATCHED_TTL_S)

    def is_watched(self) -> bool:
        """Return whether somebody asked for a snapshot every second."""
        return self._hub.get(_WATCHING) is not None


def read_own_view(
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
    """Return the current counts of this worker.

    Args:
        uid: the name of the worker.
        collector: the counts of requests.
        dropped: how many samples monitors lost.
        rss_bytes: memory of the process.
        cache: the counters of the cache.
        groups: the same by group of keys.
        engines: the health of the engines.
        pages: the counters of the shared HTTP cache.
        store: those of the shared store.
    """
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
            RouteView(*key, row.requests, row.size_bytes, row.recent(now))
            for key, row in counted.rows.items()
        ]
        view.seconds = counted.windows.read(1, now)
        view.tens = counted.windows.read(10, now)
        view.fives = counted.windows.read(300, now)

    collector.read(look)
    return view


def _select_busiest(groups: dict[str, CacheStats]) -> dict[str, dict[str, int]]:
    """Select the groups with the most look-ups, and of each the counters that are not zero."""
    order = sorted(groups.items(), key=lambda one: -one[1].hits - one[1].misses)
    return {
        name: {key: count for key, count in asdict(one).items() if count}
        for name, one in order[:MAX_GROUPS]
    }


def encode_own_slots(collector: Collector, *, past: bool) -> EncodedSlots:
    """Encode the slots of this worker for the hub.

    Args:
        collector: the counts of requests.
        past: whether to encode the hour and the day, too.
    """
    slots = EncodedSlots([])

    def look(counted: Collector, now: float) -> None:
        slots.seconds = counted.windows.encode(1, now)
        if past:
            slots.tens = counted.windows.encode(10, now)
            slots.fives = counted.windows.encode(300, now)

    collector.read(look)
    return slots


def _decode_view(uid: str, now: object, past: object) -> WorkerView:
    wire = convert(now, _NowWire)
    view = WorkerView(
        uid,
        **{name: getattr(wire, name) for name in _NUMBERS},
        cache=convert(wire.cache, CacheStats),
        groups={name: convert(one, CacheStats) for name, one in wire.groups.items()},
        engines=decode_health(wire.engines),
        routes=[
            RouteView(method, route, status_class, requests, size, Histogram.decode(recent))
            for method, route, status_class, requests, size, recent in map(
                msgspec.structs.astuple, wire.routes
            )
        ],
        seconds=decode_slots(wire.seconds),
    )
    view.pages = convert(wire.pages, HttpCacheStats)
    view.store = None if wire.store is None else convert(wire.store, StoreStats)
    if past is not None:
        long_ago = convert(past, _PastWire)
        view.tens, view.fives = decode_slots(long_ago.tens), decode_slots(long_ago.fives)
    return view
