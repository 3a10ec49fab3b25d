"""Responses in this process's memory, and the hits that they answered.

The table evicts by SIEVE within a bound of bytes, as that of the data cache does. A hit is counted
in the entry itself by a C counter, so that it takes no lock; the table adds up the counters of the
entries that left.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

from ..cache.entry import CacheEntry
from ..cache.memory import MemoryTable
from .keys import VariantIndex
from .stored_response import StoredResponse

__all__ = ["MemoryEntry", "ResponseTable"]

_HEADER_BYTES = 150
"""What a header field costs in memory, about."""


class MemoryEntry(CacheEntry):
    """A response in memory; ``stored`` is the monotonic time at which its age was 0.

    Attributes:
        content: the response, or the index of an address's variants.
        count_hit: counts one hit; a C counter, exact without a lock.
    """

    __slots__ = ("_read", "content", "count_hit")

    def __init__(
        self,
        key: str,
        content: StoredResponse | VariantIndex,
        *,
        tags: tuple[str, ...],
        began: float,
        born: float,
        lifetime_s: float,
        keep_s: float,
        valid_until: float = math.inf,
    ) -> None:
        super().__init__(
            key,
            content.body if isinstance(content, StoredResponse) else b"",
            tags=tags,
            began=began,
            stored=born,
            stale_time=lifetime_s,
            cache_time=keep_s,
            valid_until=valid_until,
        )
        self.content = content
        self.count_hit: Callable[[], int] = itertools.count().__next__
        self._read = 0
        if isinstance(content, StoredResponse):
            headers = _HEADER_BYTES * (len(content.headers) + 2)
            self.weight += content.size - len(content.body) + headers

    @property
    def expires(self) -> float:
        """The monotonic time until which it is fresh, however long memory may answer alone."""
        content = self.content
        if self.base == -math.inf or not isinstance(content, StoredResponse):
            return -math.inf
        return self.stored + content.verdict.lifetime_s

    def take_hits(self) -> int:
        """Return how many hits were counted. A counter can only be read by counting."""
        found = self.count_hit() - self._read
        self._read += 1
        return found


class ResponseTable(MemoryTable):
    """The entries in memory; it keeps the counts of those that left."""

    __slots__ = ("bytes_saved", "fetch_s_saved", "hits")

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.hits = 0
        self.bytes_saved = 0
        self.fetch_s_saved = 0.0

    def remove(self, entry: CacheEntry) -> None:
        super().remove(entry)
        if isinstance(entry, MemoryEntry) and isinstance(entry.content, StoredResponse):
            hits = entry.take_hits()
            self.hits += hits
            self.bytes_saved += hits * entry.content.size
            self.fetch_s_saved += hits * entry.content.fetch_s

    def responses(self) -> Iterator[tuple[MemoryEntry, StoredResponse]]:
        """Yield every response with its entry; the indexes of variants are left out."""
        for entry in self:
            if isinstance(entry, MemoryEntry) and isinstance(entry.content, StoredResponse):
                yield entry, entry.content
