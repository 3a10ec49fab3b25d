"""The feed: one reader of the hub in each process, for all the streams it serves.

There is no thread for it. Of the streams that wait, one reads the hub and hands what it found to
all; when it has something to write, another one takes its place.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from dataclasses import dataclass, field

from ..protocols import Clock, Hub
from ..types import HubMessage

_TURN_S = 0.5
"""The longest wait, so that a stream soon sees that its server shuts down."""

_WAITING = 500
_BATCH = 200


@dataclass(slots=True, eq=False)
class Reader:
    """One stream's place in a feed. What a slow one does not fetch in time is lost to it."""

    waiting: deque[HubMessage] = field(default_factory=lambda: deque(maxlen=_WAITING))


@dataclass(slots=True, eq=False)
class _Process:
    condition: threading.Condition = field(default_factory=threading.Condition)
    readers: set[Reader] = field(default_factory=set)
    reading: bool = False
    cursor: str = ""
    also_cursor: str = ""


class Feed:
    """New messages of a topic, for many who wait in this process.

    Args:
        hub: read from the end of the topic at the time the first one joins.
        topic: which one.
        clock: time.
        also: another topic, looked into whenever the first was waited for: twice a second.
    """

    def __init__(self, hub: Hub, topic: str, clock: Clock, also: str = "") -> None:
        self._hub = hub
        self._topic = topic
        self._also = also
        self._clock = clock
        self._processes: dict[int, _Process] = {}

    def _here(self) -> _Process:
        pid = os.getpid()
        return self._processes.get(pid) or self._processes.setdefault(pid, _Process())

    def join(self, limit: int | None = None) -> Reader | None:
        """Get what is published from now on; ``None`` when ``limit`` have joined already."""
        process, reader = self._here(), Reader()
        with process.condition:
            if limit is not None and len(process.readers) >= limit:
                return None
            # While the first one looks where the topic ends, nobody reads from an older place.
            first = not process.readers and not process.reading
            process.readers.add(reader)
            process.reading = process.reading or first
        if first:
            try:
                process.cursor = self._hub.last_id(self._topic)
                process.also_cursor = self._hub.last_id(self._also) if self._also else ""
            finally:
                with process.condition:
                    process.reading = False
                    process.condition.notify_all()
        return reader

    def leave(self, reader: Reader) -> None:
        """Wait no more. Safe to call twice."""
        process = self._here()
        with process.condition:
            process.readers.discard(reader)
            process.condition.notify_all()

    def wait(self, reader: Reader, seconds: float) -> list[HubMessage]:
        """What has come for ``reader``; waits ``seconds`` for it, half a second at most."""
        process = self._here()
        seconds = max(0.0, min(seconds, _TURN_S))
        with process.condition:
            mine = not reader.waiting and not process.reading
            if mine:
                process.reading = True
            elif not reader.waiting:
                process.condition.wait(seconds)
        if mine:
            self._read(process, seconds)
        with process.condition:
            found = list(reader.waiting)
            reader.waiting.clear()
        return found

    def _read(self, process: _Process, seconds: float) -> None:
        """Read the hub for all; the lock is not held meanwhile."""
        began = self._clock.monotonic()
        found: list[HubMessage] = []
        also: list[HubMessage] = []
        try:
            found = self._hub.read(self._topic, process.cursor, seconds, _BATCH)
            if self._also:
                also = self._hub.read(self._also, process.also_cursor, 0.0, _BATCH)
        finally:
            with process.condition:
                process.reading = False
                if found:
                    process.cursor = found[-1].id
                if also:
                    process.also_cursor = also[-1].id
                if found or also:
                    for reader in process.readers:
                        reader.waiting.extend((*found, *also))
                elif (left_s := seconds - (self._clock.monotonic() - began)) > 0:
                    # A hub that is out of reach may answer at once: do not ask it in a loop.
                    process.condition.wait(min(left_s, _TURN_S / 5))
                process.condition.notify_all()
