"""The sets of input names by which the responses of an address are told apart.

Each process remembers them, and workers share them in the store of the cache. A worker that does
not know a set makes a response once more, and learns it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from ...core.fork import renew_after_fork
from ..entry import Record
from ..keys import Ident, Scope, encode_scope, identify
from ..values import decode, encode

if TYPE_CHECKING:
    from ..shared_store import SharedStore

Names: TypeAlias = tuple[str, ...]
_Address: TypeAlias = tuple[tuple[object, ...], str]

MOST_SETS = 4
_MOST_ADDRESSES = 10_000
_KEPT_S = 30 * 86_400.0
_MOST_NAMES = 200


class InputSets:
    """The sets of each address, newest first."""

    def __init__(self) -> None:
        self._sets: OrderedDict[_Address, tuple[Names, ...]] = OrderedDict()
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Renew the lock in a child process: a thread of the parent may hold it."""
        self._lock = threading.Lock()

    def read(self, address: tuple[object, ...], scope: Scope) -> tuple[Names, ...]:
        """Return the sets of an address that this process knows."""
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
        if self._add(known, (names,)) and store is not None:
            self.load(address, scope, store)  # what another worker added meanwhile stays
            body = encode([list(one) for one in self._sets.get(known, (names,))])
            store.save(_identify(address, scope), Record(now, now, _KEPT_S, _KEPT_S, (), body))

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
