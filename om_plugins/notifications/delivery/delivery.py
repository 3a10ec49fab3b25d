"""The delivery to one notifier: in order, one at a time, for as long as it takes.

A notifier that cannot reach its service is asked again after a pause, which its breaker makes
longer, until the service is back. Only a notification that is itself to blame is given up after a
few attempts: the service refuses it, or the notifier's code raises because of it. Besides that,
what is too old or too much is dropped. Each dropped one is counted, logged and signalled.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ... import signals
from ...builtin.logging import escape_controls
from ...core.fork import PerProcess
from ...errors import without_secrets
from ...plugins.checks import explain_sending
from ...plugins.guard.faults import Fault, find_wait_s, judge
from ...protocols import Clock, Notifier, Scheduler
from ...settings.callbacks import is_permitted, refuse_unfinished
from ...types import Notification
from ...workers.hub import SharedHub
from ...workers.outbox import run_later
from .bounds import QueueLimits, find_excess
from .breaker import DeliveryBreaker, DropReason
from .pending import LEASE_S, Pending, PendingStore

logger = logging.getLogger("om_plugins")

SEND_TIMEOUT_S = 5.0
ATTEMPTS = 4
"""How often a notification is sent that is refused, or that the notifier's code fails for."""

_FIRST_LOOK_S = 1.0
_TRIM_AFTER = 50
"""How many notifications may come before the bounds of the queue are checked again."""
_TRIM_EVERY_S = 5.0
"""How long a slow service may take what is sent before the bounds are checked again."""
_LONGEST_SEND_S = 60.0
"""How long a send may take, against its timeout, before other workers go on without this one."""
_LONGEST_WAIT = 0.9
"""The part of the greatest age in the queue after which the service is asked, whatever it says."""

Guarded = Callable[..., tuple[bool, Any]]
"""``guarded(plugin, function, *args) -> (ok, result)``, as the plugin host gives it."""


@dataclass(slots=True, eq=False, repr=False)
class _DeliveryProcess:
    """The part of a delivery that belongs to one process.

    Attributes:
        busy: a job of this process sends, or waits for its turn.
        again: something came while it did.
        wake: ends the wait of a job that looks again later.
        wake_at: when that is, on the monotonic clock.
        open_until: the Unix time until when the breaker was open at the last look.
        untrimmed: how many came since the bounds were checked.
        refused: how often in a row another worker had the queue.
        wakes: how many waits there were.
        inactive: the plugin is not called any more in this process.
        dropped: how many were dropped, by reason.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    busy: bool = False
    again: bool = False
    wake: Callable[[], None] | None = None
    wake_at: float = 0.0
    sends_since: float | None = None
    hung_since: float | None = None
    open_until: float = 0.0
    untrimmed: int = 0
    refused: int = 0
    wakes: int = 0
    inactive: bool = False
    dropped: Counter[str] = field(default_factory=Counter)


class Delivery:
    """The queue of one notifier, and the job that empties it.

    Args:
        plugin: the name of the notifier's plugin.
        notifier: gets the notifications. With an attribute ``durable`` that is ``False``, its queue
            is lost with the process: for one that only writes into this process. A method
            ``accepts(notification)`` says which ones it wants; others take no place in the queue.
            It is asked again before a notification is sent, so when it cannot answer (it raises, or
            its plugin is in quarantine) the notification waits.
        name: names the notifier; the same in all workers and after a restart.
        hub: where notifications wait.
        scheduler: runs the job.
        clock: the time.
        limits: the bounds of the queue.
        guarded: calls into the plugin.
        emit: sends the signal ``notification_failed``.
    """

    def __init__(
        self,
        plugin: str,
        notifier: Notifier,
        name: str,
        *,
        hub: SharedHub,
        scheduler: Scheduler,
        clock: Clock,
        limits: QueueLimits,
        guarded: Guarded,
        emit: signals.Emit,
    ) -> None:
        self.plugin = plugin
        self.name = name
        self.durable = getattr(notifier, "durable", True) is not False
        self._notifier = notifier
        self._scheduler = scheduler
        self._clock = clock
        self._limits = limits
        self._guarded = guarded
        self._emit = emit
        shared = hub if self.durable else None
        self._asked = f"notifier {name}: accepts()"
        self._store = PendingStore(name, shared, clock, 2 * limits.age_s + 3_600)
        self._processes: PerProcess[_DeliveryProcess] = PerProcess(_DeliveryProcess)

    def put(self, note: Notification) -> None:
        """Queue a notification if the notifier wants it, and have it sent soon."""
        if self._is_unwanted(note):
            return
        self._store.add(note)
        process = self._processes.get()
        process.untrimmed += 1
        if self._clock.time() < process.open_until and process.untrimmed < _TRIM_AFTER:
            self._look_in(process, process.open_until - self._clock.time())
            return
        self.look()

    def look(self) -> None:
        """Have what waits sent soon: what this process queued, or one that has ended."""
        process = self._processes.get()
        with process.lock:
            process.again = True
            if process.busy:
                return
            process.busy = True
        if not self._scheduler.submit(lambda: self._run(process), name=f"delivery {self.name}"):
            with process.lock:
                process.busy = False
            self._look_in(process, _FIRST_LOOK_S)

    def read_breaker(self) -> DeliveryBreaker:
        """Return the state that the workers share: what waits, what was dropped, and why."""
        return DeliveryBreaker.read(self._store.read_state(), self._limits.age_s)

    def count_dropped(self) -> dict[str, int]:
        """Return how many notifications this process dropped, by reason."""
        return dict(self._processes.get().dropped)

    def _is_unwanted(self, note: Notification) -> bool:
        accepts = getattr(self._notifier, "accepts", None)
        if accepts is None:
            return False
        ok, answer = self._guarded(self.plugin, accepts, note)
        return ok and not is_permitted(answer, self._asked)

    # --- the job ------------------------------------------------------------------------------

    def _run(self, process: _DeliveryProcess) -> None:
        wait_s: float | None = None
        while True:
            with process.lock:
                if not process.again:
                    process.busy = False
                    break
                process.again = False
            try:
                wait_s = self._send_all(process)
            except Exception:
                logger.exception("the delivery to %s failed", self.name)
                wait_s = LEASE_S
        if wait_s is not None:
            self._look_in(process, wait_s)

    def _look_in(self, process: _DeliveryProcess, wait_s: float) -> None:
        """Look again later, unless this process looks earlier anyway."""
        with process.lock:
            now = self._clock.monotonic()
            if process.wake is not None and now < process.wake_at <= now + wait_s:
                return
            stop, process.wake = process.wake, None
            process.wakes += 1
            name = f"delivery {self.name} {process.wakes}"
        if stop is not None:
            stop()
        wake = run_later(self._scheduler, wait_s, self._wake, name)
        with process.lock:
            process.wake, process.wake_at = wake, now + wait_s

    def _wake(self) -> None:
        process = self._processes.get()
        with process.lock:
            process.wake = None
            process.again = True
            if process.busy:
                return
            process.busy = True
        self._run(process)

    def _send_all(self, process: _DeliveryProcess) -> float | None:
        """Send what waits, the oldest first, while it goes well.

        Returns:
            The seconds after which to look again; ``None`` when nothing waits, or the plugin is not
            active any more.
        """
        if process.inactive:
            return None
        with self._store.claim() as renew:
            if renew is None:  # it may be about to end, or to be killed
                process.refused += 1
                return float(min(_FIRST_LOOK_S * 2 ** (process.refused - 1), LEASE_S))
            process.refused = process.untrimmed = 0
            process.open_until = 0.0

            def keep() -> None:
                if not self._hangs(process):
                    renew()

            stop = self._scheduler.every(LEASE_S / 3, keep, name=f"lease of delivery {self.name}")
            try:  # meanwhile the lease is renewed, also if the notifier takes too long
                return self._send_claimed(process, renew)
            finally:
                stop()

    def _hangs(self, process: _DeliveryProcess) -> bool:
        """Whether the send that runs takes so long that another worker should go on."""
        since = process.sends_since
        if since is None or self._clock.monotonic() - since <= _LONGEST_SEND_S:
            return False
        if since != process.hung_since:
            process.hung_since = since
            logger.error(
                "notifier %s: send() has not returned for more than %.0f s, against its timeout of "
                "%.0f s: this process sends nothing until it does, others go on",
                self.name, _LONGEST_SEND_S, SEND_TIMEOUT_S,
            )  # fmt: skip
        return True

    def _send_claimed(self, process: _DeliveryProcess, renew: Callable[[], bool]) -> float | None:
        breaker = self.read_breaker()
        while waiting := self._trim(self._store.list(), breaker):
            process.untrimmed = 0
            trim_at = self._clock.monotonic() + _TRIM_EVERY_S
            for number, pending in enumerate(waiting):
                full = process.untrimmed >= _TRIM_AFTER
                if number and (full or self._clock.monotonic() >= trim_at):
                    break
                left = len(waiting) - number
                pause_s = breaker.find_pause_s(self._clock.time())
                if pause_s == 0:
                    if not renew():
                        return _FIRST_LOOK_S
                    if not self._send(pending, breaker, left):
                        process.inactive = True
                        return None
                    pause_s = breaker.find_pause_s(self._clock.time())
                if pause_s > 0:
                    self._write(breaker, left)
                    process.open_until = self._clock.time() + pause_s
                    return pause_s
        if breaker.waiting:
            self._write(breaker, 0)
        return None

    def _trim(self, waiting: list[Pending], breaker: DeliveryBreaker) -> list[Pending]:
        """Drop what is beyond the bounds, the oldest first; return the rest."""
        kept: list[Pending] = []
        drops: Counter[DropReason] = Counter()
        for pending, reason in find_excess(waiting, self._limits, self._clock.time()):
            if reason is None:
                kept.append(pending)
            else:
                drops[reason] += 1
                self._drop(pending, reason, breaker)
        for why, number in drops.items():
            logger.warning(
                "notifier %s: dropped %d %s: %s (%s)",
                self.name, number, "notification" if number == 1 else "notifications",
                self._limits.describe(why), breaker.error or "they came too fast",
            )  # fmt: skip
        if drops:
            self._write(breaker, len(kept))
        return kept

    def _send(self, pending: Pending, breaker: DeliveryBreaker, waiting: int) -> bool:
        """Send one notification: afterwards it is sent, given up, or the breaker is open.

        Args:
            waiting: how many wait, with this one.

        Returns:
            False when the plugin is not active any more.
        """
        ok, called, error = self._call(pending.note)
        if ok:
            self._store.remove(pending)
            if breaker.failures:
                logger.info(
                    "notifier %s: it works again after %.0f s; %d more notifications wait",
                    self.name, self._clock.time() - breaker.since, waiting - 1,
                )  # fmt: skip
                breaker.close()
                self._write(breaker, waiting - 1)
            return True
        if not called or error is None:  # quarantined: after a restart it may be repaired
            self._report(pending.note, RuntimeError("its plugin is not active any more"))
            return False
        self._report(pending.note, error)
        fault = judge(error)
        blamed = fault is not Fault.AWAY
        pending.attempts += blamed
        if pending.attempts >= ATTEMPTS:
            reason: DropReason = "refused" if fault is Fault.REFUSED else "failed"
            logger.error(
                "notifier %s: a notification is dropped, it %s %d times; the last: %s: %s",
                self.name, "was refused" if reason == "refused" else reason, ATTEMPTS,
                type(error).__name__, error,
            )  # fmt: skip
            self._drop(pending, reason, breaker)
            breaker.close()
            self._write(breaker, waiting - 1)
            return True
        if blamed:
            self._store.save(pending)
        asked_s = find_wait_s(error)
        breaker.open(
            self._clock.time(),
            escape_controls(without_secrets(f"{type(error).__name__}: {error}")),
            None if asked_s is None else min(asked_s, _LONGEST_WAIT * self._limits.age_s),
        )
        return True

    def _call(self, note: Notification) -> tuple[bool, bool, BaseException | None]:
        """Call the notifier under guard.

        Returns:
            Whether it worked, whether it was called, and what it raised.
        """
        errors: list[BaseException] = []
        ask: Callable[..., object] = self._notifier.send
        accepts = getattr(self._notifier, "accepts", None)
        process = self._processes.get()
        called = False

        def send() -> None:
            nonlocal called
            called = True
            process.sends_since = self._clock.monotonic()
            try:
                if accepts is not None:
                    wanted = refuse_unfinished(accepts(note))
                    if not is_permitted(wanted, self._asked):
                        return
                problem = explain_sending(ask(note, SEND_TIMEOUT_S))
                if problem:
                    raise TypeError(f"send() {problem}")
            except BaseException as error:
                errors.append(error)
                raise
            finally:
                process.sends_since = None

        send.__qualname__ = f"{type(self._notifier).__name__}.send"
        ok, _ = self._guarded(self.plugin, send)
        return ok, called, errors[0] if errors else None

    def _drop(self, pending: Pending, reason: DropReason, breaker: DeliveryBreaker) -> None:
        self._store.remove(pending)
        breaker.count_drop(reason)
        self._processes.get().dropped[reason] += 1
        if reason.startswith("too"):  # of the others, the attempt has told
            self._report(pending.note, OverflowError(f"dropped: {reason}"))

    def _write(self, breaker: DeliveryBreaker, waiting: int) -> None:
        breaker.waiting = max(0, waiting)
        self._store.write_state(breaker.as_data())

    def _report(self, note: Notification, error: BaseException) -> None:
        self._emit(
            signals.notification_failed,
            notification=note,
            notifier=self._notifier.name,
            error=error,
        )
