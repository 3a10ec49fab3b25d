"""The second level: a store that all workers share, and the news of invalidations between them.

The store holds bytes; the hub's topic ``cache-invalidations`` tells what happened elsewhere. Both
may be gone at any time: the process then goes on with its own memory and says so once.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeVar, get_args

from ..core.fork import renew_after_fork
from ..errors import CacheError
from ..policies.outage import Outage
from ..protocols import CacheStore, Clock, Hub
from ..types import ChangeKind, StoreStats
from ..workers.lazy_store import compare_and_set
from .entry import Record, pack, unpack
from .keys import ANY, Dependencies, Ident, Invalidation, make_store_key, split
from .values import PICKLED, Pickled, PickleEncoder

__all__ = ["TOPIC", "InvalidationNews", "Listener", "SharedStore", "StoreAnswer"]

logger = logging.getLogger("om_plugins")

TOPIC = "cache-invalidations"
L1_TTL_S = 5.0
DEAF_TTL_S = 0.05
"""How long memory answers on its own while nobody hears of invalidations."""
_MOST_TAGS = 1000
_MOST_OWED = 10_000
_BEGINNING = 64
"""Bytes in which a record differs from every other: they hold its fence and when it began."""
_LONGEST = 64 * 1024
_MOST_PUT = 10_000
_MOST_NAMED = 500
_MOST_REMEMBERED = 10_000
_K = TypeVar("_K")
KINDS: dict[str, ChangeKind] = {kind: kind for kind in get_args(ChangeKind)}


class StoreAnswer(NamedTuple):
    """What was found under a key.

    Attributes:
        record: ``None`` where there is none of ours.
        asked: whether the store could be asked.
        beginning: the first bytes, whosever they are; ``None`` for nothing.
    """

    record: Record | None
    asked: bool
    beginning: bytes | None


class SharedStore:
    """A store under the cache's own keys; it never raises, and costs nothing while it is away.

    What could not be written or deleted meanwhile is deleted when the store is back: it must not
    answer with what was replaced long ago.

    Args:
        store: the bytes.
        clock: time.
        namespace: keeps two caches in one store apart.
        max_value: larger records are not read (a shared store is not trusted).
        pickles: signs pickles, and checks them; ``None`` where there are none.
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
        """The record, and whether the store could be asked."""
        seen = self.look(ident)
        return seen.record, seen.asked

    def look(self, ident: Ident) -> StoreAnswer:
        """What is there now."""
        key = make_store_key(ident, self._namespace)
        asked = self._ask(lambda: self._store.get(key))
        data = None if asked is None else asked[0]
        if not isinstance(data, bytes):
            return StoreAnswer(None, asked is not None, None)
        if len(data) > self._max_record:
            return StoreAnswer(None, True, data[:_BEGINNING])
        record = self._trusted(key, unpack(data, self._clock.time()))
        return StoreAnswer(record, True, data[:_BEGINNING])

    def save(
        self,
        ident: Ident,
        record: Record,
        over: StoreAnswer | None = None,
        is_held: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Keep a record.

        Args:
            over: only in the place of this.
            is_held: asked after a write for which the store could not tell: whether nobody can have
                written a newer one meanwhile. Else nothing stays there, which is never old.

        Returns:
            False when something else is there by now: look again.
        """
        key = make_store_key(ident, self._namespace)
        if isinstance(record.body, Pickled):
            signed = self._signed(key, record)
            if signed is None:
                self.delete(ident)  # the one before must not stay in its place
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
            self._owe(key)
        elif written[0] is None and not is_held():
            self.delete(ident)
        return written is None or written[0] is not False

    def delete(self, ident: Ident) -> None:
        """Forget a record."""
        key = make_store_key(ident, self._namespace)
        if self._ask(lambda: self._store.delete(key)) is None:
            self._owe(key)

    def _trusted(self, key: str, record: Record | None) -> Record | None:
        """The record, its pickle checked; ``None`` where that is not ours."""
        if record is None or not record.flags:
            return record
        if record.flags != PICKLED or self._pickles is None:
            return None
        body = self._pickles.verify(key, record.body)
        return None if body is None else replace(record, body=body, flags=0)

    def _signed(self, key: str, record: Record) -> Record | None:
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
        """What the store answered; ``None`` while it is away."""
        outage = self._outage
        began = self._clock.monotonic()
        if outage.down and not outage.claim_try(began):
            return None
        try:
            if self._owed:
                self._pay()
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

    def _owe(self, key: str) -> None:
        self._owed[key] = None
        if len(self._owed) > _MOST_OWED:
            self._owed.pop(next(iter(self._owed)), None)

    def _pay(self) -> None:
        for key in list(self._owed):
            self._store.delete(key)
            self._owed.pop(key, None)


class Listener(Protocol):
    """Applies what other workers did; ``heard_at`` is the Unix time of the news."""

    def heard_change(
        self,
        ident: Ident,
        kind: ChangeKind,
        tags: tuple[str, ...],
        at: float,
        same: bool,
        heard_at: float,
    ) -> None: ...

    def heard_invalidation(
        self, what: Invalidation, at: float, also: list[Ident], heard_at: float
    ) -> None: ...

    def heard_put(self, idents: list[Ident]) -> None: ...

    def heard_outdated(self, ident: Ident, at: float, heard_at: float) -> None: ...

    def heard_removal(self, ident: Ident, at: float, heard_at: float) -> None: ...

    def heard_clearing(self, at: float, heard_at: float) -> None: ...

    def listening(self, deaf: bool) -> None: ...


class InvalidationNews:
    """Tells other workers of invalidations, and hears theirs.

    Args:
        hub: what carries them; ``None`` when there is none.
        topic: the hub's topic, one per namespace.
        listener: told what other workers did.
    """

    def __init__(self, hub: Hub | None, topic: str, listener: Listener) -> None:
        self._hub = hub
        self._topic = topic
        self._listener = listener
        self.origin = os.urandom(8)
        self._last = ""
        self._deaf = False
        self._down = False
        self._put: dict[Ident, None] = {}

    def tell(self, what: Invalidation, at: float, found: Sequence[Ident] = ()) -> None:
        """Publish an invalidation, and those it found whose tags others may not know."""
        news: dict[str, object] = {
            "prefix": what.prefix,
            "tags": list(what.tags),
            "scope": what.scope,
            "at": at,
        }
        if what.hard:
            news["hard"] = True
        if found:
            news["found"] = list(found)
        self._publish(news)

    def tell_changed(
        self, ident: Ident, kind: ChangeKind, tags: tuple[str, ...], at: float, same: bool = False
    ) -> None:
        """Publish that an entry was kept; only for keys that somebody watches."""
        self._publish({"changed": ident, "kind": kind, "tags": list(tags), "at": at, "same": same})

    def put(self, ident: Ident) -> None:
        """Publish with the next :meth:`hear` that the store has another value of an entry."""
        if self._hub is not None and len(self._put) < _MOST_PUT:
            self._put[ident] = None

    def _tell_put(self) -> None:
        put, self._put = self._put, {}
        while put:
            told: list[Ident] = []
            size = 0
            while put and len(told) < _MOST_NAMED and size < _LONGEST:
                told.append(put.popitem()[0])
                size += len(told[-1])
            self._publish({"put": told})

    def tell_outdated(self, ident: Ident, at: float) -> None:
        """Publish that what was computed from an entry is out of date."""
        self._publish({"outdated": ident, "at": at})

    def tell_removed(self, ident: Ident, at: float) -> None:
        """Publish that an entry was removed."""
        self._publish({"removed": ident, "at": at})

    def tell_cleared(self, at: float) -> None:
        """Publish that everything was removed."""
        self._publish({"cleared": True, "at": at})

    def hear(self) -> None:
        """Read what is new, and apply it."""
        if self._hub is None:
            return
        self._tell_put()
        try:
            while messages := self._hub.read(self._topic, after=self._last, limit=500):
                for message in messages:
                    self._last = message.id
                    self._apply(message.data, message.at)
            self._down = False
            # a hub that goes on alone while its backend is away says so
            self._listen(getattr(self._hub, "alone", False) is True)
        except Exception as error:  # noqa: BLE001 - a hub that is away must not end the job
            self._failed(error)
            self._listen(True)

    def _listen(self, deaf: bool) -> None:
        if deaf != self._deaf:
            self._deaf = deaf
            self._listener.listening(deaf)

    def _publish(self, data: dict[str, object]) -> None:
        if self._hub is None:
            return
        try:
            self._hub.publish(self._topic, {"from": self.origin, **data})
            self._down = False
        except Exception as error:  # noqa: BLE001
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if not self._down:
            self._down = True
            logger.warning(
                "the hub cannot be reached (%s: %s); other workers hear of cache invalidations "
                "only when their own copies end, after at most %g s in memory",
                type(error).__name__,
                error,
                L1_TTL_S,
            )

    def _apply(self, data: object, heard_at: float) -> None:
        # a message is as little to be trusted as any other input: what does not fit is passed by
        if not isinstance(data, dict) or data.get("from") == self.origin:
            return
        if isinstance(put := data.get("put"), list):
            self._listener.heard_put([one for one in put[:_MOST_NAMED] if _is_ident(one)])
            return
        at = data.get("at")
        if not isinstance(at, float | int) or isinstance(at, bool) or at != at:
            return
        if data.get("cleared") is True:
            self._listener.heard_clearing(at, heard_at)
            return
        if (ident := data.get("removed")) is not None:
            if _is_ident(ident):
                self._listener.heard_removal(ident, at, heard_at)
            return
        if (ident := data.get("outdated")) is not None:
            if _is_ident(ident):
                self._listener.heard_outdated(ident, at, heard_at)
            return
        tags = data.get("tags")
        if not isinstance(tags, list) or len(tags) > _MOST_TAGS:
            return
        tags = tuple(tag for tag in tags if isinstance(tag, str))
        if (ident := data.get("changed")) is not None:
            kind = KINDS.get(str(data.get("kind")))
            if _is_ident(ident) and kind is not None:
                same = data.get("same") is True
                self._listener.heard_change(ident, kind, tags, at, same, heard_at)
            return
        prefix, scope, found = data.get("prefix"), data.get("scope"), data.get("found")
        if not (prefix is None or (isinstance(prefix, bytes) and len(prefix) <= _LONGEST)):
            return
        if isinstance(scope, str):
            also = [i for i in found if _is_ident(i)] if isinstance(found, list) else []
            what = Invalidation(prefix, tags, scope, data.get("hard") is True)
            self._listener.heard_invalidation(what, at, also, heard_at)


def _is_ident(value: Any) -> bool:
    return isinstance(value, str | bytes) and len(value) <= _LONGEST


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


class _PastInvalidations:
    """Invalidations of one sort, by Unix time."""

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
        table[key] = at  # last, so that the first one is the one that was repeated longest ago
        if len(table) > _MOST_REMEMBERED:
            self.floor = max(self.floor, table.pop(next(iter(table))))

    def has(self, ident: Ident, tags: Iterable[str], began: float) -> bool:
        """Whether an entry was meant after its fetch began."""
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
    """The invalidations of the past, by Unix time. The owner's lock is held for every method.

    When there are too many to remember, everything that was fetched before the newest of those
    forgotten counts as invalidated: an extra refresh, never a stale value taken for a fresh one.
    """

    __slots__ = ("_cleared", "_hard", "_soft")

    def __init__(self) -> None:
        self._soft = _PastInvalidations()
        self._hard = _PastInvalidations()
        self._cleared = 0.0

    def add(self, what: Invalidation, at: float) -> None:
        """Remember that ``what`` was invalidated at ``at``."""
        (self._hard if what.hard else self._soft).add(what, at)

    def add_changed(self, ident: Ident, at: float) -> None:
        """Remember that what was computed from one entry is out of date since ``at``."""
        self._soft.put(self._soft.idents, ident, at)

    def clear(self, at: float) -> None:
        """Remember that everything was removed at ``at``."""
        self._cleared = max(self._cleared, at)

    def is_gone(self, ident: Ident, tags: Iterable[str], began: float) -> bool:
        """Whether what was fetched from ``began`` on is to be treated as missing."""
        return began <= self._cleared or self._hard.has(ident, tags, began)

    def is_stale(
        self, ident: Ident, tags: Iterable[str], began: float, deps: Dependencies = ()
    ) -> bool:
        """Whether an entry was invalidated after its fetch began, or what it was computed from."""
        return self._soft.has(ident, tags, began) or any(
            self._is_out_of_date(one, tagged, began) for one, tagged in deps
        )

    def _is_out_of_date(self, ident: Ident, tags: Iterable[str], began: float) -> bool:
        both = (self._soft, self._hard)
        if ident == ANY:
            return any(past.any_since(began) for past in both)
        return (
            began <= self._cleared
            or began <= self._soft.idents.get(ident, 0.0)
            or any(past.has(ident, tags, began) for past in both)
        )
