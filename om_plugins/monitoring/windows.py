"""Time windows: counts in slots of one second, which add up to slots of 10 s and of 5 min.

A slot is created when something happens in it, so an idle process holds none. A closed slot never
changes again, so its encoded form is kept. Slots are aligned to Unix time: slots of several
workers with the same index cover the same moment and can be added.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from ..core.body import convert
from ..core.histogram import Histogram

LEVELS: tuple[tuple[int, int], ...] = ((1, 120), (10, 360), (300, 288))
"""The width in seconds and the number of slots of each level: two minutes, an hour, a day."""

_STEPPED_BACK_S = 5
"""A sample that is older than this by no more is late; an older one means that somebody set the
clock back."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Amount = Annotated[float, msgspec.Meta(ge=0, le=1e15)]


class _SlotWire(msgspec.Struct, array_like=True):
    """A slot as it is stored in the hub."""

    index: _Count
    requests: _Count
    errors: _Count
    refused: _Count
    size_bytes: _Count
    in_flight: _Count
    cpu_s: _Amount
    rss_bytes: _Count
    memory: _Amount
    cache_hits: _Count
    cache_misses: _Count
    durations: bytes


@dataclass(slots=True, eq=False, repr=False)
class Slot:
    """The counts of one period.

    Attributes:
        index: Unix time divided by the width of the slot.
        requests: requests that were answered.
        errors: answers with a status of 500 or above.
        refused: answers with a status of 400 to 499.
        size_bytes: body bytes that were sent.
        in_flight: the greatest number of requests in progress at once.
        cpu_s: processor seconds that the process used.
        rss_bytes: memory of the process.
        memory: share of the host's or container's memory in use, 0 to 1.
        cache_hits, cache_misses: look-ups in the smart cache.
        durations: seconds per request.
    """

    index: int
    requests: int = 0
    errors: int = 0
    refused: int = 0
    size_bytes: int = 0
    in_flight: int = 0
    cpu_s: float = 0.0
    rss_bytes: int = 0
    memory: float = 0.0
    cache_hits: int = 0
    cache_misses: int = 0
    durations: Histogram = field(default_factory=Histogram)
    _encoded: list[object] | None = None

    def _add_counts(self, other: Slot) -> None:
        self.requests += other.requests
        self.errors += other.errors
        self.refused += other.refused
        self.size_bytes += other.size_bytes
        self.cpu_s += other.cpu_s
        self.cache_hits += other.cache_hits
        self.cache_misses += other.cache_misses
        self.durations.add(other.durations)
        self.memory = max(self.memory, other.memory) if other.memory else self.memory
        self._encoded = None

    def add_later(self, later: Slot) -> None:
        """Add a later slot of the same worker: memory is that of the newer slot."""
        self._add_counts(later)
        self.memory = later.memory or self.memory
        self.rss_bytes = later.rss_bytes or self.rss_bytes
        self.in_flight = max(self.in_flight, later.in_flight)

    def add_parallel(self, other: Slot) -> None:
        """Add another worker's slot of the same period: memory and requests in flight add up."""
        self._add_counts(other)
        self.rss_bytes += other.rss_bytes
        self.in_flight += other.in_flight

    def copy(self) -> Slot:
        """Return a copy that does not change any more."""
        copy = Slot(self.index)
        copy.add_parallel(self)
        return copy

    def encode(self, *, closed: bool) -> list[object]:
        """Encode the slot for the hub.

        Args:
            closed: the slot will not change any more, so its encoded form is kept.
        """
        if self._encoded is not None:
            return self._encoded
        encoded: list[object] = [
            self.index, self.requests, self.errors, self.refused, self.size_bytes,
            self.in_flight, round(self.cpu_s, 6), self.rss_bytes, round(self.memory, 4),
            self.cache_hits, self.cache_misses, self.durations.encode(),
        ]  # fmt: skip
        if closed:
            self._encoded = encoded
        return encoded

    @classmethod
    def decode(cls, data: object) -> Slot:
        """Decode a slot from hub data, which other programs may have written.

        Raises:
            ValueError: the data is not a slot.
        """
        wire = convert(data, _SlotWire)
        slot = cls(wire.index)
        for name in _SlotWire.__struct_fields__[1:-1]:
            setattr(slot, name, getattr(wire, name))
        slot.durations = Histogram.decode(wire.durations)
        return slot


class _SlotLevel:
    """The slots of one width."""

    __slots__ = ("closed", "current", "size", "width")

    def __init__(self, width: int, size: int) -> None:
        self.width = width
        self.size = size
        self.closed: deque[Slot] = deque(maxlen=size)
        self.current: Slot | None = None


class Windows:
    """The slots of one process, in all widths. Threads must not use it at the same time."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels = [_SlotLevel(width, size) for width, size in LEVELS]

    def at(self, now: float) -> Slot:
        """Return the one-second slot for Unix time ``now``.

        A sample that comes a little late goes into the newest slot, because closed slots never
        change.
        """
        return self._slot(0, int(now))

    def _slot(self, number: int, index: int) -> Slot:
        level = self._levels[number]
        current = level.current
        if current is not None:
            behind = current.index - index
            if 0 <= behind <= _STEPPED_BACK_S:
                return current
            self._close(number, current)
        level.current = slot = Slot(index)
        return slot

    def _close(self, number: int, slot: Slot) -> None:
        level = self._levels[number]
        level.closed.append(slot)
        level.current = None
        if number + 1 < len(self._levels):
            wider = self._levels[number + 1]
            index = slot.index * level.width // wider.width
            if wider.current is not None and wider.current.index != index:
                self._close(number + 1, wider.current)
            if wider.current is None:
                wider.current = Slot(index)
            wider.current.add_later(slot)

    def read(self, width: int, now: float) -> list[Slot]:
        """Return the slots of one width, oldest first, without the empty ones.

        Closed slots do not change, and the current one is a copy, so the caller may keep them.

        Args:
            width: a width in :data:`LEVELS`.
            now: Unix time, up to which slots are returned.
        """
        return [slot if closed else slot.copy() for slot, closed in self._recent(width, now)]

    def encode(self, width: int, now: float) -> list[list[object]]:
        """Return the same slots as :meth:`read`, encoded for the hub."""
        return [slot.encode(closed=closed) for slot, closed in self._recent(width, now)]

    def _recent(self, width: int, now: float) -> list[tuple[Slot, bool]]:
        number = next(i for i, level in enumerate(self._levels) if level.width == width)
        for below, level in enumerate(self._levels[: number + 1]):
            current = level.current
            if current is not None and current.index < int(now) // level.width:
                self._close(below, current)
        level = self._levels[number]
        found = [(slot, True) for slot in level.closed]
        if level.current is not None:
            found.append((level.current, False))
        newest = int(now) // width
        return [pair for pair in found if newest - level.size < pair[0].index <= newest]


def merge_workers(workers: Iterable[Iterable[Slot]]) -> list[Slot]:
    """Add the slots of several workers as if they were one worker; oldest first."""
    merged: dict[int, Slot] = {}
    for slots in workers:
        for slot in slots:
            found = merged.get(slot.index)
            if found is None:
                found = merged[slot.index] = Slot(slot.index)
            found.add_parallel(slot)
    return [merged[index] for index in sorted(merged)]


def sum_slots(slots: Iterable[Slot]) -> Slot:
    """Add slots of one worker, given oldest first."""
    total = Slot(0)
    for slot in slots:
        total.add_later(slot)
    return total


def decode_slots(data: object) -> list[Slot]:
    """Decode a list of slots from hub data.

    Raises:
        ValueError: the data is not a list of slots.
    """
    if not isinstance(data, list) or len(data) > max(size for _, size in LEVELS) + 1:
        raise ValueError("not a list of slots")
    return [Slot.decode(one) for one in data]
