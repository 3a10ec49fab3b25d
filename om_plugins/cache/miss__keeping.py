"""What is kept of what was fetched, and how look-ups are counted."""

from __future__ import annotations

from collections.abc import Callable

from .. import signals
from ..errors import CacheError
from ..protocols import Clock
from ..types import ChangeKind
from .entry import Entry
from .invalidation__tracking import Tracker
from .keys import Ident, Key
from .memory__groups import count_saved
from .memory__process import Process
from .miss__ask import Ask
from .shared_store import Seen
from .singleflight import Fence, Flight
from .singleflight__turns import Turns
from .tiers import Levels
from .values import ABSENT

__all__ = ["Keeping"]

_TRIES = 3
"""Writes of one value to the store; each but the first because another process wrote just then."""


class Keeping:
    """Keeps values, and counts.

    Args:
        levels: where entries are.
        clock: time.
        max_value: a value whose encoding is larger is not kept.
        tell: sends a signal.
        changed: told of what was kept or dropped: the process, the ident, the kind, the tags,
            and whether the value is the one that was there.
        turns: which process fetches.
    """

    def __init__(
        self,
        levels: Levels,
        clock: Clock,
        max_value: int,
        tell: Callable[..., None],
        changed: Callable[[Process, Ident, ChangeKind, tuple[str, ...], bool], None],
        turns: Turns,
    ) -> None:
        self._levels = levels
        self._now = clock.monotonic
        self._max_value = max_value
        self._tell = tell
        self._changed = changed
        self._turns = turns

    def drop(self, process: Process, ident: Ident) -> None:
        """Forget an entry: what would take its place must not be kept."""
        self._levels.drop(process, ident)
        self._changed(process, ident, "removed", (), False)

    def keep(
        self, process: Process, flight: Flight, ask: Ask, kind: ChangeKind, tracker: Tracker
    ) -> None:
        """Keep what a flight brought, unless it was taken back meanwhile.

        Args:
            tracker: what it was computed from.
        """
        tags = flight.tags
        seen = self._confirmed(flight)
        fence = 0 if flight.lease is None else flight.lease.token
        stale_time, cache_time = ask.times(flight.negative)
        entry = self._levels.make(
            ask.ident, flight.data, tags, flight.began, stale_time, cache_time,
            tracker.deps, flight.cost_us,
        )  # fmt: skip
        entry.retry_at = entry.stored + ask.dedupe_time
        if tracker.stale:  # what was computed from a stale value is no fresher than that
            flight.fence = max(flight.fence, Fence.STALE)
            stale_time = 0.0

        def still_wanted() -> bool:
            return flight.fence is not Fence.DISCARD

        # the store first: who is woken by the end of this flight must find the value somewhere
        for _ in range(_TRIES):
            if self._levels.save(
                process, entry, stale_time, cache_time, still_wanted, fence, seen,
                lambda: self._turns.still(flight),
            ):  # fmt: skip
                break
            seen = self._confirmed(flight)  # somebody wrote meanwhile: is that newer?
        else:  # or what is there cannot be seen: then it must not stay in the way
            flight.fence = Fence.DISCARD
            self._levels.drop(process, ask.ident)
        with process.lock:
            if flight.fence is Fence.DISCARD:
                return
            if flight.fence is Fence.STALE:
                entry.mark_stale()
                if tracker.stale:
                    entry.retry_at = max(entry.stored + ask.dedupe_time, tracker.retry_at)
            kept = entry.stored < entry.gone_at
            before = process.local.entries.get(ask.ident)
            same = before is not None and before.data == entry.data
            if kept:
                process.local.put(entry)
            process.failed.pop(ask.ident, None)
        if kept:
            self._changed(process, ask.ident, kind, tags, same)

    def _confirmed(self, flight: Flight) -> Seen | None:
        shared = self._levels.shared
        return None if shared is None else self._turns.confirm(flight, shared.look)

    def data_of(self, process: Process, value: object, ask: Ask) -> bytes | None:
        """The bytes of a value; ``None``, counted and warned of, when it has none."""
        if value is None and ask.negative_time is not None:
            return ABSENT
        try:
            return self._levels.encode(value)
        except CacheError as error:
            process.refuse("type", f"the value of {_shown(ask.key)}", str(error))
            return None

    def fits(self, process: Process, data: bytes, key: Key) -> bool:
        """Whether a value may be kept; counts and warns when it may not."""
        if len(data) <= self._max_value:
            return True
        process.refuse(
            "size",
            f"the value of {_shown(key)}",
            f"{len(data):,} bytes are over the limit of {self._max_value:,}; cache less, or raise "
            "OM_CACHE_MAX_VALUE",
        )
        return False

    def count_kind(
        self, process: Process, entry: Entry, stale_time: float | None, key: Key
    ) -> bool:
        """Count and tell a hit as fresh or stale; returns whether it is fresh."""
        now = self._now()
        if entry.data == ABSENT:
            self.count(process, entry.ident, "negative")
            self._tell(signals.cache_hit, key=key)
            return True
        if entry.is_fresh(now, stale_time):
            process.count_fresh(entry)
            self._tell(signals.cache_hit, key=key)
            return True
        with process.lock:
            counts = process.groups.of(entry.ident)
            counts.stale += 1
            count_saved(counts, entry)
        self._tell(signals.cache_stale_served, key=key, age_s=now - entry.stored)
        return False

    @staticmethod
    def count(process: Process, ident: Ident, name: str) -> None:
        """Count one."""
        with process.lock:
            counts = process.groups.of(ident)
            setattr(counts, name, getattr(counts, name) + 1)


def _shown(key: Key) -> str:
    text = repr(key)
    return text if len(text) <= 120 else text[:119] + "…"
