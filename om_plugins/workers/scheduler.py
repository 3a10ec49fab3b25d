"""The one background worker pool of a process: queued jobs and jobs that run again and again.

Threads are daemons, begun on first use in each process (so after a fork, in the child), at most
``workers`` of them and one timer. At the interpreter's end, or on :meth:`~BackgroundScheduler.
close`, what is queued gets a second to end; then the rest is left. Threads do not keep a scheduler
alive: they end when it is forgotten, so that a process may make and drop many applications.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ..protocols import Clock, Hub, Lease
from .pool import (
    AlreadyLoggedError,
    Job,
    SchedulerStats,
    WorkerPool,
    begin_thread,
    uwsgi_without_threads,
)

__all__ = ["BackgroundScheduler", "SchedulerStats"]

_logger = logging.getLogger("om_plugins")
_DRAIN_S = 1.0
_SHORTEST_LEASE_S = 5.0
_RANDOM = random.SystemRandom()
"""Without a state: threads must not draw from the application's own source, which it may have
seeded, and forked workers must not draw the same."""


@dataclass(slots=True, eq=False)
class _Periodic:
    """A job that runs again and again."""

    name: str
    seconds: float
    function: Job
    elected: bool
    due: float
    pid: int
    busy: bool = False
    failures: int = 0
    lease: Lease | None = None

    @property
    def lease_s(self) -> float:
        """How long the elected process may be silent before another takes over."""
        return max(2.5 * self.seconds, _SHORTEST_LEASE_S)


@dataclass(slots=True, eq=False)
class _Process:
    """What one process has: its pool and its timer."""

    pool: WorkerPool
    lock: threading.Condition = field(default_factory=threading.Condition)
    timer: threading.Thread | None = None

    def drain(self, timeout: float) -> None:
        self.pool.drain(timeout)
        with self.lock:
            timer = self.timer
            self.lock.notify_all()
        if timer is not None and timer is not threading.current_thread():
            timer.join(0.5)


class BackgroundScheduler:
    """A :class:`~om_plugins.protocols.Scheduler`.

    Args:
        workers: threads, at most.
        queue_size: jobs that wait, at most; one more is refused.
        clock: its monotonic time says when periodic jobs are due.
        hub: elects the one process for ``elected`` jobs; asked only from background threads.
        logger: gets one record for each job that raises.
        synchronous: begin no threads; jobs run when :meth:`run_pending` and :meth:`run_due` are
            called. For tests.
        jitter: each period is longer or shorter by up to this share, so that the processes of a
            host do not all work at the same moment.
    """

    def __init__(
        self,
        workers: int,
        queue_size: int,
        clock: Clock,
        hub: Hub,
        logger: logging.Logger = _logger,
        *,
        synchronous: bool = False,
        jitter: float = 0.1,
    ) -> None:
        self._workers = workers
        self._queue_size = queue_size
        self._clock = clock
        self._hub = hub
        self._logger = logger
        self._synchronous = synchronous
        self._jitter = 0.0 if synchronous else jitter
        self._periodic: dict[str, _Periodic] = {}
        self._processes: dict[int, _Process] = {}
        self._closed = False
        self._no_threads: bool | None = None

    # --- what rooms and plugins use -------------------------------------------------------------

    def submit(self, function: Job, *, name: str = "") -> bool:
        """Run soon, in the background.

        Args:
            name: for the log; the function's own name when empty.

        Returns:
            False when the queue is full, the scheduler is closed, or the server lets no
            threads run.
        """
        pool = self._here().pool
        if self._closed or not self._can_run():
            return pool.refuse()
        return pool.submit(function, name or getattr(function, "__qualname__", repr(function)))

    def every(
        self, seconds: float, function: Job, *, name: str, elected: bool = False
    ) -> Callable[[], None]:
        """Run again and again, first after ``seconds``; never twice at once in a process.

        What was registered before a fork goes on in the child once :meth:`start` is called there,
        and may be registered there anew.

        Args:
            seconds: from the beginning of one run to the next.
            name: unique in a process.
            elected: run in one process of all that share the hub; when that one is gone, another
                takes over after about two and a half periods.

        Returns:
            A function that stops it.

        Raises:
            ValueError: the name is taken, or ``seconds`` is not above 0.
        """
        if not seconds > 0:
            raise ValueError(f"every {seconds!r} seconds, {name!r}: must be above 0")
        pid = os.getpid()
        known = self._periodic.get(name)
        if known is not None and known.pid == pid:
            raise ValueError(f"a job named {name!r} is registered already; stop it first")
        job = _Periodic(name, seconds, function, elected, 0.0, pid)
        job.due = self._next(job)
        self._periodic[name] = job
        self.start()

        def stop() -> None:
            if self._periodic.get(name) is job:
                del self._periodic[name]
                self._give_back(job)

        return stop

    def start(self) -> None:
        """Begin the timer in this process, if there is something periodic and it has not begun."""
        if self._synchronous or self._closed or not self._periodic or not self._can_run():
            return
        process = self._here()
        with process.lock:
            process.lock.notify()
            if process.timer is None and not process.pool.closed:
                loop = partial(_keep_time, weakref.ref(self), process)
                process.timer = begin_thread(loop, "om-timer", self._logger)

    def stats(self) -> SchedulerStats:
        """What this process has done so far."""
        return self._here().pool.stats()

    def close(self, timeout: float = _DRAIN_S) -> None:
        """Stop: give queued jobs ``timeout`` seconds, leave the rest, give leases back."""
        self._closed = True
        self._here().drain(timeout)
        for job in list(self._periodic.values()):
            self._give_back(job)
        self._periodic.clear()

    # --- for tests ------------------------------------------------------------------------------

    def run_pending(self) -> int:
        """Run what is queued, here and now; returns how many jobs ran."""
        return self._here().pool.run_pending()

    def run_due(self) -> int:
        """Run the periodic jobs that are due on the clock, here and now; returns how many."""
        due = self._due()
        for job in due:
            self._here().pool.run(partial(self._turn, job), job.name)
        return len(due)

    # --- threads --------------------------------------------------------------------------------

    def _here(self) -> _Process:
        pid = os.getpid()
        process = self._processes.get(pid)
        if process is None:
            # A parent's pool is of no use in a child: its threads are not here, and one of them
            # may have held its lock. setdefault is atomic.
            workers = 0 if self._synchronous else self._workers
            mine = _Process(WorkerPool(workers, self._queue_size, self._logger))
            process = self._processes.setdefault(pid, mine)
            if process is mine:
                for job in self._periodic.values():
                    job.busy, job.lease = False, None
                weakref.finalize(self, _drain_at_exit, pid, mine)
        return process

    def _can_run(self) -> bool:
        if self._synchronous:
            return True
        if self._no_threads is None:
            self._no_threads = uwsgi_without_threads()
            if self._no_threads:
                self._logger.warning(
                    "uWSGI was started without --enable-threads, so no background work runs: "
                    "no refresh, no snapshots, no notifications; add enable-threads = true"
                )
        return not self._no_threads

    def _tick(self) -> None:
        for job in self._due():
            if job.busy:
                self._keep(job)
                continue
            job.busy = True
            if not self.submit(partial(self._turn, job), name=job.name):
                job.busy = False

    def _until_next(self, process: _Process) -> float | None:
        """Seconds until a job is due; ``None`` when the timer may end."""
        if process.pool.closed or self._closed or not self._periodic:
            return None
        now = self._clock.monotonic()
        soonest = min((job.due for job in list(self._periodic.values())), default=now)
        return max(0.0, soonest - now)

    def _due(self) -> list[_Periodic]:
        now = self._clock.monotonic()
        due = [job for job in list(self._periodic.values()) if job.due <= now]
        for job in due:
            job.due = self._next(job)
        return sorted(due, key=lambda job: job.name)

    def _next(self, job: _Periodic) -> float:
        share = _RANDOM.uniform(1 - self._jitter, 1 + self._jitter)
        return self._clock.monotonic() + job.seconds * share

    # --- one run of a periodic job --------------------------------------------------------------

    def _turn(self, job: _Periodic) -> None:
        try:
            if job.elected and not self._elect(job):
                return
            job.function()
            if job.failures:
                self._logger.info("background job %r works again", job.name)
                job.failures = 0
        except Exception as error:
            job.failures += 1
            if job.failures == 1:
                raise
            raise AlreadyLoggedError from error  # one that fails each second must not fill the log
        finally:
            job.busy = False

    def _elect(self, job: _Periodic) -> bool:
        """Hold the job's lease. It is kept from run to run: giving it back at the end of a run
        would let each process run the job in each period."""
        if job.lease is not None and job.lease.renew(job.lease_s):
            return True
        job.lease = self._hub.lease(f"job:{job.name}", job.lease_s)
        return job.lease is not None

    def _keep(self, job: _Periodic) -> None:
        """Renew the lease of a job that runs for longer than its period."""
        lease = job.lease
        if lease is not None:
            try:
                lease.renew(job.lease_s)
            except Exception as error:  # noqa: BLE001 - the timer goes on
                self._logger.warning("the lease of %r cannot be renewed: %s", job.name, error)

    def _give_back(self, job: _Periodic) -> None:
        self._here()  # in a new child: a lease of the parent is not ours to give back
        lease, job.lease = job.lease, None
        if lease is not None:
            try:
                lease.release()
            except Exception as error:  # noqa: BLE001 - it runs out by itself
                self._logger.debug("the lease of %r cannot be released: %s", job.name, error)


def _keep_time(reference: weakref.ref[BackgroundScheduler], process: _Process) -> None:
    """The timer's loop; while it waits, nothing here holds the scheduler."""
    while True:
        scheduler = reference()
        if scheduler is None:
            return
        scheduler._tick()
        with process.lock:
            seconds = scheduler._until_next(process)
            if seconds is None:
                process.timer = None
                return
            scheduler = None
            process.lock.wait(seconds)


def _drain_at_exit(pid: int, process: _Process) -> None:
    if os.getpid() == pid and not process.pool.closed:
        process.drain(_DRAIN_S)
