"""Subscriptions: callbacks that hear of the changes of one key, from this process or another.

A change is noted where it happens, which costs a look into a dictionary, and told in a background
job. What piles up while a callback runs is told once per kind, the last change last. Workers say
in the hub which keys they watch (:class:`Watch`), so that nobody publishes what nobody hears.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from ..core.fork import renew_after_fork
from ..protocols import Clock, Hub, Scheduler
from ..types import CacheChange, ChangeKind
from .keys import Ident, Invalidation, Key

__all__ = ["BrowserAnnouncer", "BrowserUpdates", "Subscriptions", "WatchedKeys"]

logger = logging.getLogger("om_plugins")

WATCHED = "cache/watched"
RENEW_S = 3.0
WATCH_TTL_S = 10.0
MOST_WATCHED = 1000
_MOST_BYTES = 64 * 1024
_MOST_KNOWN = 10_000


class _Subscription:
    """One callback, and what it has not been told yet: each kind once, the last one last."""

    __slots__ = ("active", "busy", "callback", "key", "pending", "scope", "since", "tags")

    def __init__(
        self, key: Key, scope: str, callback: Callable[[CacheChange], object], since: float
    ) -> None:
        self.key = key
        self.scope = scope
        self.callback = callback
        self.since = since
        self.tags: tuple[str, ...] = ()
        self.pending: dict[ChangeKind, None] = {}
        self.busy = False
        self.active = True


class Subscriptions:
    """All subscriptions of one cache. They outlive a fork: each child has them too.

    Args:
        clock: time.
        scheduler: runs the callbacks.
        context: opened around every callback.
    """

    def __init__(
        self,
        clock: Clock,
        scheduler: Scheduler,
        context: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._clock = clock
        self._scheduler = scheduler
        self._context = context
        self._lock = threading.Lock()
        # the tuples are replaced and never changed, so that readers need no lock
        self._by_ident: dict[Ident, tuple[_Subscription, ...]] = {}
        renew_after_fork(self)

    def __len__(self) -> int:
        return sum(map(len, list(self._by_ident.values())))

    def __contains__(self, ident: Ident) -> bool:
        return ident in self._by_ident

    def idents(self) -> list[Ident]:
        """What is subscribed to."""
        return list(self._by_ident)

    def add(
        self, key: Key, ident: Ident, scope: str, callback: Callable[[CacheChange], object]
    ) -> Callable[[], None]:
        """Subscribe; returns what ends it, at once and for good."""
        one = _Subscription(key, scope, callback, self._clock.time())
        with self._lock:
            self._by_ident[ident] = (*self._by_ident.get(ident, ()), one)

        def unsubscribe() -> None:
            with self._lock:
                one.active = False
                left = tuple(o for o in self._by_ident.get(ident, ()) if o is not one)
                if left:
                    self._by_ident[ident] = left
                else:
                    self._by_ident.pop(ident, None)

        return unsubscribe

    def changed(
        self,
        ident: Ident,
        kind: ChangeKind,
        tags: tuple[str, ...] | None = None,
        heard_at: float | None = None,
    ) -> None:
        """Note a change, and have it told.

        Args:
            tags: of the new value; ``None`` when there is none.
            heard_at: the Unix time of the news, when another worker sent it: who subscribed
                later is not told.
        """
        found = self._by_ident.get(ident)
        if found is None:
            return
        told = []
        with self._lock:
            for one in found:
                if tags is not None:
                    one.tags = tags
                if one.active and (heard_at is None or heard_at >= one.since):
                    one.pending.pop(kind, None)
                    one.pending[kind] = None
                    told.append(one)
        self._tell(told)

    def invalidated(
        self,
        what: Invalidation,
        get_tags: Callable[[Ident], tuple[str, ...]],
        also: Collection[Ident] = (),
        heard_at: float | None = None,
    ) -> None:
        """Note an invalidation.

        Args:
            get_tags: the tags of an entry of this process. Those last heard of count as well.
            also: entries that the sender of the news found by their tags.
        """
        for ident, found in list(self._by_ident.items()):
            tags = (*get_tags(ident), *(tag for one in found for tag in one.tags))
            meant = what.matches(ident, tags)
            if meant or ident in also:
                kind: ChangeKind = "removed" if what.hard and meant else "invalidated"
                self.changed(ident, kind, heard_at=heard_at)

    def cleared(self, heard_at: float | None = None) -> None:
        """Note that everything was removed."""
        for ident in self.idents():
            self.changed(ident, "removed", heard_at=heard_at)

    def flush(self) -> None:
        """Try again what the scheduler's queue had no place for."""
        self._tell([one for found in list(self._by_ident.values()) for one in found])

    def after_fork(self) -> None:
        """The parent tells its own changes; what it heard before is not heard again here."""
        self._lock = threading.Lock()
        now = self._clock.time()
        for found in self._by_ident.values():
            for one in found:
                one.pending.clear()
                one.busy = False
                one.since = now

    def _tell(self, several: Iterable[_Subscription]) -> None:
        for one in several:
            with self._lock:
                if one.busy or not one.pending:
                    continue
                one.busy = True
            if not self._scheduler.submit(partial(self._run, one), name="cache-subscription"):
                with self._lock:  # it stays pending until the next change, or the next flush
                    one.busy = False

    def _run(self, one: _Subscription) -> None:
        with self._lock:
            kinds = list(one.pending)
            one.pending.clear()
        try:
            for kind in kinds:
                if one.active:
                    self._call(one, CacheChange(one.key, kind, one.scope))
        finally:
            with self._lock:
                one.busy = False
            self._tell([one])

    def _call(self, one: _Subscription, change: CacheChange) -> None:
        try:
            with self._context():
                one.callback(change)
        except Exception:
            logger.exception("a cache subscription's callback failed on %r", change)


class WatchedKeys:
    """Which keys the other workers have subscriptions for; one object per process.

    Args:
        hub: where workers say it; ``None`` when there are no others.
        clock: time.
        namespace: the cache's.
        origin: names this process.
    """

    def __init__(self, hub: Hub | None, clock: Clock, namespace: str, origin: bytes) -> None:
        self._hub = hub
        self._clock = clock
        self._prefix = f"{WATCHED}/{namespace}/"
        self._own = self._prefix + origin.hex()
        self._said: list[Ident] | bool = []
        self._say_again = 0.0
        self._all = False
        self._idents: frozenset[Ident] = frozenset()

    def __contains__(self, ident: Ident) -> bool:
        return self._all or ident in self._idents

    def among(self, idents: Iterable[Ident]) -> list[Ident]:
        """Those that are watched, at most a thousand."""
        if not (self._all or self._idents):
            return []
        return [ident for ident in idents if ident in self][:MOST_WATCHED]

    def renew(self, own: list[Ident]) -> None:
        """Say what is watched here, and read what is watched elsewhere; once a second."""
        if self._hub is None:
            return
        try:
            self._say(self._hub, _bounded(own))
            self._read(self._hub.scan(self._prefix))
        except Exception as error:  # noqa: BLE001 - the news, read next, warn of a hub that is away
            logger.debug("cache subscriptions are not exchanged: %s", error)

    def _say(self, hub: Hub, watched: list[Ident] | bool) -> None:
        now = self._clock.monotonic()
        if watched == self._said and (not watched or now < self._say_again):
            return
        hub.put(self._own, watched or None, WATCH_TTL_S)
        self._said = watched
        self._say_again = now + RENEW_S

    def _read(self, found: dict[str, object]) -> None:
        found.pop(self._own, None)
        # as little to be trusted as any other input: what does not fit is passed by
        lists = [value for value in found.values() if isinstance(value, list)]
        idents = {i for one in lists for i in one[:MOST_WATCHED] if isinstance(i, str | bytes)}
        self._all = len(idents) > _MOST_KNOWN or any(value is True for value in found.values())
        self._idents = frozenset() if self._all else frozenset(idents)


def _bounded(idents: list[Ident]) -> list[Ident] | bool:
    """What is said in the hub; ``True`` is everything."""
    said: list[Ident] = []
    size = 0
    for ident in idents:
        try:
            size += len(ident.encode() if isinstance(ident, str) else ident)
        except UnicodeEncodeError:  # no hub carries a lone surrogate
            continue
        said.append(ident)
        if len(said) > MOST_WATCHED or size > _MOST_BYTES:
            return True
    return said


MOST_LIVE = 10_000
_SAID_S = 10.0
_PLAIN = (str, int, float, bool, type(None))
_LONGEST = 500

Announce = Callable[[object, Iterable[str]], None]
"""``announce(key, addresses)``: tells browsers that a key changed."""


@dataclass(frozen=True, slots=True)
class BrowserAnnouncer:
    """How an application tells browsers of changes.

    Attributes:
        announce: tells them.
        check: raises ``ValueError`` for what is not an address.
    """

    announce: Announce
    check: Callable[[str], object]


@dataclass(slots=True)
class _LiveKey:
    name: object
    to: tuple[str, ...]
    tags: tuple[str, ...]


class BrowserUpdates:
    """The live keys of one cache. They outlive a fork: each child has them, too.

    Args:
        announcer: tells browsers; ``None`` where there are none, and nothing can be live.
        hub: lets one worker speak for all that hear of the same change.
    """

    def __init__(self, announcer: BrowserAnnouncer | None, hub: Hub | None) -> None:
        self._announcer = announcer
        self._hub = hub
        self._lock = threading.Lock()
        self._by_ident: dict[Ident, _LiveKey] = {}
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
        if self._announcer is None:
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
                self._announcer.check(one)
        if known is not None and known.to == to and known.tags == tags:
            return
        made = _LiveKey(known.name if known is not None else _name_of(key), to, tags)
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
        if one is None or self._announcer is None:
            return
        try:
            if self._hub is not None and self._hub.increment(_said(ident, at), ttl=_SAID_S) > 1:
                return
            self._announcer.announce(one.name, one.to)
        except Exception as error:  # noqa: BLE001 - browsers ask again by themselves, later
            logger.debug("browsers are not told of a change: %s", error)

    def invalidated(
        self,
        what: Invalidation,
        at: float,
        get_tags: Callable[[Ident], tuple[str, ...]],
        also: Collection[Ident],
    ) -> None:
        """Tell browsers of an invalidation; ``also`` are entries that it found."""
        for ident, one in list(self._by_ident.items()):
            if ident in also or what.matches(ident, (*one.tags, *get_tags(ident))):
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
