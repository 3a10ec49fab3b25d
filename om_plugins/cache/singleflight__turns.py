"""Turns: of all processes and hosts that want a missing value, one fetches and the others wait.

The turn is a lease of the hub, renewed while the fetcher runs, so that a killed leader is followed
soon. What it brings comes through the shared store, where the others look for it. They wait for so
long and no longer, then fetch on their own; so does everybody while there is no hub.

A leader that was asleep for too long has lost its turn, and what it brings is not kept: its token
is smaller than that of who came after it (a *fence*; Kleppmann, "How to do distributed locking").
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..protocols import Clock, Hub, Lease
from .keys import Ident, store_key
from .singleflight import Fence, Flight

if TYPE_CHECKING:
    from .entry import Entry
    from .memory__process import Process
    from .shared_store import Seen

__all__ = ["LEASE_S", "Turns"]

logger = logging.getLogger("om_plugins")

LEASE_S = 5.0
"""How long a leader may be silent; renewed each second."""
FOLLOW_S = 20.0
"""How long a process waits for another; its own threads wait for it for a little longer."""
_PRIVATE_S = 60.0
_FAILED_S = 1.0
_PAUSE_S = (0.01, 0.25)
_SHARE_OF_WAIT = 0.15


class Turns:
    """Who fetches what. Nothing here raises.

    Args:
        hub: gives the leases; ``None`` when this process is alone.
        clock: time.
        namespace: the cache's.
    """

    def __init__(self, hub: Hub | None, clock: Clock, namespace: str) -> None:
        self._hub = hub
        self._clock = clock
        self._namespace = namespace

    def find(
        self, process: Process, flight: Flight, look: Callable[[], Entry | None]
    ) -> Entry | None:
        """The entry that another process brought, or ``None``: it is this one's turn to fetch.

        Args:
            look: asks the store.
        """
        entry = look()
        if entry is not None or self._hub is None or flight.alone:
            return entry
        began = self._clock.monotonic()
        while flight.fence is not Fence.DISCARD:
            if self.begin(flight):
                entry = look()  # who had the turn before may have ended just now
                if entry is not None or self._each_its_own(process, flight.ident):
                    self._give_back(flight)
                return entry
            waited = self._clock.monotonic() - began
            if waited >= FOLLOW_S:
                break
            shortest, longest = _PAUSE_S
            self._clock.sleep(max(shortest, min(_SHARE_OF_WAIT * waited, longest)))
            entry = look()
            if entry is not None:
                return entry
        return None

    def begin(self, flight: Flight) -> bool:
        """Take the turn, without waiting; False when another process has it."""
        if self._hub is None:
            return True
        try:
            flight.lease = self._hub.lease(self._name("fetch", flight.ident), LEASE_S)
        except Exception as error:  # noqa: BLE001 - without a hub, each process fetches for itself
            logger.debug("the cache goes on without turns: %s", error)
            return True
        return flight.lease is not None

    def renew(self, process: Process) -> None:
        """Say that this process is still at it; once a second."""
        with process.lock:
            leases = [flight.lease for flight in process.flights if flight.lease is not None]
        for lease in leases:
            _renewed(lease)

    def confirm(self, flight: Flight, look: Callable[[Ident], Seen]) -> Seen | None:
        """Discard what a flight brought if somebody has brought or set a newer value.

        Args:
            look: asks the store.

        Returns:
            What is in the store, which the new value may take the place of.
        """
        if not self.still(flight):
            return None
        lease = flight.lease
        seen = look(flight.ident)
        record = seen.record
        if record is None:
            return seen
        if lease is not None and record.fence:  # one clock for both, the hub's
            newer = record.fence > lease.token
        else:
            newer = record.began > flight.began
        if newer:
            flight.fence = Fence.DISCARD
        return seen

    @staticmethod
    def still(flight: Flight) -> bool:
        """Whether the turn was never lost; else what the flight brought is discarded."""
        if flight.lease is not None and not _renewed(flight.lease):
            flight.fence = Fence.DISCARD
        return flight.fence is not Fence.DISCARD

    def end(self, process: Process, flight: Flight) -> None:
        """Give the turn back; those who wait then fetch at once when there is nothing to share."""
        if flight.lease is None or self._hub is None:
            return
        private = process.private.get(flight.ident, 0.0) > self._clock.monotonic()
        if private or flight.error is not None:
            try:
                seconds = _PRIVATE_S if private else _FAILED_S
                self._hub.put(self._name("own", flight.ident), private, seconds)
            except Exception as error:  # noqa: BLE001 - they fetch one after the other
                logger.debug("the cache cannot tell of an answer for one: %s", error)
        self._give_back(flight)

    def _give_back(self, flight: Flight) -> None:
        lease, flight.lease = flight.lease, None
        if lease is not None:
            try:
                lease.release()
            except Exception as error:  # noqa: BLE001 - it runs out by itself
                logger.debug("a turn of the cache cannot be given back: %s", error)

    def _each_its_own(self, process: Process, ident: Ident) -> bool:
        """Whether what another process fetched just now is of no use here: an error, or private."""
        try:
            found = self._hub.get(self._name("own", ident)) if self._hub is not None else None
        except Exception:  # noqa: BLE001 - then it is found out by fetching
            return False
        if found is True:
            process.mark_private(ident, self._clock.monotonic())
        return found is not None

    def _name(self, kind: str, ident: Ident) -> str:
        return f"cache/{kind}/{store_key(ident, self._namespace)}"


def _renewed(lease: Lease) -> bool:
    try:
        return lease.renew(LEASE_S)
    except Exception:  # noqa: BLE001 - a lease that cannot be renewed is lost
        return False
