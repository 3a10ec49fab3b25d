"""One application's engines over all its workers: news, shared breakers and active health."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..policies.registry import BreakerRegistry
from ..protocols import Clock, Hub, Scheduler
from .chain import EngineChain
from .health_checks import ActiveHealth
from .sharing import EngineNews
from .sharing__breaker_sharing import BreakerSharing

__all__ = ["EngineExchange"]


class EngineExchange:
    """Begins and ends the three together.

    Args:
        clock, hub, scheduler: the application's.
        namespace: keeps two applications in one hub apart.
        chains: its chains by name.
        breakers: its breakers.
        shared: what breakers find out is shared, too (``OM_BREAKER_SHARED``).
        interval_s: how often engines are probed (``OM_PROBE_INTERVAL``); 0.0: never.
        threads: false in tests.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        hub: Hub,
        scheduler: Scheduler,
        namespace: str,
        chains: Callable[[], Mapping[str, EngineChain]],
        breakers: BreakerRegistry,
        shared: bool = False,
        interval_s: float = 0.0,
        threads: bool = True,
    ) -> None:
        self.news = EngineNews(
            hub=hub,
            scheduler=scheduler,
            clock=clock,
            namespace=namespace,
            wanted=lambda: not breakers.empty,
        )
        self.sharing = BreakerSharing(breakers=breakers, news=self.news, clock=clock, shared=shared)
        self.health = ActiveHealth(
            clock=clock,
            hub=hub,
            scheduler=scheduler,
            news=self.news,
            chains=chains,
            breakers=breakers,
            interval_s=interval_s,
            namespace=namespace,
            threads=threads,
        )

    def start(self) -> None:
        """Begin in this process; a second call does nothing. A forked child begins anew."""
        self.health.start()
        self.news.start()

    def close(self) -> None:
        """Stop in this process."""
        self.health.close()
        self.news.close()
