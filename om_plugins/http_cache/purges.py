"""Purges: which stored responses are meant, those of the past, and their messages to other workers.

An entry in memory is found when it is purged. One that lies in a shared store, or whose request is
still running, cannot be found. So :class:`Purges` remembers purges, and a response that was
requested before a purge that matches it counts as missing (after a soft purge, as stale).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from ..cache.entry import read_ident
from ..cache.keys import read_texts, split
from ..workers.invalidation_bus import (
    EntriesCleared,
    EntriesInvalidated,
    EntryRemoved,
    Message,
    PagesPurged,
)
from .keys import read_address, read_query, read_url

_MOST_IDENTS = 10_000
_MOST_OTHERS = 1_000
_K = TypeVar("_K")


class Purged(IntEnum):
    """What became of a response."""

    NO = 0
    STALE = 1
    GONE = 2


@dataclass(frozen=True, slots=True)
class Purge:
    """Which responses are meant: those of an address, below a prefix, or with a tag.

    Args:
        url: ``/path`` on any host, or ``https://host/path``; with a query that one only, without
            one all of its queries; "" for none.
        prefix: the beginning of a path or of a whole URL; ``None`` for none, "" for everything.
        tags: any of these.
        idents: exact keys, for addresses that an unsafe request changed.
        soft: they become stale, and are served while a new one is fetched.
    """

    url: str = ""
    prefix: str | None = None
    tags: tuple[str, ...] = ()
    idents: tuple[str, ...] = ()
    soft: bool = False

    def matches(self, ident: str, tags: Iterable[str]) -> bool:
        """Whether a response is meant, by its key (a variant's begins with its address's)."""
        if self.idents and any(ident == one or ident.startswith(one + "\n") for one in self.idents):
            return True
        if self.tags and any(tag in self.tags for tag in tags):
            return True
        if self.prefix is None and not self.url:
            return False
        origin, path = read_url(ident)
        if self.prefix is not None:
            whole = path if self.prefix.startswith("/") else origin + path
            if whole.startswith(self.prefix):
                return True
        if not self.url:
            return False
        address, mark, query = self.url.partition("?")
        if (path if address.startswith("/") else origin + path) != address:
            return False
        return not mark or read_query(ident) == query


class Purges:
    """The purges of the past. The owner's lock is held for every method.

    When there are too many to remember, everything from before the newest of those forgotten
    counts as purged: one more miss, never a response that was taken back.
    """

    def __init__(self) -> None:
        # single addresses are many, where an application takes POSTs: these are looked up
        self._idents: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._others: OrderedDict[Purge, tuple[float, int]] = OrderedDict()
        self._floor = (0.0, 0)
        self.count = 0

    def add(self, purge: Purge, at: float) -> None:
        """Remember that ``purge`` happened at this Unix time."""
        self.count += 1
        if purge.url or purge.prefix is not None or purge.tags or purge.soft:
            self._put(self._others, purge, at, _MOST_OTHERS)
        else:
            for ident in purge.idents:
                self._put(self._idents, ident, at, _MOST_IDENTS)

    def _put(
        self, table: OrderedDict[_K, tuple[float, int]], key: _K, at: float, most: int
    ) -> None:
        at = max(at, table.pop(key, (0.0, 0))[0])
        table[key] = (at, self.count)
        if len(table) > most:
            _, (forgotten, number) = table.popitem(last=False)
            self._floor = (max(self._floor[0], forgotten), max(self._floor[1], number))

    def since(self, count: int, ident: str, tags: Iterable[str]) -> Purged:
        """What happened to a response that was asked for when ``count`` purges were known."""
        if count == self.count:
            return Purged.NO
        if count < self._floor[1]:
            return Purged.GONE
        return self._worst(ident, tags, lambda found: found[1] > count)

    def after(self, began: float, ident: str, tags: Iterable[str]) -> Purged:
        """What happened to a response that was asked for at this Unix time, here or elsewhere."""
        if began <= self._floor[0]:
            return Purged.GONE
        return self._worst(ident, tags, lambda found: began <= found[0])

    def _worst(
        self, ident: str, tags: Iterable[str], counts: Callable[[tuple[float, int]], bool]
    ) -> Purged:
        for one in (ident, read_address(ident)):
            found = self._idents.get(one)
            if found is not None and counts(found):
                return Purged.GONE
        worst = Purged.NO
        for purge, found in self._others.items():
            if counts(found) and purge.matches(ident, tags):
                if not purge.soft:
                    return Purged.GONE
                worst = Purged.STALE
        return worst


def write_purge(purge: Purge, at: float) -> PagesPurged:
    """Return the message that tells other workers of a purge."""
    return PagesPurged(
        at=at,
        url=purge.url,
        prefix=purge.prefix,
        tags=list(purge.tags),
        idents=list(purge.idents),
        soft=purge.soft,
    )


def read_purge(message: Message) -> Purge | None:
    """Return the purge that a message means for stored responses; ``None`` for no purge.

    Stored responses follow the data that they show. An invalidation of data by tags makes the
    responses with these tags stale; one of everything makes all responses stale; and one of the
    key ``("view", "/path")``, or below it, makes the response at that path stale.
    """
    match message:
        case PagesPurged():
            tags, idents = tuple(message.tags), tuple(message.idents)
            return Purge(message.url, message.prefix, tags, idents, message.soft)
        case EntriesCleared():
            return Purge(prefix="/", soft=True)
        case EntriesInvalidated(prefix=b""):
            return Purge(prefix="/", tags=tuple(message.tags), soft=True)
        case EntriesInvalidated():
            return _follow_key(message.prefix, tuple(message.tags))
        case EntryRemoved():
            with suppress(ValueError):
                return _follow_key(split(read_ident(message.ident))[1], ())
    return None


def _follow_key(body: bytes | None, tags: tuple[str, ...]) -> Purge | None:
    """Return the purge for data with a key, or a beginning of keys, and tags."""
    url, everything = "", None
    members: list[str | None] = []
    if body is not None and body.startswith(b"T"):
        with suppress(ValueError):
            members = list(read_texts(body[1:]))
    if members[:1] == ["view"]:
        url = members[1] or "" if len(members) > 1 else ""
        everything = None if url else "/"
    if not (url or everything or tags):
        return None
    return Purge(url=url, prefix=everything, tags=tags, soft=True)
