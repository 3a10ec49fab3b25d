"""The bulkhead: a limit on the calls of one engine at the same time.

With it, one slow engine cannot take every thread of a server (the pattern: Michael Nygard,
"Release It!"). A caller waits for a limited time when the bulkhead is full, and the number of
waiting callers is limited, too.

Free permits are the items of a list. To take one and to give it back are single steps of the
interpreter, so no caller takes a lock while there is room.
"""

from __future__ import annotations

import threading
from collections import deque

from ..core.fork import renew_after_fork
from ..errors import ConfigError


class _Waiter:
    """A caller that waits for a permit."""

    __slots__ = ("admitted", "bell")

    def __init__(self) -> None:
        self.admitted = False
        self.bell = threading.Lock()
        self.bell.acquire()


class Bulkhead:
    """Permits for calls at the same time.

    Args:
        max_concurrency: how many calls may run at once.
        max_wait_s: how long a caller waits for a permit, at most; 0.0 for not at all.
        max_waiting: how many callers may wait; one more is refused at once. ``None`` for as many as
            ``max_concurrency``.

    Raises:
        ConfigError: a number is too small.

    :meth:`leave` is called exactly once for each :meth:`enter` that returned True. A forked child
    begins with all permits; calls of its parent give none back there.
    """

    __slots__ = ("__weakref__", "_debt", "_free", "_lock", "_max_waiting", "_size", "_waiters",
                 "max_wait_s")  # fmt: skip

    def __init__(
        self, max_concurrency: int, max_wait_s: float = 0.0, max_waiting: int | None = None
    ) -> None:
        _at_least_one(max_concurrency)
        if not max_wait_s >= 0.0:
            raise ConfigError("max_wait_s of a bulkhead", max_wait_s, "must be 0 or more seconds")
        self.max_wait_s = max_wait_s
        self._max_waiting = max_waiting
        self._size = max_concurrency
        self._renew()
        renew_after_fork(self)

    @property
    def max_concurrency(self) -> int:
        """How many calls may run at once."""
        return self._size

    @property
    def in_use(self) -> int:
        """How many calls run now."""
        return max(self._size + self._debt - len(self._free), 0)

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return len(self._waiters)

    def enter(self, timeout_s: float) -> bool:
        """Take a permit for a call.

        Args:
            timeout_s: how long the caller can wait; the shorter of this and ``max_wait_s`` holds.

        Returns:
            False when the bulkhead was full and stayed full.
        """
        try:
            self._free.pop()
        except IndexError:
            return self._wait(min(timeout_s, self.max_wait_s))
        return True

    def leave(self) -> None:
        """Give the permit back."""
        free = self._free
        if self._debt or len(free) >= self._size:
            self._settle()
            return
        free.append(None)
        if self._waiters:
            self._admit()

    def resize(self, max_concurrency: int) -> None:
        """Change the limit from now on. Calls that run go on, also when they are more.

        Raises:
            ConfigError: it is below 1.
        """
        _at_least_one(max_concurrency)
        with self._lock:
            more = max_concurrency - self._size
            self._size = max_concurrency
            while more > 0:
                more -= 1
                if self._debt:
                    self._debt -= 1
                else:
                    self._free.append(None)
            while more < 0:
                more += 1
                try:
                    self._free.pop()
                except IndexError:  # the next call that ends gives its permit to nobody
                    self._debt += 1
        self._admit()

    def after_fork(self) -> None:
        self._renew()

    # --- when it is full ---

    def _wait(self, wait_s: float) -> bool:
        if not wait_s > 0.0:
            return False
        waiter = _Waiter()
        with self._lock:
            most = self._size if self._max_waiting is None else self._max_waiting
            if len(self._waiters) >= most:
                return False
            self._waiters.append(waiter)
        # Whoever left before it saw this waiter left its permit behind for it.
        self._admit()
        try:
            rang = waiter.bell.acquire(timeout=min(wait_s, threading.TIMEOUT_MAX))
        except BaseException:
            if self._given_up(waiter):
                self.leave()
            raise
        return rang or self._given_up(waiter)

    def _given_up(self, waiter: _Waiter) -> bool:
        """Take a waiter out; True when it was let in at the last moment."""
        with self._lock:
            if not waiter.admitted:
                self._waiters.remove(waiter)
            return waiter.admitted

    def _admit(self) -> None:
        """Let those who wait longest in, while there is room."""
        with self._lock:
            while self._waiters:
                waiter = self._waiters.popleft()
                try:
                    self._free.pop()
                except IndexError:
                    self._waiters.appendleft(waiter)
                    return
                waiter.admitted = True
                waiter.bell.release()

    def _settle(self) -> None:
        with self._lock:
            if self._debt:
                self._debt -= 1
            elif len(self._free) < self._size:
                self._free.append(None)
        self._admit()

    def _renew(self) -> None:
        # Re-entrant, because a stream that is garbage-collected gives its permit back, and the
        # collector may run in the middle of anything.
        self._lock = threading.RLock()
        self._free: list[None] = [None] * self._size
        self._waiters: deque[_Waiter] = deque()
        self._debt = 0


def _at_least_one(max_concurrency: int) -> None:
    if isinstance(max_concurrency, bool) or max_concurrency < 1:
        raise ConfigError(
            "max_concurrency of a bulkhead", max_concurrency, "must be a whole number from 1"
        )
