"""One recovery: its steps in order, each with a time limit, while the lease is held.

A step that raises ends the recovery. An :class:`~om_plugins.errors.OpenManagerError` means that the
trouble is still there. Any other error is the step's own fault and counts against its plugin.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from ..core.body import convert
from ..errors import OpenManagerError
from ..plugins.checks import explain_step_result
from ..protocols import Clock, Lease, RecoveryStep
from ..types import RecoveryReport
from ..workers.pool import begin_thread
from .messages import FINISHING

logger = logging.getLogger("om_plugins")

STEP_TIMEOUT_S = 10.0
LEASE_S = 30.0
"""How long a worker that was killed keeps others from recovering; longer than a step may take."""
_MAX_LINE = 200
_MAX_STEPS = 50

GuardedCall = Callable[..., tuple[bool, Any]]
"""``guarded(plugin, function, *args) -> (ok, result)``, as the plugin host has it."""

OnProgress = Callable[[str, int], None]
"""Called with what is done now, and with how much is done, in percent."""


class LeaseLost(Exception):
    """Another worker holds the lease, so this one must stop and send nothing."""


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class RecoveryRun:
    """Runs the steps of recoveries.

    Args:
        clock: time.
        guarded: calls into a plugin, and counts its failures.
        step_timeout: seconds that one step may take.
        lease_s: seconds for which the lease is renewed before each step.
        bounded: run each step in a thread of its own, so that a step that never returns is left
            behind; else each step must keep its time by itself.
    """

    clock: Clock
    guarded: GuardedCall
    step_timeout: float = STEP_TIMEOUT_S
    lease_s: float = LEASE_S
    bounded: bool = True

    def run(
        self,
        subject: str,
        fingerprint: str,
        steps: Sequence[tuple[str, RecoveryStep]],
        lease: Lease,
        on_progress: OnProgress,
    ) -> RecoveryReport:
        """Run the steps in the order of their ``percent``.

        Raises:
            LeaseLost: the worker that holds the lease now continues.
        """
        started_at = self.clock.time()
        started = self.clock.monotonic()
        done: list[str] = []
        succeeded = True
        percent = 0
        for plugin, step in sorted(steps, key=lambda one: _get_percent(one[1]))[:_MAX_STEPS]:
            name = _shorten(getattr(step, "name", "")) or plugin
            self._renew(lease)
            on_progress(name, percent)
            was_called, error, result = self._run_step(plugin, step, subject)
            if not was_called:
                continue  # its plugin was disabled meanwhile
            if error is not None:
                succeeded = False
                done.append(f"{name}: failed, {_shorten(_describe(error))}")
                break
            done.append(f"{name}: {result}" if result else name)
            percent = _get_percent(step)
        self._renew(lease)
        if succeeded:
            on_progress(FINISHING, percent)
        return RecoveryReport(
            subject,
            fingerprint,
            succeeded and bool(done),
            tuple(done),
            started_at,
            self.clock.monotonic() - started,
        )

    def _renew(self, lease: Lease) -> None:
        if not lease.renew(self.lease_s):
            raise LeaseLost(lease.name)

    def _run_step(
        self, plugin: str, step: RecoveryStep, subject: str
    ) -> tuple[bool, BaseException | None, str]:
        """Return whether the step was called, why it failed, and its result as text."""
        verdict: OpenManagerError | None = None
        failure: BaseException | None = None
        was_called = False

        def run() -> str:
            nonlocal verdict, failure, was_called
            was_called = True
            try:
                done = self._run_in_time(lambda: step.run(subject, self.step_timeout))
                problem = explain_step_result(done)
                if problem:
                    raise TypeError(f"it {problem}")
                return _shorten(done)
            except OpenManagerError as error:
                verdict = error
                return ""
            except BaseException as error:
                failure = error
                raise

        run.__qualname__ = f"{type(step).__name__}.run"
        ok, result = self.guarded(plugin, run)
        if ok:
            return True, verdict, str(result)
        return was_called, failure or RuntimeError("failed"), ""

    def _run_in_time(self, work: Callable[[], object]) -> object:
        if not self.bounded:
            return work()
        result: list[object] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                result.append(work())
            except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
                failure.append(error)

        context = copy_context()
        thread = begin_thread(lambda: context.run(run), "om-recovery-step", logger)
        if thread is None:
            return work()
        thread.join(self.step_timeout)
        if failure:
            raise failure[0]
        if not result:
            raise TimeoutError(f"took longer than {self.step_timeout:g} s and is left behind")
        return result[0]


def parse_report(data: object) -> RecoveryReport | None:
    """Return the report that a worker published; ``None`` for any other data."""
    try:
        return convert(data, RecoveryReport)
    except ValueError:
        return None


def _get_percent(step: RecoveryStep) -> int:
    percent = getattr(step, "percent", 0)
    if not isinstance(percent, int | float) or percent != percent:
        return 0
    return int(min(max(percent, 0), 100))


def _describe(error: BaseException) -> str:
    if isinstance(error, OpenManagerError):
        return str(error) or type(error).__name__
    return type(error).__name__  # a foreign message may contain anything


def _shorten(result: object) -> str:
    """Return the result of a step as one short line."""
    text = result if isinstance(result, str) else "" if result is None else type(result).__name__
    text = "".join(c if c.isprintable() else " " for c in text[: 2 * _MAX_LINE])
    return " ".join(text.split())[:_MAX_LINE]
