"""A cache store that is opened late: building an application opens nothing."""

from __future__ import annotations

from collections.abc import Callable

from ..protocols import CacheStore

__all__ = ["LateStore", "compare_and_set"]


def compare_and_set(
    store: CacheStore, key: str, before: bytes | None, value: bytes, ttl: float
) -> bool | None:
    """See :class:`om_plugins.protocols.FencedStore`.

    Returns:
        ``None`` for a store that is none: it wrote, whatever was there.
    """
    fenced = getattr(store, "compare_and_set", None)
    if fenced is None:
        store.set(key, value, ttl)
        return None
    written: bool | None = fenced(key, before, value, ttl)
    return written


class LateStore:
    """Opens a cache store when it is first used; its keys begin with the namespace.

    Args:
        open_store: opens it.
        namespace: keeps applications apart in one store.
    """

    def __init__(self, open_store: Callable[[], CacheStore], namespace: str) -> None:
        self._open = open_store
        self._prefix = f"{namespace}:"
        self._store: CacheStore | None = None

    def _opened(self) -> CacheStore:
        if self._store is None:
            self._store = self._open()
        return self._store

    def get(self, key: str) -> bytes | None:
        """See :class:`om_plugins.protocols.CacheStore`, also for the other two."""
        return self._opened().get(self._prefix + key)

    def set(self, key: str, value: bytes, ttl: float) -> None:
        self._opened().set(self._prefix + key, value, ttl)

    def delete(self, key: str) -> None:
        self._opened().delete(self._prefix + key)

    def compare_and_set(
        self, key: str, before: bytes | None, value: bytes, ttl: float
    ) -> bool | None:
        """See :func:`compare_and_set`."""
        return compare_and_set(self._opened(), self._prefix + key, before, value, ttl)

    def close(self) -> None:
        """Give connections back, where the store has a ``close()``; it may be used again."""
        close = getattr(self._store, "close", None)
        if close is not None:
            close()
