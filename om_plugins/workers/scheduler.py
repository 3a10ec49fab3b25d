"""The background work of a process: queued jobs and periodic jobs.

There are at most ``workers`` threads, and one timer for all schedulers of the process. They are
daemons and start on first use in each process, so after a fork in the child. At the interpreter's
end, and in :meth:`BackgroundScheduler.close`, queued jobs get a second to run; the rest is dropped.
Threads do not keep a scheduler alive: they end when it is garbage, so that a process may create and
drop many applications.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from werkzeug.wsgi import ClosingIterator

from ..core.fork import PerProcess
from ..protocols import Clock, Hub, Lease
from ..settings.callbacks import explain_callback, refuse_unfinished
from .pool import (
    AlreadyLoggedError,
    Job,
    SchedulerStats,
    WorkerPool,
    begin_thread,
    lacks_uwsgi_threads,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_logger = logging.getLogger("om_plugins")
_DRAIN_S = 1.0
_SHORTEST_LEASE_S = 5.0
_RANDOM = random.SystemRandom()
"""The system's random numbers: the application may have seeded its own source, and forked workers
would get the same numbers from it."""


@dataclass(slots=True, eq=False, repr=False)
class _PeriodicJob:
    """A job that runs periodically."""

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
        """How long the elected process may do nothing before another takes over."""
        return max(2.5 * self.seconds, _SHORTEST_LEASE_S)


class _Timer:
    """Ticks the schedulers of one process in one thread, which ends when none has periodic jobs.

    A process may make many applications, and a thread for each takes longer to start than all else
    that its first request does.
    """

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._schedulers: weakref.WeakSet[BackgroundScheduler] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0  # on the system's monotonic clock

    def add(self, scheduler: BackgroundScheduler) -> None:
        """Tick a scheduler from now on, or look again when its next job is due."""
        with self._lock:
            self._schedulers.add(scheduler)
            if time.monotonic() + (scheduler.find_next() or 0.0) < self._wakes_at:
                self._lock.notify()
            if self._thread is None:
                self._thread = begin_thread(self._run, "om-timer", _logger)

    def wake(self) -> None:
        """End the thread if all schedulers are garbage; this may be called in any thread."""
        with self._lock:
            if next(iter(self._schedulers), None) is None:
                self._lock.notify()

    def end(self) -> None:
        """Look again, because a scheduler was closed; wait for the thread after the last one."""
        with self._lock:
            self._lock.notify()
            thread = self._thread if self._find_next() is None else None
        if thread is not None and thread is not threading.current_thread():
            thread.join(0.5)

    def _run(self) -> None:
        while True:
            self._tick()
            with self._lock:
                seconds = self._find_next()
                if seconds is None:
                    self._thread = None
                    return
                self._wakes_at = time.monotonic() + seconds
                self._lock.wait(seconds)

    def _tick(self) -> None:
        with self._lock:
            schedulers = list(self._schedulers)
        for scheduler in schedulers:
            scheduler.tick()

    def _find_next(self) -> float | None:
        """Return the seconds until a job is due; ``None`` when the thread may end."""
        soonest = None
        for scheduler in list(self._schedulers):
            seconds = scheduler.find_next()
            if seconds is None:
                self._schedulers.discard(scheduler)
            elif soonest is None or seconds < soonest:
                soonest = seconds
        return soonest


_timers = PerProcess(_Timer)


@dataclass(eq=False, repr=False)
class BackgroundScheduler:
    """A :class:`~om_plugins.protocols.Scheduler`.

    Args:
        workers: the most threads.
        queue_size: the most jobs that wait; one more is refused.
        clock: its monotonic time says when periodic jobs are due.
        hub: elects the one process for ``elected`` jobs; asked only from background threads.
        logger: gets one record for each job that raises.
        synchronous: start no threads; jobs run in :meth:`run_pending` and :meth:`run_due`. For
            tests.
        jitter: each period is longer or shorter by up to this share, so that the processes of a
            host do not all work at the same moment.
    """

    workers: int
    queue_size: int
    clock: Clock
    hub: Hub
    logger: logging.Logger = _logger
    _: KW_ONLY
    synchronous: bool = False
    jitter: float = 0.1
    _periodic: dict[str, _PeriodicJob] = field(init=False, default_factory=dict)
    _pools: dict[int, WorkerPool] = field(init=False, default_factory=dict)
    _closed: bool = field(init=False, default=False)
    _no_threads: bool | None = field(init=False, default=None)

    # --- for features and plugins ---------------------------------------------------------------

    def submit(self, function: Job, *, name: str = "") -> bool:
        """Run a function soon, in the background.

        Args:
            name: for the log; the function's own name when empty.

        Returns:
            False when the queue is full, the scheduler is closed, or the server lets no threads
            run.
        """
        pool = self._get_pool()
        if self._closed or not self._can_run():
            return pool.refuse()
        return pool.submit(function, name or getattr(function, "__qualname__", repr(function)))

    def every(
        self, seconds: float, function: Job, *, name: str, elected: bool = False
    ) -> Callable[[], None]:
        """Run a function periodically, first after ``seconds``; never twice at once in a process.

        A job that was registered before a fork runs in the child after :meth:`start` was called
        there. It may also be registered again in the child.

        Args:
            seconds: from the beginning of one run to the next.
            name: unique in a process.
            elected: run in only one of the processes that share the hub. When that process ends,
                another takes over after about two and a half periods.

        Returns:
            A function that stops it.

        Raises:
            TypeError: a call of the function would run nothing.
            ValueError: the name is taken, or ``seconds`` is not above 0.
        """
        problem = explain_callback(function, 0)
        if problem:
            raise TypeError(f"the job {name!r} cannot be called: {problem}")
        if not seconds > 0:
            raise ValueError(f"every {seconds!r} seconds, {name!r}: must be above 0")
        pid = os.getpid()
        known = self._periodic.get(name)
        if known is not None and known.pid == pid:
            raise ValueError(f"a job named {name!r} is registered already; stop it first")
        job = _PeriodicJob(name, seconds, function, elected, 0.0, pid)
        job.due = self._schedule(job)
        self._periodic[name] = job
        self.start()

        def stop() -> None:
            if self._periodic.get(name) is job:
                del self._periodic[name]
                self._release(job)

        return stop

    def start(self) -> None:
        """Have the timer of this process run the periodic jobs, if there are any."""
        if self.synchronous or self._closed or not self._periodic or not self._can_run():
            return
        if not self._get_pool().closed:
            _timers.get().add(self)

    def stats(self) -> SchedulerStats:
        """Return the counts of this process."""
        return self._get_pool().stats()

    def close(self, timeout: float = _DRAIN_S) -> None:
        """Wait ``timeout`` seconds for queued jobs, drop the rest, and release leases."""
        self._closed = True
        self._get_pool().drain(timeout)
        _timers.get().end()
        for job in list(self._periodic.values()):
            self._release(job)
        self._periodic.clear()

    # --- for tests ------------------------------------------------------------------------------

    def run_pending(self) -> int:
        """Run the queued jobs in this thread; return how many ran."""
        return self._get_pool().run_pending()

    def run_due(self) -> int:
        """Run the periodic jobs that are due in this thread; return how many ran."""
        due = self._take_due()
        for job in due:
            self._get_pool().run(partial(self._run_periodic, job), job.name)
        return len(due)

    # --- threads --------------------------------------------------------------------------------

    def _get_pool(self) -> WorkerPool:
        pid = os.getpid()
        pool = self._pools.get(pid)
        if pool is None:
            # A child cannot use its parent's pool: the threads do not exist here, and one of them
            # may have held the lock. setdefault is atomic.
            workers = 0 if self.synchronous else self.workers
            mine = WorkerPool(workers, self.queue_size, self.logger)
            pool = self._pools.setdefault(pid, mine)
            if pool is mine:
                for job in self._periodic.values():
                    job.busy, job.lease = False, None
                weakref.finalize(self, _drain_at_exit, pid, mine, weakref.ref(self))
        return pool

    def _can_run(self) -> bool:
        if self.synchronous:
            return True
        if self._no_threads is None:
            self._no_threads = lacks_uwsgi_threads()
            if self._no_threads:
                self.logger.warning(
                    "uWSGI was started without --enable-threads, so no background work runs: "
                    "no refresh, no snapshots, no notifications; add enable-threads = true"
                )
        return not self._no_threads

    def tick(self) -> None:
        """Give the jobs that are due to the pool. The timer calls it."""
        for job in self._take_due():
            if job.busy:
                self._renew(job)
                continue
            job.busy = True
            if not self.submit(partial(self._run_periodic, job), name=job.name):
                job.busy = False

    def find_next(self) -> float | None:
        """Return the seconds until a job is due; ``None`` when the timer need not ask again."""
        if self._get_pool().closed or self._closed or not self._periodic:
            return None
        now = self.clock.monotonic()
        soonest = min((job.due for job in list(self._periodic.values())), default=now)
        return max(0.0, soonest - now)

    def _take_due(self) -> list[_PeriodicJob]:
        now = self.clock.monotonic()
        due = [job for job in list(self._periodic.values()) if job.due <= now]
        for job in due:
            job.due = self._schedule(job)
        return sorted(due, key=lambda job: job.name)

    def _schedule(self, job: _PeriodicJob) -> float:
        jitter = 0.0 if self.synchronous else self.jitter
        share = _RANDOM.uniform(1 - jitter, 1 + jitter)
        return self.clock.monotonic() + job.seconds * share

    # --- one run of a periodic job --------------------------------------------------------------

    def _run_periodic(self, job: _PeriodicJob) -> None:
        try:
            if job.elected and not self._elect(job):
                return
            refuse_unfinished(job.function())
            if job.failures:
                self.logger.info("background job %r works again", job.name)
                job.failures = 0
        except Exception as error:
            job.failures += 1
            if job.failures == 1:
                raise
            raise AlreadyLoggedError from error  # once is enough for a job that fails each second
        finally:
            job.busy = False

    def _elect(self, job: _PeriodicJob) -> bool:
        """Take or renew the job's lease, and return whether this process has it.

        The lease is kept between runs: if it were released at the end of a run, each process would
        run the job in each period.
        """
        if job.lease is not None and job.lease.renew(job.lease_s):
            return True
        job.lease = self.hub.lease(f"job:{job.name}", job.lease_s)
        return job.lease is not None

    def _renew(self, job: _PeriodicJob) -> None:
        """Renew the lease of a job that takes longer than its period."""
        lease = job.lease
        if lease is not None:
            try:
                lease.renew(job.lease_s)
            except Exception as error:  # noqa: BLE001 - the timer must continue
                self.logger.warning("the lease of %r cannot be renewed: %s", job.name, error)

    def _release(self, job: _PeriodicJob) -> None:
        self._get_pool()  # in a new child this forgets the parent's leases
        lease, job.lease = job.lease, None
        if lease is not None:
            try:
                lease.release()
            except Exception as error:  # noqa: BLE001 - it expires by itself
                self.logger.debug("the lease of %r cannot be released: %s", job.name, error)


def _drain_at_exit(pid: int, pool: WorkerPool, reference: weakref.ref[BackgroundScheduler]) -> None:
    if os.getpid() == pid and not pool.closed:
        pool.drain(_DRAIN_S)
        timer = _timers.get()
        if reference() is None:  # the garbage collector waits for nothing
            timer.wake()
        else:
            timer.end()


def run_jobs_after(app: WSGIApplication, scheduler: BackgroundScheduler) -> WSGIApplication:
    """Run the queued jobs after each response: under testing there are no threads."""

    def run() -> None:
        scheduler.run_pending()

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return ClosingIterator(app(environ, start_response), [run])

    return answer
