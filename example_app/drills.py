"""Trouble until the library notices: five questions that really fail, for good or not."""

from __future__ import annotations

import time
from collections.abc import Callable

from om_plugins import OpenManager
from om_plugins.recovery.recovery import COOLDOWN_S

from .faults import Faults

__all__ = ["DRILLS", "Drills"]

TIMES = 5
_SUBJECT = "chain:assistant"
_QUESTION = {"question": "uptime"}


class Drills:
    """Each breaks something, and asks the assistant five times.

    Args:
        om: has the chain, and its recovery.
        faults: breaks.
        chain: the assistant's chain.
    """

    def __init__(self, om: OpenManager, faults: Faults, chain: str) -> None:
        self._om = om
        self._faults = faults
        self._chain = chain

    def do(self, name: str) -> float | None:
        """Do one of :data:`DRILLS`.

        Returns:
            For how many seconds errors of this kind will begin no other recovery, because there
            was one; 0.0 for not at all; ``None`` when another service answers on tier 1.

        Raises:
            KeyError: there is no such drill.
        """
        breaks = DRILLS[name]
        if self._faults.state().analyst == "remote":
            return None
        began = time.time()
        breaks(self._faults)
        for _ in range(TIMES):
            self._om.chain(self._chain).call(_QUESTION).close()
        return self._rests_s(began)

    def repair(self, cookies: str) -> bool:
        """Recover now, whatever was before; the browser with these cookies follows it."""
        to = self._om.runtime.part_of("notifications").browsers.find_address(cookies) or "operators"
        begun: bool = self._om.runtime.part_of("recovery").recovery.recover(_SUBJECT, to)
        return begun

    def _rests_s(self, before: float) -> float:
        recovery = self._om.runtime.part_of("recovery").recovery
        mine = [one for one in recovery.patterns() if one.subject == _SUBJECT]
        if not mine:
            return 0.0
        newest = max(mine, key=lambda one: one.last_at).fingerprint
        done = [
            report.started_at
            for report in recovery.history()
            if report.fingerprint == newest and report.started_at < before
        ]
        return max(0.0, max(done, default=0.0) + COOLDOWN_S - time.time())


def _kill(faults: Faults) -> None:
    faults.switch("garble", False)
    faults.stop()


def _garble(faults: Faults) -> None:
    faults.start()
    faults.switch("garble", True)


DRILLS: dict[str, Callable[[Faults], None]] = {"passing": _kill, "lasting": _garble}
"""*Passing* trouble recovery can mend, by starting the analyst again; *lasting* it cannot."""
