"""Where responses are kept: in this process's memory, in front of a store that workers may share.

The same two tiers as for data: :class:`.memory.MemoryTable` evicts by SIEVE within a bound of
bytes, and :class:`.shared_store.SharedStore` keeps records in the store that ``OM_CACHE_URL``
names, in front of which memory answers for at most five seconds on its own. Purges reach other
workers over the hub; while this process cannot hear of them, each look-up asks the store.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace

from ..cache.entry import CacheEntry, Record
from ..cache.memory import MemoryTable
from ..cache.shared_store import DEAF_TTL_S, L1_TTL_S, CountedStore, SharedStore
from ..core.fork import renew_after_fork
from ..protocols import CacheStore, Clock, Hub, Scheduler
from ..types import HttpCacheStats, StoreStats
from .store__purges import Purge, Purged, Purges, as_data, read_purge
from .stored_response import (
    PackMarks,
    ReadMarks,
    StoredResponse,
    Variants,
    decode_stored,
    encode_stored,
)

__all__ = ["MemoryEntry", "ResponseStore"]

logger = logging.getLogger("om_plugins")

TOPIC = "http-purges"
NAMESPACE = "http"
HEAR_S = 1.0
KEEP_STALE_S = 3600.0
"""How long a stale response with a validator is kept at least: a 304 is cheap."""
DEAF_AND_ALONE_S = 1.0
"""How long a response of one's own is trusted while neither hub nor store can be asked."""
_HEADER_BYTES = 150


class MemoryEntry(CacheEntry):
    """A response in memory; ``stored`` is the monotonic time at which its age was 0.

    Attributes:
        kept: the response, or the index of an address's variants.
        count_hit: counts one hit.
    """

    __slots__ = ("_read", "count_hit", "kept")

    def __init__(
        self,
        ident: str,
        kept: StoredResponse | Variants,
        *,
        tags: tuple[str, ...],
        began: float,
        born: float,
        lifetime_s: float,
        keep_s: float,
        valid_until: float = math.inf,
    ) -> None:
        super().__init__(
            ident,
            kept.body if isinstance(kept, StoredResponse) else b"",
            tags=tags,
            began=began,
            stored=born,
            stale_time=lifetime_s,
            cache_time=keep_s,
            valid_until=valid_until,
        )
        self.kept = kept
        self.count_hit: Callable[[], int] = itertools.count().__next__
        self._read = 0
        if isinstance(kept, StoredResponse):
            self.weight += kept.size - len(kept.body) + _HEADER_BYTES * (len(kept.headers) + 2)

    @property
    def expires(self) -> float:
        """The monotonic time until which it is fresh, whatever its place in memory is."""
        kept = self.kept
        if self.base == -math.inf or not isinstance(kept, StoredResponse):
            return -math.inf
        return self.stored + kept.verdict.lifetime_s

    def hits(self) -> int:
        """How many hits were counted. A counter can only be read by counting."""
        found = self.count_hit() - self._read
        self._read += 1
        return found


class _ResponseTable(MemoryTable):
    """A table of responses that remembers what those that left had saved."""

    __slots__ = ("bytes_saved", "fetch_s_saved", "hits")

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.hits = 0
        self.bytes_saved = 0
        self.fetch_s_saved = 0.0

    def remove(self, entry: CacheEntry) -> None:
        super().remove(entry)
        if isinstance(entry, MemoryEntry) and isinstance(entry.kept, StoredResponse):
            hits = entry.hits()
            self.hits += hits
            self.bytes_saved += hits * entry.kept.size
            self.fetch_s_saved += hits * entry.kept.fetch_s


class ResponseStore:
    """Finds, keeps and purges responses. Never raises.

    Args:
        l1_bytes: bound on the memory of this process.
        max_body: a larger body is not kept.
        clock, scheduler: time and background jobs.
        hub: carries purges to other workers; ``None`` for a process that is alone.
        store: what workers share; ``None`` keeps everything in this process.
        pack_marks, read_marks: how the marks of a response are written for the store.

    Attributes:
        entries: by key, for look-ups without a lock.
        counts: guarded by ``lock``.
    """

    def __init__(
        self,
        *,
        l1_bytes: int,
        max_body: int,
        clock: Clock,
        scheduler: Scheduler,
        hub: Hub | None = None,
        store: CacheStore | None = None,
        pack_marks: PackMarks = lambda marks: b"",
        read_marks: ReadMarks = lambda data: {},
    ) -> None:
        self._clock = clock
        self._now = clock.monotonic
        self._scheduler = scheduler
        self._hub = hub
        self._store = None if store is None else CountedStore(store)
        self.shared = (
            None
            if self._store is None
            else SharedStore(self._store, clock, NAMESPACE, max_body * 2)
        )
        self._pack_marks = pack_marks
        self._read_marks = read_marks
        self.lock = threading.Lock()
        self._table = _ResponseTable(l1_bytes)
        self.entries = self._table.entries
        self.counts = HttpCacheStats()
        self.refused: dict[str, int] = {}
        self._purges = Purges()
        self._origin = os.urandom(8)
        self._last = ""
        self._stop: Callable[[], None] | None = None
        self._started = False
        self._hub_down = False
        self._deaf = False
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child: the lock may be held by a thread that is not here."""
        self.lock = threading.Lock()
        self._origin = os.urandom(8)
        self._started = False

    # --- finding and keeping --------------------------------------------------------------------

    def find(self, ident: str) -> MemoryEntry | None:
        """What is kept under a key, fresh or not, from memory or the store."""
        held = self.entries.get(ident)
        now = self._now()
        if isinstance(held, MemoryEntry) and now < held.valid_until:
            return held
        if self.shared is None:
            return None
        self.start()  # what comes from the store into memory is to be purged as well
        record, asked = self.shared.load(ident)
        if not asked:  # the store is away: memory answers alone, as long as it may
            if not isinstance(held, MemoryEntry) or now >= held.gone_at:
                return None
            with self.lock:
                if self._deaf and self._clock.time() - held.began >= DEAF_AND_ALONE_S:
                    held.doubt()
                held.valid_until = min(held.gone_at, self._trusted_until(now))
                held.fresh_until = min(held.expires, held.valid_until)
            return held
        kept = None if record is None else decode_stored(record.body, self._read_marks)
        if record is None or kept is None:
            return None
        with self.lock:
            purged = self._purges.after(record.began, ident, record.tags)
        if purged is Purged.GONE:
            return None
        age = max(0.0, self._clock.time() - record.stored)
        found = MemoryEntry(
            ident,
            kept,
            tags=record.tags,
            began=record.began,
            born=now - age,
            lifetime_s=record.stale_time,
            keep_s=record.cache_time,
            valid_until=self._trusted_until(now),
        )
        if purged is Purged.STALE:
            found.mark_stale()
        with self.lock:
            self._table.put(found)
        return found

    def _trusted_until(self, now: float) -> float:
        if self.shared is None:
            return math.inf
        return now + (DEAF_TTL_S if self._deaf else L1_TTL_S)

    def mark(self) -> tuple[int, float]:
        """Taken before the application is asked; :meth:`keep` wants it back."""
        self.start()
        return self._purges.count, self._clock.time()

    def keep(self, ident: str, kept: StoredResponse | Variants, mark: tuple[int, float]) -> bool:
        """Keep a response, unless it was purged since its request began.

        Args:
            mark: what :meth:`mark` gave then.

        Returns:
            Whether it was kept.
        """
        count, began = mark
        tags: tuple[str, ...] = ()
        now = self._now()
        born, lifetime, keep = now, 86_400.0 * 365, 86_400.0 * 365
        if isinstance(kept, StoredResponse):
            tags = kept.tags
            verdict = kept.verdict
            age = verdict.age_s + max(0.0, self._clock.time() - kept.received)
            born = now - age
            lifetime = 0.0 if verdict.validate else verdict.lifetime_s
            validator = bool(verdict.etag) or verdict.modified is not None
            keep = verdict.lifetime_s + max(
                verdict.while_revalidating_s,
                verdict.if_error_s,
                KEEP_STALE_S if validator else 0.0,
            )
        held = MemoryEntry(
            ident, kept, tags=tags, began=began, born=born, lifetime_s=lifetime, keep_s=keep,
            valid_until=self._trusted_until(now),
        )  # fmt: skip
        with self.lock:
            purged = self._purges.since(count, ident, tags)
            if purged is Purged.GONE or now >= held.gone_at:
                return False
            if purged is Purged.STALE:
                held.mark_stale()
            if not self._table.put(held) and self.shared is None:
                return False
            if isinstance(kept, StoredResponse):
                self.counts.stored += 1
        if self.shared is not None:
            record = Record(
                began=began,
                stored=self._clock.time() - (now - born),
                stale_time=lifetime,
                cache_time=keep,
                tags=tags,
                body=encode_stored(kept, self._pack_marks),
            )
            self.shared.save(ident, record)
        return True

    def drop(self, ident: str) -> None:
        """Forget what is kept under one key, here and in the store."""
        with self.lock:
            held = self.entries.get(ident)
            if held is not None:
                self._table.remove(held)
        if self.shared is not None:
            self.shared.delete(ident)

    # --- purging --------------------------------------------------------------------------------

    def purge(self, purge: Purge, *, later: bool = False) -> int:
        """Take responses back, here and in all workers.

        Args:
            later: tell the others in a background job.

        Returns:
            How many this process had.
        """
        self.start()
        at = self._clock.time()
        found = self._apply(purge, at)

        def tell() -> None:
            if self.shared is not None and not purge.soft:
                for ident in {*purge.idents, *found}:
                    self.shared.delete(ident)
            self._publish(purge, at)

        if not later or not self._scheduler.submit(tell, name="http-purge"):
            tell()
        return len(found)

    def _apply(self, purge: Purge, at: float) -> list[str]:
        with self.lock:
            self._purges.add(purge, at)
            if purge.idents and not purge.url and purge.prefix is None and not purge.tags:
                found = [one for one in purge.idents if one in self.entries]
            else:
                found = [
                    str(ident)
                    for ident, held in self.entries.items()
                    if purge.matches(str(ident), held.tags)
                ]
            for ident in found:
                held = self.entries[ident]
                if purge.soft:
                    held.mark_stale()
                else:
                    self._table.remove(held)
        return found

    def _publish(self, purge: Purge, at: float) -> None:
        if self._hub is None:
            return
        try:
            self._hub.publish(TOPIC, {"from": self._origin, "at": at, **as_data(purge)})
            self._hub_down = False
        except Exception as error:  # noqa: BLE001 - a hub that is away must not fail a request
            self._failed(error)

    def hear(self) -> None:
        """Apply what other workers purged."""
        if self._hub is None:
            return
        try:
            while messages := self._hub.read(TOPIC, after=self._last, limit=500):
                for message in messages:
                    self._last = message.id
                    self._heard(message.data)
            self._hub_down = False
            # a hub that goes on alone while its backend is away says so
            self._listen(getattr(self._hub, "alone", False) is True)
        except Exception as error:  # noqa: BLE001
            self._failed(error)
            self._listen(True)

    def _listen(self, deaf: bool) -> None:
        """Purges are heard, or no more: then memory is not asked before the store."""
        if deaf == self._deaf:
            return
        self._deaf = deaf
        if deaf and self.shared is not None:
            with self.lock:
                for held in self.entries.values():
                    held.distrust()

    def _heard(self, data: object) -> None:
        if not isinstance(data, dict) or data.get("from") == self._origin:
            return
        at = data.get("at")
        purge = read_purge(data)
        if purge is None or not isinstance(at, float | int) or isinstance(at, bool) or at != at:
            return
        # what this process asked for after that moment is newer than the purge
        at = min(float(at), self._clock.time())
        with self.lock:
            self._purges.add(purge, at)
            found = [
                held
                for ident, held in self.entries.items()
                if held.began <= at and purge.matches(str(ident), held.tags)
            ]
            for held in found:
                if purge.soft:
                    held.mark_stale()
                else:
                    self._table.remove(held)

    def _failed(self, error: Exception) -> None:
        if not self._hub_down:
            self._hub_down = True
            logger.warning(
                "the hub cannot be reached (%s: %s); other workers do not hear of purged pages",
                type(error).__name__,
                error,
            )

    # --- counting -------------------------------------------------------------------------------

    def count(self, name: str, amount: int = 1) -> None:
        """Count an event by the name of its counter."""
        with self.lock:
            setattr(self.counts, name, getattr(self.counts, name) + amount)

    def refuse(self, reason: str) -> None:
        """Count a response that was not stored."""
        with self.lock:
            self.refused[reason] = self.refused.get(reason, 0) + 1

    def stats(self) -> HttpCacheStats:
        """The counters now."""
        with self.lock:
            table = self._table
            hits, size = table.hits, 0
            saved, seconds = table.bytes_saved, table.fetch_s_saved
            entries = 0
            for held in table:
                if isinstance(held, MemoryEntry) and isinstance(held.kept, StoredResponse):
                    entries += 1
                    size += held.kept.size
                    own = held.hits()
                    hits += own
                    saved += own * held.kept.size
                    seconds += own * held.kept.fetch_s
            return replace(
                self.counts,
                hits=self.counts.hits + hits,
                evictions=table.evictions,
                entries=entries,
                size_bytes=size,
                bytes_saved=self.counts.bytes_saved + saved,
                fetch_s_saved=self.counts.fetch_s_saved + seconds,
            )

    def store_stats(self) -> StoreStats | None:
        """What this process asked of the shared store; ``None`` when there is none."""
        return None if self._store is None else self._store.stats()

    def urls(self) -> Iterable[tuple[str, MemoryEntry]]:
        """Every response that memory holds, by key."""
        with self.lock:
            return [
                (str(held.ident), held)
                for held in self._table
                if isinstance(held, MemoryEntry) and isinstance(held.kept, StoredResponse)
            ]

    def shrink(self) -> int:
        """Memory is short: keep about half. Returns how many went."""
        with self.lock:
            return self._table.shrink(self._table.weight // 2)

    # --- background -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen for purges in this process, on first use."""
        if self._started or self._hub is None:
            return
        self._started = True
        try:
            self.hear()
            self._stop = self._scheduler.every(HEAR_S, self.hear, name=TOPIC)
        except ValueError:
            pass  # registered in this process already

    def close(self) -> None:
        """Stop listening."""
        if self._stop is not None:
            self._stop()
            self._stop = None
            self._started = False
