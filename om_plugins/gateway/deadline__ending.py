"""What is still under way when the server was told to stop.

An answer under way is let end, for as long as the server waits; after that the server breaks it
off, and its client could not tell a broken answer from a whole one. So it is ended a moment before.
"""

from __future__ import annotations

from ..protocols import Clock
from ..workers.servers import grace_s, stopping
from .response__refusal import Refusal

__all__ = ["Ending", "restarted"]

_LAST_SHARE = 0.2
_LAST_S = 1.5
"""So much of the server's patience, at least, is for saying so and for closing upstreams; who waits
for a silent one looks twice a second."""


class Ending:
    """Whether answers under way must end now.

    Args:
        clock: its monotonic time counts.
    """

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._since: float | None = None

    def over(self) -> bool:
        """True once the server has waited for most of its patience."""
        if not stopping():
            return False
        now = self._monotonic()
        if self._since is None:
            self._since = now
        patience_s = grace_s()
        return now - self._since >= patience_s - max(_LAST_S, _LAST_SHARE * patience_s)


def restarted() -> Refusal:
    """What the client of such an answer is told."""
    text = "The server is being restarted. Please ask again in a moment."
    return Refusal(503, text, [("Retry-After", "1")], retry_after=1)
