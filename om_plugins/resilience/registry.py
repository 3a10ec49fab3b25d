"""What engines of several chains share: breakers by name, and the bulkhead of an engine."""

from __future__ import annotations

from collections.abc import Callable

from ..policies.breaker import Breaker
from ..policies.bulkhead import Bulkhead

__all__ = ["BreakerKey", "BreakerRegistry", "Made"]

BreakerKey = tuple[str, str]
"""Chain and engine, or "" and the shared key: the same in all workers."""

Made = Callable[[BreakerKey, Breaker], None]


class BreakerRegistry:
    """The breakers and bulkheads of one application."""

    def __init__(self) -> None:
        self._breakers: dict[BreakerKey, Breaker] = {}
        self._bulkheads: dict[int, tuple[object, Bulkhead]] = {}
        self._made: list[Made] = []

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
        if found is not None:
            return found
        mine = make()
        found = self._breakers.setdefault(key, mine)
        if found is mine:
            for tell in self._made:
                tell(key, found)
        return found

    def bulkhead(self, engine: object, max_concurrency: int, max_wait_s: float) -> Bulkhead:
        """The bulkhead of an engine, the same one in every chain that it belongs to.

        Args:
            engine: the very object.
            max_concurrency, max_wait_s: what holds from now on, in all of these chains.
        """
        # the engine is kept, so that no other one gets its id
        mine = engine, Bulkhead(max_concurrency, max_wait_s)
        _, found = self._bulkheads.setdefault(id(engine), mine)
        if found is not mine[1]:
            found.max_wait_s = max_wait_s
            found.resize(max_concurrency)
        return found

    def find(self, key: BreakerKey) -> Breaker | None:
        """The breaker of that key, if there is one."""
        return self._breakers.get(key)

    def pairs(self) -> list[tuple[BreakerKey, Breaker]]:
        """All there are, in the order in which they were made."""
        return list(self._breakers.items())

    def watch(self, made: Made) -> None:
        """Have ``made`` told of every breaker, those there are and those to come."""
        self._made.append(made)
        for key, breaker in self.pairs():
            made(key, breaker)

    @property
    def empty(self) -> bool:
        """True while there is none."""
        return not self._breakers
