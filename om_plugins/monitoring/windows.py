"""What was counted, by time: one-second slots that roll up into ten seconds and five minutes.

Slots are made when something happens in them, so an idle process holds none. A closed slot is
never changed again, which is why its encoded form is kept. Slots are aligned to Unix time:
those of several workers with the same index are about the same moment and can be added.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Annotated

import msgspec

from ..core.histogram import Histogram
from ..core.problem__conversion import converted

__all__ = ["LEVELS", "Slot", "Windows", "added_up", "decoded", "side_by_side"]

LEVELS: tuple[tuple[int, int], ...] = ((1, 120), (10, 360), (300, 288))
"""Width in seconds and number of slots: two minutes, an hour, a day."""

_STEPPED_BACK_S = 5
"""A clock that goes back by less is a late sample, by more an administrator's change."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Amount = Annotated[float, msgspec.Meta(ge=0, le=1e15)]


class _Wire(msgspec.Struct, array_like=True):
    """A slot as it lies in the hub."""

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


class Slot:
    """What happened in one stretch of time.

    Attributes:
        index: Unix time divided by the width of the slot.
        requests: answered requests.
        errors: those with a status of 500 and above.
        refused: those with a status of 400 to 499.
        size_bytes: body bytes sent.
        in_flight: requests under way, at most.
        cpu_s: processor seconds used by the process.
        rss_bytes: memory of the process.
        memory: share of the host's or container's memory in use, 0 to 1.
        cache_hits, cache_misses: look-ups of the smart cache.
        durations: seconds per request.
    """

    __slots__ = (
        "_encoded", "cache_hits", "cache_misses", "cpu_s", "durations", "errors", "in_flight",
        "index", "memory", "refused", "requests", "rss_bytes", "size_bytes",
    )  # fmt: skip

    def __init__(self, index: int) -> None:
        self.index = index
        self.requests = 0
        self.errors = 0
        self.refused = 0
        self.size_bytes = 0
        self.in_flight = 0
        self.cpu_s = 0.0
        self.rss_bytes = 0
        self.memory = 0.0
        self.cache_hits = 0
        self.cache_misses = 0
        self.durations = Histogram()
        self._encoded: list[object] | None = None

    def _count(self, other: Slot) -> None:
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

    def then(self, later: Slot) -> None:
        """Add a later slot of the same worker: of what is a level, the newest counts."""
        self._count(later)
        self.memory = later.memory or self.memory
        self.rss_bytes = later.rss_bytes or self.rss_bytes
        self.in_flight = max(self.in_flight, later.in_flight)

    def beside(self, other: Slot) -> None:
        """Add the same stretch of time of another worker: levels add up."""
        self._count(other)
        self.rss_bytes += other.rss_bytes
        self.in_flight += other.in_flight

    def copied(self) -> Slot:
        """The slot as it is now."""
        made = Slot(self.index)
        made.beside(self)
        return made

    def encoded(self, *, closed: bool) -> list[object]:
        """The slot as hub data; kept when it is closed."""
        if self._encoded is not None:
            return self._encoded
        made: list[object] = [
            self.index, self.requests, self.errors, self.refused, self.size_bytes,
            self.in_flight, round(self.cpu_s, 6), self.rss_bytes, round(self.memory, 4),
            self.cache_hits, self.cache_misses, self.durations.encode(),
        ]  # fmt: skip
        if closed:
            self._encoded = made
        return made

    @classmethod
    def decode(cls, data: object) -> Slot:
        """Read hub data, which anybody may have written.

        Raises:
            ValueError: it is not a slot.
        """
        wire = converted(data, _Wire)
        made = cls(wire.index)
        for name in _Wire.__struct_fields__[1:-1]:
            setattr(made, name, getattr(wire, name))
        made.durations = Histogram.decode(wire.durations)
        return made


class _Level:
    """The slots of one width."""

    __slots__ = ("closed", "current", "size", "width")

    def __init__(self, width: int, size: int) -> None:
        self.width = width
        self.size = size
        self.closed: deque[Slot] = deque(maxlen=size)
        self.current: Slot | None = None


class Windows:
    """The slots of one process, in all widths. Not for several threads at once."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels = [_Level(width, size) for width, size in LEVELS]

    def at(self, now: float) -> Slot:
        """The one-second slot for Unix time ``now``.

        What comes a little late goes into the newest slot: closed ones stay as they are.
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
        level.current = made = Slot(index)
        return made

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
            wider.current.then(slot)

    def read(self, width: int, now: float) -> list[Slot]:
        """The slots of one width up to Unix time ``now``, oldest first; empty ones are left out.

        Args:
            width: one of those in :data:`LEVELS`.
        """
        return [slot for slot, _ in self._recent(width, now)]

    def snapshot(self, width: int, now: float) -> list[Slot]:
        """The same, to keep: closed slots do not change, the present one is copied."""
        return [slot if closed else slot.copied() for slot, closed in self._recent(width, now)]

    def encoded(self, width: int, now: float) -> list[list[object]]:
        """The same as hub data."""
        return [slot.encoded(closed=closed) for slot, closed in self._recent(width, now)]

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


def side_by_side(workers: Iterable[Iterable[Slot]]) -> list[Slot]:
    """The slots of several workers as if they were one, oldest first."""
    merged: dict[int, Slot] = {}
    for slots in workers:
        for slot in slots:
            found = merged.get(slot.index)
            if found is None:
                found = merged[slot.index] = Slot(slot.index)
            found.beside(slot)
    return [merged[index] for index in sorted(merged)]


def added_up(slots: Iterable[Slot]) -> Slot:
    """All slots, oldest first, as one."""
    total = Slot(0)
    for slot in slots:
        total.then(slot)
    return total


def decoded(data: object) -> list[Slot]:
    """A list of slots from hub data.

    Raises:
        ValueError: it is not one.
    """
    if not isinstance(data, list) or len(data) > max(size for _, size in LEVELS) + 1:
        raise ValueError("not a list of slots")
    return [Slot.decode(one) for one in data]
