"""Error patterns and recovery: a first notice, a pattern at three of a kind, a repair at five.

Errors are noted in the thread where they happen, which costs a fingerprint and a place in a
queue; everything else is done in the background. Recovery runs in one worker of all, under a
lease, and at most once in fifteen minutes for one kind of error, so that it cannot loop.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from .. import signals
from ..chains.chain import EngineChain
from ..chains.engine_state__place import fair_share_s
from ..chains.health_checks__probing import EngineProbes
from ..core.fork import renew_after_fork
from ..errors import CallerDeadline, ChainExhausted
from ..protocols import Clock, Hub, Lease, Notify, RecoveryStep, Scheduler
from ..types import Action, Attempt, Call, ErrorPattern, Kind, Notification, RecoveryReport
from . import messages as wording
from .fingerprint import MAX_SUBJECT, Seen, seen
from .fingerprint__blame import blamed, counts, shut
from .messages import Reader, Words
from .patterns import FIRST, PATTERN, RECOVERY, ErrorPatterns
from .run import LEASE_S, STEP_TIMEOUT_S, Guarded, Lost, Repair, report_of

__all__ = ["Recovery"]

logger = logging.getLogger("om_plugins")

TOPIC = "recoveries"
COOLDOWN_S = 900.0
HISTORY = 50
_TRIES = 3
_LOOK_AGAIN_S = 5.0
_MOST_WAITING = 1_000
_OPERATORS = "operators"

_Button = Literal["refresh", "report"]
_LABELS: dict[_Button, str] = {"refresh": wording.REFRESH, "report": wording.REPORT}


@dataclass(slots=True, frozen=True)
class _Waiting:
    """An error that waits to be counted."""

    subject: str
    error: Seen
    reader: Reader


@dataclass(slots=True, frozen=True)
class _Noted:
    """An error that is counted: where, which kind, and whom it happened to."""

    subject: str
    fingerprint: str
    kind: str
    reader: Reader


class Recovery:
    """Counts errors, tells people of them, and repairs.

    Args:
        clock: time.
        hub: shares errors, leases, cooldowns and reports between workers.
        scheduler: runs everything that is not :meth:`note`.
        emit: tells ``error_pattern_found``, ``recovery_started`` and ``recovery_finished``.
        notify: takes notifications.
        steps: the steps with the names of their plugins, asked when a recovery begins.
        guarded: calls into a plugin, counting its failures.
        chains: the application's chains by name.
        words: says a text of :mod:`.wording` in the operators' language.
        asking: called where an error is noted: whose request it was.
        name: what people call a subject, in the language of these words.
        step_timeout: seconds that one step may take.
        lease_s: how long a worker that was killed keeps others away; at least three steps long.
        bounded: run each step in a thread of its own (see :class:`.repair.Repair`).

    Attributes:
        probes: looks at engines; a :class:`~om_plugins.protocols.Prober`.
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
        guarded: Guarded,
        chains: Callable[[], Mapping[str, EngineChain]],
        words: Words = wording.english,
        asking: Callable[[], Reader] = Reader,
        name: Callable[[str, Words], str] = wording.place_of,
        step_timeout: float = STEP_TIMEOUT_S,
        lease_s: float = LEASE_S,
        bounded: bool = True,
    ) -> None:
        self._clock = clock
        self._hub = hub
        self._scheduler = scheduler
        self._emit = emit
        self._notify = notify
        self._steps = steps
        self._chains = chains
        self._operators = Reader(lambda: _OPERATORS, words)
        self._asking = asking
        self._name = name
        self.probes = EngineProbes(clock=clock, chains=chains)
        self._patterns = ErrorPatterns(clock=clock, hub=hub)
        self._lease_s = max(lease_s, 3 * step_timeout)
        self._repair = Repair(
            clock=clock,
            guarded=guarded,
            step_timeout=step_timeout,
            lease_s=self._lease_s,
            bounded=bounded,
        )
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._counting = False
        self._look_at: dict[str, float] = {}
        self._shut_by: dict[str, Seen] = {}
        self._closed = False
        renew_after_fork(self)

    # --- where errors come from ---------------------------------------------------------------

    def note(self, subject: str, error: BaseException, to: str | None = None) -> None:
        """An error happened. Never blocks, never raises.

        What the caller is to blame for, and what a chain has told of itself
        (:class:`~om_plugins.errors.ChainExhausted`), is left out.

        Args:
            subject: where, ``chain:<name>`` or ``route:<rule>``.
            error: what was raised.
            to: the address of whom it happened to; the browser that asked when ``None``.
        """
        try:
            if isinstance(error, (ChainExhausted, CallerDeadline)) or not counts(error):
                return
            self._put(_Waiting(subject[:MAX_SUBJECT], seen(error), self._reader(to)))
        except Exception:
            logger.exception("an error of %r is not counted", subject)

    def chain_failed(self, call: Call, attempts: Sequence[Attempt]) -> None:
        """A chain fell back to a lower tier, or did not answer; see
        :data:`~om_plugins.chains.chain.OnFailure`."""
        try:
            chain = self._chains().get(call.chain)
            if chain is None:
                return
            error = blamed(attempts, fair_share_s(chain.policy))
            if error is not None:
                self.probes.remember(call)
                what = self._shut_by[call.chain] = seen(error)
            elif (closed := shut(attempts)) is not None:
                # An open breaker is the same trouble going on, not another kind.
                what = self._shut_by.get(call.chain) or seen(closed)
            else:
                return
            self._put(_Waiting(f"chain:{call.chain}"[:MAX_SUBJECT], what, self._asking()))
        except Exception:
            logger.exception("a failed call of chain %r is not counted", call.chain)

    def _put(self, waiting: _Waiting) -> None:
        if self._closed or not waiting.subject:
            return
        with self._lock:
            if len(self._waiting) >= _MOST_WAITING:
                return  # a thousand uncounted errors say enough
            self._waiting.append(waiting)
            begin, self._counting = not self._counting, True
        if begin and not self._scheduler.submit(self._count, name="error-patterns"):
            self._counting = False  # the next error tries again

    # --- what the console asks ----------------------------------------------------------------

    def patterns(self) -> list[ErrorPattern]:
        """The kinds of errors of the last five minutes in all workers, most frequent first."""
        return self._patterns.current()

    def history(self) -> list[RecoveryReport]:
        """The last 50 recoveries in all workers, oldest first."""
        found: deque[RecoveryReport] = deque(maxlen=HISTORY)
        after = ""
        while messages := self._hub.read(TOPIC, after, limit=1_000):
            after = messages[-1].id
            found.extend(report for one in messages if (report := report_of(one.data)) is not None)
        return list(found)

    def recover(self, subject: str, to: str | None = None) -> bool:
        """Begin a recovery by hand, whatever the cooldown says.

        Args:
            subject: ``chain:<name>`` of a chain that exists, or ``route:<rule>``.
            to: who follows its progress, besides the operators.

        Returns:
            False when there is no such subject, or no place in the queue.
        """
        kind, _, name = subject.partition(":")
        if kind != "route" and not (kind == "chain" and name in self._chains()):
            return False
        if not name or len(subject) > MAX_SUBJECT:
            return False
        noted = _Noted(subject, "", "", self._reader(to))
        return self._scheduler.submit(lambda: self._recover(noted, by_hand=True), name="recovery")

    def close(self) -> None:
        """Count no more, and stop the probes of a recovery under way."""
        self._closed = True
        self.probes.close()
        with self._lock:
            self._waiting.clear()

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._waiting = deque()
        self._counting = False
        self._look_at = {}

    # --- counting, in the background ----------------------------------------------------------

    def _count(self) -> None:
        try:
            while True:
                with self._lock:
                    if not self._waiting:
                        self._counting = False
                        return
                    batch = list(self._waiting)
                    self._waiting.clear()
                # The first few of a kind one by one, so that each threshold has its own error;
                # the rest of a storm as one message.
                rest: dict[str, tuple[_Noted, int]] = {}
                numbers: dict[str, int] = {}
                for one in batch:
                    mark = one.error.fingerprint(one.subject)
                    noted = _Noted(one.subject, mark, one.error.kind(), one.reader)
                    number = numbers[mark] = numbers.get(mark, 0) + 1
                    if number <= RECOVERY:
                        self._safely(noted, 1)
                    else:
                        rest[mark] = noted, number - RECOVERY
                for noted, count in rest.values():
                    self._safely(noted, count)
        except BaseException:
            self._counting = False
            raise

    def _safely(self, noted: _Noted, count: int) -> None:
        try:
            self._counted(noted, count)
        except Exception:  # the others of the batch must not be lost with it
            logger.exception("an error of %s is not counted", noted.subject)

    def _counted(self, noted: _Noted, count: int) -> None:
        pattern, reached = self._patterns.add(noted.subject, noted.fingerprint, noted.kind, count)
        key = _notice(noted.subject)
        if PATTERN in reached:
            self._emit(signals.error_pattern_found, pattern=pattern)
            self._tell("warning", wording.PATTERN, noted, key, buttons=("report",), pattern=pattern)
        elif FIRST in reached:
            self._tell("warning", wording.FIRST, noted, key, pattern=pattern)
        if RECOVERY in reached:
            self._begin(noted)

    def _begin(self, noted: _Noted) -> None:
        now = self._clock.monotonic()
        if now < self._look_at.get(noted.fingerprint, 0.0):
            return
        if len(self._look_at) > _MOST_WAITING:
            self._look_at.clear()
        self._look_at[noted.fingerprint] = now + _LOOK_AGAIN_S
        self._scheduler.submit(lambda: self._recover(noted), name="recovery")

    # --- recovery, in the background ----------------------------------------------------------

    def _recover(self, noted: _Noted, *, by_hand: bool = False) -> None:
        subject, kind = noted.subject, noted.fingerprint
        steps = list(self._steps())
        if not steps or (not by_hand and self._cooling(kind)):
            return
        lease = self._hub.lease(f"recovery:{subject}", self._lease_s)
        if lease is None:
            return  # another worker is at it
        try:
            # Whoever had the lease until now may have just ended. A worker that dies of a
            # recovery leaves no cooldown, so tries are counted as well.
            if by_hand or (not self._cooling(kind) and self._may_try(kind)):
                self._repaired(noted, steps, lease)
        except Lost:
            logger.warning("recovery of %s: the lease was lost; another worker goes on", subject)
        finally:
            lease.release()

    def _repaired(
        self, noted: _Noted, steps: Sequence[tuple[str, RecoveryStep]], lease: Lease
    ) -> None:
        subject, kind = noted.subject, noted.fingerprint
        key = _notice(subject)  # the word of the trouble becomes that of its repair
        self._emit(signals.recovery_started, subject=subject, fingerprint=kind)

        def tell(text: str, percent: int) -> None:
            self._tell("progress", text, noted, key, title=wording.REPAIRING, progress=percent)

        self.probes.take_answer(subject)  # what was found out earlier does not count
        report = self._repair.run(subject, kind, steps, lease, tell)
        if self._closed:
            return  # cut off by the end of the process, which says nothing of the engines
        if kind:
            self._hub.put(_cooldown(kind), report.started_at, COOLDOWN_S)
        self._hub.publish(TOPIC, {**asdict(report), "fence": lease.token})
        if report.succeeded:
            text = wording.SUCCEEDED if self.probes.take_answer(subject) else wording.TIDIED
            self._tell("success", text, noted, key, progress=100)
        else:
            self._tell("error", wording.FAILED, noted, key, buttons=("refresh", "report"))
        self._emit(signals.recovery_finished, report=report)

    def _cooling(self, kind: str) -> bool:
        return self._hub.get(_cooldown(kind)) is not None

    def _may_try(self, kind: str) -> bool:
        return self._hub.increment(f"recovery:tries:{kind}", ttl=COOLDOWN_S) <= _TRIES

    # --- telling ------------------------------------------------------------------------------

    def _tell(
        self,
        kind: Kind,
        text: str,
        noted: _Noted,
        key: str,
        *,
        title: str = "",
        buttons: Sequence[_Button] = (),
        progress: float | None = None,
        pattern: ErrorPattern | None = None,
    ) -> None:
        """Tell whom it happened to, and the operators, who also get the particulars."""
        to = _address(noted.reader)
        alone = to in ("", _OPERATORS)
        for reader in (self._operators,) if alone else (noted.reader, self._operators):
            words = reader.words
            name = self._name(noted.subject, words)
            details: dict[str, object] = {}
            if reader is self._operators:
                to = _OPERATORS
                name = wording.place_of(noted.subject, words)
                details = {"subject": noted.subject} if pattern is None else asdict(pattern)
            about = noted.fingerprint or noted.subject
            self._notify(
                Notification(
                    kind=kind,
                    message=words(text, name=name),
                    title=words(title, name=name) if title else "",
                    to=to,
                    actions=tuple(
                        Action(words(_LABELS[one]), one, about if one == "report" else "")
                        for one in buttons
                    ),
                    progress=progress,
                    key=key,
                    data=details,
                )
            )

    def _reader(self, to: str | None) -> Reader:
        if to is None:
            return self._asking()
        return Reader(lambda: to, self._operators.words)


def _address(reader: Reader) -> str:
    try:
        return reader.address()
    except Exception:
        logger.exception("the browser that an error happened to is not known")
        return ""


def _notice(subject: str) -> str:
    """What is told of one chain or route has one place: the newest word replaces the last."""
    return f"trouble:{subject}"


def _cooldown(kind: str) -> str:
    return f"recovery:cooldown:{kind}"
