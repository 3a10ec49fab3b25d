"""Entries: one cached value in memory, and the form in which a store keeps it.

The form is ``magic | version | size of the head | head | raw body``; the head is msgpack:
``flags, fence, times, tags, headers``. Bytes that do not have this form are a miss.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec

from .keys import Ident

T = TypeVar("T")

__all__ = ["Entry", "Record", "pack", "unpack"]

MAGIC = b"OMC"
VERSION = 1
LONGEST_S = 366 * 86400.0
_START = struct.Struct(">3sBI")
_MAX_HEAD = 1 << 20

OVERHEAD_BYTES = 560
"""What an entry costs in memory beside its key and value, measured on CPython 3.11."""
TAG_BYTES = 150


class Entry:
    """One value in this process. Times are the process's monotonic seconds, ``began`` excepted.

    Attributes:
        ident: where it is found.
        data: the encoded value.
        tags: what it can be invalidated by.
        began: Unix time at which its fetch began: an invalidation from then on concerns it.
        stored: when it was stored; its age counts from here.
        base: ``stored``, or ``-inf`` once it was invalidated.
        fresh_until: until when it is fresh by its own stale time.
        valid_until: until when memory may answer at all (its own end, or a shared store's turn).
        gone_at: its own end.
        visited: it was asked for since the eviction hand last passed.
        failures: refreshes that failed in a row.
        retry_at: no refresh begins before.
    """

    __slots__ = (
        "base",
        "began",
        "data",
        "failures",
        "fresh_until",
        "gone_at",
        "ident",
        "newer",
        "older",
        "retry_at",
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
    ) -> None:
        self.ident = ident
        self.data = data
        self.tags = tags
        self.began = began
        self.stored = self.base = stored
        self.gone_at = stored + cache_time
        self.valid_until = min(self.gone_at, valid_until)
        self.fresh_until = min(stored + stale_time, self.valid_until)
        self.visited = False
        self.failures = 0
        self.retry_at = -math.inf
        self.older: Entry | None = None
        self.newer: Entry | None = None
        self.weight = (
            len(data) + len(ident) + OVERHEAD_BYTES + sum(TAG_BYTES + len(tag) for tag in tags)
        )

    def mark_stale(self) -> None:
        """Invalidate softly: the value stays and is served, but never as a fresh one."""
        self.base = self.fresh_until = -math.inf
        if not self.failures:
            self.retry_at = -math.inf

    def distrust(self) -> None:
        """A shared store has a newer one: this one answers only while the store is away."""
        self.valid_until = self.fresh_until = -math.inf

    def is_fresh(self, now: float, stale_time: float | None) -> bool:
        """Fresh by its own stale time, or by the caller's."""
        if stale_time is None:
            return now < self.fresh_until
        return now < self.base + stale_time and now < self.valid_until


@dataclass(slots=True)
class Record:
    """What a store keeps of an entry. Times are Unix time, durations seconds.

    Attributes:
        flags: how the body is written; 0 for MessagePack (see :mod:`.values`).
        fence: the token of the lease under which it was fetched; 0 for none.
        headers: of a response; none for data.
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


_Flags = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Fence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Head = tuple[_Flags, _Fence, tuple[float, float, float, float], list[str], list[tuple[str, str]]]
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
    head = _write_head((record.flags, record.fence, times, list(record.tags), list(record.headers)))
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
        flags, fence, times, tags, headers = _read_head(data[_START.size : end])
        if len(data) < end:
            return None
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
    )


def _tuple(items: Iterable[T]) -> tuple[T, ...]:
    return tuple(items)
