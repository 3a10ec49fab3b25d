"""The options of a chain and of one of its engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import ConfigError
from ..policies.backoff import reserve_s
from ..settings.kinds import BOOL, EXCEPTIONS, MAPPING, SECONDS, choice, integer, number, table
from ..settings.table import Table, key

if TYPE_CHECKING:
    from ..policies.breaker import Breaker

BALANCES = ("round_robin", "least_in_flight", "lowest_latency", "in_order")
"""How an engine of a tier is chosen."""
DEFAULT_LASTS_S = 86_400.0
"""A change of a running chain lasts a day when the operator does not say how long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions(Table):
    """What is said of one engine of a chain, over what it says of itself."""

    TITLE: ClassVar[str] = "An engine's options"

    tier: int | None = key(None, integer(1, 1000), "its tier; where it was registered when not set")
    weight: float | None = key(None, number(0.001, 1000), "its share among the engines of its tier")
    enabled: bool = key(True, BOOL, "false leaves it out")
    max_concurrency: int | None = key(
        None, integer(0, 100_000), "calls at work at once, at most; 0 for no limit"
    )
    breaker: str = key(
        "auto",
        choice("auto", "open", "closed"),
        "`open` keeps every call away, `closed` keeps none away",
    )
    chaos: dict[str, Any] | None = key(
        None, MAPPING, "failures on purpose; see [engines](engines.md)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPolicy(Table):
    """How a chain treats its engines. ``OM_CHAIN_DEFAULTS`` holds for all chains,
    ``OM_CHAINS[name]`` says what is different for one. Times are in seconds."""

    TITLE: ClassVar[str] = "A chain's options"
    RENAMED: ClassVar[Mapping[str, str]] = {
        f"{name}_s": name
        for name in ("breaker_slow", "breaker_window", "breaker_cooldown", "breaker_cooldown_max")
    }
    SHORTER: ClassVar[Mapping[str, str]] = {"breaker_cooldown": "breaker_cooldown_max"}

    timeout: float = key(
        10.0, number(0.001, 3600, "seconds"), "total deadline of a call to a chain"
    )
    attempt_timeout: float | None = key(
        None,
        number(0.001, 3600, "seconds"),
        "longest time of one attempt; only the total deadline when not set",
    )
    retries: int = key(3, integer(0, 20), "retries on the same engine after the first attempt")
    retry_budget: float = key(
        0.2, number(0, 10), "retries and hedges per call, over time: 0.2 is one in five"
    )
    retry_budget_floor: float = key(
        1.0, number(0, 1000), "retries per second that the budget always allows"
    )
    retry_on: tuple[type[Exception], ...] | None = key(
        None,
        EXCEPTIONS,
        "only these errors are retried, of those that may be; all of them when not set",
    )
    give_up_on: tuple[type[Exception], ...] = key(
        (), EXCEPTIONS, "these errors are never retried; the next engine is asked"
    )
    retry_sleep: float | None = key(
        None,
        number(0, 3600, "seconds"),
        "waits between the attempts of one call, in all, at most; when not set: 1 second where the "
        "server has one thread, else only the deadline",
    )
    balance: str = key("round_robin", choice(*BALANCES), "which engine of a tier is asked first")
    eject_after: int = key(
        5,
        integer(0, 1000),
        "failures in a row after which one of several engines of a tier is asked last for a while; "
        "0 for never",
    )
    hedge: float = key(
        0.0,
        number(0, 0.999),
        "ask again when an answer takes longer than this share of them: 0.95 is one in twenty; "
        "0 for never. Only engines that are idempotent and `hedge_safe`",
    )
    bulkhead_wait: float = key(
        0.0,
        number(0, 3600, "seconds"),
        "how long a call waits at an engine that is at its `max_concurrency`",
    )
    breaker_failure_rate: float = key(
        0.5, number(0.01, 1), "share of failed calls that opens a breaker"
    )
    breaker_slow: float = key(5.0, number(0.001, 3600, "seconds"), "a call is slow from here on")
    breaker_slow_rate: float = key(0.9, number(0.01, 1), "share of slow calls that opens a breaker")
    breaker_min_calls: int = key(
        10, integer(1, 100_000), "calls in the window before a breaker may open"
    )
    breaker_window: float = key(
        30.0, number(1, 3600, "seconds"), "the window over which calls are counted"
    )
    breaker_cooldown: float = key(
        10.0, number(0.001, 3600, "seconds"), "how long a breaker stays open before it probes"
    )
    breaker_window_calls: int | None = key(
        None,
        integer(1, 100_000),
        "judge the last so many calls instead of those of `breaker_window`",
    )
    breaker_half_open_permits: int = key(
        1,
        integer(1, 1000),
        "probes that are out at once, and that must succeed, to close a breaker",
    )
    breaker_cooldown_factor: float = key(
        2.0,
        number(1, 10),
        "what each opening that soon follows another one multiplies the cooldown by",
    )
    breaker_cooldown_max: float = key(
        60.0,
        number(0.001, 86_400, "seconds"),
        "the longest cooldown; never below `breaker_cooldown`",
    )
    breaker_cooldown_jitter: float = key(
        0.0,
        number(0, 1),
        "each cooldown is longer by up to this share, so that workers do not probe all at once",
    )
    delays: tuple[float, ...] = key(
        (1.0, 2.0, 4.0), SECONDS, "the longest wait before the first, second, … retry"
    )
    at_most_once: bool = key(
        False, BOOL, "never ask again, here or on a later tier, once a call may have been sent"
    )
    engines: dict[str, EngineOptions] = key(
        {}, table(EngineOptions, "engines"), "settings of single engines, by name"
    )

    def breaker(self) -> Breaker:
        """Return a new breaker with these settings."""
        from ..policies.breaker import Breaker

        return Breaker(
            failure_rate=self.breaker_failure_rate,
            slow_s=self.breaker_slow,
            slow_rate=self.breaker_slow_rate,
            min_calls=self.breaker_min_calls,
            window_s=self.breaker_window,
            window_calls=self.breaker_window_calls,
            half_open_permits=self.breaker_half_open_permits,
            cooldown_s=self.breaker_cooldown,
            cooldown_factor=self.breaker_cooldown_factor,
            cooldown_max_s=self.breaker_cooldown_max,
            cooldown_jitter=self.breaker_cooldown_jitter,
        )

    def fair_share_s(self) -> float:
        """Return the seconds after which a timeout is the fault of the engine."""
        whole_s = self.timeout - reserve_s(self.timeout)
        share_s = min(whole_s, self.breaker_slow, self.attempt_timeout or whole_s)
        return share_s * 0.99  # deadlines are sums of floats


def check_attempts(where: str, given: Mapping[str, object], policy: ChainPolicy) -> None:
    """Refuse an ``attempt_timeout`` that the total deadline of its chain ends, so that it does
    nothing.

    Args:
        where: what the error writes before the key.
        given: the options of one chain, or of all. What they leave out is no contradiction: a chain
            with a shorter deadline than all others goes on with their ``attempt_timeout``.
        policy: what holds with these options.

    Raises:
        ConfigError: it is longer than ``timeout``.
    """
    attempt = policy.attempt_timeout
    if given.get("attempt_timeout") is not None and attempt and attempt > policy.timeout:
        raise ConfigError(
            f"{where}attempt_timeout", attempt,
            f"is longer than the whole call may take, {policy.timeout:g} seconds, which ends it; "
            "set timeout as well, or leave it out",
        )  # fmt: skip


IN_CHAINS = {
    **{name: f"OM_CHAINS = {{'chain': {{{name!r}: …}}}}" for name in list(ChainPolicy.keys())},
    "weight": "OM_CHAINS = {'chain': {'engines': {'name': {'weight': …}}}}",
}
"""Where an option of a chain is written, for those who give it to an engine."""
