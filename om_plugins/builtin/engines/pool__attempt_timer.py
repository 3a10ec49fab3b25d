"""One thread that stops attempts whose time is over, where no timeout of a socket works.

A database driver, a subprocess or a lock in C may be stoppable from another thread only. An engine
that waits so gives the stop to ``call.on_cancel`` and has the call watched here.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ...types import Call

logger = logging.getLogger("om_plugins")
_IDLE_S = 30.0
_AGAIN_S = 0.1


class AttemptTimer:
    """Calls :meth:`Call.cut` at ``attempt_deadline``.

    The thread is begun with the first call that has a deadline, and ends after 30 seconds without
    one; a forked child has its own.

    Args:
        name: for the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._processes: dict[int, _Waiting] = {}

    @contextmanager
    def watching(self, call: Call) -> Iterator[None]:
        """Have the attempt cut at its deadline, unless the block is left before."""
        left_s = call.remaining()
        if left_s == float("inf"):
            yield
            return
        pid = os.getpid()
        waiting = self._processes.get(pid)
        if waiting is None:
            waiting = self._processes.setdefault(pid, _Waiting(self._name))
        entry = waiting.add(call, left_s)
        try:
            yield
        finally:
            waiting.forget(entry)


class _Entry:
    __slots__ = ("call", "lock")

    def __init__(self, call: Call) -> None:
        self.call: Call | None = call
        self.lock = threading.Lock()


class _Waiting:
    """The attempts of one process that are watched, soonest first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, _Entry]] = []
        self._numbers = itertools.count()
        self._running = False

    def add(self, call: Call, left_s: float) -> _Entry:
        entry = _Entry(call)
        due = time.monotonic() + left_s
        with self._changed:
            heapq.heappush(self._heap, (due, next(self._numbers), entry))
            if not self._running:
                threading.Thread(
                    target=self._run, name=f"om-timer-{self._name}", daemon=True
                ).start()
                self._running = True
            elif self._heap[0][2] is entry:
                self._changed.notify()
        return entry

    def forget(self, entry: _Entry) -> None:
        """Returns once it is sure that nothing of this attempt will be cut any more."""
        with entry.lock:
            entry.call = None
        with self._changed:
            while self._heap and self._heap[0][2].call is None:
                heapq.heappop(self._heap)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._heap and not self._changed.wait(_IDLE_S) and not self._heap:
                    self._running = False
                    return
                if not self._heap:
                    continue
                left_s = self._heap[0][0] - time.monotonic()
                if left_s > 0:
                    self._changed.wait(min(left_s, _IDLE_S))
                    continue
                entry = heapq.heappop(self._heap)[2]
            with entry.lock:
                if entry.call is not None:
                    try:
                        entry.call.cut()
                    except Exception:
                        logger.warning("%s: stopping an attempt failed", self._name, exc_info=True)
                over = entry.call is None
            if not over:  # what it waits on from now on must be stopped, too
                with self._changed:
                    due = time.monotonic() + _AGAIN_S
                    heapq.heappush(self._heap, (due, next(self._numbers), entry))
