"""A store that counts what it is asked."""

from __future__ import annotations

import threading
from dataclasses import replace

from ..core.fork import renew_after_fork
from ..protocols import CacheStore
from ..types import StoreStats
from ..workers.lazy_store import compare_and_set

__all__ = ["CountedStore"]


class CountedStore:
    """A :class:`~om_plugins.protocols.CacheStore` in front of another.

    Args:
        store: the other; what it raises goes on to the caller.
    """

    def __init__(self, store: CacheStore) -> None:
        self._store = store
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Each process counts its own."""
        self._lock = threading.Lock()
        self._counts = StoreStats()

    def stats(self) -> StoreStats:
        """The counters now."""
        with self._lock:
            return replace(self._counts)

    def get(self, key: str) -> bytes | None:
        try:
            found = self._store.get(key)
        except Exception:
            self._failed()
            raise
        with self._lock:
            if isinstance(found, bytes):
                self._counts.hits += 1
                self._counts.read_bytes += len(found)
            else:
                self._counts.misses += 1
        return found

    def set(self, key: str, value: bytes, ttl: float) -> None:
        try:
            self._store.set(key, value, ttl)
        except Exception:
            self._failed()
            raise
        with self._lock:
            self._counts.writes += 1
            self._counts.written_bytes += len(value)

    def compare_and_set(
        self, key: str, before: bytes | None, value: bytes, ttl: float
    ) -> bool | None:
        try:
            written = compare_and_set(self._store, key, before, value, ttl)
        except Exception:
            self._failed()
            raise
        if written is not False:
            with self._lock:
                self._counts.writes += 1
                self._counts.written_bytes += len(value)
        return written

    def delete(self, key: str) -> None:
        try:
            self._store.delete(key)
        except Exception:
            self._failed()
            raise
        with self._lock:
            self._counts.deletes += 1

    def _failed(self) -> None:
        with self._lock:
            self._counts.failures += 1
