"""Pauses: waits between attempts that end early when nobody needs the rest of them.

A caller that waits for its next attempt holds a thread of the server. It must not hold it for an
answer that nobody wants any more, nor keep a server that was told to stop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..core.clock import SystemClock
from ..protocols import Clock
from ..types import Call

LOOK_S = 0.25
"""How often a pause looks whether the server is about to stop."""


def _never() -> bool:
    return False


class Pauses:
    """The pauses of one chain's callers.

    Args:
        clock: time; of a clock that is not the system's, only its ``sleep`` is used.
        stopping: true once the process is about to stop.
    """

    __slots__ = ("_clock", "_sleepers", "_stopping")

    def __init__(self, clock: Clock, stopping: Callable[[], bool] = _never) -> None:
        self._clock = clock
        self._stopping = stopping
        self._sleepers: set[threading.Event] = set()

    def pause(self, seconds: float, call: Call) -> bool:
        """Wait in the calling thread.

        Args:
            seconds: how long.
            call: ends the pause when it is cancelled.

        Returns:
            False when the pause was ended early, by :meth:`end` or because the process stops.
        """
        if not isinstance(self._clock, SystemClock):
            self._clock.sleep(seconds)
            return not self._stopping()
        monotonic = self._clock.monotonic
        until = monotonic() + seconds
        woken = threading.Event()
        self._sleepers.add(woken)
        forget = call.on_cancel(woken.set)
        try:
            while (left := until - monotonic()) > 0:
                if self._stopping() or woken.wait(min(left, LOOK_S)):
                    return False
            return True
        finally:
            forget()
            self._sleepers.discard(woken)

    def end(self) -> None:
        """Wake everybody who waits at this moment."""
        for sleeper in list(self._sleepers):
            sleeper.set()
