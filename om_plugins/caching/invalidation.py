"""Invalidations: what they match, and a memory of them for entries that a store gives later.

An entry in this process is marked when the invalidation happens. One that lies in a shared store
cannot be found there (stores are asked for get, set and delete only), so the invalidation is
remembered, and an entry whose fetch began before it is stale when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from .keys import Ident, split

__all__ = ["Invalidation", "Memory", "tags_of"]

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
    """

    prefix: bytes | None = None
    tags: tuple[str, ...] = ()
    scope: str = ""

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


class Memory:
    """The invalidations of the past, by Unix time. The owner's lock is held for every method.

    When there are too many to remember, everything that was fetched before the newest of those
    forgotten counts as invalidated: an extra refresh, never a stale value taken for a fresh one.
    """

    __slots__ = ("_cleared", "_floor", "_prefixes", "_tags")

    def __init__(self) -> None:
        self._tags: dict[tuple[str, str], float] = {}
        self._prefixes: dict[tuple[str, bytes], float] = {}
        self._floor = 0.0
        self._cleared = 0.0

    def add(self, what: Invalidation, at: float) -> None:
        """Remember that ``what`` was invalidated at ``at``."""
        if what.prefix is not None:
            self._put(self._prefixes, (what.scope, what.prefix), at)
        for tag in what.tags:
            self._put(self._tags, (what.scope, tag), at)

    def clear(self, at: float) -> None:
        """Remember that everything was removed at ``at``."""
        self._cleared = max(self._cleared, at)

    def is_cleared(self, began: float) -> bool:
        """Whether what was fetched from ``began`` on is to be treated as missing."""
        return began <= self._cleared

    def is_stale(self, ident: Ident, tags: Iterable[str], began: float) -> bool:
        """Whether an entry was invalidated after its fetch began."""
        if began <= self._floor:
            return True
        scope, body = split(ident)
        scopes = ("", scope) if scope else ("",)
        for tag in tags:
            if any(began <= self._tags.get((one, tag), 0.0) for one in scopes):
                return True
        return any(
            began <= at and one in scopes and body.startswith(prefix)
            for (one, prefix), at in self._prefixes.items()
        )

    def _put(self, table: dict[_K, float], key: _K, at: float) -> None:
        at = max(at, table.pop(key, 0.0))
        table[key] = at  # last, so that the first one is the one that was repeated longest ago
        if len(table) > _MOST:
            self._floor = max(self._floor, table.pop(next(iter(table))))
