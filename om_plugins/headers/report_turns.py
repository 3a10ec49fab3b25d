"""Which requests for a page that a cache keeps may ask browsers for reports.

In a mode that only reports, a response that asks for reports has nonces, and no other has. A cache
must neither answer it with the stored page, which has none, nor store it for others. It would be
made anew each time, which is what the cache is there to prevent, so only one a minute is.
"""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY_S = 60.0
_MAX_PAGES = 1024


class ReportTurns:
    """Gives out the turns of one application, in one process.

    Args:
        now: returns the monotonic time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._taken: dict[str, float] = {}

    def take(self, page: str) -> bool:
        """Return whether it is the turn of a request for this page; then it is taken.

        Any thread may call this. Two that ask at once may both get it, which harms nobody.

        Args:
            page: tells the page apart from others.
        """
        now, taken = self._now(), self._taken.get(page)
        if taken is not None and now - taken < EVERY_S:
            return False
        if len(self._taken) >= _MAX_PAGES:
            self._taken.clear()
        self._taken[page] = now
        return True
