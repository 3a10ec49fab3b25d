"""The feed: one reader of the hub in each process, for all event streams of the process.

The feed has no thread of its own. One of the waiting streams reads the hub and hands the messages
to all streams. When it has something to send, another stream takes over.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from dataclasses import dataclass, field

from ..protocols import Clock, Hub
from ..types import HubMessage

_MAX_WAIT_S = 0.5
"""The longest wait, so that a stream soon sees that its server is stopping."""

_MAX_QUEUED = 500
_BATCH = 200


@dataclass(slots=True, eq=False)
class FeedReader:
    """The messages that wait for one stream. A slow stream loses the oldest."""

    queue: deque[HubMessage] = field(default_factory=lambda: deque(maxlen=_MAX_QUEUED))


@dataclass(slots=True, eq=False)
class _FeedState:
    """The state of a feed in one process."""

    condition: threading.Condition = field(default_factory=threading.Condition)
    readers: set[FeedReader] = field(default_factory=set)
    reading: bool = False
    cursor: str = ""
    second_cursor: str = ""


@dataclass(eq=False, repr=False)
class Feed:
    """The new messages of a topic, for many streams that wait in this process.

    Args:
        hub: where the messages are. Reading begins at the end of the topic at the time the first
            stream joins.
        topic: the topic that streams wait for.
        clock: time.
        second_topic: another topic, looked at each time a wait for the first one has ended: at
            least twice a second. "" for none.
    """

    hub: Hub
    topic: str
    clock: Clock
    second_topic: str = ""

    def __post_init__(self) -> None:
        self._states: dict[int, _FeedState] = {}

    def join(self, limit: int | None = None) -> FeedReader | None:
        """Join, to get what is published from now on.

        Args:
            limit: how many may have joined at once; ``None`` for any number.

        Returns:
            ``None`` when so many have joined already.
        """
        state, reader = self._state(), FeedReader()
        with state.condition:
            if limit is not None and len(state.readers) >= limit:
                return None
            # While the first one asks where the topic ends, nobody reads from an older place.
            first = not state.readers and not state.reading
            state.readers.add(reader)
            state.reading = state.reading or first
        if first:
            try:
                state.cursor = self.hub.last_id(self.topic)
                if self.second_topic:
                    state.second_cursor = self.hub.last_id(self.second_topic)
            finally:
                with state.condition:
                    state.reading = False
                    state.condition.notify_all()
        return reader

    def leave(self, reader: FeedReader) -> None:
        """Leave the feed. It is safe to call this twice."""
        state = self._state()
        with state.condition:
            state.readers.discard(reader)
            state.condition.notify_all()

    def wait(self, reader: FeedReader, timeout_s: float) -> list[HubMessage]:
        """Wait for messages, and take those that have come.

        Args:
            reader: what :meth:`join` returned.
            timeout_s: the longest wait in seconds; more than half a second counts as half a second.
        """
        state = self._state()
        timeout_s = max(0.0, min(timeout_s, _MAX_WAIT_S))
        with state.condition:
            reads_hub = not reader.queue and not state.reading
            if reads_hub:
                state.reading = True
            elif not reader.queue:
                state.condition.wait(timeout_s)
        if reads_hub:
            self._read(state, timeout_s)
        with state.condition:
            messages = list(reader.queue)
            reader.queue.clear()
        return messages

    def _state(self) -> _FeedState:
        pid = os.getpid()
        return self._states.get(pid) or self._states.setdefault(pid, _FeedState())

    def _read(self, state: _FeedState, timeout_s: float) -> None:
        """Read the hub for all streams, without holding the lock."""
        began_at = self.clock.monotonic()
        first: list[HubMessage] = []
        second: list[HubMessage] = []
        try:
            first = self.hub.read(self.topic, state.cursor, timeout_s, _BATCH)
            if self.second_topic:
                second = self.hub.read(self.second_topic, state.second_cursor, 0.0, _BATCH)
        finally:
            with state.condition:
                state.reading = False
                if first:
                    state.cursor = first[-1].id
                if second:
                    state.second_cursor = second[-1].id
                if first or second:
                    for reader in state.readers:
                        reader.queue.extend((*first, *second))
                elif (left_s := timeout_s - (self.clock.monotonic() - began_at)) > 0:
                    # A hub that is out of reach may return at once: do not ask it in a busy loop.
                    state.condition.wait(min(left_s, _MAX_WAIT_S / 5))
                state.condition.notify_all()
