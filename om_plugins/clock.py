"""The real clock."""

from __future__ import annotations

import time


class SystemClock:
    """The process's own time (see :class:`om_plugins.protocols.Clock`)."""

    __slots__ = ()

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
    sleep = staticmethod(time.sleep)
