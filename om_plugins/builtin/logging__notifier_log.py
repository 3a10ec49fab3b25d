"""The log notifier: every notification becomes a line in the ``om_plugins`` log."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..hookspecs import hookimpl
from ..protocols import Notifier, PluginContext
from ..types import Notification, PluginInfo

_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING}


class LogNotifier:
    """Logs errors as errors, warnings as warnings, the rest as information."""

    name = "log"

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def send(self, notification: Notification, timeout: float) -> None:
        """Write one line; control characters are escaped, so that nobody can forge lines."""
        self._logger.log(
            _LEVELS.get(notification.kind, logging.INFO),
            "to %s: %s",
            ascii_controls_escaped(notification.to),
            ascii_controls_escaped(
                f"{notification.title}: {notification.message}"
                if notification.title
                else notification.message
            ),
        )


def ascii_controls_escaped(text: str) -> str:
    """``text`` on one line: what cannot be printed is shown as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@hookimpl
def om_plugin_info() -> PluginInfo:
    return PluginInfo(summary="Writes notifications to the om_plugins log")


@hookimpl
def om_notifiers(context: PluginContext) -> Iterable[Notifier]:
    return [LogNotifier(context.logger)]
