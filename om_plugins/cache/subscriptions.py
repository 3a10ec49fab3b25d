"""Who hears of changed keys: callbacks of the application, other workers, and browsers.

Recording a change costs one look into a dictionary. A background job then calls the callbacks; for
changes that accumulate while a callback runs, it is called once per kind, the last change last.
Each worker writes into the hub which keys it watches (:class:`WatchedKeys`), so that no worker
publishes a change of which nobody wants to hear.

Browsers hear only of keys that the application made live (:class:`BrowserAnnouncements`), and only
that a key changed, never its value: the browser asks the application again, which decides what
that browser may see. A key that was not made live is never named to a browser.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from ..core.fork import renew_after_fork
from ..protocols import Clock, Hub, Scheduler
from ..types import CacheChange, ChangeKind
from .keys import Ident, Invalidation, Key, Scope

logger = logging.getLogger("om_plugins")

WATCHED = "cache/watched"
RENEW_S = 3.0
WATCH_TTL_S = 10.0
MOST_WATCHED = 1000
MOST_LIVE = 10_000
_MOST_BYTES = 64 * 1024
_MOST_KNOWN = 10_000
_ANNOUNCED_S = 10.0
_JSON_SCALARS = (str, int, float, bool, type(None))
_LONGEST_KEY = 500

GetTags: TypeAlias = Callable[[Ident], tuple[str, ...]]


class _Subscription:
    """One callback and the changes that it has not heard yet: each kind once, the last one last."""

    __slots__ = ("active", "busy", "callback", "key", "pending", "scope", "since", "tags")

    def __init__(
        self, key: Key, scope: Scope, callback: Callable[[CacheChange], object], since: float
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
    """All subscriptions of one cache. They outlive a fork: each child has them, too.

    Args:
        clock: time.
        scheduler: runs the callbacks.
        context: opened around each callback.
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

    def after_fork(self) -> None:
        """Forget the parent's pending changes, which the parent itself delivers."""
        self._lock = threading.Lock()
        now = self._clock.time()
        for found in self._by_ident.values():
            for one in found:
                one.pending.clear()
                one.busy = False
                one.since = now

    def __len__(self) -> int:
        return sum(map(len, list(self._by_ident.values())))

    def __contains__(self, ident: Ident) -> bool:
        return ident in self._by_ident

    def idents(self) -> list[Ident]:
        """Return the idents with a subscription."""
        return list(self._by_ident)

    def add(
        self, key: Key, ident: Ident, scope: Scope, callback: Callable[[CacheChange], object]
    ) -> Callable[[], None]:
        """Subscribe; return a function that ends the subscription at once and for good."""
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

    def record(
        self,
        ident: Ident,
        kind: ChangeKind,
        tags: tuple[str, ...] | None = None,
        published_at: float | None = None,
    ) -> None:
        """Record a change, and call the callbacks in a background job.

        Args:
            tags: the tags of the new value; ``None`` when there is no value.
            published_at: the Unix time at which another worker published the change; later
                subscriptions do not hear of it.
        """
        found = self._by_ident.get(ident)
        if found is None:
            return
        concerned = []
        with self._lock:
            for one in found:
                if tags is not None:
                    one.tags = tags
                if one.active and (published_at is None or published_at >= one.since):
                    one.pending.pop(kind, None)
                    one.pending[kind] = None
                    concerned.append(one)
        self._submit(concerned)

    def record_invalidation(
        self,
        what: Invalidation,
        get_tags: GetTags,
        found: Collection[Ident] = (),
        published_at: float | None = None,
    ) -> None:
        """Record an invalidation.

        Args:
            get_tags: returns the tags of an entry of this process. The tags of which a
                subscription last heard count as well.
            found: entries that the invalidation concerned, here or in the worker that sent it.
        """
        for ident, several in list(self._by_ident.items()):
            tags = (*get_tags(ident), *(tag for one in several for tag in one.tags))
            matches = what.matches(ident, tags)
            if matches or ident in found:
                kind: ChangeKind = "removed" if what.hard and matches else "invalidated"
                self.record(ident, kind, published_at=published_at)

    def record_clearing(self, published_at: float | None = None) -> None:
        """Record that everything was removed."""
        for ident in self.idents():
            self.record(ident, "removed", published_at=published_at)

    def retry(self) -> None:
        """Submit again what the scheduler's queue had no room for."""
        self._submit([one for found in list(self._by_ident.values()) for one in found])

    def _submit(self, several: Iterable[_Subscription]) -> None:
        for one in several:
            with self._lock:
                if one.busy or not one.pending:
                    continue
                one.busy = True
            if not self._scheduler.submit(partial(self._run, one), name="cache-subscription"):
                with self._lock:  # it stays pending until the next change or the next retry
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
            self._submit([one])

    def _call(self, one: _Subscription, change: CacheChange) -> None:
        try:
            with self._context():
                one.callback(change)
        except Exception:
            logger.exception("a cache subscription's callback failed on %r", change)


class WatchedKeys:
    """The keys that other workers watch; each process has its own object.

    Args:
        hub: workers write their watched keys into it; ``None`` for a process without others.
        clock: time.
        namespace: the namespace of the cache.
        origin: names this process.
    """

    def __init__(self, hub: Hub | None, clock: Clock, namespace: str, origin: bytes) -> None:
        self._hub = hub
        self._clock = clock
        self._prefix = f"{WATCHED}/{namespace}/"
        self._own = self._prefix + origin.hex()
        self._written: list[Ident] | bool = []
        self._write_again = 0.0
        self._all = False
        self._idents: frozenset[Ident] = frozenset()

    def __contains__(self, ident: Ident) -> bool:
        return self._all or ident in self._idents

    def select(self, idents: Iterable[Ident]) -> list[Ident]:
        """Return those of ``idents`` that another worker watches, at most a thousand."""
        if not (self._all or self._idents):
            return []
        return [ident for ident in idents if ident in self][:MOST_WATCHED]

    def exchange(self, own: list[Ident]) -> None:
        """Write what this process watches, and read what others watch; to be called each second."""
        if self._hub is None:
            return
        try:
            self._write(self._hub, _limit(own))
            self._read(self._hub.scan(self._prefix))
        except Exception as error:  # noqa: BLE001 - the invalidation bus warns of an absent hub
            logger.debug("cache subscriptions are not exchanged: %s", error)

    def _write(self, hub: Hub, watched: list[Ident] | bool) -> None:
        now = self._clock.monotonic()
        if watched == self._written and (not watched or now < self._write_again):
            return
        hub.put(self._own, watched or None, WATCH_TTL_S)
        self._written = watched
        self._write_again = now + RENEW_S

    def _read(self, found: dict[str, object]) -> None:
        found.pop(self._own, None)
        # the hub's content is untrusted input: what does not fit is ignored
        lists = [value for value in found.values() if isinstance(value, list)]
        idents = {i for one in lists for i in one[:MOST_WATCHED] if isinstance(i, str | bytes)}
        self._all = len(idents) > _MOST_KNOWN or any(value is True for value in found.values())
        self._idents = frozenset() if self._all else frozenset(idents)


def _limit(idents: list[Ident]) -> list[Ident] | bool:
    """Return the idents to write into the hub; ``True``, which means every ident, for too many."""
    written: list[Ident] = []
    size = 0
    for ident in idents:
        try:
            size += len(ident.encode() if isinstance(ident, str) else ident)
        except UnicodeEncodeError:  # no hub carries a lone surrogate
            continue
        written.append(ident)
        if len(written) > MOST_WATCHED or size > _MOST_BYTES:
            return True
    return written


@dataclass(frozen=True, slots=True)
class BrowserAnnouncer:
    """How an application tells browsers of changes.

    Attributes:
        announce: ``announce(key, addresses)`` tells browsers that a key changed.
        check: raises ``ValueError`` for a text that is not an address.
    """

    announce: Callable[[object, Iterable[str]], None]
    check: Callable[[str], object]


@dataclass(slots=True)
class _LiveKey:
    name: object
    addresses: tuple[str, ...]
    tags: tuple[str, ...]


class BrowserAnnouncements:
    """The live keys of one cache. They outlive a fork: each child has them, too.

    Args:
        announcer: tells browsers; ``None`` where there are none, and then no key is live.
        hub: lets one worker announce a change of which all workers hear.
    """

    def __init__(self, announcer: BrowserAnnouncer | None, hub: Hub | None) -> None:
        self._announcer = announcer
        self._hub = hub
        self._lock = threading.Lock()
        self._by_ident: dict[Ident, _LiveKey] = {}
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may have held."""
        self._lock = threading.Lock()

    def __contains__(self, ident: Ident) -> bool:
        return ident in self._by_ident

    def idents(self) -> list[Ident]:
        """Return the idents of all live keys."""
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
            live: True for every open page, else the addresses of those who hear of changes.

        Raises:
            ValueError: a text is not an address, or ``live`` is True for an entry with a scope.
            TypeError: a browser cannot have such a key.
        """
        if self._announcer is None:
            return
        known = self._by_ident.get(ident)
        if live is True:
            if scope:
                raise ValueError(
                    f"live=True on {key!r} of scope {scope!r} would name it to everyone: say who "
                    "gets it, as live='user:7'"
                )
            addresses: tuple[str, ...] = ("everyone",)
        elif known is not None and (known.addresses == live or known.addresses == (live,)):
            addresses = known.addresses
        else:
            addresses = (live,) if isinstance(live, str) else tuple(live)  # type: ignore[arg-type]
            for one in addresses:
                self._announcer.check(one)
        if known is not None and known.addresses == addresses and known.tags == tags:
            return
        name = known.name if known is not None else _convert_to_json(key)
        with self._lock:
            if len(self._by_ident) >= MOST_LIVE and ident not in self._by_ident:
                del self._by_ident[next(iter(self._by_ident))]
            self._by_ident[ident] = _LiveKey(name, addresses, tags)

    def remove(self, ident: Ident) -> None:
        """Announce changes of a key no longer."""
        with self._lock:
            self._by_ident.pop(ident, None)

    def announce(self, ident: Ident, at: float) -> None:
        """Tell browsers that an entry changed, unless another worker has done so.

        Args:
            at: the Unix time of the change, which is the same in all workers that hear of it.
        """
        one = self._by_ident.get(ident)
        if one is None or self._announcer is None:
            return
        try:
            if self._hub is not None:
                name = _name_change(ident, at)
                if self._hub.increment(name, ttl=_ANNOUNCED_S) > 1:
                    return
            self._announcer.announce(one.name, one.addresses)
        except Exception as error:  # noqa: BLE001 - browsers ask again by themselves, later
            logger.debug("browsers do not hear of a change: %s", error)

    def announce_invalidation(
        self, what: Invalidation, at: float, get_tags: GetTags, found: Collection[Ident]
    ) -> None:
        """Tell browsers of an invalidation; ``found`` are entries that it concerned."""
        for ident, one in list(self._by_ident.items()):
            if ident in found or what.matches(ident, (*one.tags, *get_tags(ident))):
                self.announce(ident, at)

    def announce_all(self, at: float) -> None:
        """Tell browsers that everything was removed."""
        for ident in self.idents():
            self.announce(ident, at)


def _convert_to_json(key: Key) -> object:
    """Return a key as JSON has it."""
    members = key if type(key) is tuple else (key,)
    for one in members:
        if type(one) not in _JSON_SCALARS:
            raise TypeError(
                f"{key!r} cannot be live: a browser's key is text, or an array of text, numbers, "
                f"true, false and null, and has no {type(one).__name__}"
            )
    if len(repr(key)) > _LONGEST_KEY:
        raise TypeError(f"the key {repr(key)[:60]}… is too long to be live")
    return list(members) if type(key) is tuple else key


def _name_change(ident: Ident, at: float) -> str:
    data = ident.encode("utf-8", "surrogatepass") if isinstance(ident, str) else ident
    return f"cache-said/{hashlib.blake2b(data, digest_size=12).hexdigest()}/{at!r}"
