"""The real clock."""

from __future__ import annotations

import time as _time


class SystemClock:
    """The process's own time (see :class:`om_plugins.protocols.Clock`)."""

    __slots__ = ()

    monotonic = staticmethod(_time.monotonic)
    time = staticmethod(_time.time)
    sleep = staticmethod(_time.sleep)
