"""Invalidations: what they match, and a memory of them for entries that a store gives later.

An entry in this process is marked when the invalidation happens. One that lies in a shared store
cannot be found there (stores are asked for get, set and delete only), so the invalidation is
remembered, and an entry whose fetch began before it is stale when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from .entry import Deps
from .keys import Ident, split

__all__ = ["ANY", "Invalidation", "Memory", "tags_of"]

ANY: Ident = b""
"""In a value's dependencies: there are too many to name, so any invalidation concerns it."""

_MOST = 10_000
_K = TypeVar("_K")


@dataclass(frozen=True, slots=True)
class Invalidation:
    """Which entries are meant: those whose key begins with the prefix and those with a tag.

    Args:
        prefix: the body of a key's beginning (see :func:`.keys.body_of`); ``b""`` is every key,
            ``None`` none.
        tags: any of these.
        scope: only entries of this scope; "" is all scopes.
        hard: they are to be forgotten, not marked stale.
    """

    prefix: bytes | None = None
    tags: tuple[str, ...] = ()
    scope: str = ""
    hard: bool = False

    def concerns(self, ident: Ident, tags: Iterable[str], deps: Deps) -> bool:
        """Whether an entry is meant, or one that it was computed from."""
        return self.matches(ident, tags) or any(
            one == ANY or self.matches(one, tagged) for one, tagged in deps
        )

    def matches(self, ident: Ident, tags: Iterable[str]) -> bool:
        """Whether an entry is meant."""
        if self.prefix is None and not any(tag in self.tags for tag in tags):
            return False
        scope, body = split(ident)
        if self.scope and scope != self.scope:
            return False
        if self.prefix is not None and body.startswith(self.prefix):
            return True
        return any(tag in self.tags for tag in tags)


def tags_of(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags as they were given, each once.

    Raises:
        TypeError: one text, which would be taken for its letters.
    """
    if isinstance(tags, str):
        raise TypeError(f"tags must be a list of texts, not the text {tags!r}")
    return tuple(dict.fromkeys(tags)) if tags else ()


class _Past:
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
        if len(table) > _MOST:
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


class Memory:
    """The invalidations of the past, by Unix time. The owner's lock is held for every method.

    When there are too many to remember, everything that was fetched before the newest of those
    forgotten counts as invalidated: an extra refresh, never a stale value taken for a fresh one.
    """

    __slots__ = ("_cleared", "_hard", "_soft")

    def __init__(self) -> None:
        self._soft = _Past()
        self._hard = _Past()
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

    def is_stale(self, ident: Ident, tags: Iterable[str], began: float, deps: Deps = ()) -> bool:
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
