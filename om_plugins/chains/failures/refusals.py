"""Refusals: whether an engine refuses one call, or everybody.

A refused call (a wrong key, an address that is not there) says nothing about the engine yet:
perhaps its caller asked for what is not theirs. The engine's own probe has nothing of a caller's.
So the chain asks it, on a thread of its own. Only when the probe is refused as well, and no call
has succeeded lately, the engine is offline.

Some probes are refused by engines that answer, for example at a wrong ``health_url``. When a call
succeeds while the engine is offline, the chain asks the probe once more. A probe that is refused
even then is not believed until it is accepted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ...core.fork import renew_after_fork
from ...errors import RateLimited
from ...policies.breaker import Breaker
from ...policies.cooldown import Cooldown
from ...policies.error_table import cooldown_of
from ...policies.health import HealthTracker
from ...protocols import Clock
from ...types import Call
from ...workers.pool import begin_thread
from .failure_log import FailureLog

logger = logging.getLogger("om_plugins")

ASK_EVERY_S = 10.0
"""Refused calls make a process ask the probe of an engine once in this time, at most; sooner only
where an offline engine gets its next call sooner."""
PROBE_TIMEOUT_S = 3.0
"""How long one probe may take."""
NO_VERDICT = (RateLimited, NotImplementedError)
"""A probe that raises one of these says nothing: an engine that says "not so often" is in reach."""

Begin = Callable[[Callable[[], None]], bool]
"""Runs a function off the path of the call; returns False when that is not possible."""


def begin_probe(ask: Callable[[], None]) -> bool:
    """Run a probe on a thread of its own."""
    return begin_thread(ask, "om-probe", logger) is not None


def begin_no_probe(ask: Callable[[], None]) -> bool:
    """Run no probe, where nobody probes: under ``TESTING``, or with ``OM_PROBE_INTERVAL`` at 0."""
    return False


class RefusalCheck:
    """Asks the probe of one engine when calls are refused.

    Args:
        chain: the chain's name.
        engine: the engine's name.
        probe: the engine's own probe, which raises what is wrong; ``None`` when it has none.
        breaker, cooldown, health: those of the engine.
        failures: writes to the log why the probe fails.
        clock: the clock.
        begin: runs the probe.
    """

    __slots__ = ("__weakref__", "_begin", "_believed", "_breaker", "_chain", "_clock", "_cooldown",
                 "_due_at", "_engine", "_failures", "_health", "_lock", "_probe",
                 "_running")  # fmt: skip

    def __init__(
        self,
        chain: str,
        engine: str,
        probe: Callable[[Call], None] | None,
        *,
        breaker: Breaker,
        cooldown: Cooldown,
        health: HealthTracker,
        failures: FailureLog,
        clock: Clock,
        begin: Begin = begin_probe,
    ) -> None:
        self._chain = chain
        self._engine = engine
        self._probe = probe
        self._breaker = breaker
        self._cooldown = cooldown
        self._health = health
        self._failures = failures
        self._clock = clock
        self._begin = begin
        self._due_at = float("-inf")
        self._believed = True
        self._running = False
        self._lock = threading.Lock()
        renew_after_fork(self)

    def record(self, now: float, offline_s: float, report: Callable[[float], object]) -> None:
        """Record that a call was refused, and have the probe asked unless it was a moment ago.

        Args:
            now: the monotonic time.
            offline_s: how long the engine is left alone when the probe is refused as well.
            report: called with the time when the probe has changed the engine's health.
        """
        self._health.record_refusal(now)
        self._begin_probe(now, now >= self._due_at, offline_s, report)

    def record_answer(
        self, now: float, offline_s: float, report: Callable[[float], object]
    ) -> None:
        """Record that a call succeeded while the engine was offline, and have the probe asked.

        Args:
            now, offline_s, report: as for :meth:`record`.
        """
        self._begin_probe(now, True, offline_s, report, answered=True)

    def _begin_probe(
        self,
        now: float,
        due: bool,
        offline_s: float,
        report: Callable[[float], object],
        answered: bool = False,
    ) -> None:
        probe = self._probe
        if probe is None:
            return
        with self._lock:
            if self._running or not due:
                return
            self._running = True
            self._due_at = now + max(min(ASK_EVERY_S, offline_s), 1.0)
        if not self._begin(lambda: self._ask(probe, offline_s, report, answered)):
            self._running = False

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._running = False  # the thread of the probe is the parent's

    def _ask(
        self,
        probe: Callable[[Call], None],
        offline_s: float,
        report: Callable[[float], object],
        answered: bool,
    ) -> None:
        monotonic = self._clock.monotonic
        call = Call(chain=self._chain, deadline=monotonic() + PROBE_TIMEOUT_S, monotonic=monotonic)
        try:
            probe(call)
        except NO_VERDICT:
            pass
        except Exception as error:  # noqa: BLE001 - an engine may raise anything
            self._failures.record(self._engine, error, probe=True)
            now = monotonic()
            if cooldown_of(error) != "offline":
                pass
            elif answered:
                self._disbelieve()
            elif self._believed and not self._answers(now):
                self._cooldown.begin("offline", offline_s, now)
                report(now)
        else:
            self._believed = True
            self._cooldown.succeeded()
            report(monotonic())
        finally:
            self._running = False

    def _disbelieve(self) -> None:
        if self._believed:
            logger.warning(
                "chain %r: engine %r refuses its own probe and answers calls, so its probe says "
                "nothing; correct the probe (of an HTTP engine, its health_url)",
                self._chain,
                self._engine,
            )
        self._believed = False

    def _answers(self, now: float) -> bool:
        """Return whether a call has succeeded lately: an engine that answers is not offline,
        whatever its probe says."""
        view = self._breaker.view(now)
        return view.calls > view.failures
