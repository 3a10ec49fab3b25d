"""A cache store that is opened on first use: building an application opens nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..protocols import CacheStore
from ..settings.callbacks import describe_result, is_permitted, refuse_unfinished


def compare_and_set(
    store: CacheStore, key: str, before: bytes | None, value: bytes, ttl: float
) -> bool | None:
    """Write a value if the key still has the value ``before``.

    The arguments are those of :class:`om_plugins.protocols.FencedStore`.

    Returns:
        Whether the value was written; ``None`` for a store without ``compare_and_set``, which
        wrote it whatever the key had.
    """
    fenced = getattr(store, "compare_and_set", None)
    if fenced is None:
        store.set(key, value, ttl)
        return None
    written = fenced(key, before, value, ttl)
    # a store that does not say is one that cannot compare; nothing but True says that it wrote
    return None if written is None else is_permitted(written, _ASKED)


_VALUE = (bytes, bytearray, memoryview, type(None))
_ASKED = "compare_and_set of the cache store"


class LazyStore:
    """A :class:`~om_plugins.protocols.CacheStore` that opens another one on first use.

    Args:
        open_store: opens the other store.
        namespace: the beginning of each key, which keeps applications apart in one store.
    """

    def __init__(self, open_store: Callable[[], CacheStore], namespace: str) -> None:
        self._open_store = open_store
        self._prefix = f"{namespace}:"
        self._store: CacheStore | None = None

    def _open(self) -> CacheStore:
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def get(self, key: str) -> bytes | None:
        """Return the value of a key; ``None`` when there is none.

        Raises:
            TypeError: the store returned anything else, which would be a miss for ever.
        """
        found = self._open().get(self._prefix + key)
        if not issubclass(type(found), _VALUE):
            said = describe_result(found)
            raise TypeError(f"get() {said}; return the bytes that were set, or None")
        return found

    def set(self, key: str, value: bytes, ttl: float) -> None:
        store: Any = self._open()
        refuse_unfinished(store.set(self._prefix + key, value, ttl))

    def delete(self, key: str) -> None:
        store: Any = self._open()
        refuse_unfinished(store.delete(self._prefix + key))

    def compare_and_set(
        self, key: str, before: bytes | None, value: bytes, ttl: float
    ) -> bool | None:
        """See :func:`compare_and_set`."""
        return compare_and_set(self._open(), self._prefix + key, before, value, ttl)

    def close(self) -> None:
        """Close the connections, where the store has a ``close()``. The store may be used again."""
        close = getattr(self._store, "close", None)
        if close is not None:
            close()
