"""The line of refreshes: a bounded queue before the background pool, a few at work at once.

The pool serves more than refreshes. However long fetchers take, one of its threads stays free for
the rest: hearing of invalidations, notifications, measurements.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from ..protocols import Scheduler

__all__ = ["Line"]

NAME = "cache-refresh"


class Line:
    """The refreshes of one process that wait or run.

    Args:
        scheduler: the pool.
        width: refreshes at work at once.
        length: refreshes that wait, at most.
    """

    def __init__(self, scheduler: Scheduler, width: int, length: int) -> None:
        self._scheduler = scheduler
        self._width = width
        self._length = length
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Callable[[], object], Callable[[], object]]] = deque()
        self._running = 0

    def submit(self, job: Callable[[], object], dropped: Callable[[], object]) -> bool:
        """Run a job in its turn.

        Args:
            dropped: called instead, when the pool ends before its turn comes.

        Returns:
            False when there is no place for it.
        """
        with self._lock:
            if self._running >= self._width:
                if len(self._waiting) >= self._length:
                    return False
                self._waiting.append((job, dropped))
                return True
            self._running += 1
        if self._scheduler.submit(partial(self._run, job), name=NAME):
            return True
        with self._lock:
            self._running -= 1
        return False

    def _run(self, job: Callable[[], object]) -> None:
        try:
            job()
        finally:
            self._next()

    def _next(self) -> None:
        # through the pool's queue, so that other jobs have their turn between two refreshes
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                job, dropped = self._waiting.popleft()
            if self._scheduler.submit(partial(self._run, job), name=NAME):
                return
            dropped()
