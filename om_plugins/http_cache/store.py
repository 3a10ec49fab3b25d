"""The store of responses: this process's memory in front of a store that workers may share.

The levels are those of the data cache: :class:`~om_plugins.cache.memory.MemoryTable` evicts by
SIEVE within a bound of bytes, and :class:`~om_plugins.cache.shared_store.SharedStore` keeps records
in the store that ``OM_CACHE_URL`` names. Memory answers without asking that store for at most five
seconds. Purges reach other workers over the hub. While this process cannot read the hub, every
look-up asks the store.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..cache.entry import Record
from ..cache.responses.input_sets import find_coarsest
from ..cache.shared_store import CountedStore, SharedStore
from ..core.fork import renew_after_fork
from ..core.inputs import EnvironReader, InputRules, brings_cookie
from ..protocols import CacheStore, Clock, Scheduler
from ..types import HttpCacheStats, StoreStats
from ..workers.invalidation_bus import (
    DEAF_TTL_S,
    L1_TTL_S,
    InvalidationBus,
    Message,
    PagesPurged,
)
from .keys import is_of_client
from .purges import Purge, Purged, Purges, read_purge, write_purge
from .records import PackMarks, ReadMarks, decode_stored, encode_stored
from .rfc9111 import ForwardReason
from .stored_response import MemoryEntry, ResponseTable, StoredResponse
from .variants import ENCODED, VariantIndex, variant_key

NAMESPACE = "http-2"
"""The form of keys and records. Workers of an older version read other records."""
KEEP_STALE_S = 3600.0
"""How long a stale response with a validator is kept at least, because a 304 is cheap."""
DEAF_AND_ALONE_S = 1.0
"""How long this process trusts its own response while it can reach neither hub nor store."""
_INDEX_S = 86_400.0 * 365
"""How long an index of variants is kept."""

Fits = Callable[[Mapping[str, Any]], bool]
"""Whether a response with these marks may answer this request."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is stored for a request.

    Attributes:
        entry: the response that it selects, fresh or not; ``None`` for none.
        reason: why the application is asked if it must be.
        names, cookies: what is known of the responses at the address: the coarsest set of inputs
            that selects them, and the cookies that no request for them may bring.
    """

    entry: MemoryEntry | None
    reason: ForwardReason
    names: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()


class ResponseStore:
    """Finds, saves and purges responses. Never raises.

    Args:
        l1_bytes: bound on the memory of this process.
        max_body: a larger body is not stored, in bytes.
        clock, scheduler: time and background jobs.
        bus: carries purges to other workers.
        follows_data: returns whether responses follow the invalidations of the data cache.
        store: what workers share; ``None`` keeps everything in this process.
        pack_marks, read_marks: encode and decode the marks of a response for the store.
        inputs: how the inputs of requests are compared.

    Attributes:
        entries: the entries in memory by key, for look-ups without a lock.
        counts: guarded by ``lock``.
        refused: how many responses were not stored, by reason; guarded by ``lock``.
    """

    def __init__(
        self,
        *,
        l1_bytes: int,
        max_body: int,
        clock: Clock,
        scheduler: Scheduler,
        bus: InvalidationBus,
        store: CacheStore | None = None,
        pack_marks: PackMarks = lambda marks: b"",
        read_marks: ReadMarks = lambda data: {},
        follows_data: Callable[[], bool] = lambda: True,
        inputs: InputRules | None = None,
    ) -> None:
        self._inputs = inputs or InputRules()
        self._clock = clock
        self._now = clock.monotonic
        self._scheduler = scheduler
        self._bus = bus
        bus.subscribe(self)
        self._follows_data = follows_data
        self._store = None if store is None else CountedStore(store)
        self.shared = (
            None
            if self._store is None
            else SharedStore(self._store, clock, NAMESPACE, max_body * 2)
        )
        self._pack_marks = pack_marks
        self._read_marks = read_marks
        self.lock = threading.Lock()
        self._index_lock = threading.Lock()
        self._table = ResponseTable(l1_bytes)
        self.entries = self._table.entries
        self.counts = HttpCacheStats()
        self.refused: dict[str, int] = {}
        self._purges = Purges()
        self._deaf = False
        self._has_clients = False
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Renew the locks in a child process: a thread of the parent may hold them."""
        self.lock = threading.Lock()
        self._index_lock = threading.Lock()
        self._deaf = False  # the bus of the child finds out for itself

    # --- finding and saving ---------------------------------------------------------------------

    def find(self, key: str) -> MemoryEntry | None:
        """Find the entry of a key, fresh or not, in memory or in the store."""
        entry = self.entries.get(key)
        now = self._now()
        if isinstance(entry, MemoryEntry) and now < entry.valid_until:
            return entry
        if self.shared is None:
            return None
        self.start()  # an entry that comes from the store into memory must be purged as well
        record, asked = self.shared.load(key)
        if not asked:  # the store is unreachable: memory answers alone, as long as it may
            if not isinstance(entry, MemoryEntry) or now >= entry.gone_at:
                return None
            with self.lock:
                if self._deaf and self._clock.time() - entry.began >= DEAF_AND_ALONE_S:
                    entry.doubt()
                entry.valid_until = min(entry.gone_at, self._trusted_until(now))
                entry.fresh_until = min(entry.expires, entry.valid_until)
            return entry
        content = None if record is None else decode_stored(record.body, self._read_marks)
        if record is None or content is None:
            return None
        with self.lock:
            purged = self._purges.after(record.began, key, record.tags)
        if purged is Purged.GONE:
            return None
        age = max(0.0, self._clock.time() - record.stored)
        found = MemoryEntry(
            key,
            content,
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
            self._put(found)
        return found

    def _trusted_until(self, now: float) -> float:
        if self.shared is None:
            return math.inf
        return now + (DEAF_TTL_S if self._deaf else L1_TTL_S)

    def select(self, key: str, environ: dict[str, Any], fits: Fits) -> Selection:
        """Find the response of an address that a request selects, fresh or not.

        Args:
            key: the key of the address.
            environ: the request.
            fits: whether a response with these marks may answer it.
        """
        entry = self.find(key)
        if entry is None:
            return Selection(None, ForwardReason.MISS)
        content = entry.content
        if isinstance(content, StoredResponse):
            return _judge(entry, content, environ, fits) or Selection(None, ForwardReason.MISS)
        entry.visited = True
        coarsest = find_coarsest(content.names)
        for candidate in content.candidates(key, environ, self._inputs):
            found = self.find(candidate)
            if found is not None and isinstance(found.content, StoredResponse):
                selected = _judge(found, found.content, environ, fits)
                return selected or Selection(None, ForwardReason.VARY, coarsest)
        return Selection(None, ForwardReason.VARY, coarsest)

    def purge_mark(self) -> tuple[int, float]:
        """Return a mark to take before the application is asked; :meth:`save` needs it."""
        self.start()
        return self._purges.count, self._clock.time()

    def save_selected(
        self,
        key: str,
        response: StoredResponse,
        environ: Mapping[str, object],
        mark: tuple[int, float],
        most: int,
    ) -> str:
        """Save a response at an address, among its variants when it has some.

        Args:
            key: the key of the address.
            response: what to save.
            environ: the request that it answers.
            mark: see :meth:`save`.
            most: bound on the variants of one address; the oldest are deleted.

        Returns:
            The key that it was saved under; "" when it was not.
        """
        names = response.names
        if not names:
            entry: Any = self.entries.get(key)
            if entry is None or ENCODED not in getattr(entry.content, "names", ()):
                return key if self.save(key, response, mark) else ""
            names = ENCODED  # the uncompressed response beside the compressed variants
        reader = EnvironReader(environ)
        with self._index_lock:
            found = self.find(key)
            before = found.content if found is not None else None
            if not isinstance(before, VariantIndex):
                before = VariantIndex([], os.urandom(8).hex())
            variant = variant_key(key, before.generation, names, reader, self._inputs)
            if not variant:
                return ""
            index = before.add(variant, names, response.language)
            if index is not before:
                while len(index.keys) > most:
                    self.delete(index.keys.pop(0))
                self.save(key, index, mark)
        return variant if self.save(variant, response, mark) else ""

    def save(
        self, key: str, content: StoredResponse | VariantIndex, mark: tuple[int, float]
    ) -> bool:
        """Save a response or an index, unless it was purged since its request began.

        Args:
            key: its key.
            content: what to save.
            mark: what :meth:`purge_mark` returned before the request.

        Returns:
            Whether it was saved.
        """
        count, began = mark
        tags: tuple[str, ...] = ()
        now = self._now()
        born, lifetime, keep = now, _INDEX_S, _INDEX_S
        if isinstance(content, StoredResponse):
            tags = content.tags
            verdict = content.verdict
            age = verdict.age_s + max(0.0, self._clock.time() - content.received_at)
            born = now - age
            lifetime = 0.0 if verdict.validate else verdict.lifetime_s
            validator = bool(verdict.etag) or verdict.modified is not None
            keep = verdict.lifetime_s + max(
                verdict.while_revalidating_s,
                verdict.if_error_s,
                KEEP_STALE_S if validator else 0.0,
            )
        entry = MemoryEntry(
            key, content, tags=tags, began=began, born=born, lifetime_s=lifetime, keep_s=keep,
            valid_until=self._trusted_until(now),
        )  # fmt: skip
        with self.lock:
            purged = self._purges.since(count, key, tags)
            if purged is Purged.GONE or now >= entry.gone_at:
                return False
            if purged is Purged.STALE:
                entry.mark_stale()
            if not self._put(entry) and self.shared is None:
                return False
            if isinstance(content, StoredResponse):
                self.counts.stored += 1
        if self.shared is not None:
            record = Record(
                began=began,
                stored=self._clock.time() - (now - born),
                stale_time=lifetime,
                cache_time=keep,
                tags=tags,
                body=encode_stored(content, self._pack_marks),
            )
            self.shared.save(key, record)
        return True

    def _put(self, entry: MemoryEntry) -> bool:
        self._has_clients = self._has_clients or is_of_client(str(entry.ident))
        return self._table.put(entry)

    def delete(self, key: str) -> None:
        """Delete the entry of one key, here and in the store."""
        with self.lock:
            entry = self.entries.get(key)
            if entry is not None:
                self._table.remove(entry)
        if self.shared is not None:
            self.shared.delete(key)

    # --- purging --------------------------------------------------------------------------------

    def purge(self, purge: Purge, *, later: bool = False) -> int:
        """Purge responses, here and in all workers.

        Args:
            purge: which responses.
            later: publish the purge in a background job.

        Returns:
            How many responses this process had.
        """
        self.start()
        at = self._clock.time()
        found = self._apply(purge, at)

        def publish() -> None:
            if self.shared is not None and not purge.soft:
                for key in {*purge.idents, *found}:
                    self.shared.delete(key)
            self._bus.publish(write_purge(purge, at), self)

        if not later or not self._scheduler.submit(publish, name="http-purge"):
            publish()
        return len(found)

    def _apply(self, purge: Purge, at: float, until: float = math.inf) -> list[str]:
        """Purge the responses whose request began up to ``until``; return their keys."""
        with self.lock:
            self._purges.add(purge, at)
            single = not purge.url and purge.prefix is None and not purge.tags
            # the pages of single clients are found by a look at every key
            if purge.idents and single and not self._has_clients:
                keys = [str(key) for key in purge.idents if key in self.entries]
            else:
                keys = [
                    str(key)
                    for key, entry in self.entries.items()
                    if purge.matches(str(key), entry.tags)
                ]
            found = [key for key in keys if self.entries[key].began <= until]
            for key in found:
                entry = self.entries[key]
                if purge.soft:
                    entry.mark_stale()
                else:
                    self._table.remove(entry)
        return found

    def receive(self, message: Message, published_at: float | None) -> None:
        """Apply a message of the invalidation bus: a purge, or an invalidation of data."""
        purge = read_purge(message)
        if purge is None or not (isinstance(message, PagesPurged) or self._follows_data()):
            return
        # a response that this process requested after that moment is newer than the purge
        at = min(message.at, self._clock.time())
        self._apply(purge, at, math.inf if published_at is None else at)

    def set_deaf(self, deaf: bool) -> None:
        """Record whether purges are missed: then memory never answers before the store is asked."""
        if deaf == self._deaf:
            return
        self._deaf = deaf
        if deaf and self.shared is not None:
            with self.lock:
                for entry in self.entries.values():
                    entry.distrust()

    # --- counting -------------------------------------------------------------------------------

    def count(self, name: str, amount: int = 1) -> None:
        """Count an event by the name of its counter in ``HttpCacheStats``."""
        with self.lock:
            setattr(self.counts, name, getattr(self.counts, name) + amount)

    def count_refusal(self, reason: str) -> None:
        """Count a response that was not stored, by reason."""
        with self.lock:
            self.refused[reason] = self.refused.get(reason, 0) + 1

    def stats(self) -> HttpCacheStats:
        """Return the counters of this process, exact at this moment."""
        with self.lock:
            table = self._table
            hits, saved, seconds = table.hits, table.bytes_saved, table.fetch_s_saved
            entries = size = 0
            for entry, response in table.responses():
                entries += 1
                size += response.size
                own = entry.take_hits()
                hits += own
                saved += own * response.size
                seconds += own * response.fetch_s
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
        """Return what this process asked of the shared store; ``None`` when there is none."""
        return None if self._store is None else self._store.stats()

    def responses(self) -> list[tuple[MemoryEntry, StoredResponse]]:
        """Return every response in memory with its entry."""
        with self.lock:
            return list(self._table.responses())

    def shrink(self) -> int:
        """Evict about half of what memory holds, because memory is short.

        Returns:
            How many entries were evicted.
        """
        with self.lock:
            return self._table.shrink(self._table.weight // 2)

    # --- background -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to receive other workers' purges in this process, on first use."""
        self._bus.start()


def _judge(
    entry: MemoryEntry, response: StoredResponse, environ: Mapping[str, Any], fits: Fits
) -> Selection | None:
    """Return the response, or that the request passes by; ``None`` when it does not fit."""
    known = response.names, response.cookies
    if brings_cookie(environ, response.cookies):
        return Selection(None, ForwardReason.BYPASS, *known)
    return Selection(entry, ForwardReason.STALE, *known) if fits(response.marks) else None
