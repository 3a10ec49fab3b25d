"""What engines of several chains share: breakers by name, and the bulkhead of an engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from ..core.fork import renew_after_fork
from .breaker import Breaker
from .bulkhead import Bulkhead

__all__ = ["BreakerKey", "BreakerRegistry", "Made"]

BreakerKey = tuple[str, str]
"""Chain and engine, or "" and the shared key: the same in all workers."""

Made = Callable[[BreakerKey, Breaker], None]


@dataclass(slots=True)
class _Shared:
    """One engine's bulkhead, and what each of its chains says of it."""

    engine: object
    """Kept, so that no other object gets its id."""
    bulkhead: Bulkhead
    limits: dict[str, int]


class BreakerRegistry:
    """The breakers and bulkheads of one application."""

    def __init__(self) -> None:
        self._breakers: dict[BreakerKey, Breaker] = {}
        self._bulkheads: dict[int, _Shared] = {}
        self._made: list[Made] = []
        self._lock = threading.Lock()
        renew_after_fork(self)

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

    def bulkhead(self, engine: object, chain: str, limit: int) -> Bulkhead | None:
        """The bulkhead of an engine, the same one in every chain that it belongs to.

        The least of what its chains say holds for all of them: it is the engine that bears no
        more.

        Args:
            engine: the very object.
            chain: who asks.
            limit: calls at once, as this chain says from now on; 0 for no limit.

        Returns:
            ``None`` when this chain has no limit: its calls are not counted.
        """
        with self._lock:
            shared = self._bulkheads.get(id(engine))
            if shared is None:
                if not limit:
                    return None
                # a caller's patience is its chain's: each enter says how long it waits
                shared = _Shared(engine, Bulkhead(limit, float("inf")), {})
                self._bulkheads[id(engine)] = shared
            if limit:
                shared.limits[chain] = limit
            else:
                shared.limits.pop(chain, None)
            least = min(shared.limits.values(), default=shared.bulkhead.max_concurrency)
            if least != shared.bulkhead.max_concurrency:
                shared.bulkhead.resize(least)
            return shared.bulkhead if limit else None

    def after_fork(self) -> None:
        self._lock = threading.Lock()

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
