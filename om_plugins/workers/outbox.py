"""Outboxes: queues whose items one background job at a time delivers in order.

The scheduler has several threads, so two jobs could overtake each other, and a progress bar would
jump back. An outbox has at most one running job in a process. A delivery that is to be tried again
later uses no thread while it waits.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from ..core.fork import PerProcess
from ..protocols import Scheduler

logger = logging.getLogger("om_plugins")

T = TypeVar("T")

_SHORTEST_WAIT_S = 0.05


@dataclass(slots=True, eq=False, repr=False)
class _OutboxProcess(Generic[T]):
    """The part of an outbox that belongs to one process."""

    items: deque[T] = field(default_factory=deque)
    lock: threading.Lock = field(default_factory=threading.Lock)
    busy: bool = False
    attempt: int = 1
    retries: int = 0


@dataclass(slots=True, eq=False, repr=False)
class Outbox(Generic[T]):
    """A bounded queue with a background job that empties it.

    Args:
        name: for the log, and unique among the outboxes of a scheduler.
        deliver: ``deliver(item, attempt)``, attempts counted from 1. Returns ``None`` when it is
            done with the item, else the seconds after which to try the same item again.
        scheduler: runs the job.
        size: how many items may wait.
    """

    name: str
    deliver: Callable[[T, int], float | None]
    scheduler: Scheduler
    size: int
    # The parent delivers what its outbox had before the fork.
    _states: PerProcess[_OutboxProcess[T]] = field(
        init=False, default_factory=lambda: PerProcess(_OutboxProcess)
    )

    def put(self, item: T) -> bool:
        """Queue ``item``; return False when too many items wait."""
        state = self._states.get()
        with state.lock:
            if len(state.items) >= self.size:
                return False
            state.items.append(item)
            if state.busy:
                return True
            state.busy = True
        self._submit(state)
        return True

    def _submit(self, state: _OutboxProcess[T]) -> None:
        if not self.scheduler.submit(partial(self._deliver_all, state), name=self.name):
            with state.lock:
                state.busy = False  # the next put submits the job again

    def _deliver_all(self, state: _OutboxProcess[T]) -> None:
        while True:
            with state.lock:
                if not state.items:
                    state.busy = False
                    return
                item, attempt = state.items[0], state.attempt
            wait_s: float | None = None
            try:
                wait_s = self.deliver(item, attempt)
            except Exception:
                logger.exception("%s: a delivery failed", self.name)
            with state.lock:
                if wait_s is None:
                    state.items.popleft()
                    state.attempt = 1
                else:
                    state.attempt += 1
            if wait_s is not None:
                self._deliver_later(state, wait_s)
                return

    def _deliver_later(self, state: _OutboxProcess[T], wait_s: float) -> None:
        state.retries += 1

        def again() -> None:
            if self._states.get() is state:  # not in a child that was forked meanwhile
                self._deliver_all(state)

        run_later(self.scheduler, wait_s, again, f"{self.name} again {state.retries}")


def run_later(
    scheduler: Scheduler, wait_s: float, function: Callable[[], object], name: str
) -> Callable[[], None]:
    """Run a function once, after ``wait_s``: as a periodic job that stops itself on its first run.

    Args:
        scheduler: runs it.
        wait_s: seconds to wait; they use no thread.
        function: what to run.
        name: unique among the periodic jobs of the scheduler.

    Returns:
        A function that ends the wait.
    """
    stops: list[Callable[[], None]] = []

    def run() -> None:
        if not stops:
            return  # the job is being registered at this moment: its next run continues
        stops.pop()()
        function()

    stop = scheduler.every(max(wait_s, _SHORTEST_WAIT_S), run, name=name)
    stops.append(stop)
    return stop
