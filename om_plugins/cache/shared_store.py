"""The second tier: a store that all workers share.

The store holds bytes and may be unreachable at any time. The process then continues with its own
memory, and warns once. A store can be asked for single keys only, so an invalidation cannot be
applied to the entries in it. :class:`InvalidationLog` remembers past invalidations instead, and an
entry whose fetch began before one of them is stale when it is read.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple, ParamSpec, TypeVar

from ..core.fork import renew_after_fork
from ..errors import CacheError
from ..policies.outage import Outage
from ..protocols import CacheStore, Clock
from ..types import StoreStats
from ..workers.lazy_store import compare_and_set
from .entry import Record, pack, unpack
from .keys import ANY, Dependencies, Ident, Invalidation, make_store_key, split
from .values import PICKLED, Pickled, PickleEncoder

logger = logging.getLogger("om_plugins")

_MOST_OWED = 10_000
_BEGINNING = 64
"""Bytes in which a record differs from every other: they hold its fence and when it began."""
_MOST_REMEMBERED = 10_000
_K = TypeVar("_K")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class StoreAnswer(NamedTuple):
    """The content of the store under a key.

    Attributes:
        record: the record; ``None`` when the key has none that this cache can read.
        asked: whether the store was reachable.
        beginning: the first bytes of any content; ``None`` when the key has none.
    """

    record: Record | None
    asked: bool
    beginning: bytes | None


class SharedStore:
    """A store under the cache's own keys. It never raises, and costs nothing while unreachable.

    A key that could not be written or deleted is deleted when the store is reachable again, since
    the store must not answer with a value that was replaced long ago.

    Args:
        store: the store of bytes.
        clock: time.
        namespace: keeps two caches in one store apart.
        max_value: larger records are not read, since a shared store is not trusted.
        pickles: signs and verifies pickles; ``None`` when the cache stores none.
    """

    def __init__(
        self,
        store: CacheStore,
        clock: Clock,
        namespace: str,
        max_value: int,
        pickles: PickleEncoder | None = None,
    ) -> None:
        self._pickles = pickles
        self._store = store
        self._clock = clock
        self._namespace = namespace
        self._max_record = max_value + (1 << 20)
        self._outage = Outage()
        self._owed: dict[str, None] = {}
        self._unsigned = False

    def load(self, ident: Ident) -> tuple[Record | None, bool]:
        """Return the record, and whether the store was reachable."""
        seen = self.look(ident)
        return seen.record, seen.asked

    def look(self, ident: Ident) -> StoreAnswer:
        """Return the present content of a key."""
        key = make_store_key(ident, self._namespace)
        asked = self._ask(lambda: self._store.get(key))
        data = None if asked is None else asked[0]
        if not isinstance(data, bytes):
            return StoreAnswer(None, asked is not None, None)
        if len(data) > self._max_record:
            return StoreAnswer(None, True, data[:_BEGINNING])
        record = self._verify(key, unpack(data, self._clock.time()))
        return StoreAnswer(record, True, data[:_BEGINNING])

    def save(
        self,
        ident: Ident,
        record: Record,
        over: StoreAnswer | None = None,
        is_held: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Write a record.

        Args:
            over: the content that the record may replace; ``None`` for any.
            is_held: called after a write for which the store cannot tell whether it replaced
                ``over``: returns whether no other process can have written a newer record. If
                not, the key is deleted, since an empty key is never out of date.

        Returns:
            False when the key has other content by now: look again.
        """
        key = make_store_key(ident, self._namespace)
        if isinstance(record.body, Pickled):
            signed = self._sign(key, record)
            if signed is None:
                self.delete(ident)  # the record that it replaces must not stay
                return True
            record = signed
        data = pack(record)

        def write() -> bool | None:
            if over is None or not over.asked:
                self._store.set(key, data, record.cache_time)
                return True
            return compare_and_set(self._store, key, over.beginning, data, record.cache_time)

        written = self._ask(write)
        if written is None:
            self._delete_later(key)
        elif written[0] is None and not is_held():
            self.delete(ident)
        return written is None or written[0] is not False

    def delete(self, ident: Ident) -> None:
        """Delete a record."""
        key = make_store_key(ident, self._namespace)
        if self._ask(lambda: self._store.delete(key)) is None:
            self._delete_later(key)

    def _verify(self, key: str, record: Record | None) -> Record | None:
        """Return the record with its pickle verified; ``None`` when the signature is wrong."""
        if record is None or not record.flags:
            return record
        if record.flags != PICKLED or self._pickles is None:
            return None
        body = self._pickles.verify(key, record.body)
        return None if body is None else replace(record, body=body, flags=0)

    def _sign(self, key: str, record: Record) -> Record | None:
        try:
            if self._pickles is not None:
                body = self._pickles.sign(key, record.body)
                return replace(record, body=body, flags=PICKLED)
        except CacheError as error:
            if not self._unsigned:
                self._unsigned = True
                logger.warning("%s; such values stay in this process's memory", error)
        return None

    def _ask(self, ask: Callable[[], object]) -> tuple[object] | None:
        """Return the store's answer; ``None`` while the store is unreachable."""
        outage = self._outage
        began = self._clock.monotonic()
        if outage.down and not outage.claim_try(began):
            return None
        try:
            if self._owed:
                self._delete_owed()
            answer = ask()
        except Exception as error:  # noqa: BLE001 - a store may raise anything when it is away
            now = self._clock.monotonic()
            if outage.record_failure(now, now - began):
                logger.warning(
                    "the cache store cannot be reached (%s: %s); values are kept in this process "
                    "only",
                    type(error).__name__,
                    error,
                )
            return None
        if outage.down:
            outage.record_success(self._clock.monotonic())
            logger.info("the cache store is back")
        return (answer,)

    def _delete_later(self, key: str) -> None:
        self._owed[key] = None
        if len(self._owed) > _MOST_OWED:
            self._owed.pop(next(iter(self._owed)), None)

    def _delete_owed(self) -> None:
        for key in list(self._owed):
            self._store.delete(key)
            self._owed.pop(key, None)


class CountedStore:
    """A :class:`~om_plugins.protocols.CacheStore` that counts the calls to another one.

    Args:
        store: the other store; its errors go on to the caller.
    """

    def __init__(self, store: CacheStore) -> None:
        self._store = store
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Set the counters to zero: each process counts its own calls."""
        self._lock = threading.Lock()
        self._counts = StoreStats()

    def stats(self) -> StoreStats:
        """Return a copy of the counters."""
        with self._lock:
            return replace(self._counts)

    def get(self, key: str) -> bytes | None:
        found = self._call(self._store.get, key)
        with self._lock:
            if isinstance(found, bytes):
                self._counts.hits += 1
                self._counts.read_bytes += len(found)
            else:
                self._counts.misses += 1
        return found

    def set(self, key: str, value: bytes, ttl: float) -> None:
        self._call(self._store.set, key, value, ttl)
        self._count_write(value)

    def compare_and_set(
        self, key: str, before: bytes | None, value: bytes, ttl: float
    ) -> bool | None:
        written = self._call(compare_and_set, self._store, key, before, value, ttl)
        if written is not False:
            self._count_write(value)
        return written

    def delete(self, key: str) -> None:
        self._call(self._store.delete, key)
        with self._lock:
            self._counts.deletes += 1

    def _call(self, method: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(*args, **kwargs)
        except Exception:
            with self._lock:
                self._counts.failures += 1
            raise

    def _count_write(self, value: bytes) -> None:
        with self._lock:
            self._counts.writes += 1
            self._counts.written_bytes += len(value)


class _PastInvalidations:
    """Past invalidations of one kind, by Unix time."""

    __slots__ = ("floor", "idents", "prefixes", "tags")

    def __init__(self) -> None:
        self.tags: dict[tuple[str, str], float] = {}
        self.prefixes: dict[tuple[str, bytes], float] = {}
        self.idents: dict[Ident, float] = {}
        self.floor = 0.0

    def add(self, what: Invalidation, at: float) -> None:
        if what.prefix is not None:
            self.put(self.prefixes, (what.scope, what.prefix), at)
        for tag in what.tags:
            self.put(self.tags, (what.scope, tag), at)

    def put(self, table: dict[_K, float], key: _K, at: float) -> None:
        at = max(at, table.pop(key, 0.0))
        table[key] = at  # at the end, so that the first is the one that was repeated longest ago
        if len(table) > _MOST_REMEMBERED:
            self.floor = max(self.floor, table.pop(next(iter(table))))

    def matches(self, ident: Ident, tags: Iterable[str], began: float) -> bool:
        """Return whether an invalidation matched an entry after its fetch began."""
        if began <= self.floor:
            return True
        if not (self.tags or self.prefixes):
            return False
        scope, body = split(ident)
        scopes = ("", scope) if scope else ("",)
        for tag in tags:
            if any(began <= self.tags.get((one, tag), 0.0) for one in scopes):
                return True
        return any(
            began <= at and one in scopes and body.startswith(prefix)
            for (one, prefix), at in self.prefixes.items()
        )

    def any_since(self, began: float) -> bool:
        tables = (self.tags, self.prefixes, self.idents)
        return began <= self.floor or any(
            began <= at for table in tables for at in list(table.values())
        )


class InvalidationLog:
    """The past invalidations, by Unix time. The caller holds the memory's lock for every method.

    The log forgets the oldest when there are too many. Every entry whose fetch began before the
    newest forgotten one then counts as invalidated: this costs a refresh, but a stale value never
    counts as fresh.
    """

    __slots__ = ("_cleared", "_hard", "_soft")

    def __init__(self) -> None:
        self._soft = _PastInvalidations()
        self._hard = _PastInvalidations()
        self._cleared = 0.0

    def add(self, what: Invalidation, at: float) -> None:
        """Remember that ``what`` was invalidated at ``at``."""
        (self._hard if what.hard else self._soft).add(what, at)

    def add_outdated(self, ident: Ident, at: float) -> None:
        """Remember that the values computed from one entry are out of date since ``at``."""
        self._soft.put(self._soft.idents, ident, at)

    def clear(self, at: float) -> None:
        """Remember that everything was removed at ``at``."""
        self._cleared = max(self._cleared, at)

    def is_gone(self, ident: Ident, tags: Iterable[str], began: float) -> bool:
        """Return whether a value whose fetch began at ``began`` counts as missing."""
        return began <= self._cleared or self._hard.matches(ident, tags, began)

    def is_stale(
        self, ident: Ident, tags: Iterable[str], began: float, deps: Dependencies = ()
    ) -> bool:
        """Return whether an entry, or one that it was computed from, was invalidated since."""
        return self._soft.matches(ident, tags, began) or any(
            self._is_outdated(one, tagged, began) for one, tagged in deps
        )

    def _is_outdated(self, ident: Ident, tags: Iterable[str], began: float) -> bool:
        both = (self._soft, self._hard)
        if ident == ANY:
            return any(past.any_since(began) for past in both)
        return (
            began <= self._cleared
            or began <= self._soft.idents.get(ident, 0.0)
            or any(past.matches(ident, tags, began) for past in both)
        )
