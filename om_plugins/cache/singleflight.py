"""Single flight: of all threads that want a missing value, one fetches and the others wait.

A flight also carries the *fence* against invalidation: what was fetched before an entry was
invalidated is not fresh, and what was fetched before it was set or removed is not kept.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from ..protocols import Lease
from .keys import Ident

__all__ = ["Fence", "Flight", "Flights", "Landing", "Private", "copy_of"]


class Private(Exception):
    """Raised by a fetcher: its answer is for this caller only, and is not to be kept.

    Not an error, but the one way out of a fetcher that is not a value.

    Args:
        value: what the caller gets.
        error: raised to the caller instead.
    """

    def __init__(self, value: object = None, error: Exception | None = None) -> None:
        super().__init__()
        self.value = value
        self.error = error


class Fence(IntEnum):
    """What happened to the key while its value was on its way."""

    CLEAR = 0
    STALE = 1
    DISCARD = 2


class Landing(IntEnum):
    """How a flight ended; only a value or an error is shared with those who wait."""

    VALUE = 1
    ERROR = 2
    NOTHING = 3


class Flight:
    """One fetch under way.

    Attributes:
        owner: the thread that fetches; 0 for a refresh that waits in the queue.
        began: Unix time of its beginning.
        fence: see :class:`Fence`.
        landing: ``None`` until it ended.
        data: the encoded value. error: what the fetcher raised.
        negative: the value says that there is none.
        alone: nobody waits for it, in any process.
        lease: the turn among processes that it flies by (see :mod:`.turns`).
        deps: what its value is computed from, with their tags; grows while the fetcher runs.
        cost_us: what the fetcher took.
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
        "landing",
        "lease",
        "negative",
        "owner",
        "tags",
    )

    def __init__(self, ident: Ident, tags: tuple[str, ...], began: float, owner: int) -> None:
        self.ident = ident
        self.tags = tags
        self.began = began
        self.owner = owner
        self.fence = Fence.CLEAR
        self.landing: Landing | None = None
        self.data = b""
        self.negative = False
        self.error: Exception | None = None
        self.alone = False
        self.lease: Lease | None = None
        self.deps: dict[Ident, tuple[str, ...]] = {}
        self.cost_us = 0
        self._done = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Wait for the end; False when it did not come in time."""
        return self._done.wait(seconds)

    def end(self, landing: Landing) -> None:
        """Let the others go on."""
        self.landing = landing
        self._done.set()


class Flights:
    """All fetches of a process. The owner's lock is held for every method."""

    __slots__ = ("_alone", "_shared")

    def __init__(self) -> None:
        self._shared: dict[Ident, Flight] = {}
        self._alone: set[Flight] = set()

    def get(self, ident: Ident) -> Flight | None:
        """The flight that others may wait for."""
        return self._shared.get(ident)

    def begin(self, flight: Flight, *, alone: bool = False) -> Flight:
        """Add a flight; nobody waits for one that is ``alone``."""
        flight.alone = alone
        if alone:
            self._alone.add(flight)
        else:
            self._shared[flight.ident] = flight
        return flight

    def end(self, flight: Flight, landing: Landing) -> None:
        """Take a flight out and wake those who wait. A second end changes nothing."""
        self._alone.discard(flight)
        if self._shared.get(flight.ident) is flight:
            del self._shared[flight.ident]
        if flight.landing is None:
            flight.end(landing)

    def discard(self, ident: Ident) -> None:
        """What is under way for ``ident`` must not be kept; a new query fetches anew."""
        for flight in self:
            if flight.ident == ident:
                self.detach(flight)

    def detach(self, flight: Flight) -> None:
        """Discard one flight; whoever waits for it still gets its answer."""
        flight.fence = Fence.DISCARD
        if self._shared.get(flight.ident) is flight:
            del self._shared[flight.ident]
            self._alone.add(flight)

    def __iter__(self) -> Iterator[Flight]:
        return iter([*self._shared.values(), *self._alone])


def copy_of(error: Exception) -> Exception:
    """An error for one more thread to raise.

    A thread that raises an error adds its frames to that error's traceback, so each gets its own
    object. One that cannot be copied is shared.
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
