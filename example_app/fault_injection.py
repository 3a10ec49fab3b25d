"""Fault injection: the fault panel's buttons break real parts, for all workers at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .config import DemoConfig
from .state import StateDir
from .supervisor import Supervisor

__all__ = ["ACTIONS", "FaultInjector", "FaultState"]

SWITCHES = ("slow", "garble", "analysis", "disk")


@dataclass(frozen=True, slots=True)
class FaultState:
    """Which faults are active now.

    Attributes:
        analyst: "running", "stopped", "never", or "remote" when another server answers.
        slow, garble: the analyst answers late, or with invalid data.
        analysis: the in-process analysis raises.
        disk: the disk panel's fetcher raises.
    """

    analyst: str
    slow: bool
    garble: bool
    analysis: bool
    disk: bool


class FaultInjector:
    """Turns faults on and off.

    Args:
        config: the demo's settings.
        supervisor: the analyst's process.
    """

    def __init__(self, config: DemoConfig, supervisor: Supervisor) -> None:
        self._config = config
        self._state = StateDir(config.state)
        self._supervisor = supervisor

    def read_state(self) -> FaultState:
        """Return the active faults. All workers see the same."""
        on = self._state.read("faults")
        return FaultState(
            analyst="remote" if self._config.llm_url else self._supervisor.status(),
            **{name: on.get(name) is True for name in SWITCHES},
        )

    def is_on(self, name: str) -> bool:
        """Return whether one of the switches is on."""
        return self._state.read("faults").get(name) is True

    def apply(self, action: str) -> bool:
        """Run one of :data:`ACTIONS`.

        Returns:
            Whether it worked: False for a start or stop that changed nothing.

        Raises:
            KeyError: there is no such action.
        """
        return ACTIONS[action](self)

    def start(self) -> bool:
        """Start the analyst."""
        return not self._config.llm_url and self._supervisor.start()

    def stop(self) -> bool:
        """Kill the analyst."""
        return not self._config.llm_url and self._supervisor.stop()

    def switch(self, name: str, on: bool) -> bool:
        """Turn one fault on or off."""
        with self._state.lock():
            self._state.write("faults", {**self._state.read("faults"), name: on})
        return True


ACTIONS: dict[str, Callable[[FaultInjector], bool]] = {
    "start": FaultInjector.start,
    "stop": FaultInjector.stop,
    "slow": lambda faults: faults.switch("slow", True),
    "unslow": lambda faults: faults.switch("slow", False),
    "garble": lambda faults: faults.switch("garble", True),
    "ungarble": lambda faults: faults.switch("garble", False),
    "break-analysis": lambda faults: faults.switch("analysis", True),
    "fix-analysis": lambda faults: faults.switch("analysis", False),
    "break-disk": lambda faults: faults.switch("disk", True),
    "fix-disk": lambda faults: faults.switch("disk", False),
}
"""The buttons of the panel."""
