"""Error patterns and recovery: a notice at the first error of a kind, a pattern at the third, a
recovery at the fifth.

An error is noted in the thread where it happens, which costs a summary and a place in a queue. All
other work is done in the background. A recovery runs in one of the workers, under a lease, and at
most once in fifteen minutes for one kind of error, so that it cannot loop.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from .. import signals
from ..core.fork import renew_after_fork
from ..errors import CallerDeadline, ChainExhausted
from ..protocols import Clock, Hub, Lease, Notify, RecoveryStep, Scheduler
from ..types import Attempt, Call, ErrorPattern, RecoveryReport
from . import messages
from .counted_errors import find_engine_error, find_skip_reason, is_counted
from .fingerprint import MAX_SUBJECT, ErrorSummary, summarize_error
from .messages import Announcer, Recipient, Translate, get_inner_name, translate_nothing
from .patterns import FIRST, PATTERN, RECOVERY, ErrorPatterns
from .probing import EngineProber, tell_nobody
from .run import LEASE_S, STEP_TIMEOUT_S, GuardedCall, LeaseLost, RecoveryRun, parse_report

if TYPE_CHECKING:
    from ..chains.chain import EngineChain
    from ..chains.engine_state import EngineState

logger = logging.getLogger("om_plugins")

TOPIC = "recoveries"
COOLDOWN_S = 900.0
HISTORY = 50
_TRIES = 3
_LOOK_AGAIN_S = 5.0
_MOST_PENDING = 1_000


@dataclass(slots=True, frozen=True)
class _PendingError:
    """An error that is not counted yet."""

    subject: str
    error: ErrorSummary
    recipient: Recipient


@dataclass(slots=True, frozen=True)
class _CountedError:
    """An error that is counted: where it happened, its kind, and to whom it happened."""

    subject: str
    fingerprint: str
    kind: str
    recipient: Recipient


class Recovery:
    """Counts errors, notifies people, and runs recoveries.

    Args:
        clock: time.
        hub: shares errors, leases, cooldowns and reports between workers.
        scheduler: runs all work except that of :meth:`note`.
        emit: sends ``error_pattern_found``, ``recovery_started`` and ``recovery_finished``.
        notify: takes notifications.
        steps: returns the steps with the names of their plugins, when a recovery begins.
        guarded: calls into a plugin, and counts its failures.
        chains: returns the application's chains by name.
        translate: translates a text of :mod:`.messages` into the operators' language.
        get_recipient: returns the person whose request is being answered.
        name: returns the name of a subject for end users.
        on_answer: called with each engine that answered in a recovery.
        step_timeout: seconds that one step may take.
        lease_s: how long a worker that was killed keeps others away; at least three steps long.
        bounded: run each step in a thread of its own (see :class:`.run.RecoveryRun`).

    Attributes:
        probes: checks engines; a :class:`~om_plugins.protocols.Prober`.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        hub: Hub,
        scheduler: Scheduler,
        emit: signals.Emit,
        notify: Notify,
        steps: Callable[[], Sequence[tuple[str, RecoveryStep]]],
        guarded: GuardedCall,
        chains: Callable[[], Mapping[str, EngineChain]],
        translate: Translate = translate_nothing,
        get_recipient: Callable[[], Recipient] = Recipient,
        name: Callable[[str, Translate], str] = get_inner_name,
        on_answer: Callable[[EngineState], None] = tell_nobody,
        step_timeout: float = STEP_TIMEOUT_S,
        lease_s: float = LEASE_S,
        bounded: bool = True,
    ) -> None:
        self._clock = clock
        self._hub = hub
        self._scheduler = scheduler
        self._emit = emit
        self._announcer = Announcer(notify, translate, name)
        self._steps = steps
        self._chains = chains
        self._get_recipient = get_recipient
        self.probes = EngineProber(clock=clock, chains=chains, on_answer=on_answer)
        self._patterns = ErrorPatterns(clock=clock, hub=hub)
        self._lease_s = max(lease_s, 3 * step_timeout)
        self._run = RecoveryRun(
            clock=clock,
            guarded=guarded,
            step_timeout=step_timeout,
            lease_s=self._lease_s,
            bounded=bounded,
        )
        self._lock = threading.Lock()
        self._pending: deque[_PendingError] = deque()
        self._is_counting = False
        self._look_at: dict[str, float] = {}
        self._skipped_after: dict[str, ErrorSummary] = {}
        self._closed = False
        renew_after_fork(self)

    # --- where errors come from ---------------------------------------------------------------

    def note(self, subject: str, error: BaseException, to: str | None = None) -> None:
        """Note that an error happened. Never blocks, never raises.

        Errors that are the caller's fault are ignored. So are those that a chain has noted by
        itself (:class:`~om_plugins.errors.ChainExhausted`).

        Args:
            subject: where, ``chain:<name>`` or ``route:<rule>``.
            error: what was raised.
            to: the address of the person to whom it happened; ``None`` for the browser of the
                current request.
        """
        try:
            if isinstance(error, (ChainExhausted, CallerDeadline)) or not is_counted(error):
                return
            recipient = self._make_recipient(to)
            self._put(_PendingError(subject[:MAX_SUBJECT], summarize_error(error), recipient))
        except Exception:
            logger.exception("an error of %r is not counted", subject)

    def chain_failed(self, call: Call, attempts: Sequence[Attempt]) -> None:
        """Note that a chain fell back to a lower tier or did not answer.

        See :data:`~om_plugins.chains.chain.OnFailure`.
        """
        try:
            chain = self._chains().get(call.chain)
            if chain is None:
                return
            error = find_engine_error(attempts, chain.policy.fair_share_s())
            if error is not None:
                self.probes.remember(call)
                summary = self._skipped_after[call.chain] = summarize_error(error)
            elif (reason := find_skip_reason(attempts)) is not None:
                # An open breaker is the same trouble continued, not another kind of error.
                summary = self._skipped_after.get(call.chain) or summarize_error(reason)
            else:
                return
            subject = f"chain:{call.chain}"[:MAX_SUBJECT]
            self._put(_PendingError(subject, summary, self._get_recipient()))
        except Exception:
            logger.exception("a failed call of chain %r is not counted", call.chain)

    def _put(self, pending: _PendingError) -> None:
        if self._closed or not pending.subject:
            return
        with self._lock:
            if len(self._pending) >= _MOST_PENDING:
                return  # a thousand uncounted errors are enough
            self._pending.append(pending)
            begin, self._is_counting = not self._is_counting, True
        if begin and not self._scheduler.submit(self._count_pending, name="error-patterns"):
            self._is_counting = False  # the next error tries again

    # --- for the console ----------------------------------------------------------------------

    def patterns(self) -> list[ErrorPattern]:
        """Return the patterns of the last five minutes in all workers, the most frequent first."""
        return self._patterns.current()

    def history(self) -> list[RecoveryReport]:
        """Return the last 50 recoveries in all workers, oldest first."""
        found: deque[RecoveryReport] = deque(maxlen=HISTORY)
        after = ""
        while page := self._hub.read(TOPIC, after, limit=1_000):
            after = page[-1].id
            found.extend(report for one in page if (report := parse_report(one.data)) is not None)
        return list(found)

    def recover(self, subject: str, to: str | None = None) -> bool:
        """Begin a recovery by hand, whatever the cooldown is.

        Args:
            subject: ``chain:<name>`` of a chain that exists, or ``route:<rule>``.
            to: the address of the person who gets its progress, besides the operators.

        Returns:
            False when there is no such subject, or the queue is full.
        """
        kind, _, name = subject.partition(":")
        if kind != "route" and not (kind == "chain" and name in self._chains()):
            return False
        if not name or len(subject) > MAX_SUBJECT:
            return False
        error = _CountedError(subject, "", "", self._make_recipient(to))
        return self._scheduler.submit(lambda: self._recover(error, by_hand=True), name="recovery")

    def close(self) -> None:
        """Stop counting, and stop the probes of a running recovery."""
        self._closed = True
        self.probes.close()
        with self._lock:
            self._pending.clear()

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._pending = deque()
        self._is_counting = False
        self._look_at = {}

    # --- counting, in the background ----------------------------------------------------------

    def _count_pending(self) -> None:
        try:
            while True:
                with self._lock:
                    if not self._pending:
                        self._is_counting = False
                        return
                    batch = list(self._pending)
                    self._pending.clear()
                # The first few of a kind are counted one by one, so that each threshold has an
                # error of its own; the rest of a storm is one message.
                rest: dict[str, tuple[_CountedError, int]] = {}
                numbers: dict[str, int] = {}
                for one in batch:
                    fingerprint = one.error.fingerprint(one.subject)
                    error = _CountedError(
                        one.subject, fingerprint, one.error.describe(), one.recipient
                    )
                    number = numbers[fingerprint] = numbers.get(fingerprint, 0) + 1
                    if number <= RECOVERY:
                        self._try_count(error, 1)
                    else:
                        rest[fingerprint] = error, number - RECOVERY
                for error, count in rest.values():
                    self._try_count(error, count)
        except BaseException:
            self._is_counting = False
            raise

    def _try_count(self, error: _CountedError, count: int) -> None:
        try:
            self._count(error, count)
        except Exception:  # the others of the batch must not be lost with it
            logger.exception("an error of %s is not counted", error.subject)

    def _count(self, error: _CountedError, count: int) -> None:
        subject, fingerprint, recipient = error.subject, error.fingerprint, error.recipient
        pattern, reached = self._patterns.add(subject, fingerprint, error.kind, count)
        if PATTERN in reached:
            self._emit(signals.error_pattern_found, pattern=pattern)
            self._announcer.announce(
                "warning", messages.PATTERN, subject, fingerprint, recipient,
                buttons=("report",), pattern=pattern,
            )  # fmt: skip
        elif FIRST in reached:
            self._announcer.announce(
                "warning", messages.FIRST, subject, fingerprint, recipient, pattern=pattern
            )
        if RECOVERY in reached:
            self._begin(error)

    def _begin(self, error: _CountedError) -> None:
        now = self._clock.monotonic()
        if now < self._look_at.get(error.fingerprint, 0.0):
            return
        if len(self._look_at) > _MOST_PENDING:
            self._look_at.clear()
        self._look_at[error.fingerprint] = now + _LOOK_AGAIN_S
        self._scheduler.submit(lambda: self._recover(error), name="recovery")

    # --- recovery, in the background ----------------------------------------------------------

    def _recover(self, error: _CountedError, *, by_hand: bool = False) -> None:
        subject, kind = error.subject, error.fingerprint
        steps = list(self._steps())
        if not steps or (not by_hand and self._is_cooling(kind)):
            return
        lease = self._hub.lease(f"recovery:{subject}", self._lease_s)
        if lease is None:
            return  # another worker is recovering
        try:
            # The worker that had the lease until now may just have ended its recovery. A worker
            # that dies of a recovery leaves no cooldown, so tries are counted, too.
            if by_hand or (not self._is_cooling(kind) and self._may_try(kind)):
                self._run_steps(error, steps, lease)
        except LeaseLost:
            logger.warning("recovery of %s: the lease was lost; another worker goes on", subject)
        finally:
            lease.release()

    def _run_steps(
        self, error: _CountedError, steps: Sequence[tuple[str, RecoveryStep]], lease: Lease
    ) -> None:
        subject, kind, recipient = error.subject, error.fingerprint, error.recipient
        announce = self._announcer.announce
        self._emit(signals.recovery_started, subject=subject, fingerprint=kind)

        def on_progress(text: str, percent: int) -> None:
            announce(
                "progress", text, subject, kind, recipient,
                title=messages.REPAIRING, progress=percent,
            )  # fmt: skip

        self.probes.take_answer(subject)  # an earlier result does not count
        report = self._run.run(subject, kind, steps, lease, on_progress)
        if self._closed:
            return  # stopped by the end of the process, which says nothing about the engines
        if kind:
            self._hub.put(_name_cooldown(kind), report.started_at, COOLDOWN_S)
        self._hub.publish(TOPIC, {**asdict(report), "fence": lease.token})
        if report.succeeded:
            did_answer = self.probes.take_answer(subject)
            text = messages.SUCCEEDED if did_answer else messages.TIDIED
            announce("success", text, subject, kind, recipient, progress=100)
        else:
            announce(
                "error", messages.FAILED, subject, kind, recipient, buttons=("refresh", "report")
            )
        self._emit(signals.recovery_finished, report=report)

    def _is_cooling(self, kind: str) -> bool:
        return self._hub.get(_name_cooldown(kind)) is not None

    def _may_try(self, kind: str) -> bool:
        return self._hub.increment(f"recovery:tries:{kind}", ttl=COOLDOWN_S) <= _TRIES

    def _make_recipient(self, to: str | None) -> Recipient:
        if to is None:
            return self._get_recipient()
        return Recipient(lambda: to, self._announcer.operators.translate)


def _name_cooldown(kind: str) -> str:
    return f"recovery:cooldown:{kind}"
