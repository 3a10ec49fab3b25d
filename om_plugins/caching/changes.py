"""Changes of entries: those made here are told, those of other workers are applied and told.

The one place where the news between workers (:mod:`.shared`), the two levels (:mod:`.levels`) and
the subscriptions (:mod:`.subscriptions`) meet.
"""

from __future__ import annotations

from collections.abc import Callable

from ..protocols import Clock
from ..types import ChangeKind
from .invalidation import Invalidation
from .keys import Ident
from .levels import Levels
from .process import Process
from .subscriptions import Subscriptions

__all__ = ["Changes"]


class Changes:
    """Tells of changes, and hears of them (a :class:`.shared.Listener`).

    No method is called with the process's lock held.

    Args:
        process: what belongs to the process that runs.
        levels: where entries are.
        subscriptions: who is told.
        clock: time.
    """

    def __init__(
        self,
        process: Callable[[], Process],
        levels: Levels,
        subscriptions: Subscriptions,
        clock: Clock,
    ) -> None:
        self._process = process
        self._levels = levels
        self._subscriptions = subscriptions
        self._clock = clock

    # --- made here ------------------------------------------------------------------------------

    def made(
        self, process: Process, ident: Ident, kind: ChangeKind, tags: tuple[str, ...] = ()
    ) -> None:
        """An entry was kept, or dropped; other workers hear of it if they watch the key."""
        self._subscriptions.changed(ident, kind, tags)
        if ident in process.watch:
            process.news.tell_changed(ident, kind, tags, self._clock.time())

    def invalidated(
        self, process: Process, what: Invalidation, at: float, found: list[Ident]
    ) -> None:
        """Entries were invalidated; ``found`` are those of this process."""
        process.news.tell(what, at, process.watch.among(found))
        self._tell(process, what, found)

    def removed(self, process: Process, ident: Ident, at: float) -> None:
        """An entry was removed."""
        process.news.tell_removed(ident, at)
        self._subscriptions.changed(ident, "removed")

    def cleared(self, process: Process, at: float) -> None:
        """Everything was removed."""
        process.news.tell_cleared(at)
        self._subscriptions.cleared()

    # --- made by other workers ------------------------------------------------------------------

    def heard_change(
        self, ident: Ident, kind: ChangeKind, tags: tuple[str, ...], heard_at: float
    ) -> None:
        """Another worker kept an entry: the store has a newer one than this process's memory."""
        if ident not in self._subscriptions:
            return
        self._levels.distrust(self._process(), ident)
        self._subscriptions.changed(ident, kind, tags, heard_at)

    def heard_invalidation(
        self, what: Invalidation, at: float, also: list[Ident], heard_at: float
    ) -> None:
        """Another worker invalidated; ``also`` are entries that it found by their tags."""
        process = self._process()
        at = min(at, self._clock.time())  # a clock that is ahead must not condemn the future
        with process.lock:
            if self._levels.shared is not None:
                process.memory.add(what, at)
            self._levels.mark(process, what, at)
        self._tell(process, what, also, heard_at)

    def heard_removal(self, ident: Ident, at: float, heard_at: float) -> None:
        """Another worker removed an entry."""
        process = self._process()
        with process.lock:
            entry = process.local.entries.get(ident)
            if entry is not None and entry.began <= at:
                process.local.remove(entry)
            for flight in process.flights:
                if flight.ident == ident and flight.began <= at:
                    process.flights.detach(flight)
        self._subscriptions.changed(ident, "removed", heard_at=heard_at)

    def heard_clearing(self, at: float, heard_at: float) -> None:
        """Another worker removed everything."""
        at = min(at, self._clock.time())
        self._levels.clear(self._process(), at, at)
        self._subscriptions.cleared(heard_at)

    def _tell(
        self,
        process: Process,
        what: Invalidation,
        also: list[Ident],
        heard_at: float | None = None,
    ) -> None:
        def tags_of(ident: Ident) -> tuple[str, ...]:
            entry = process.local.entries.get(ident)
            return () if entry is None else entry.tags

        self._subscriptions.invalidated(what, tags_of, frozenset(also), heard_at)
