"""The registry of an application: breakers by name, and the bulkhead of each engine.

Engines of several chains may share a breaker, and an engine of several chains has one bulkhead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from ..core.fork import renew_after_fork
from .breaker import Breaker
from .bulkhead import Bulkhead

BreakerKey = tuple[str, str]
"""Chain and engine, or "" and the shared key: the same in all workers."""

OnBreaker = Callable[[BreakerKey, Breaker], None]


@dataclass(slots=True)
class _SharedBulkhead:
    """The bulkhead of one engine, and the limit of each of its chains."""

    engine: object
    """A reference, so that no other object gets its id."""
    bulkhead: Bulkhead
    limits: dict[str, int]


class BreakerRegistry:
    """The breakers and bulkheads of one application."""

    def __init__(self) -> None:
        self._breakers: dict[BreakerKey, Breaker] = {}
        self._bulkheads: dict[int, _SharedBulkhead] = {}
        self._on_breaker: list[OnBreaker] = []
        self._lock = threading.Lock()
        renew_after_fork(self)

    def get(self, chain: str, engine: str, shared_key: str, make: Callable[[], Breaker]) -> Breaker:
        """Return the breaker of an engine; the first call makes it.

        Args:
            chain, engine: their names; the pair is unique in an application.
            shared_key: ``EngineTraits.breaker_key``: engines with the same one share a breaker,
                which then has the settings of the chain that came first.
            make: makes a new breaker.
        """
        key = ("", shared_key) if shared_key else (chain, engine)
        found = self._breakers.get(key)
        if found is not None:
            return found
        mine = make()
        found = self._breakers.setdefault(key, mine)
        if found is mine:
            for on_breaker in self._on_breaker:
                on_breaker(key, found)
        return found

    def bulkhead(self, engine: object, chain: str, limit: int) -> Bulkhead | None:
        """Set the limit of one chain, and return the bulkhead of an engine.

        An engine has one bulkhead in all its chains, with the lowest of their limits: the engine
        cannot bear more.

        Args:
            engine: the engine object.
            chain: the name of the chain.
            limit: the calls at once that this chain allows from now on; 0 for no limit.

        Returns:
            ``None`` when this chain has no limit; its calls are not counted then.
        """
        with self._lock:
            shared = self._bulkheads.get(id(engine))
            if shared is None:
                if not limit:
                    return None
                # chains differ in how long their callers wait, so each call of enter() says it
                shared = _SharedBulkhead(engine, Bulkhead(limit, float("inf")), {})
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
        """Return the breaker of a key; ``None`` when there is none."""
        return self._breakers.get(key)

    def pairs(self) -> list[tuple[BreakerKey, Breaker]]:
        """Return all breakers with their keys, in the order in which they were made."""
        return list(self._breakers.items())

    def watch(self, on_breaker: OnBreaker) -> None:
        """Call ``on_breaker`` with every breaker, now and when later ones are made."""
        self._on_breaker.append(on_breaker)
        for key, breaker in self.pairs():
            on_breaker(key, breaker)

    @property
    def empty(self) -> bool:
        """True while there is no breaker."""
        return not self._breakers
