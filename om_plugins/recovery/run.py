"""One recovery: its steps in order, each bounded in time, for as long as the lease is held.

A step that raises ends it. One that raises an :class:`~om_plugins.errors.OpenManagerError` says
that the trouble is still there; anything else is the step's own fault and counts against its
plugin.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from typing import Any

from ..errors import OpenManagerError
from ..protocols import Clock, Lease, RecoveryStep
from ..types import RecoveryReport
from ..workers.pool import begin_thread
from .messages import FINISHING

__all__ = ["Guarded", "Lost", "Repair", "report_of"]

logger = logging.getLogger("om_plugins")

STEP_TIMEOUT_S = 10.0
LEASE_S = 30.0
"""How long a worker that was killed keeps others from recovering; longer than a step may take."""
_MAX_LINE = 200
_MAX_STEPS = 50

Guarded = Callable[..., tuple[bool, Any]]
"""``guarded(plugin, function, *args) -> (ok, result)``, as the plugin host gives it."""

Progress = Callable[[str, int], None]
"""Told what is done now, and how much is done, in percent."""


class Lost(Exception):
    """Another worker holds the lease: this one must not go on, or say anything."""


class Repair:
    """Runs the steps.

    Args:
        clock: time.
        guarded: calls into a plugin, counting its failures.
        step_timeout: seconds that one step may take.
        lease_s: seconds for which the lease is renewed before each step.
        bounded: run each step in a thread of its own, so that one that never returns is left
            behind; else a step is trusted to keep its time.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        guarded: Guarded,
        step_timeout: float = STEP_TIMEOUT_S,
        lease_s: float = LEASE_S,
        bounded: bool = True,
    ) -> None:
        self._clock = clock
        self._guarded = guarded
        self._step_timeout = step_timeout
        self._lease_s = lease_s
        self._bounded = bounded

    def run(
        self,
        subject: str,
        fingerprint: str,
        steps: Sequence[tuple[str, RecoveryStep]],
        lease: Lease,
        tell: Progress,
    ) -> RecoveryReport:
        """Run the steps in the order of their ``percent``.

        Raises:
            Lost: the lease was lost; whoever has it now goes on.
        """
        started_at = self._clock.time()
        began = self._clock.monotonic()
        done: list[str] = []
        succeeded = True
        percent = 0
        for plugin, step in sorted(steps, key=lambda one: _percent(one[1]))[:_MAX_STEPS]:
            name = _line(getattr(step, "name", "")) or plugin
            self._hold(lease)
            tell(name, percent)
            ran, error, said = self._step(plugin, step, subject)
            if not ran:
                continue  # its plugin was left out meanwhile
            if error is not None:
                succeeded = False
                done.append(f"{name}: failed, {_line(_words(error))}")
                break
            done.append(f"{name}: {said}" if said else name)
            percent = _percent(step)
        self._hold(lease)
        if succeeded:
            tell(FINISHING, percent)
        return RecoveryReport(
            subject,
            fingerprint,
            succeeded and bool(done),
            tuple(done),
            started_at,
            self._clock.monotonic() - began,
        )

    def _hold(self, lease: Lease) -> None:
        if not lease.renew(self._lease_s):
            raise Lost(lease.name)

    def _step(
        self, plugin: str, step: RecoveryStep, subject: str
    ) -> tuple[bool, BaseException | None, str]:
        """Whether the step was called, why it failed, and what it said."""
        verdict: OpenManagerError | None = None
        failure: BaseException | None = None
        ran = False

        def run() -> str:
            nonlocal verdict, failure, ran
            ran = True
            try:
                return _line(self._in_time(lambda: step.run(subject, self._step_timeout)))
            except OpenManagerError as error:
                verdict = error
                return ""
            except BaseException as error:
                failure = error
                raise

        run.__qualname__ = f"{type(step).__name__}.run"
        ok, said = self._guarded(plugin, run)
        if ok:
            return True, verdict, str(said)
        return ran, failure or RuntimeError("failed"), ""

    def _in_time(self, work: Callable[[], object]) -> object:
        if not self._bounded:
            return work()
        result: list[object] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                result.append(work())
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                failure.append(error)

        context = copy_context()
        thread = begin_thread(lambda: context.run(run), "om-recovery-step", logger)
        if thread is None:
            return work()
        thread.join(self._step_timeout)
        if failure:
            raise failure[0]
        if not result:
            raise TimeoutError(f"took longer than {self._step_timeout:g} s and is left behind")
        return result[0]


def report_of(data: object) -> RecoveryReport | None:
    """A report as a worker published it, or ``None`` for something else."""
    if not isinstance(data, Mapping):
        return None
    subject, kind = data.get("subject"), data.get("fingerprint")
    steps, started, took = data.get("steps"), data.get("started_at"), data.get("duration_s")
    if (
        isinstance(subject, str)
        and isinstance(kind, str)
        and isinstance(steps, list | tuple)
        and all(isinstance(one, str) for one in steps)
        and isinstance(started, int | float)
        and isinstance(took, int | float)
    ):
        return RecoveryReport(
            subject, kind, data.get("succeeded") is True, tuple(steps), float(started), float(took)
        )
    return None


def _percent(step: RecoveryStep) -> int:
    percent = getattr(step, "percent", 0)
    if not isinstance(percent, int | float) or percent != percent:
        return 0
    return int(min(max(percent, 0), 100))


def _words(error: BaseException) -> str:
    if isinstance(error, OpenManagerError):
        return str(error) or type(error).__name__
    return type(error).__name__  # a foreign message may hold anything


def _line(said: object) -> str:
    """What a step said, on one short line."""
    text = said if isinstance(said, str) else "" if said is None else type(said).__name__
    text = "".join(c if c.isprintable() else " " for c in text[: 2 * _MAX_LINE])
    return " ".join(text.split())[:_MAX_LINE]
