"""The sets of input names by which the responses of an address are told apart.

Each process remembers them, and workers share them in the store of the cache. A worker that does
not know a set makes a response once more, and learns it.

Requests wait for each other's response before it is known what its making looks at. They are
grouped by the coarsest set of the address, because a set that one visitor's making added would tell
all others apart. Where the last making with the same values looked at more, its set tells apart.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import msgspec

from ...core.fork import renew_after_fork
from ..entry import Record
from ..keys import Ident, Scope, encode_scope, identify
from ..values import decode, encode

if TYPE_CHECKING:
    from ..shared_store import SharedStore

Names: TypeAlias = tuple[str, ...]
T = TypeVar("T")
_Address: TypeAlias = tuple[tuple[object, ...], str]

MOST_SETS = 4
_MOST_ADDRESSES = 10_000
_KEPT_S = 30 * 86_400.0
_MOST_NAMES = 200
_MOST_FINER = 10_000


def find_coarsest(sets: Iterable[Names]) -> Names:
    """Return the set with the fewest names, the same in all workers; no names without sets."""
    return min(sets, key=lambda names: (len(names), names), default=())


class FinerSets(Generic[T]):
    """What the last makings looked at beyond the coarsest set of their address.

    They are remembered by the address and the values of the coarsest set, in this process. The
    oldest go. The caller holds a lock for :meth:`learn`.
    """

    def __init__(self) -> None:
        self._sets: OrderedDict[Hashable, T] = OrderedDict()

    def recall(self, values: Hashable) -> T | None:
        """Return what the last making with these values looked at; ``None`` for no more."""
        return self._sets.get(values)

    def learn(self, values: Hashable, found: T | None) -> None:
        """Remember what a making with these values looked at; ``None`` for no more."""
        self._sets.pop(values, None)
        if found is not None:
            self._sets[values] = found
            if len(self._sets) > _MOST_FINER:
                self._sets.popitem(last=False)


class InputSets:
    """The sets of each address, newest first."""

    def __init__(self) -> None:
        self._sets: OrderedDict[_Address, tuple[Names, ...]] = OrderedDict()
        self._finer: FinerSets[Names] = FinerSets()
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Renew the lock in a child process: a thread of the parent may hold it."""
        self._lock = threading.Lock()

    def read(self, address: tuple[object, ...], scope: Scope) -> tuple[Names, ...]:
        """Return the sets of an address that this process knows; none for one of no names."""
        return self._sets.get((address, encode_scope(scope)), ())

    def load(self, address: tuple[object, ...], scope: Scope, store: SharedStore) -> bool:
        """Learn the sets that other workers know; return whether there are new ones."""
        record, _ = store.load(_identify(address, scope))
        if record is None:
            return False
        try:
            found = decode(record.body)
            others = tuple(tuple(str(name) for name in one[:_MOST_NAMES]) for one in found)
        except (msgspec.MsgspecError, ValueError, TypeError, KeyError):
            return False  # a damaged record is none
        return self._add((address, encode_scope(scope)), others[:MOST_SETS])

    def add(
        self,
        address: tuple[object, ...],
        scope: Scope,
        names: Names,
        store: SharedStore | None,
        now: float,
    ) -> None:
        """Add a set of an address.

        Args:
            address, scope: the key of the address.
            names: the set.
            store: what workers share; ``None`` for nothing.
            now: Unix time.
        """
        known = address, encode_scope(scope)
        if not names and known not in self._sets:
            return  # most pages look at nobody, which is tried where no set is known
        if self._add(known, (names,)) and store is not None:
            self.load(address, scope, store)  # what another worker added meanwhile stays
            body = encode([list(one) for one in self._sets.get(known, (names,))])
            store.save(_identify(address, scope), Record(now, now, _KEPT_S, _KEPT_S, (), body))

    def recall_finer(self, values: Ident) -> Names | None:
        """Return the set of the last making with these values of the coarsest set.

        Args:
            values: the key of a response under the coarsest set.

        Returns:
            The set; ``None`` when it was the coarsest, or is not known.
        """
        return self._finer.recall(values)

    def learn_finer(self, values: Ident, names: Names | None) -> None:
        """Remember the set of a making; ``None`` when it was the coarsest."""
        with self._lock:
            self._finer.learn(values, names)

    def _add(self, known: _Address, sets: tuple[Names, ...]) -> bool:
        with self._lock:
            before = self._sets.get(known, ())
            new = tuple(one for one in sets if one not in before)
            if not new:
                return False
            self._sets[known] = (*new, *before)[:MOST_SETS]
            self._sets.move_to_end(known)
            if len(self._sets) > _MOST_ADDRESSES:
                self._sets.popitem(last=False)
            return True


def _identify(address: tuple[object, ...], scope: Scope) -> Ident:
    return identify(("inputs", *address), scope)
