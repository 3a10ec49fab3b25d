"""The fault panel: real trouble on request, the same for all workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .config import DemoConfig
from .state import StateDir
from .supervisor import Supervisor

__all__ = ["ACTIONS", "FaultState", "Faults"]

SWITCHES = ("slow", "garble", "analysis", "disk")


@dataclass(frozen=True, slots=True)
class FaultState:
    """What is broken now.

    Attributes:
        analyst: "running", "stopped", "never", or "remote" when another server answers.
        slow, garble: how the analyst misbehaves.
        analysis: the in-process analysis raises.
        disk: the disk panel's fetcher raises.
    """

    analyst: str
    slow: bool
    garble: bool
    analysis: bool
    disk: bool


class Faults:
    """Breaks and mends.

    Args:
        config: the demo's settings.
        supervisor: the analyst's process.
    """

    def __init__(self, config: DemoConfig, supervisor: Supervisor) -> None:
        self._config = config
        self._state = StateDir(config.state)
        self._supervisor = supervisor

    def state(self) -> FaultState:
        """What is broken now, as every worker sees it."""
        on = self._state.read("faults")
        return FaultState(
            analyst="remote" if self._config.llm_url else self._supervisor.status(),
            **{name: on.get(name) is True for name in SWITCHES},
        )

    def on(self, name: str) -> bool:
        """Whether one of the switches is on."""
        return self._state.read("faults").get(name) is True

    def do(self, action: str) -> bool:
        """Do one of :data:`ACTIONS`.

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


ACTIONS: dict[str, Callable[[Faults], bool]] = {
    "start": Faults.start,
    "stop": Faults.stop,
    "slow": lambda faults: faults.switch("slow", True),
    "hurry": lambda faults: faults.switch("slow", False),
    "garble": lambda faults: faults.switch("garble", True),
    "ungarble": lambda faults: faults.switch("garble", False),
    "break-analysis": lambda faults: faults.switch("analysis", True),
    "mend-analysis": lambda faults: faults.switch("analysis", False),
    "break-disk": lambda faults: faults.switch("disk", True),
    "mend-disk": lambda faults: faults.switch("disk", False),
}
"""The buttons of the panel."""
