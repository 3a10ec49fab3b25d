"""Which requests may ask browsers for reports, in a mode that only reports.

A response that asks for reports has nonces, and no other has. So only a page that a browser opens
asks: what scripts fetch, and what is sent to the application, cannot be reported on or is made for
somebody else as well, such as the mail that a form sends.

A cache must neither answer such a request with the stored page, which has no nonces, nor store its
response for others. It would be made anew each time, which is what the cache is there to prevent,
so of a page that a cache keeps, only one response a minute asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

EVERY_S = 60.0
_MAX_PAGES = 1024
_DOCUMENTS = frozenset({"document", "iframe", "frame", "object", "embed", "fencedframe"})


def can_be_reported_on(environ: WSGIEnvironment) -> bool:
    """Return whether the browser may open the response of this request as a page.

    Only then does it look at the response's policy. Browsers say so in ``Sec-Fetch-Dest`` (Fetch
    Metadata, section 2.1). They leave it out over plain HTTP; there, a browser that opens a page
    names ``text/html`` among what it accepts. Programs seldom do.

    Args:
        environ: of the request.
    """
    if environ.get("REQUEST_METHOD") != "GET":
        return False
    destination = environ.get("HTTP_SEC_FETCH_DEST")
    if destination is not None:
        return destination in _DOCUMENTS
    return "text/html" in environ.get("HTTP_ACCEPT", "").lower()


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
