"""The log monitor: one line a minute that sums up the requests of this process."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable

from ..hookspecs import hookimpl
from ..protocols import Clock, Monitor, PluginContext
from ..types import PluginInfo, Sample

EVERY_S = 60.0
MAX_DURATIONS = 10_000
"""So many durations of a minute are kept for the percentile: the newest."""


class LogMonitor:
    """Logs requests, errors, the 95th percentile and bytes, once a minute, at level INFO.

    A minute without requests is not logged.

    Args:
        logger: gets the lines.
        clock: says when a minute is over.
    """

    def __init__(self, logger: logging.Logger, clock: Clock) -> None:
        self._logger = logger
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._since = self._clock.monotonic()
        self._requests = 0
        self._errors = 0
        self._size_bytes = 0
        self._durations: list[float] = []

    def record(self, samples: Iterable[Sample]) -> None:
        """Add up, and write a line when a minute is over."""
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
        self._begin()


@hookimpl
def om_plugin_info() -> PluginInfo:
    return PluginInfo(summary="Sums up requests in the om_plugins log once a minute (level INFO)")


@hookimpl
def om_monitors(context: PluginContext) -> Iterable[Monitor]:
    return [LogMonitor(context.logger, context.clock)]
