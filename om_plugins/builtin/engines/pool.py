"""A few threads for functions that cannot be interrupted.

Python cannot stop a function that waits on something of its own. Run in a thread of a pool, it can
be left alone: the caller goes on at its deadline, the thread when the function ends. What that may
cost is bounded: when every thread is busy, most of them with work that nobody waits for any more,
the next call fails at once.
"""

from __future__ import annotations

import contextvars
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from ...errors import AttemptTimeout, EngineUnavailable
from ...types import Call

_IDLE_S = 30.0


class BoundedPool:
    """Runs functions in at most ``max_threads`` daemon threads of this process.

    Threads are begun when they are needed and end after 30 seconds without work; a forked child has
    its own. Context variables are copied.

    Args:
        name: the engine's, for errors and threads.
        max_threads: how many run at once.
    """

    def __init__(self, name: str, max_threads: int) -> None:
        self._name = name
        self._max = max_threads
        self._processes: dict[int, _Threads] = {}

    def run(self, function: Callable[[], Any], call: Call) -> Any:
        """What the function returns, if it does so inside the call's time.

        Raises:
            EngineUnavailable: all threads are busy.
            AttemptTimeout, CallerDeadline, Cancelled: its time is over; the function runs on, and
                what it returns is dropped (and closed, if it can be).
            Exception: what the function raised.
        """
        call.raise_if_done()
        job = _Job(function)
        if not self._own().take(job):
            raise EngineUnavailable(self._name, "pool full")
        remove = call.on_cancel(job.ended.set)
        try:
            left_s = call.remaining()
            job.ended.wait(None if left_s == float("inf") else max(left_s, 0.0))
        finally:
            remove()
        if not job.leave():
            call.raise_if_done()
            raise AttemptTimeout(f"call {call.id}: attempt {call.attempt} took too long")
        if job.error is not None:
            raise job.error
        return job.result

    def stats(self) -> dict[str, int]:
        """Threads of this process, and how many of them work."""
        return self._own().stats()

    def _own(self) -> _Threads:
        pid = os.getpid()
        found = self._processes.get(pid)
        if found is None:
            found = self._processes.setdefault(pid, _Threads(self._name, self._max))
        return found


class _Job:
    """A function under way. Whoever is second of its thread and its caller finds it settled."""

    __slots__ = ("_context", "_function", "_lock", "_state", "ended", "error", "result")

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._state = "running"
        self.ended = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = self._context.run(self._function)
        except BaseException as raised:  # noqa: BLE001 - raised again in the caller's thread
            error = raised
        with self._lock:
            wanted = self._state == "running"
            if wanted:
                self._state = "done"
                self.result, self.error = result, error
        if wanted:
            self.ended.set()
        else:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def leave(self) -> bool:
        """The caller goes: True with the outcome, False when there is none yet."""
        with self._lock:
            if self._state == "done":
                return True
            self._state = "left"
            return False


class _Threads:
    """The threads of one process."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._threads = 0
        self._busy = 0

    def take(self, job: _Job) -> bool:
        with self._lock:
            if self._busy >= self._most:
                return False
            self._busy += 1
            begin = self._busy > self._threads
            if begin:
                self._threads += 1
        self._jobs.put(job)
        if begin:
            thread = threading.Thread(target=self._work, name=f"om-pool-{self._name}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more, or the interpreter is ending
                with self._lock:
                    self._threads -= 1
                    if not self._threads:  # nobody is there who could take it
                        self._busy -= 1
                        self._jobs = queue.SimpleQueue()
                        return False
        return True

    def stats(self) -> dict[str, int]:
        with self._lock:
            return {"threads": self._threads, "busy": self._busy}

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._busy < self._threads:
                        self._threads -= 1
                        return
                continue  # one was just put in for this thread
            try:
                job.run()
            except Exception:  # noqa: BLE001 - closing what nobody wants any more
                pass
            finally:
                with self._lock:
                    self._busy -= 1
            del job
