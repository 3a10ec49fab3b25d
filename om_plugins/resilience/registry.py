"""Breakers by name: engines of several chains that stand for one host share one breaker."""

from __future__ import annotations

from collections.abc import Callable

from ..policies.breaker import Breaker


class BreakerRegistry:
    """The breakers of one application."""

    def __init__(self) -> None:
        self._breakers: dict[tuple[str, str], Breaker] = {}

    def get(self, chain: str, engine: str, shared_key: str, make: Callable[[], Breaker]) -> Breaker:
        """The breaker of an engine, made on first use.

        Args:
            chain, engine: their names; the pair is unique in an application.
            shared_key: ``EngineTraits.breaker_key``: engines with the same one share a breaker,
                which then has the settings of the chain that came first.
            make: makes a new one.
        """
        key = ("", shared_key) if shared_key else (chain, engine)
        found = self._breakers.get(key)
        return found if found is not None else self._breakers.setdefault(key, make())
