"""Time limits for functions that Python cannot interrupt.

:class:`BoundedPool` runs a function in a thread that the caller leaves at its deadline; the thread
goes on until the function ends. The cost is bounded: when every thread is busy, most of them with
work that nobody waits for any more, the next call fails at once.

:class:`AttemptTimer` is one thread that stops attempts whose time is over. A database driver, a
subprocess or a lock in C may be stoppable from another thread only. An engine that waits on such a
thing gives the stop to ``call.on_cancel`` and has the timer watch the call.
"""

from __future__ import annotations

import contextvars
import heapq
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ...core.fork import PerProcess
from ...errors import AttemptTimeout, EngineUnavailable
from ...types import Call

logger = logging.getLogger("om_plugins")
_IDLE_S = 30.0
_AGAIN_S = 0.1


class BoundedPool:
    """Runs functions in at most ``max_threads`` daemon threads of this process.

    A thread starts when it is needed and ends after 30 seconds without work. A forked child has
    its own threads. Functions see the caller's context variables.

    Args:
        name: the engine's name, for errors and for the names of the threads.
        max_threads: the most functions that run at once.
    """

    def __init__(self, name: str, max_threads: int) -> None:
        self._name = name
        self._threads = PerProcess(partial(_Threads, name, max_threads))

    def run(self, function: Callable[[], Any], call: Call) -> Any:
        """Run the function and return its result.

        Raises:
            EngineUnavailable: all threads are busy.
            AttemptTimeout, CallerDeadline, Cancelled: the time of the call is over. The function
                goes on; its result is dropped, and closed if it has a ``close`` method.
            Exception: what the function raised.
        """
        call.raise_if_done()
        job = _Job(function)
        if not self._threads.get().take(job):
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
        """The number of threads of this process, and how many of them are busy."""
        return self._threads.get().stats()


class _Job:
    """One run of a function. A lock decides what is first: its end, or that the caller leaves."""

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
        """Note that the caller leaves; True when the function has ended before."""
        with self._lock:
            if self._state == "done":
                return True
            self._state = "left"
            return False


class _Threads:
    """The threads of one process and the queue of their jobs."""

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
            except RuntimeError:  # no threads are left, or the interpreter is shutting down
                with self._lock:
                    self._threads -= 1
                    if not self._threads:  # no thread is there to take the job
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
                continue  # a job was just queued for this thread
            try:
                job.run()
            except Exception:  # noqa: BLE001 - the result that failed to close is not needed
                pass
            finally:
                with self._lock:
                    self._busy -= 1
            del job


class AttemptTimer:
    """Calls :meth:`Call.cut` at the deadline of the attempt.

    Its thread starts with the first call that has a deadline, and ends after 30 seconds without
    one. A forked child has its own thread.

    Args:
        name: the engine's name, for the name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._attempts = PerProcess(partial(_WatchedAttempts, name))

    @contextmanager
    def watching(self, call: Call) -> Iterator[None]:
        """Cut the attempt at its deadline, unless the block ends before."""
        left_s = call.remaining()
        if left_s == float("inf"):
            yield
            return
        attempts = self._attempts.get()
        entry = attempts.add(call, left_s)
        try:
            yield
        finally:
            attempts.forget(entry)


@dataclass(slots=True, eq=False, repr=False)
class _WatchedAttempt:
    call: Call | None
    lock: threading.Lock = field(default_factory=threading.Lock)


class _WatchedAttempts:
    """The watched attempts of one process, the earliest deadline first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, _WatchedAttempt]] = []
        self._numbers = itertools.count()
        self._running = False

    def add(self, call: Call, left_s: float) -> _WatchedAttempt:
        entry = _WatchedAttempt(call)
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

    def forget(self, entry: _WatchedAttempt) -> None:
        """Stop watching. After the return this attempt is not cut any more."""
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
            if not over:  # what the attempt waits for from now on must be stopped, too
                with self._changed:
                    due = time.monotonic() + _AGAIN_S
                    heapq.heappush(self._heap, (due, next(self._numbers), entry))
