"""Error patterns: how often each kind of error happened in the last five minutes, in all workers.

Every error is a message of the hub's topic ``errors``. All workers read the same messages in the
same order and forget them by the messages' own times, so they agree on which error was the third
of its kind, and the worker that published it is the one that acts.
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
"""Kinds of errors that are followed at once; those not seen for longest go first."""
FIRST, PATTERN, RECOVERY = 1, 3, 5
"""How many of a kind make a notice, a pattern, and a recovery."""
_LEVELS = (FIRST, PATTERN, RECOVERY)
_PAGE = 1_000
_MOST_AT_ONCE = 1_000_000
_MERGE_S = 1.0


@dataclass(slots=True)
class _Track:
    """One kind of error in one place."""

    subject: str
    fingerprint: str
    example: str
    first_at: float
    levels: Sequence[int] = _LEVELS
    again: float = RECOVERY
    last_at: float = 0.0
    total: int = 0
    times: deque[tuple[float, int]] = field(default_factory=deque)
    told: set[int] = field(default_factory=set)

    def forget(self, before: float) -> None:
        while self.times and self.times[0][0] <= before:
            self.total -= self.times.popleft()[1]
        if not self.times:
            self.told.clear()

    def add(self, at: float, count: int) -> frozenset[int]:
        """Count, and tell which levels were reached by it: each once while errors go on, the
        last one each time."""
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
        reached = {level for level in self.levels if before < level <= self.total} - self.told
        self.told |= reached
        return frozenset(reached | ({RECOVERY} if self.total >= self.again else set()))

    def pattern(self) -> ErrorPattern:
        return ErrorPattern(
            self.fingerprint, self.subject, self.total, self.first_at, self.last_at, self.example
        )


class ErrorPatterns:
    """Counts errors by kind over a sliding window.

    Uses the hub, so it is for background threads.

    Args:
        clock: time.
        hub: carries the errors between workers.
        window_s: the window, in seconds.
        most: kinds that are followed at once.
        topic: the hub's topic.
        levels: the counts that are told once each; :data:`RECOVERY`, when it is one of them, again
            with every error that follows.
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
        self._again = RECOVERY if RECOVERY in levels else math.inf
        self._lock = threading.Lock()
        self._cursor = ""
        self._tracks: OrderedDict[tuple[str, str], _Track] = OrderedDict()
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
            The kind as it is now, and which of the levels these errors reached. Each is reached
            once until a whole window has passed without an error of the kind;
            :data:`RECOVERY` by every error from the fifth on.
        """
        event = {
            "subject": subject,
            "fingerprint": fingerprint,
            "example": example,
            "count": count,
        }
        with self._lock:
            mine = self._hub.publish(self._topic, event)
            found = self._hear(mine)
            if found is None:  # no hub took it: it counts here all the same
                message = HubMessage(mine, self._topic, event, self._clock.time())
                found = self._apply(message)
        if found is None:
            raise ValueError(f"error of {subject!r}: {event!r} cannot be counted")
        return found

    def current(self) -> list[ErrorPattern]:
        """The kinds of the last five minutes, the most frequent first."""
        with self._lock:
            self._hear("")
            before = self._clock.time() - self._window_s
            for track in self._tracks.values():
                track.forget(before)
            found = [track.pattern() for track in self._tracks.values() if track.total]
        return sorted(found, key=lambda one: (-one.count, -one.last_at))

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._cursor = ""
        self._tracks.clear()

    # --- under the lock ---

    def _hear(self, mine: str) -> tuple[ErrorPattern, frozenset[int]] | None:
        """Read what is new; returns what the message ``mine`` did."""
        found = None
        while messages := self._hub.read(self._topic, self._cursor, limit=_PAGE):
            for message in messages:
                self._cursor = message.id
                done = self._apply(message)
                if message.id == mine:
                    found = done
            if len(messages) < _PAGE:
                break
        return found

    def _apply(self, message: HubMessage) -> tuple[ErrorPattern, frozenset[int]] | None:
        event = _checked(message.data)
        if event is None:
            return None
        subject, fingerprint, example, count = event
        at = min(message.at, self._clock.time())  # a clock that is ahead must not stay for long
        key = (subject, fingerprint)
        track = self._tracks.get(key)
        if track is None:
            track = self._tracks[key] = _Track(
                subject, fingerprint, example, at, self._levels, self._again
            )
            if len(self._tracks) > self._most:
                self._tracks.popitem(last=False)
        else:
            self._tracks.move_to_end(key)
        track.forget(at - self._window_s)
        reached = track.add(at, count)
        return track.pattern(), reached


def _checked(data: object) -> tuple[str, str, str, int] | None:
    """An error as another worker published it, or ``None`` for something else."""
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
