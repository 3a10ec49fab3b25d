"""Error patterns: how often each kind of error happened in the last five minutes, in all workers.

Each error is a message of the hub's topic ``errors``. All workers read the same messages in the
same order and drop them by the times of the messages. So they agree on which error was the third of
its kind, and the worker that published that error acts.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
from msgspec import Meta

from ..core.body import convert
from ..core.fork import renew_after_fork
from ..protocols import Clock, Hub
from ..types import ErrorPattern, HubMessage
from .fingerprint import MAX_MESSAGE, MAX_SUBJECT

TOPIC = "errors"
WINDOW_S = 300.0
MOST = 1_000
"""How many kinds are counted at once; the kind that did not happen for longest is dropped."""
FIRST, PATTERN, RECOVERY = 1, 3, 5
"""How many errors of a kind lead to a notice, a pattern, and a recovery."""
_LEVELS = (FIRST, PATTERN, RECOVERY)
_PAGE = 1_000
_MOST_AT_ONCE = 1_000_000
_MERGE_S = 1.0


class _ErrorEvent(msgspec.Struct):
    """Errors of one kind, as a worker publishes them."""

    subject: Annotated[str, Meta(min_length=1, max_length=MAX_SUBJECT)]
    fingerprint: Annotated[str, Meta(min_length=1, max_length=64)]
    example: Annotated[str, Meta(max_length=2 * MAX_MESSAGE)]
    count: Annotated[int, Meta(ge=1, le=_MOST_AT_ONCE)]


@dataclass(slots=True)
class _KindCount:
    """The count of one kind of error in one place."""

    subject: str
    fingerprint: str
    example: str
    first_at: float
    levels: Sequence[int] = _LEVELS
    last_at: float = 0.0
    total: int = 0
    times: deque[tuple[float, int]] = field(default_factory=deque)
    reached: set[int] = field(default_factory=set)

    def drop(self, before: float) -> None:
        while self.times and self.times[0][0] <= before:
            self.total -= self.times.popleft()[1]
        if not self.times:
            self.reached.clear()

    def add(self, at: float, count: int) -> frozenset[int]:
        """Count errors and return the levels that they reached.

        Each level is reached once while errors continue, :data:`RECOVERY` each time.
        """
        if not self.times:
            self.first_at = at
        before = self.total
        self.total += count
        self.last_at = max(at, self.last_at)
        if before >= RECOVERY and self.times and at - self.times[-1][0] < _MERGE_S:
            began, merged = self.times.pop()
            self.times.append((began, merged + count))
        else:
            self.times.append((at, count))
        reached = {level for level in self.levels if before < level <= self.total} - self.reached
        self.reached |= reached
        if RECOVERY in self.levels and self.total >= RECOVERY:
            return frozenset(reached | {RECOVERY})
        return frozenset(reached)

    def build_pattern(self) -> ErrorPattern:
        return ErrorPattern(
            self.fingerprint, self.subject, self.total, self.first_at, self.last_at, self.example
        )


@dataclass(slots=True, weakref_slot=True, kw_only=True, eq=False, repr=False)
class ErrorPatterns:
    """Counts errors by kind over a sliding window.

    It uses the hub, so call it from background threads only.

    Args:
        clock: time.
        hub: carries the errors between workers.
        window_s: the window, in seconds.
        most: how many kinds are counted at once.
        topic: the hub's topic.
        levels: the counts that :meth:`add` reports, each once. :data:`RECOVERY`, when it is one of
            them, is reported again for each error that follows.
    """

    clock: Clock
    hub: Hub
    window_s: float = WINDOW_S
    most: int = MOST
    topic: str = TOPIC
    levels: Sequence[int] = _LEVELS
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _cursor: str = field(init=False, default="")
    _tracks: OrderedDict[tuple[str, str], _KindCount] = field(
        init=False, default_factory=OrderedDict
    )

    def __post_init__(self) -> None:
        renew_after_fork(self)

    def add(
        self, subject: str, fingerprint: str, example: str, count: int = 1
    ) -> tuple[ErrorPattern, frozenset[int]]:
        """Count errors of a kind.

        Args:
            subject: where, ``chain:<name>`` or ``route:<rule>``.
            fingerprint: which kind.
            example: the kind in words, masked.
            count: how many.

        Returns:
            The kind's pattern now, and the levels that these errors reached. Each level is
            reached once until a whole window has passed without an error of the kind;
            :data:`RECOVERY` is reached by each error from the fifth on.
        """
        event = msgspec.to_builtins(_ErrorEvent(subject, fingerprint, example, count))
        with self._lock:
            own_id = self.hub.publish(self.topic, event)
            found = self._read_new(own_id)
            if found is None:  # the hub did not take it, but it counts in this process
                found = self._apply(HubMessage(own_id, self.topic, event, self.clock.time()))
        if found is None:
            raise ValueError(f"error of {subject!r}: {event!r} cannot be counted")
        return found

    def current(self) -> list[ErrorPattern]:
        """Return the patterns of the last five minutes, the most frequent first."""
        with self._lock:
            self._read_new("")
            before = self.clock.time() - self.window_s
            for track in self._tracks.values():
                track.drop(before)
            found = [track.build_pattern() for track in self._tracks.values() if track.total]
        return sorted(found, key=lambda one: (-one.count, -one.last_at))

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._cursor = ""
        self._tracks.clear()

    # --- under the lock ---

    def _read_new(self, own_id: str) -> tuple[ErrorPattern, frozenset[int]] | None:
        """Read new messages; return what the message ``own_id`` changed."""
        found = None
        while messages := self.hub.read(self.topic, self._cursor, limit=_PAGE):
            for message in messages:
                self._cursor = message.id
                done = self._apply(message)
                if message.id == own_id:
                    found = done
            if len(messages) < _PAGE:
                break
        return found

    def _apply(self, message: HubMessage) -> tuple[ErrorPattern, frozenset[int]] | None:
        try:
            event = convert(message.data, _ErrorEvent)
        except ValueError:
            return None
        at = min(message.at, self.clock.time())  # another worker's clock may be ahead
        key = (event.subject, event.fingerprint)
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = _KindCount(
                event.subject, event.fingerprint, event.example, at, self.levels
            )
            if len(self._tracks) > self.most:
                self._tracks.popitem(last=False)
        else:
            self._tracks.move_to_end(key)
        track.drop(at - self.window_s)
        reached = track.add(at, event.count)
        return track.build_pattern(), reached
