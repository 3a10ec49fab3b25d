"""Entries: one cached value in memory, and the form in which a store keeps it.

The form is ``magic | version | size of the head | head | raw body``; the head is msgpack:
``flags, fence, times, tags, headers, dependencies, cost``. Bytes that do not have this form are a
miss.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, TypeAlias, TypeVar

import msgspec

from ..types import CacheStats
from .keys import Ident, body_of, split
from .values import ABSENT

T = TypeVar("T")

__all__ = ["Deps", "Entry", "Record", "pack", "unpack"]

MAGIC = b"OMC"
VERSION = 1
LONGEST_S = 366 * 86400.0
_START = struct.Struct(">3sBI")
_MAX_HEAD = 1 << 20

OVERHEAD_BYTES = 560
"""What an entry costs in memory beside its key and value, measured on CPython 3.11."""
TAG_BYTES = 150
_MAX_DEPS = 1000

Deps: TypeAlias = "tuple[tuple[Ident, tuple[str, ...]], ...]"
"""The entries that a value was computed from, each with its tags."""


class Entry:
    """One value in this process. Times are the process's monotonic seconds, ``began`` excepted.

    Attributes:
        ident: where it is found.
        data: the encoded value.
        tags: what it can be invalidated by.
        began: Unix time at which its fetch began: an invalidation from then on concerns it.
        stored: when it was stored; its age counts from here.
        base: ``stored``, or ``-inf`` once it was invalidated.
        share: of its times, by which it is used; what was stored together ends at different times.
        fresh_until: until when it is fresh by its own stale time.
        valid_until: until when memory may answer at all (its own end, or a shared store's turn).
        gone_at: its own end.
        visited: it was asked for since the eviction hand last passed.
        failures: refreshes that failed in a row.
        retry_at: no refresh begins before.
        deps: what it was computed from.
        cost_us: what fetching it took, in microseconds.
        counts: what its look-ups are counted in; given with its place in the table.
        hit: counts one fresh hit: a C counter, exact without a lock.
        hits_read: how many of them are in ``counts`` already. epoch: see :mod:`.groups`.
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
        deps: Deps = (),
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
        if data == ABSENT:  # never a fresh hit: those who look are counted apart
            self.base = self.fresh_until = -math.inf
        self.deps = deps
        self.cost_us = cost_us
        self.counts: CacheStats | None = None
        self.hit = _uncounted
        self.hits_read = 0
        self.epoch = -1
        self.visited = False
        self.failures = 0
        self.retry_at = -math.inf
        self.older: Entry | None = None
        self.newer: Entry | None = None
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
        """Invalidate softly: the value stays and is served, but never as a fresh one.

        That there is none is no value to serve: an absence is over.
        """
        self.base = self.fresh_until = -math.inf
        if self.data == ABSENT:
            self.valid_until = self.gone_at = -math.inf
        if not self.failures:
            self.retry_at = -math.inf

    def distrust(self) -> None:
        """A shared store has a newer one: this one answers only while the store is away."""
        self.valid_until = self.fresh_until = -math.inf

    def doubt(self) -> None:
        """It may be out of date, and nobody can say: it is served as a stale one."""
        self.base = self.fresh_until = -math.inf

    def is_fresh(self, now: float, stale_time: float | None) -> bool:
        """Fresh by its own stale time, or by the caller's."""
        if stale_time is None:
            return now < self.fresh_until
        return now < self.base + stale_time * self.share and now < self.valid_until


@dataclass(slots=True)
class Record:
    """What a store keeps of an entry. Times are Unix time, durations seconds.

    Attributes:
        flags: how the body is written; 0 for MessagePack (see :mod:`.values`).
        fence: the token of the lease under which it was fetched; 0 for none.
        headers: of a response; none for data.
        deps: what it was computed from. cost_us: what fetching it took, in microseconds.
    """

    began: float
    stored: float
    stale_time: float
    cache_time: float
    tags: tuple[str, ...]
    body: bytes
    flags: int = 0
    fence: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    deps: Deps = ()
    cost_us: int = 0


_Flags = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Fence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Head = tuple[
    _Flags,
    _Fence,
    tuple[float, float, float, float],
    list[str],
    list[tuple[str, str]],
    Annotated[list[tuple[bytes, list[str]]], msgspec.Meta(max_length=_MAX_DEPS)],
    Annotated[int, msgspec.Meta(ge=0, lt=2**53)],
]
_write_head = msgspec.msgpack.Encoder().encode
_read_head = msgspec.msgpack.Decoder(_Head).decode


def pack(record: Record) -> bytes:
    """The bytes that a store keeps."""
    # no endless time leaves the process: a store must be able to drop what it holds
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
            list(record.headers),
            [(body_of(one) if isinstance(one, str) else one, tags) for one, tags in record.deps],
            record.cost_us,
        )
    )
    return _START.pack(MAGIC, VERSION, len(head)) + head + record.body


def unpack(data: bytes, now: float) -> Record | None:
    """Read what a store gave.

    Args:
        data: any bytes.
        now: Unix time.

    Returns:
        The record; ``None`` when it is not one of ours, damaged, of another version or over. A
        time of storing that lies ahead (another host's clock) counts as now.
    """
    try:
        magic, version, size = _START.unpack_from(data)
        if magic != MAGIC or version != VERSION or size > _MAX_HEAD:
            return None
        end = _START.size + size
        flags, fence, times, tags, headers, deps, cost_us = _read_head(data[_START.size : end])
        if len(data) < end:
            return None
        computed_from = tuple((_ident(one), _tuple(tagged)) for one, tagged in deps)
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
        _tuple(tags),
        data[end:],
        flags=flags,
        fence=fence,
        headers=_tuple(headers),
        deps=computed_from,
        cost_us=cost_us,
    )


def _uncounted() -> int:
    return 0


def _ident(data: bytes) -> Ident:
    if data[:1] == b"S":
        return data[1:].decode("utf-8", "surrogatepass")
    if data:
        split(data)  # raises for what is no ident
    return data


def _tuple(items: Iterable[T]) -> tuple[T, ...]:
    return tuple(items)
