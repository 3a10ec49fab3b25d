"""The secret that values are signed and hidden with: the same in all workers that share a hub."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from ..protocols import Clock, Hub

_KEY = "secret"
_TTL_S = 10 * 365 * 86_400.0


class Secret:
    """Gives the secret when it is called; looked up on first use.

    Args:
        given: the operator's own, or the host framework's; ``None`` or "" for none.
        hub: where workers without one agree on a random one.
        clock: to wait for another worker that is making it.
    """

    def __init__(self, given: Callable[[], bytes | str | None], *, hub: Hub, clock: Clock) -> None:
        self._given = given
        self._hub = hub
        self._clock = clock
        self._value: bytes | None = None

    def __call__(self) -> bytes:
        """The secret's bytes."""
        if self._value is None:
            given = self._given()
            self._value = (given.encode() if isinstance(given, str) else given) or self._shared()
        return self._value

    def _shared(self) -> bytes:
        """A random one that the first worker puts into the hub and all others find there."""
        found = self._hub.get(_KEY)
        if not isinstance(found, bytes):
            if self._hub.increment(f"{_KEY}:claim", ttl=60) == 1:
                self._hub.put(_KEY, secrets.token_bytes(32), ttl=_TTL_S)
            for _ in range(20):
                found = self._hub.get(_KEY)
                if isinstance(found, bytes):
                    break
                self._clock.sleep(0.05)
        return found if isinstance(found, bytes) else secrets.token_bytes(32)
