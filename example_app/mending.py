"""A recovery step of the demo's own: start the analyst again when it does not run."""

from __future__ import annotations

from collections.abc import Iterable

from om_plugins import hookimpl
from om_plugins.errors import OpenManagerError
from om_plugins.protocols import PluginContext, RecoveryStep
from om_plugins.types import PluginInfo

from .supervisor import Supervisor

__all__ = ["AnalystPlugin", "StartAnalyst"]


class StartAnalyst:
    """Runs after memory was freed and before the engines are looked for.

    Args:
        supervisor: the analyst's process.
        subject: ``chain:<name>`` of the chain that the analyst answers for.
    """

    name = "Starting the analyst"
    percent = 60

    def __init__(self, supervisor: Supervisor, subject: str) -> None:
        self._supervisor = supervisor
        self._subject = subject

    def run(self, subject: str, timeout: float) -> str:
        """Start it.

        Raises:
            OpenManagerError: it does not start.
        """
        if subject != self._subject:
            return ""
        if self._supervisor.status() == "running":
            return "it runs"
        if not self._supervisor.start():
            raise OpenManagerError("the analyst does not start; its log says why")
        return "it was started again"


class AnalystPlugin:
    """Brings the step.

    Args:
        step: the step.
    """

    def __init__(self, step: StartAnalyst) -> None:
        self._step = step

    @hookimpl
    def om_plugin_info(self) -> PluginInfo:
        """What plugins lists show."""
        return PluginInfo(summary="Starts the demo's analyst again", version="1")

    @hookimpl
    def om_recovery_steps(self, context: PluginContext) -> Iterable[RecoveryStep]:
        """The step, for recovery."""
        return [self._step]
