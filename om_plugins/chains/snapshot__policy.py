"""A chain's settings, resolved: the application's defaults with the chain's own on top."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..policies.breaker import Breaker
from ..settings.settings import Settings
from ..settings.settings__options import ChainOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPolicy:
    """How a chain treats its engines. Times are in seconds.

    Attributes:
        timeout: total deadline of a call, over all tiers.
        attempt_timeout: longest time of one attempt; ``None``: only the total deadline.
        retries: retries on the same engine after the first attempt.
        delays: the longest wait before the first, second, … retry.
        retry_on: only these errors are retried, of those that may be; ``None``: all of them.
        give_up_on: these errors are never retried.
        retry_budget: retries per call, over time.
        retry_budget_floor: retries per second that are always allowed.
        retry_sleep: how long a call may wait between attempts in all; ``None``: as the server's
            threads allow.
        balance: which engine of a tier is asked first, one of
            :data:`om_plugins.settings.settings__options.BALANCES`.
        eject_after: failures in a row after which one of several equals is asked last; 0: never.
        hedge: the quantile of answer times after which a call is asked anew; 0.0: never.
        bulkhead_wait: how long a call waits at an engine that is full.
        breaker_…: the arguments of :class:`~om_plugins.policies.breaker.Breaker`.
        at_most_once: ask nobody again, except local engines, once a call may have been sent.
    """

    timeout: float = 10.0
    attempt_timeout: float | None = None
    retries: int = 3
    delays: tuple[float, ...] = (1.0, 2.0, 4.0)
    retry_on: tuple[type[Exception], ...] | None = None
    give_up_on: tuple[type[Exception], ...] = ()
    retry_budget: float = 0.2
    retry_budget_floor: float = 1.0
    retry_sleep: float | None = None
    balance: str = "round_robin"
    eject_after: int = 5
    hedge: float = 0.0
    bulkhead_wait: float = 0.0
    breaker_failure_rate: float = 0.5
    breaker_slow_s: float = 5.0
    breaker_slow_rate: float = 0.9
    breaker_min_calls: int = 10
    breaker_window_s: float = 30.0
    breaker_window_calls: int | None = None
    breaker_half_open_permits: int = 1
    breaker_cooldown_s: float = 10.0
    breaker_cooldown_factor: float = 2.0
    breaker_cooldown_max_s: float = 60.0
    breaker_cooldown_jitter: float = 0.0
    at_most_once: bool = False

    @classmethod
    def from_settings(
        cls, settings: Settings, chain: str, live: ChainOptions | None = None
    ) -> ChainPolicy:
        """The policy of one chain.

        Args:
            settings: ``OM_CHAINS[chain]`` over the ``OM_`` keys of those names.
            live: what an operator has changed since then, over both.
        """
        values = {}
        for one in fields(cls):
            for table in (live, settings.chain(chain), settings):
                value = getattr(table, one.name, None)
                if value is not None:
                    values[one.name] = value
                    break
        return cls(**values)

    def breaker(self) -> Breaker:
        """A breaker with these settings."""
        return Breaker(
            failure_rate=self.breaker_failure_rate,
            slow_s=self.breaker_slow_s,
            slow_rate=self.breaker_slow_rate,
            min_calls=self.breaker_min_calls,
            window_s=self.breaker_window_s,
            window_calls=self.breaker_window_calls,
            half_open_permits=self.breaker_half_open_permits,
            cooldown_s=self.breaker_cooldown_s,
            cooldown_factor=self.breaker_cooldown_factor,
            cooldown_max_s=self.breaker_cooldown_max_s,
            cooldown_jitter=self.breaker_cooldown_jitter,
        )
