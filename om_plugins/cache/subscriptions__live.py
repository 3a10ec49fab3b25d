"""Live keys: those whose changes browsers are told of, because the application said so.

A browser is told that a key changed, never to what: it asks the application again, which decides
what that browser may see. A key that was not made live is never named to anybody.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from ..core.fork import renew_after_fork
from ..protocols import Hub
from .invalidation import Invalidation
from .keys import Ident, Key

__all__ = ["Announce", "LiveKeys", "Publishing"]

logger = logging.getLogger("om_plugins")

MOST_LIVE = 10_000
_SAID_S = 10.0
_PLAIN = (str, int, float, bool, type(None))
_LONGEST = 500

Announce = Callable[[object, Iterable[str]], None]
"""``announce(key, addresses)``: tells browsers that a key changed."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """How an application tells browsers of changes.

    Attributes:
        announce: tells them.
        check: raises ``ValueError`` for what is not an address.
    """

    announce: Announce
    check: Callable[[str], object]


@dataclass(slots=True)
class _Live:
    name: object
    to: tuple[str, ...]
    tags: tuple[str, ...]


class LiveKeys:
    """The live keys of one cache. They outlive a fork: each child has them, too.

    Args:
        publishing: tells browsers; ``None`` where there are none, and nothing can be live.
        hub: lets one worker speak for all that hear of the same change.
    """

    def __init__(self, publishing: Publishing | None, hub: Hub | None) -> None:
        self._publishing = publishing
        self._hub = hub
        self._lock = threading.Lock()
        self._by_ident: dict[Ident, _Live] = {}
        renew_after_fork(self)

    def after_fork(self) -> None:
        """A lock of the parent may be held for ever."""
        self._lock = threading.Lock()

    def __contains__(self, ident: Ident) -> bool:
        return ident in self._by_ident

    def idents(self) -> list[Ident]:
        """All of them."""
        return list(self._by_ident)

    def add(
        self,
        key: Key,
        ident: Ident,
        scope: str,
        live: bool | str | Iterable[str],
        tags: tuple[str, ...] = (),
    ) -> None:
        """Make a key live.

        Args:
            live: True for every open page, else the addresses of those who are told.

        Raises:
            ValueError: an address is none, or everybody is meant by an entry with a scope.
            TypeError: a browser cannot have such a key.
        """
        if self._publishing is None:
            return
        known = self._by_ident.get(ident)
        if live is True:
            if scope:
                raise ValueError(
                    f"live=True on {key!r} of scope {scope!r} would name it to everyone: say who "
                    "is told, as live='user:7'"
                )
            to: tuple[str, ...] = ("everyone",)
        elif known is not None and (known.to == live or known.to == (live,)):
            to = known.to
        else:
            to = (live,) if isinstance(live, str) else tuple(live)  # type: ignore[arg-type]
            for one in to:
                self._publishing.check(one)
        if known is not None and known.to == to and known.tags == tags:
            return
        made = _Live(known.name if known is not None else _name_of(key), to, tags)
        with self._lock:
            if len(self._by_ident) >= MOST_LIVE and ident not in self._by_ident:
                del self._by_ident[next(iter(self._by_ident))]
            self._by_ident[ident] = made

    def remove(self, ident: Ident) -> None:
        """No longer tell of a key."""
        with self._lock:
            self._by_ident.pop(ident, None)

    def changed(self, ident: Ident, at: float) -> None:
        """Tell browsers that an entry changed, unless another worker has.

        Args:
            at: the Unix time of the change, the same in all workers that hear of it.
        """
        one = self._by_ident.get(ident)
        if one is None or self._publishing is None:
            return
        try:
            if self._hub is not None and self._hub.increment(_said(ident, at), ttl=_SAID_S) > 1:
                return
            self._publishing.announce(one.name, one.to)
        except Exception as error:  # noqa: BLE001 - browsers ask again by themselves, later
            logger.debug("browsers are not told of a change: %s", error)

    def invalidated(
        self,
        what: Invalidation,
        at: float,
        tags_of: Callable[[Ident], tuple[str, ...]],
        also: Collection[Ident],
    ) -> None:
        """Tell browsers of an invalidation; ``also`` are entries that it found."""
        for ident, one in list(self._by_ident.items()):
            if ident in also or what.matches(ident, (*one.tags, *tags_of(ident))):
                self.changed(ident, at)

    def cleared(self, at: float) -> None:
        """Tell browsers that everything was removed."""
        for ident in self.idents():
            self.changed(ident, at)


def _name_of(key: Key) -> object:
    """A key as JSON has it."""
    members = key if type(key) is tuple else (key,)
    for one in members:
        if type(one) not in _PLAIN:
            raise TypeError(
                f"{key!r} cannot be live: a browser's key is text, or an array of text, numbers, "
                f"true, false and null, and has no {type(one).__name__}"
            )
    if len(repr(key)) > _LONGEST:
        raise TypeError(f"the key {repr(key)[:60]}… is too long to be live")
    return list(members) if type(key) is tuple else key


def _said(ident: Ident, at: float) -> str:
    data = ident.encode("utf-8", "surrogatepass") if isinstance(ident, str) else ident
    return f"cache-said/{hashlib.blake2b(data, digest_size=12).hexdigest()}/{at!r}"
