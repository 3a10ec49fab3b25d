"""What the host remembers of one plugin: its state, its failures, and when it is quarantined."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from ... import signals
from ...protocols import PluginContext
from ...types import PluginStatus

logger = logging.getLogger("om_plugins")


@dataclass(slots=True)
class PluginRecord:
    """The state of one plugin.

    Attributes:
        status: what ``flask om plugins`` shows.
        config: made from its settings.
        context: what its hooks get; ``None`` until the first one is called.
        in_a_row: failures of its own code since the last success.
        away: the functions whose last call found something out of reach.
    """

    status: PluginStatus
    config: object = None
    context: PluginContext | None = None
    in_a_row: int = 0
    away: set[str] = field(default_factory=set)

    def count(
        self, reason: str, error: BaseException, max_failures: int, emit: signals.Emit
    ) -> bool:
        """Write a failure into the status; quarantine a plugin whose code fails too often.

        Args:
            reason: what happened.
            error: what was raised.
            max_failures: failures in a row after which the plugin is quarantined.
            emit: sends the signal of it.

        Returns:
            Whether it counts: the plugin's own code failed.
        """
        from .faults import Fault, judge  # an application whose plugins work does not need it

        status = self.status
        status.reason = reason
        if judge(error) is not Fault.OWN:
            return False
        status.failures += 1
        self.in_a_row += 1
        if self.in_a_row >= max_failures and status.state == "active":
            status.state = "quarantined"
            status.reason = f"failed {self.in_a_row} times in a row; the last: {reason}"
            logger.error("plugin %s: quarantined: %s", status.name, status.reason)
            emit(signals.plugin_quarantined, name=status.name, failures=status.failures)
        return True

    def log_away(self, function: str, reason: str) -> None:
        """Log that something is out of reach: a warning for the first call that finds it so."""
        level = logging.DEBUG if function in self.away else logging.WARNING
        self.away.add(function)
        text = "plugin %s: %s; this does not count against the plugin"
        logger.log(level, text, self.status.name, reason)

    def log_back(self, function: str) -> None:
        """Log that a function works whose last call found something out of reach."""
        if function in self.away:
            self.away.discard(function)
            self.status.reason = ""
            logger.info("plugin %s: %s works again", self.status.name, function)
