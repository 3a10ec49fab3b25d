"""The queue and the worker threads of one process."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..settings.callbacks import refuse_unfinished

Job = Callable[[], object]


class AlreadyLoggedError(Exception):
    """A job failed, and it was logged already."""


@dataclass(slots=True)
class SchedulerStats:
    """Counts of one process since its first job.

    Attributes:
        queued: jobs that wait now.
        running: jobs that run now.
        dropped: jobs that were refused because the queue was full, or did not run before the
            scheduler was closed.
        done: jobs that returned.
        failed: jobs that raised.
    """

    queued: int = 0
    running: int = 0
    dropped: int = 0
    done: int = 0
    failed: int = 0


class WorkerPool:
    """Runs queued jobs on daemon threads, which it starts when there is work and none is idle.

    Args:
        workers: threads, at most; 0 to run jobs only in :meth:`run_pending`.
        queue_size: jobs that wait, at most.
        logger: gets one record for each job that raises.
    """

    def __init__(self, workers: int, queue_size: int, logger: logging.Logger) -> None:
        self._workers = workers
        self._queue_size = queue_size
        self._logger = logger
        self._lock = threading.Condition()
        self._queue: deque[tuple[Job, str]] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._stats = SchedulerStats()
        self.closed = False

    def submit(self, function: Job, name: str) -> bool:
        """Queue a job; return False when that is not possible."""
        job = (function, name)
        with self._lock:
            if self.closed or len(self._queue) >= self._queue_size:
                self._stats.dropped += 1
                return False
            self._queue.append(job)
            if self._idle < len(self._queue) and len(self._threads) < self._workers:
                thread = begin_thread(
                    self._work, f"om-worker-{len(self._threads) + 1}", self._logger
                )
                if thread is not None:
                    self._threads.append(thread)
                elif not self._threads:
                    self._queue.remove(job)
                    self._stats.dropped += 1
                    return False
            self._lock.notify()
        return True

    def refuse(self) -> bool:
        """Count a job that was not queued; return False."""
        with self._lock:
            self._stats.dropped += 1
        return False

    def stats(self) -> SchedulerStats:
        """Return the current counts."""
        with self._lock:
            return replace(self._stats, queued=len(self._queue))

    def run_pending(self) -> int:
        """Run the queued jobs in this thread; return how many ran."""
        count = 0
        while True:
            with self._lock:
                if not self._queue:
                    return count
                function, name = self._queue.popleft()
            self.run(function, name)
            count += 1

    def run(self, function: Job, name: str) -> None:
        """Run one job in this thread, and log its error."""
        with self._lock:
            self._stats.running += 1
        ok = False
        try:
            # A context of its own: the next job on this thread must not see what this one sets.
            refuse_unfinished(contextvars.Context().run(function))
            ok = True
        except AlreadyLoggedError:
            pass
        except (Exception, SystemExit):
            self._logger.exception("background job %r failed", name)
        finally:
            with self._lock:
                self._stats.running -= 1
                if ok:
                    self._stats.done += 1
                else:
                    self._stats.failed += 1
                self._lock.notify_all()

    def drain(self, timeout: float) -> None:
        """Wait ``timeout`` seconds for queued jobs, then end the threads that are not in a job."""
        until = time.monotonic() + timeout
        with self._lock:
            if self._threads:
                self._lock.wait_for(lambda: not self._queue and not self._stats.running, timeout)
            self.closed = True
            self._stats.dropped += len(self._queue)
            self._queue.clear()
            self._lock.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                # An idle thread ends at once. Another one may be in a job, and is not waited for.
                thread.join(max(0.05, until - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._queue:
                    if self.closed:
                        return
                    self._idle += 1
                    self._lock.wait()
                    self._idle -= 1
                function, name = self._queue.popleft()
            self.run(function, name)
            del function  # else the objects of the job would live until the next one


def begin_thread(
    loop: Callable[[], None], name: str, logger: logging.Logger
) -> threading.Thread | None:
    """Start a daemon thread; return ``None`` when that fails, as at the interpreter's end."""
    thread = threading.Thread(target=loop, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        logger.warning("background thread %s does not start: %s", name, error)
        return None
    return thread


def lacks_uwsgi_threads() -> bool:
    """Whether this is a uWSGI worker that never lets other threads run."""
    uwsgi = sys.modules.get("uwsgi")  # a module only inside the server
    options = getattr(uwsgi, "opt", None)
    if not isinstance(options, Mapping):
        return False
    names = {name.decode() if isinstance(name, bytes) else str(name) for name in options}
    return names.isdisjoint({"enable-threads", "threads", "gevent", "asyncio"})
