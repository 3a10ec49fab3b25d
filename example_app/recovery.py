"""A recovery step of the demo: start the analyst again when it does not run."""

from __future__ import annotations

from collections.abc import Iterable

from om_plugins import hookimpl
from om_plugins.errors import OpenManagerError
from om_plugins.protocols import PluginContext, RecoveryStep
from om_plugins.types import PluginInfo

from .supervisor import Supervisor

__all__ = ["AnalystPlugin", "StartAnalyst"]


class StartAnalyst:
    """Runs after the step that frees memory and before the step that probes the engines.

    Args:
        supervisor: the analyst's process.
        subject: ``chain:<name>`` of the chain in which the analyst is an engine.
    """

    name = "Starting the analyst"
    percent = 60

    def __init__(self, supervisor: Supervisor, subject: str) -> None:
        self._supervisor = supervisor
        self._subject = subject

    def run(self, subject: str, timeout: float) -> str:
        """Start the analyst.

        Returns:
            What was done; empty for another subject.

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
    """Adds the step to the shipped ones.

    Args:
        step: the step.
    """

    def __init__(self, step: StartAnalyst) -> None:
        self._step = step

    @hookimpl
    def om_plugin_info(self) -> PluginInfo:
        """Return what the lists of plugins show."""
        return PluginInfo(summary="Starts the demo's analyst again", version="1")

    @hookimpl
    def om_recovery_steps(self, context: PluginContext) -> Iterable[RecoveryStep]:
        """Return the step."""
        return [self._step]
