"""Changes of entries: those made here are told, those of other workers are applied and told.

The one place where the news between workers (:mod:`.shared`), the two levels (:mod:`.levels`),
the subscriptions (:mod:`.subscriptions`) and the live keys (:mod:`.live`) meet.
"""

from __future__ import annotations

from collections.abc import Callable

from ..protocols import Clock
from ..types import ChangeKind
from .invalidation import Invalidation
from .keys import Ident
from .memory__process import Process
from .subscriptions import Subscriptions
from .subscriptions__live import LiveKeys
from .tiers import Levels

__all__ = ["Changes"]


class Changes:
    """Tells of changes, and hears of them (a :class:`.shared.Listener`).

    No method is called with the process's lock held.

    Args:
        process: what belongs to the process that runs.
        levels: where entries are.
        subscriptions: who is told.
        live: which keys browsers are told of.
        clock: time.
    """

    def __init__(
        self,
        process: Callable[[], Process],
        levels: Levels,
        subscriptions: Subscriptions,
        live: LiveKeys,
        clock: Clock,
    ) -> None:
        self._process = process
        self._levels = levels
        self._subscriptions = subscriptions
        self._live = live
        self._clock = clock

    # --- made here ------------------------------------------------------------------------------

    def made(
        self,
        process: Process,
        ident: Ident,
        kind: ChangeKind,
        tags: tuple[str, ...] = (),
        same: bool = False,
    ) -> None:
        """An entry was kept, or dropped; other workers hear of it if somebody watches the key.

        Args:
            same: its value is the one that was there.
        """
        at = self._clock.time()
        self._subscriptions.changed(ident, kind, tags)
        live = ident in self._live and not same
        if live or ident in process.watch:
            process.news.tell_changed(ident, kind, tags, at, same)
        if live:
            self._live.changed(ident, at)

    def put(self, process: Process, ident: Ident, at: float) -> None:
        """An entry was put by hand: what was computed from the old one is out of date."""
        if self._levels.shared is not None:
            process.news.put(ident)
        with process.lock:
            found = self._levels.mark_dependents(process, ident, at)
            if found and self._levels.shared is not None:
                process.memory.add_changed(ident, at)
        if found:
            process.news.tell_outdated(ident, at)
            self._out_of_date(found, at)

    def invalidated(
        self, process: Process, what: Invalidation, at: float, found: list[Ident]
    ) -> None:
        """Entries were invalidated; ``found`` are those of this process."""
        process.news.tell(what, at, process.watch.among(found))
        self._tell(process, what, at, found)

    def removed(self, process: Process, ident: Ident, at: float) -> None:
        """An entry was removed."""
        process.news.tell_removed(ident, at)
        self._subscriptions.changed(ident, "removed")
        self._live.changed(ident, at)
        self._mark_dependents(process, ident, at)

    def cleared(self, process: Process, at: float) -> None:
        """Everything was removed."""
        process.news.tell_cleared(at)
        self._subscriptions.cleared()
        self._live.cleared(at)

    # --- made by other workers ------------------------------------------------------------------

    def heard_change(
        self,
        ident: Ident,
        kind: ChangeKind,
        tags: tuple[str, ...],
        at: float,
        same: bool,
        heard_at: float,
    ) -> None:
        """Another worker kept an entry: the store has a newer one than this process's memory."""
        self._levels.distrust(self._process(), ident)
        self._subscriptions.changed(ident, kind, tags, heard_at)
        if not same:
            self._live.changed(ident, at)

    def heard_invalidation(
        self, what: Invalidation, at: float, also: list[Ident], heard_at: float
    ) -> None:
        """Another worker invalidated; ``also`` are entries that it found by their tags."""
        process = self._process()
        said_at, at = at, self._not_ahead(at)
        with process.lock:
            if self._levels.shared is not None:
                process.memory.add(what, at)
            found = self._levels.mark(process, what, at)
        self._tell(process, what, said_at, [*also, *found], heard_at)

    def heard_put(self, idents: list[Ident]) -> None:
        """Another worker put entries by hand: the store has newer ones than this memory."""
        process = self._process()
        for ident in idents:
            self._levels.distrust(process, ident)

    def heard_outdated(self, ident: Ident, at: float, heard_at: float) -> None:
        """Another worker put an entry by hand, from which others were computed."""
        process = self._process()
        self._mark_dependents(process, ident, self._not_ahead(at), heard_at)

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
        self._live.changed(ident, at)
        self._mark_dependents(process, ident, self._not_ahead(at), heard_at)

    def heard_clearing(self, at: float, heard_at: float) -> None:
        """Another worker removed everything."""
        self._live.cleared(at)
        at = self._not_ahead(at)
        self._levels.clear(self._process(), at, at)
        self._subscriptions.cleared(heard_at)

    def _not_ahead(self, at: float) -> float:
        return min(at, self._clock.time())  # a clock that is ahead must not condemn the future

    def _mark_dependents(
        self, process: Process, ident: Ident, at: float, heard_at: float | None = None
    ) -> None:
        with process.lock:
            found = self._levels.mark_dependents(process, ident, at)
            if self._levels.shared is not None:
                process.memory.add_changed(ident, at)
        self._out_of_date(found, at, heard_at)

    def _out_of_date(self, found: list[Ident], at: float, heard_at: float | None = None) -> None:
        for ident in found:
            self._subscriptions.changed(ident, "invalidated", heard_at=heard_at)
            self._live.changed(ident, at)

    def listening(self, deaf: bool) -> None:
        """Whether what happens elsewhere is heard of at present."""
        self._levels.listen(self._process(), deaf)

    def _tell(
        self,
        process: Process,
        what: Invalidation,
        at: float,
        also: list[Ident],
        heard_at: float | None = None,
    ) -> None:
        def tags_of(ident: Ident) -> tuple[str, ...]:
            entry = process.local.entries.get(ident)
            return () if entry is None else entry.tags

        found = frozenset(also)
        self._subscriptions.invalidated(what, tags_of, found, heard_at)
        self._live.invalidated(what, at, tags_of, found)
