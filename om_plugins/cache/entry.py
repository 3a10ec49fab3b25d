"""Entries: a cached value in memory, its form in a store, and the entries it was computed from.

The form in a store is ``magic | version | size of the head | head | raw body``. The head is
msgpack: ``flags, fence, times, tags, (nothing), dependencies, cost``. The cache treats bytes of any
other form as a miss.

A :class:`DependencyTracker` records the look-ups that a fetcher makes while it runs. When an entry
is invalidated, the cache also invalidates the entries that were computed from it. A value that was
computed from a stale value is stale itself; a background fetcher, for which no caller waits,
fetches a stale value again first. The tracker sees the look-ups in the fetcher's own context
(:mod:`contextvars`): those of tasks that the fetcher starts, but not those of threads.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Protocol

import msgspec

from ..types import CacheStats
from .keys import ANY, Dependencies, Ident, encode_body, split
from .values import ABSENT

MAGIC = b"OMC"
VERSION = 1
LONGEST_S = 366 * 86400.0
_START = struct.Struct(">3sBI")
_MAX_HEAD = 1 << 20

OVERHEAD_BYTES = 560
"""The memory that an entry uses beside its key and value, measured on CPython 3.11."""
TAG_BYTES = 150
_MAX_DEPS = 1000


class CacheEntry:
    """One value in this process. Times are monotonic seconds, except ``began``.

    Attributes:
        ident: the key of the entry in the table.
        data: the encoded value.
        tags: an invalidation of any of these tags matches the entry.
        began: Unix time at which the fetch began; a later invalidation concerns the entry.
        stored: when the value was stored; its age counts from here.
        base: ``stored``, or ``-inf`` after an invalidation.
        share: the factor that shortens both times of the entry, so that entries stored together
            do not end together.
        fresh_until: end of the entry's own stale time.
        valid_until: until when memory may answer at all: the end of the entry, or the time at
            which memory must ask the shared store again.
        gone_at: end of the entry's own cache time.
        visited: a caller asked for the entry since the eviction hand last passed.
        failures: failed refreshes in a row.
        retry_at: no refresh begins before this time.
        deps: the entries from which the value was computed.
        cost_us: duration of the fetch, in microseconds.
        counts: the counters of the entry's group; set when the entry enters the table.
        hit: counts one fresh hit: a C counter, exact without a lock.
        hits_read: how many of these hits ``counts`` already includes.
        epoch: see :class:`.memory.GroupCounters`.
    """

    __slots__ = (
        "base",
        "began",
        "cost_us",
        "counts",
        "data",
        "deps",
        "epoch",
        "failures",
        "fresh_until",
        "gone_at",
        "hit",
        "hits_read",
        "ident",
        "newer",
        "older",
        "retry_at",
        "share",
        "stored",
        "tags",
        "valid_until",
        "visited",
        "weight",
    )

    def __init__(
        self,
        ident: Ident,
        data: bytes,
        *,
        tags: tuple[str, ...],
        began: float,
        stored: float,
        stale_time: float,
        cache_time: float,
        valid_until: float = math.inf,
        deps: Dependencies = (),
        cost_us: int = 0,
        shorten: float = 0.0,
    ) -> None:
        self.ident = ident
        self.data = data
        self.tags = tags
        self.began = began
        self.stored = self.base = stored
        self.share = 1 - shorten
        self.gone_at = stored + cache_time * self.share
        self.valid_until = min(self.gone_at, valid_until)
        self.fresh_until = min(stored + stale_time * self.share, self.valid_until)
        if data == ABSENT:  # never a fresh hit, since these hits are counted separately
            self.base = self.fresh_until = -math.inf
        self.deps = deps
        self.cost_us = cost_us
        self.counts: CacheStats | None = None
        self.hit = _skip_count
        self.hits_read = 0
        self.epoch = -1
        self.visited = False
        self.failures = 0
        self.retry_at = -math.inf
        self.older: CacheEntry | None = None
        self.newer: CacheEntry | None = None
        self.weight = (
            len(data)
            + len(ident)
            + OVERHEAD_BYTES
            + sum(TAG_BYTES + len(tag) for tag in tags)
            + sum(
                TAG_BYTES + len(one) + sum(TAG_BYTES + len(tag) for tag in tagged)
                for one, tagged in deps
            )
        )

    def mark_stale(self) -> None:
        """Mark the value stale: the cache still serves it, but never as a fresh one.

        An entry that says "there is no value" ends at once, since a stale absence is not served.
        """
        self.base = self.fresh_until = -math.inf
        if self.data == ABSENT:
            self.valid_until = self.gone_at = -math.inf
        if not self.failures:
            self.retry_at = -math.inf

    def distrust(self) -> None:
        """The shared store has a newer value: use this one only while the store is unreachable."""
        self.valid_until = self.fresh_until = -math.inf

    def doubt(self) -> None:
        """The value may be out of date and the cache cannot find out: serve it as stale."""
        self.base = self.fresh_until = -math.inf

    def is_fresh(self, now: float, stale_time: float | None) -> bool:
        """Return whether the value is fresh, by its own stale time or by the caller's."""
        if stale_time is None:
            return now < self.fresh_until
        return now < self.base + stale_time * self.share and now < self.valid_until


@dataclass(slots=True)
class Record:
    """The part of an entry that a store keeps. Times are Unix time, durations seconds.

    Attributes:
        flags: the format of the body; 0 for MessagePack (see :mod:`.values`).
        fence: the token of the lease under which the value was fetched; 0 without a lease.
        deps: the entries from which the value was computed.
        cost_us: duration of the fetch, in microseconds.
    """

    began: float
    stored: float
    stale_time: float
    cache_time: float
    tags: tuple[str, ...]
    body: bytes
    flags: int = 0
    fence: int = 0
    deps: Dependencies = ()
    cost_us: int = 0


_Flags = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Fence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Head = tuple[
    _Flags,
    _Fence,
    tuple[float, float, float, float],
    list[str],
    list[object],  # always empty: version 1 has a place for headers here
    Annotated[list[tuple[bytes, list[str]]], msgspec.Meta(max_length=_MAX_DEPS)],
    Annotated[int, msgspec.Meta(ge=0, lt=2**53)],
]
_write_head = msgspec.msgpack.Encoder().encode
_read_head = msgspec.msgpack.Decoder(_Head).decode


def pack(record: Record) -> bytes:
    """Encode a record for a store."""
    # a store must be able to drop its records, so no record gets an endless time
    times = (
        record.began,
        record.stored,
        min(record.stale_time, LONGEST_S),
        min(record.cache_time, LONGEST_S),
    )
    head = _write_head(
        (
            record.flags,
            record.fence,
            times,
            list(record.tags),
            [],
            [(write_ident(one), tags) for one, tags in record.deps],
            record.cost_us,
        )
    )
    return _START.pack(MAGIC, VERSION, len(head)) + head + record.body


def unpack(data: bytes, now: float) -> Record | None:
    """Decode a record from a store.

    Args:
        data: any bytes.
        now: Unix time.

    Returns:
        The record; ``None`` when the bytes are not a record of this version, are damaged, or the
        record's cache time is over. A storing time in the future (from another host's clock)
        counts as now.
    """
    try:
        magic, version, size = _START.unpack_from(data)
        if magic != MAGIC or version != VERSION or size > _MAX_HEAD:
            return None
        end = _START.size + size
        flags, fence, times, tags, _, deps, cost_us = _read_head(data[_START.size : end])
        if len(data) < end:
            return None
        computed_from = tuple((read_ident(one), tuple(tagged)) for one, tagged in deps)
    except (struct.error, msgspec.MsgspecError, ValueError, RecursionError):
        return None
    began, stored, stale_time, cache_time = times
    if not all(map(math.isfinite, times)) or min(stale_time, cache_time) < 0:
        return None
    stored = min(stored, now)
    stale_time, cache_time = min(stale_time, LONGEST_S), min(cache_time, LONGEST_S)
    if now >= stored + cache_time:
        return None
    return Record(
        min(began, stored),
        stored,
        stale_time,
        cache_time,
        tuple(tags),
        data[end:],
        flags=flags,
        fence=fence,
        deps=computed_from,
        cost_us=cost_us,
    )


def _skip_count() -> int:
    return 0


def read_ident(data: bytes) -> Ident:
    """Read an ident that was written as bytes: text as its body, other idents as they are.

    Raises:
        ValueError: the bytes are not an ident.
    """
    if data[:1] == b"S":
        return data[1:].decode("utf-8", "surrogatepass")
    if data:
        split(data)  # raises when the bytes are not an ident
    return data


def write_ident(ident: Ident) -> bytes:
    """Write an ident as bytes; see :func:`read_ident`."""
    return encode_body(ident) if isinstance(ident, str) else ident


MOST_DEPS = 200
"""With more dependencies than this, every invalidation concerns the value."""

_current: ContextVar[DependencyTracker | None] = ContextVar("om_plugins_fetch", default=None)


class _Fetch(Protocol):
    """The fetch whose look-ups a tracker records."""

    ident: Ident
    deps: dict[Ident, tuple[str, ...]]


class DependencyTracker:
    """Records the look-ups of one running fetcher.

    Attributes:
        owner: the cache; look-ups in another cache are not recorded here.
        background: no caller waits for this fetcher.
        stale: the fetcher got a stale value.
        retry_at: no newer value can be had before this monotonic time.
        outer: the fetcher inside which this one runs.
    """

    __slots__ = ("_fetch", "background", "outer", "owner", "retry_at", "stale")

    def __init__(
        self,
        owner: DependencyTracking,
        fetch: _Fetch,
        background: bool,
        outer: DependencyTracker | None,
    ) -> None:
        self.owner = owner
        self.background = background
        self.stale = False
        self.retry_at = -math.inf
        self.outer = outer
        self._fetch = fetch

    @property
    def deps(self) -> Dependencies:
        """The look-ups so far, and the dependencies of the values they returned."""
        return tuple(self._fetch.deps.items())

    def add(self, ident: Ident, tags: tuple[str, ...], deps: Dependencies = ()) -> None:
        """Record a look-up. The caller holds the lock of the process's memory."""
        found = self._fetch.deps
        for one, tagged in ((ident, tags), *deps):
            if ANY in found:
                return
            if one != self._fetch.ident:
                found[one] = tuple(dict.fromkeys((*found.get(one, ()), *tagged)))
            if len(found) > MOST_DEPS:
                found.clear()
                found[ANY] = ()

    def add_stale(self, retry_at: float) -> None:
        """Record that a look-up returned a stale value."""
        self.stale = True
        self.retry_at = max(self.retry_at, retry_at)


class DependencyTracking:
    """The trackers of all running fetchers of one cache.

    Attributes:
        active: empty while no fetcher runs, which is all that a fresh hit checks.
    """

    __slots__ = ("active",)

    def __init__(self) -> None:
        self.active: set[DependencyTracker] = set()

    def after_fork(self) -> None:
        """Forget the fetchers of the parent's other threads, which do not run in a child."""
        self.active = {one for one in (_current.get(),) if one is not None}

    def current(self) -> DependencyTracker | None:
        """Return the tracker of the innermost fetcher of this cache around the running code."""
        tracker = _current.get() if self.active else None
        while tracker is not None and tracker.owner is not self:
            tracker = tracker.outer
        return tracker

    @contextmanager
    def track(self, fetch: _Fetch, *, background: bool) -> Iterator[DependencyTracker]:
        """Record the look-ups in the block as dependencies of ``fetch``.

        A fetcher that runs inside a background fetcher is a background fetcher, too.
        """
        outer = self.current()
        behind = background or (outer is not None and outer.background)
        tracker = DependencyTracker(self, fetch, behind, _current.get())
        token = _current.set(tracker)
        self.active.add(tracker)
        try:
            yield tracker
        finally:
            self.active.discard(tracker)
            _current.reset(token)
