"""Failure scenarios: five questions that really fail, so that recovery begins."""

from __future__ import annotations

import time
from collections.abc import Callable

from om_plugins import OpenManager
from om_plugins.recovery.recovery import COOLDOWN_S

from .fault_injection import FaultInjector

__all__ = ["SCENARIOS", "FailureScenarios"]

TIMES = 5
_SUBJECT = "chain:assistant"
_QUESTION = {"question": "uptime"}


class FailureScenarios:
    """Each scenario breaks the analyst and asks the assistant five times.

    Args:
        om: the manager of the chain and of its recovery.
        faults: breaks the analyst.
        chain: the assistant's chain.
    """

    def __init__(self, om: OpenManager, faults: FaultInjector, chain: str) -> None:
        self._om = om
        self._faults = faults
        self._chain = chain

    def run(self, name: str) -> float | None:
        """Run one of :data:`SCENARIOS`.

        Returns:
            The seconds until errors of this kind can start a recovery again, because one ran
            already; 0.0 when they can now; ``None`` when another service answers on tier 1.

        Raises:
            KeyError: there is no such scenario.
        """
        break_analyst = SCENARIOS[name]
        if self._faults.read_state().analyst == "remote":
            return None
        started_at = time.time()
        break_analyst(self._faults)
        for _ in range(TIMES):
            self._om.chain(self._chain).call(_QUESTION).close()
        return self._cooldown_s(started_at)

    def repair(self, cookies: str) -> bool:
        """Start a recovery now, also during the cooldown.

        Args:
            cookies: of the browser that shows the progress.
        """
        to = self._om.runtime.part_of("notifications").browsers.find_address(cookies) or "operators"
        return self._om.recovery.recover(_SUBJECT, to)

    def _cooldown_s(self, before: float) -> float:
        recovery = self._om.recovery
        patterns = [one for one in recovery.patterns() if one.subject == _SUBJECT]
        if not patterns:
            return 0.0
        newest = max(patterns, key=lambda one: one.last_at).fingerprint
        starts = [
            report.started_at
            for report in recovery.history()
            if report.fingerprint == newest and report.started_at < before
        ]
        return max(0.0, max(starts, default=0.0) + COOLDOWN_S - time.time())


def _kill(faults: FaultInjector) -> None:
    faults.switch("garble", False)
    faults.stop()


def _garble(faults: FaultInjector) -> None:
    faults.start()
    faults.switch("garble", True)


SCENARIOS: dict[str, Callable[[FaultInjector], None]] = {"transient": _kill, "permanent": _garble}
"""Recovery ends the *transient* fault by starting the analyst again. It cannot end the
*permanent* one."""
