"""The two levels as one: this process's memory, in front of a store that workers may share."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable

from ..protocols import Clock
from .entry import Deps, Entry, Record
from .invalidation import ANY, Invalidation
from .keys import Ident
from .memory__process import Process
from .shared_store import DEAF_TTL_S, L1_TTL_S, Seen, Shared
from .singleflight import Fence
from .values import decode, encode

__all__ = ["Levels"]


class Levels:
    """Finds and keeps entries. Which process's memory is meant is said at each call.

    Args:
        shared: the second level; ``None`` when memory is all there is.
        clock: time.
        stale_time, cache_time: for entries that do not say their own, in seconds.
        jitter: each entry's times are shortened by a share of up to this, so that what was
            stored together does not end together.
        encode: writes values (see :func:`.values.encode`).

    Attributes:
        deaf: nobody can tell this process what happens elsewhere. Memory then answers for what it
            takes to answer, and each look-up asks the store.
    """

    def __init__(
        self,
        shared: Shared | None,
        clock: Clock,
        stale_time: float,
        cache_time: float,
        jitter: float = 0.0,
        encode: Callable[[object], bytes] = encode,
    ) -> None:
        self.encode = encode
        self.shared = shared
        self.deaf = False
        self._clock = clock
        self._now = clock.monotonic
        self._stale_time = stale_time
        self._cache_time = cache_time
        self._jitter = jitter

    def times(self, stale_time: float | None, cache_time: float | None) -> tuple[float, float]:
        """Both times in seconds, with the cache's own where one is ``None``."""
        return (
            self._stale_time if stale_time is None else stale_time,
            self._cache_time if cache_time is None else cache_time,
        )

    def make(
        self,
        ident: Ident,
        data: bytes,
        tags: tuple[str, ...],
        began: float,
        stale_time: float | None,
        cache_time: float | None,
        deps: Deps = (),
        cost_us: int = 0,
    ) -> Entry:
        """An entry for a value that was just fetched; it is not put anywhere."""
        now = self._now()
        fresh, kept = self.times(stale_time, cache_time)
        return Entry(
            ident,
            data,
            tags=tags,
            began=began,
            stored=now,
            stale_time=fresh,
            cache_time=kept,
            valid_until=self._trusted_until(now),
            deps=deps,
            cost_us=cost_us,
            shorten=self._shorten(),
        )

    def _shorten(self) -> float:
        return random.uniform(0, self._jitter) if self._jitter else 0.0

    def _trusted_until(self, now: float) -> float:
        if self.shared is None:
            return math.inf
        return now + (DEAF_TTL_S if self.deaf else L1_TTL_S)

    def save(
        self,
        process: Process,
        entry: Entry,
        stale_time: float | None,
        cache_time: float | None,
        wanted: Callable[[], bool],
        fence: int = 0,
        over: Seen | None = None,
        still: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Keep an entry in the store, if it is still ``wanted`` when its turn comes.

        Args:
            over, still: see :meth:`.shared.Shared.save`; so is what is returned.
        """
        if self.shared is None or entry.gone_at <= entry.stored:
            return True
        fresh, kept = self.times(stale_time, cache_time)
        record = Record(
            began=entry.began,
            stored=self._clock.time(),
            stale_time=fresh,
            cache_time=kept,
            tags=entry.tags,
            body=entry.data,
            fence=fence,
            deps=entry.deps,
            cost_us=entry.cost_us,
        )
        with process.store_lock(entry.ident):  # so that an older value cannot overtake a newer
            return not wanted() or self.shared.save(entry.ident, record, over, still)

    def look(self, process: Process, ident: Ident, *, again: bool = False) -> Entry | None:
        """The entry in memory, or the one in the store, which then is in memory too.

        Args:
            again: ask the store even when memory may still answer.
        """
        entry = process.local.entries.get(ident)
        now = self._now()
        if entry is not None and now < entry.valid_until and not again:
            return entry
        if self.shared is None:
            return None
        record, asked = self.shared.load(ident)
        if not asked:
            if entry is None or now >= entry.gone_at:
                return None
            with process.lock:  # the store is away: memory answers alone, as long as it may
                entry.valid_until = min(entry.gone_at, self._trusted_until(now))
                if self.deaf:
                    entry.doubt()
            return entry
        if record is None or not _readable(record.body):
            return None
        with process.lock:
            if process.memory.is_gone(ident, record.tags, record.began):
                return None
            current = process.local.entries.get(ident)
            if current is not None and current.began > record.began and now < current.valid_until:
                return current  # this process has stored a newer one meanwhile
            found = self._loaded(ident, record, now)
            invalidated = process.memory.is_stale(ident, record.tags, record.began, record.deps)
            # a time of none was stored: it was stale already, whatever time a caller asks for
            if invalidated or not record.stale_time:
                found.mark_stale()
                if now >= found.gone_at:  # an absence is never served stale
                    return None
            if current is not None:
                found.failures, found.retry_at = current.failures, current.retry_at
            process.local.put(found)
        return found

    def _loaded(self, ident: Ident, record: Record, now: float) -> Entry:
        age = max(0.0, self._clock.time() - record.stored)
        return Entry(
            ident,
            record.body,
            tags=record.tags,
            began=record.began,
            stored=now - age,
            stale_time=record.stale_time,
            cache_time=record.cache_time,
            valid_until=self._trusted_until(now),
            deps=record.deps,
            cost_us=record.cost_us,
            shorten=self._shorten(),
        )

    def remove(self, process: Process, ident: Ident) -> bool:
        """Forget an entry, and what is on its way. Returns whether this process had one."""
        with process.lock:
            process.flights.discard(ident)
            process.failed.pop(ident, None)
        return self.drop(process, ident)

    def drop(self, process: Process, ident: Ident) -> bool:
        """Forget an entry in both levels. Returns whether this process had one."""
        with process.lock:
            entry = process.local.entries.get(ident)
            if entry is not None:
                process.local.remove(entry)
        if self.shared is not None:
            with process.store_lock(ident):
                self.shared.delete(ident)
        return entry is not None

    def distrust(self, process: Process, ident: Ident) -> None:
        """Another worker has stored a newer entry: ask the store before memory answers again."""
        if self.shared is None:
            return  # each worker keeps its own values
        with process.lock:
            entry = process.local.entries.get(ident)
            if entry is not None:
                entry.distrust()

    def listen(self, process: Process, deaf: bool) -> None:
        """News of other workers come, or come no more."""
        self.deaf = deaf
        if deaf and self.shared is not None:
            with process.lock:
                for entry in process.local.entries.values():
                    entry.distrust()

    def mark(self, process: Process, what: Invalidation, at: float) -> list[Ident]:
        """Mark what was fetched up to ``at``, or take it out; the lock is held.

        What was computed from it is marked as well.

        Returns:
            The entries.
        """
        entries = process.local.entries
        found = {
            i
            for i in process.local.tagged(what.tags)
            if what.concerns(i, entries[i].tags, entries[i].deps)
        }
        if what.prefix is not None:
            found |= {i for i, one in entries.items() if what.concerns(i, one.tags, one.deps)}
        else:
            found |= process.local.dependents(ANY)
        marked = [ident for ident in found if entries[ident].began <= at]
        for ident in marked:
            entry = entries[ident]
            if what.hard and what.matches(ident, entry.tags):
                process.local.remove(entry)
            else:
                entry.mark_stale()
        for flight in process.flights:
            if flight.began > at:
                continue
            if what.hard and what.matches(flight.ident, flight.tags):
                process.flights.detach(flight)
            elif what.concerns(flight.ident, flight.tags, tuple(flight.deps.items())):
                flight.fence = max(flight.fence, Fence.STALE)
        process.forget_failures(what)
        return marked

    def mark_dependents(self, process: Process, ident: Ident, at: float) -> list[Ident]:
        """Mark what was computed from one entry up to ``at``; the lock is held."""
        entries = process.local.entries
        marked = [one for one in process.local.dependents(ident) if entries[one].began <= at]
        for one in marked:
            entries[one].mark_stale()
        for flight in process.flights:
            if flight.began <= at and (ident in flight.deps or ANY in flight.deps):
                flight.fence = max(flight.fence, Fence.STALE)
        return marked

    def delete(self, process: Process, idents: Iterable[Ident]) -> None:
        """Forget entries in the store; the lock is not held."""
        if self.shared is not None:
            for ident in idents:
                with process.store_lock(ident):
                    self.shared.delete(ident)

    def clear(self, process: Process, at: float, until: float) -> int:
        """Forget what was fetched up to ``until``; what the store has from before ``at``, too."""
        with process.lock:
            if self.shared is not None:
                process.memory.clear(at)
            process.failed.clear()
            for flight in process.flights:
                if flight.began <= until:
                    process.flights.detach(flight)
            return process.local.remove_where(lambda entry: entry.began <= until)


def _readable(data: bytes) -> bool:
    try:
        decode(data)
    except Exception:  # noqa: BLE001 - bytes from a shared store may be anything
        return False
    return True
