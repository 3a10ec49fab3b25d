"""A chain's settings, resolved: the application's defaults with the chain's own on top."""

from __future__ import annotations

from dataclasses import dataclass

from ..policies.breaker import Breaker
from ..settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPolicy:
    """How a chain treats its engines. Times are in seconds.

    Attributes:
        timeout: total deadline of a call, over all tiers.
        attempt_timeout: longest time of one attempt; ``None``: only the total deadline.
        retries: retries on the same engine after the first attempt.
        delays: the longest wait before the first, second, … retry.
        retry_budget: retries per call, over time.
        retry_budget_floor: retries per second that are always allowed.
        breaker_failure_rate, breaker_slow_s, breaker_slow_rate, breaker_min_calls,
        breaker_window_s, breaker_cooldown_s: see :class:`~om_plugins.policies.breaker.Breaker`.
        at_most_once: ask nobody again, except local engines, once a call may have been sent.
    """

    timeout: float = 10.0
    attempt_timeout: float | None = None
    retries: int = 3
    delays: tuple[float, ...] = (1.0, 2.0, 4.0)
    retry_budget: float = 0.2
    retry_budget_floor: float = 1.0
    breaker_failure_rate: float = 0.5
    breaker_slow_s: float = 5.0
    breaker_slow_rate: float = 0.9
    breaker_min_calls: int = 10
    breaker_window_s: float = 30.0
    breaker_cooldown_s: float = 10.0
    at_most_once: bool = False

    @classmethod
    def from_settings(cls, settings: Settings, chain: str) -> ChainPolicy:
        """The policy of one chain: ``OM_CHAINS[chain]`` over the ``OM_`` keys of those names."""
        own = settings.chain(chain)
        return cls(
            timeout=settings.timeout if own.timeout is None else own.timeout,
            attempt_timeout=(
                settings.attempt_timeout if own.attempt_timeout is None else own.attempt_timeout
            ),
            retries=settings.retries if own.retries is None else own.retries,
            retry_budget=settings.retry_budget,
            retry_budget_floor=settings.retry_budget_floor,
            breaker_failure_rate=settings.breaker_failure_rate,
            breaker_slow_s=settings.breaker_slow_s,
            breaker_slow_rate=settings.breaker_slow_rate,
            breaker_min_calls=settings.breaker_min_calls,
            breaker_window_s=settings.breaker_window_s,
            breaker_cooldown_s=settings.breaker_cooldown_s,
            at_most_once=own.at_most_once,
        )

    def breaker(self) -> Breaker:
        """A breaker with these settings."""
        return Breaker(
            failure_rate=self.breaker_failure_rate,
            slow_s=self.breaker_slow_s,
            slow_rate=self.breaker_slow_rate,
            min_calls=self.breaker_min_calls,
            window_s=self.breaker_window_s,
            cooldown_s=self.breaker_cooldown_s,
        )
