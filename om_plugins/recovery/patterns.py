"""Error patterns: how often each kind of error happened in the last five minutes, in all workers.

Each error is a message of the hub's topic ``errors``. All workers read the same messages in the
same order and drop them by the times of the messages. So they agree on which error was the third of
its kind, and the worker that published that error acts.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..core.fork import renew_after_fork
from ..protocols import Clock, Hub
from ..types import ErrorPattern, HubMessage
from .fingerprint import MAX_MESSAGE, MAX_SUBJECT

__all__ = ["FIRST", "PATTERN", "RECOVERY", "ErrorPatterns"]

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


@dataclass(slots=True)
class _KindCount:
    """The count of one kind of error in one place."""

    subject: str
    fingerprint: str
    example: str
    first_at: float
    levels: Sequence[int] = _LEVELS
    repeat_from: float = RECOVERY
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
        return frozenset(reached | ({RECOVERY} if self.total >= self.repeat_from else set()))

    def build_pattern(self) -> ErrorPattern:
        return ErrorPattern(
            self.fingerprint, self.subject, self.total, self.first_at, self.last_at, self.example
        )


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

    def __init__(
        self,
        *,
        clock: Clock,
        hub: Hub,
        window_s: float = WINDOW_S,
        most: int = MOST,
        topic: str = TOPIC,
        levels: Sequence[int] = _LEVELS,
    ) -> None:
        self._clock = clock
        self._hub = hub
        self._window_s = window_s
        self._most = most
        self._topic = topic
        self._levels = levels
        self._repeat_from = RECOVERY if RECOVERY in levels else math.inf
        self._lock = threading.Lock()
        self._cursor = ""
        self._tracks: OrderedDict[tuple[str, str], _KindCount] = OrderedDict()
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
        event = {
            "subject": subject,
            "fingerprint": fingerprint,
            "example": example,
            "count": count,
        }
        with self._lock:
            own_id = self._hub.publish(self._topic, event)
            found = self._read_new(own_id)
            if found is None:  # the hub did not take it, but it counts in this process
                message = HubMessage(own_id, self._topic, event, self._clock.time())
                found = self._apply(message)
        if found is None:
            raise ValueError(f"error of {subject!r}: {event!r} cannot be counted")
        return found

    def current(self) -> list[ErrorPattern]:
        """Return the patterns of the last five minutes, the most frequent first."""
        with self._lock:
            self._read_new("")
            before = self._clock.time() - self._window_s
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
        while messages := self._hub.read(self._topic, self._cursor, limit=_PAGE):
            for message in messages:
                self._cursor = message.id
                done = self._apply(message)
                if message.id == own_id:
                    found = done
            if len(messages) < _PAGE:
                break
        return found

    def _apply(self, message: HubMessage) -> tuple[ErrorPattern, frozenset[int]] | None:
        event = _parse(message.data)
        if event is None:
            return None
        subject, fingerprint, example, count = event
        at = min(message.at, self._clock.time())  # another worker's clock may be ahead
        key = (subject, fingerprint)
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = _KindCount(
                subject, fingerprint, example, at, self._levels, self._repeat_from
            )
            if len(self._tracks) > self._most:
                self._tracks.popitem(last=False)
        else:
            self._tracks.move_to_end(key)
        track.drop(at - self._window_s)
        reached = track.add(at, count)
        return track.build_pattern(), reached


def _parse(data: object) -> tuple[str, str, str, int] | None:
    """Return the error that a worker published; ``None`` for any other data."""
    if not isinstance(data, Mapping):
        return None
    subject, fingerprint, example = (
        data.get(name) for name in ("subject", "fingerprint", "example")
    )
    count = data.get("count")
    if not (
        isinstance(subject, str)
        and isinstance(fingerprint, str)
        and isinstance(example, str)
        and isinstance(count, int)
        and 0 < len(subject) <= MAX_SUBJECT
        and 0 < len(fingerprint) <= 64
        and len(example) <= 2 * MAX_MESSAGE
        and 0 < count <= _MOST_AT_ONCE
    ):
        return None
    return subject, fingerprint, example, int(count)
