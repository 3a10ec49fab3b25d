"""The secret that values are signed and hidden with, the same in all workers that share a hub."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

from ..protocols import Clock, Hub

_KEY = "secret"
_TTL_S = 10 * 365 * 86_400.0


@dataclass(slots=True, eq=False, repr=False)
class Secret:
    """Returns the secret when it is called; looked up on the first call.

    Args:
        configured: returns the operator's own secret, or the host framework's; ``None`` or ""
            when there is none.
        hub: shares a random secret between workers when none is configured.
        clock: to wait for another worker that is creating it.
    """

    configured: Callable[[], bytes | str | None]
    _: KW_ONLY
    hub: Hub
    clock: Clock
    _value: bytes | None = field(init=False, default=None)

    def __call__(self) -> bytes:
        """Return the secret's bytes."""
        if self._value is None:
            configured = self.configured()
            own = configured.encode() if isinstance(configured, str) else configured
            self._value = own or self._share_random()
        return self._value

    def _share_random(self) -> bytes:
        """Return a random secret, which the first worker puts into the hub for all others."""
        found = self.hub.get(_KEY)
        if not isinstance(found, bytes):
            if self.hub.increment(f"{_KEY}:claim", ttl=60) == 1:
                self.hub.put(_KEY, secrets.token_bytes(32), ttl=_TTL_S)
            for _ in range(20):
                found = self.hub.get(_KEY)
                if isinstance(found, bytes):
                    break
                self.clock.sleep(0.05)
        return found if isinstance(found, bytes) else secrets.token_bytes(32)
