"""Two plugins that write to the ``om_plugins`` log: ``monitor-log`` and ``notifier-log``.

The first sums up the requests of this process once a minute, the second writes one line for each
notification. Each can be disabled by its name.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable

from ..hookspecs import hookimpl
from ..protocols import Clock, Monitor, Notifier, PluginContext
from ..types import Notification, PluginInfo, Sample

EVERY_S = 60.0
MAX_DURATIONS = 10_000
"""How many durations of one minute count for the percentile: the newest ones."""

_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING}


class LogMonitor:
    """Logs requests, errors, the 95th percentile and bytes, once a minute, at level INFO.

    It logs nothing for a minute without requests.

    Args:
        logger: where the lines are written.
        clock: its monotonic time measures the minute.
    """

    def __init__(self, logger: logging.Logger, clock: Clock) -> None:
        self._logger = logger
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        self._since = self._clock.monotonic()
        self._requests = 0
        self._errors = 0
        self._size_bytes = 0
        self._durations: list[float] = []

    def record(self, samples: Iterable[Sample]) -> None:
        """Add the samples to the sums, and write a line if a minute has passed."""
        for sample in samples:
            self._requests += 1
            self._errors += sample.status >= 500
            self._size_bytes += sample.size_bytes
            self._durations.append(sample.duration_s)
        del self._durations[:-MAX_DURATIONS]
        elapsed = self._clock.monotonic() - self._since
        if elapsed < EVERY_S or not self._requests:
            return
        self._durations.sort()
        p95 = self._durations[math.ceil(0.95 * len(self._durations)) - 1]
        self._logger.info(
            "process %d: %d requests in %.0f s, %d failed, p95 %.0f ms, %d bytes",
            os.getpid(),
            self._requests,
            elapsed,
            self._errors,
            p95 * 1000,
            self._size_bytes,
        )
        self._reset()


class LogNotifier:
    """Logs an error at level ERROR, a warning at WARNING, everything else at INFO."""

    name = "log"
    durable = False
    """A log line is written at once, so nothing has to outlive the process."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def send(self, notification: Notification, timeout: float) -> None:
        """Write one line. Control characters are escaped, so no text can forge a line."""
        self._logger.log(
            _LEVELS.get(notification.kind, logging.INFO),
            "to %s: %s",
            escape_controls(notification.to),
            escape_controls(
                f"{notification.title}: {notification.message}"
                if notification.title
                else notification.message
            ),
        )


def escape_controls(text: str) -> str:
    """``text`` on one line, with an escape sequence for each character that cannot be printed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class LogMonitorPlugin:
    """Plugin ``monitor-log``."""

    @hookimpl
    def om_plugin_info(self) -> PluginInfo:
        return PluginInfo(
            summary="Sums up requests in the om_plugins log once a minute (level INFO)"
        )

    @hookimpl
    def om_monitors(self, context: PluginContext) -> Iterable[Monitor]:
        return [LogMonitor(context.logger, context.clock)]


class LogNotifierPlugin:
    """Plugin ``notifier-log``."""

    @hookimpl
    def om_plugin_info(self) -> PluginInfo:
        return PluginInfo(summary="Writes notifications to the om_plugins log")

    @hookimpl
    def om_notifiers(self, context: PluginContext) -> Iterable[Notifier]:
        return [LogNotifier(context.logger)]


monitor_plugin = LogMonitorPlugin()
notifier_plugin = LogNotifierPlugin()
