"""Singleflight: one thread fetches a missing value, and all others wait for it.

Within a process an :class:`InFlight` fetch is shared by all threads that want its value. It also
carries the *fence* against invalidation: a value whose fetch began before its entry was
invalidated is not fresh, and one whose fetch began before its entry was set or removed is not
stored.

Between processes and hosts the one that fetches holds a *fetch lease* of the hub
(:class:`FetchLeases`) and renews it while the fetcher runs, so that others soon take over from a
killed process. The others find the value in the shared store. They wait for a limited time and
then fetch on their own, as every process does while there is no hub. A process that slept for too
long has lost its lease, and its value is discarded: its token is smaller than that of the process
that came after it (Kleppmann, "How to do distributed locking").
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any

from ..protocols import Clock, Hub, Lease
from .entry import CacheEntry
from .keys import Ident, Invalidation, make_store_key
from .shared_store import StoreAnswer

logger = logging.getLogger("om_plugins")

LEASE_S = 5.0
"""How long a lease lasts without renewal; it is renewed each second."""
FOLLOW_S = 20.0
"""How long a process waits for another; its own threads wait for it a little longer."""
PRIVATE_S = 60.0
_FAILED_S = 1.0
_PAUSE_S = (0.01, 0.25)
_SHARE_OF_WAIT = 0.15
_MOST_MARKS = 10_000


class PrivateValue(Exception):
    """A fetcher raises it when its value is for this caller only and must not be stored.

    It is not an error, but the one way to leave a fetcher without a value to store.

    Args:
        value: the caller gets this value.
        error: the caller gets this error instead.
    """

    def __init__(self, value: object = None, error: Exception | None = None) -> None:
        super().__init__()
        self.value = value
        self.error = error


class Fence(IntEnum):
    """What happened to a key while a fetch of its value ran."""

    CLEAR = 0
    STALE = 1
    DISCARD = 2


class FetchOutcome(IntEnum):
    """How a fetch ended. Those who wait share only a value or an error."""

    VALUE = 1
    ERROR = 2
    NOTHING = 3


class InFlight:
    """One running fetch.

    Attributes:
        owner: the thread that fetches; 0 for a refresh that waits in the queue.
        began: Unix time at which the fetch began.
        fence: see :class:`Fence`.
        outcome: ``None`` until the fetch ended.
        data: the encoded value.
        error: the error that the fetcher raised.
        negative: the value says that there is no value.
        alone: no other thread or process waits for the fetch.
        lease: the lease under which the process fetches.
        waited: the fetch waited for another process.
        deps: the entries from which the value is computed, with their tags; the dictionary grows
            while the fetcher runs.
        cost_us: duration of the fetcher, in microseconds.
    """

    __slots__ = (
        "_done",
        "alone",
        "began",
        "cost_us",
        "data",
        "deps",
        "error",
        "fence",
        "ident",
        "lease",
        "negative",
        "outcome",
        "owner",
        "tags",
        "waited",
    )

    def __init__(self, ident: Ident, tags: tuple[str, ...], began: float, owner: int) -> None:
        self.ident = ident
        self.tags = tags
        self.began = began
        self.owner = owner
        self.fence = Fence.CLEAR
        self.outcome: FetchOutcome | None = None
        self.data = b""
        self.negative = False
        self.error: Exception | None = None
        self.alone = False
        self.lease: Lease | None = None
        self.waited = False
        self.deps: dict[Ident, tuple[str, ...]] = {}
        self.cost_us = 0
        self._done = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the fetch; return False when it did not end in time."""
        return self._done.wait(seconds)

    def end(self, outcome: FetchOutcome) -> None:
        """Record the outcome and wake those who wait."""
        self.outcome = outcome
        self._done.set()


class InFlightTable:
    """The running fetches of a process, and what it remembers of fetches without a shared value.

    The caller holds ``lock`` for every method, except for those that take it themselves:
    :meth:`remember_failure` and :meth:`mark_private`.

    Args:
        lock: the lock of the process's memory.

    Attributes:
        failures: by ident, an error that callers get again, the monotonic time at which that
            ends, and the tags whose invalidation ends it sooner.
        private: idents whose last value was for one caller only. Until the monotonic time given,
            callers do not wait for each other's fetch.
    """

    __slots__ = ("_alone", "_shared", "failures", "lock", "private")

    def __init__(self, lock: threading.Lock) -> None:
        self.lock = lock
        self._shared: dict[Ident, InFlight] = {}
        self._alone: set[InFlight] = set()
        self.failures: dict[Ident, tuple[Exception, float, tuple[str, ...]]] = {}
        self.private: dict[Ident, float] = {}

    def get(self, ident: Ident) -> InFlight | None:
        """Return the fetch that other threads may wait for."""
        return self._shared.get(ident)

    def begin(self, fetch: InFlight, *, alone: bool = False) -> InFlight:
        """Add a fetch; no thread waits for one that is ``alone``."""
        fetch.alone = alone
        if alone:
            self._alone.add(fetch)
        else:
            self._shared[fetch.ident] = fetch
        return fetch

    def end(self, fetch: InFlight, outcome: FetchOutcome) -> None:
        """Remove a fetch and wake those who wait. A second end changes nothing."""
        self._alone.discard(fetch)
        if self._shared.get(fetch.ident) is fetch:
            del self._shared[fetch.ident]
        if fetch.outcome is None:
            fetch.end(outcome)

    def discard(self, ident: Ident) -> None:
        """Discard what is being fetched for ``ident``; a new query fetches again."""
        for fetch in self:
            if fetch.ident == ident:
                self.detach(fetch)
        self.failures.pop(ident, None)

    def detach(self, fetch: InFlight) -> None:
        """Discard one fetch; those who already wait for it still get its value."""
        fetch.fence = Fence.DISCARD
        if self._shared.get(fetch.ident) is fetch:
            del self._shared[fetch.ident]
            self._alone.add(fetch)

    def __iter__(self) -> Iterator[InFlight]:
        return iter([*self._shared.values(), *self._alone])

    def remember_failure(
        self, ident: Ident, error: Exception, until: float, tags: tuple[str, ...] = ()
    ) -> None:
        """Give callers of ``ident`` the same error until a monotonic time."""
        with self.lock:
            if len(self.failures) >= _MOST_MARKS:
                self.failures.pop(next(iter(self.failures)))
            self.failures[ident] = (error, until, tags)

    def find_failure(self, ident: Ident, now: float) -> Exception | None:
        """Return the error that callers get again, if there is one."""
        found = self.failures.get(ident)
        if found is None:
            return None
        if now < found[1]:
            return found[0]
        del self.failures[ident]
        return None

    def forget_failures(self, what: Invalidation) -> None:
        """Forget the errors that an invalidation matches."""
        for ident in [i for i, (_, _, tags) in self.failures.items() if what.matches(i, tags)]:
            del self.failures[ident]

    def mark_private(self, ident: Ident, now: float) -> None:
        """Let callers of ``ident`` fetch on their own for a while."""
        with self.lock:
            if len(self.private) >= _MOST_MARKS:
                self.private.pop(next(iter(self.private)))
            self.private[ident] = now + PRIVATE_S

    def is_private(self, ident: Ident, now: float) -> bool:
        """Return whether callers of ``ident`` fetch on their own."""
        return now < self.private.get(ident, now)

    def forget_expired(self, now: float) -> None:
        """Free the memory of failures and marks whose time is over."""
        for ident in [i for i, (_, until, _) in self.failures.items() if now >= until]:
            del self.failures[ident]
        for ident in [i for i, until in self.private.items() if now >= until]:
            del self.private[ident]


class FetchLeases:
    """Decides which process fetches a value. No method raises.

    Args:
        hub: gives the leases; ``None`` for a process without others.
        clock: time.
        namespace: the namespace of the cache.
        in_flight: the fetches of this process.
    """

    def __init__(
        self, hub: Hub | None, clock: Clock, namespace: str, in_flight: InFlightTable
    ) -> None:
        self._hub = hub
        self._clock = clock
        self._namespace = namespace
        self._in_flight = in_flight

    def find(self, fetch: InFlight, look: Callable[[], CacheEntry | None]) -> CacheEntry | None:
        """Wait for another process's entry, or take the lease.

        Args:
            look: looks the entry up in the store.

        Returns:
            The entry; ``None`` when this process is to fetch.
        """
        entry = look()
        if entry is not None or self._hub is None or fetch.alone:
            return entry
        began = self._clock.monotonic()
        while fetch.fence is not Fence.DISCARD:
            if self.take(fetch):
                entry = look()  # the holder before may have ended a moment ago
                if entry is not None or self._cannot_be_shared(fetch.ident):
                    self._release(fetch)
                return entry
            waited = self._clock.monotonic() - began
            if waited >= FOLLOW_S:
                break
            fetch.waited = True
            shortest, longest = _PAUSE_S
            self._clock.sleep(max(shortest, min(_SHARE_OF_WAIT * waited, longest)))
            entry = look()
            if entry is not None:
                return entry
        return None

    def take(self, fetch: InFlight) -> bool:
        """Take the lease without waiting; return False when another process holds it."""
        if self._hub is None:
            return True
        try:
            fetch.lease = self._hub.lease(self._name("fetch", fetch.ident), LEASE_S)
        except Exception as error:  # noqa: BLE001 - without a hub, each process fetches for itself
            logger.debug("the cache continues without fetch leases: %s", error)
            return True
        return fetch.lease is not None

    def renew(self) -> None:
        """Renew the leases of all running fetches; to be called once a second."""
        with self._in_flight.lock:
            leases = [fetch.lease for fetch in self._in_flight if fetch.lease is not None]
        for lease in leases:
            _renew(lease)

    def confirm(self, fetch: InFlight, look: Callable[[], StoreAnswer]) -> StoreAnswer | None:
        """Discard a fetched value if another process has stored a newer one.

        Args:
            look: looks up the record that the value would replace.

        Returns:
            What the store has, which the new value may replace.
        """
        if not self.is_held(fetch):
            return None
        lease = fetch.lease
        seen = look()
        record = seen.record
        if record is None:
            return seen
        if lease is not None and record.fence:  # both tokens are from the hub: one clock
            newer = record.fence > lease.token
        else:
            newer = record.began > fetch.began
        if newer:
            fetch.fence = Fence.DISCARD
        return seen

    @staticmethod
    def is_held(fetch: InFlight) -> bool:
        """Return whether the lease was never lost; else discard the value of the fetch."""
        if fetch.lease is not None and not _renew(fetch.lease):
            fetch.fence = Fence.DISCARD
        return fetch.fence is not Fence.DISCARD

    def end(self, fetch: InFlight) -> None:
        """Release the lease. Those who wait then fetch at once when there is nothing to share."""
        if fetch.lease is None or self._hub is None:
            return
        private = self._in_flight.is_private(fetch.ident, self._clock.monotonic())
        if private or fetch.error is not None:
            try:
                seconds = PRIVATE_S if private else _FAILED_S
                self._hub.put(self._name("own", fetch.ident), private, seconds)
            except Exception as error:  # noqa: BLE001 - the others then fetch one after the other
                logger.debug("the cache cannot announce a private value: %s", error)
        self._release(fetch)

    def _release(self, fetch: InFlight) -> None:
        lease, fetch.lease = fetch.lease, None
        if lease is not None:
            try:
                lease.release()
            except Exception as error:  # noqa: BLE001 - the lease ends by itself
                logger.debug("the cache cannot release a fetch lease: %s", error)

    def _cannot_be_shared(self, ident: Ident) -> bool:
        """Return whether another process's fetch just ended with an error or a private value."""
        try:
            found = self._hub.get(self._name("own", ident)) if self._hub is not None else None
        except Exception:  # noqa: BLE001 - then a fetch will show it
            return False
        if found is True:
            self._in_flight.mark_private(ident, self._clock.monotonic())
        return found is not None

    def _name(self, kind: str, ident: Ident) -> str:
        return f"cache/{kind}/{make_store_key(ident, self._namespace)}"


def _renew(lease: Lease) -> bool:
    try:
        return lease.renew(LEASE_S)
    except Exception:  # noqa: BLE001 - a lease that cannot be renewed is lost
        return False


def copy_error(error: Exception) -> Exception:
    """Copy an error, so that one more thread can raise it.

    A thread that raises an error adds its frames to the error's traceback, so each thread gets an
    object of its own. Threads share an error that cannot be copied.
    """
    try:
        twin: Any = copy.copy(error)
    except Exception:  # noqa: BLE001 - whatever a foreign __init__ or __reduce__ does
        return error
    if type(twin) is not type(error):
        return error
    twin.__cause__ = error.__cause__
    twin.__suppress_context__ = error.__suppress_context__
    twin.__traceback__ = error.__traceback__
    return twin
