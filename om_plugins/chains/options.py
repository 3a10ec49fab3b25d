"""The options of a chain and of one of its engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..settings.kinds import BOOL, EXCEPTIONS, MAPPING, choice, integer, number, table
from ..settings.table import Table, key

_SECONDS = number(0.001, 3600, "seconds")

BALANCES = ("round_robin", "least_in_flight", "lowest_latency", "in_order")
"""How an engine of a tier is chosen."""


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
class ChainOptions(Table):
    """One chain's own settings; what is ``None`` comes from the ``OM_`` key of that name."""

    TITLE: ClassVar[str] = "A chain's options"

    timeout: float | None = key(None, _SECONDS, "total deadline of a call")
    attempt_timeout: float | None = key(None, _SECONDS, "longest time of one attempt")
    retries: int | None = key(None, integer(0, 20), "retries on the same engine")
    retry_on: tuple[type[Exception], ...] | None = key(
        None, EXCEPTIONS, "only these errors are retried; all that may be when not set"
    )
    give_up_on: tuple[type[Exception], ...] | None = key(
        None, EXCEPTIONS, "these errors are never retried; the next engine is asked"
    )
    retry_budget: float | None = key(None, number(0, 10), "retries and hedges per call, over time")
    retry_budget_floor: float | None = key(
        None, number(0, 1000), "retries per second that the budget always allows"
    )
    retry_sleep: float | None = key(
        None, number(0, 3600, "seconds"), "waits between attempts of a call, in all"
    )
    balance: str | None = key(None, choice(*BALANCES), "which engine of a tier is asked first")
    eject_after: int | None = key(
        None, integer(0, 1000), "failures in a row after which one of several equals is asked last"
    )
    hedge: float | None = key(
        None, number(0, 0.999), "the share of answer times after which a call is asked anew"
    )
    bulkhead_wait: float | None = key(
        None, number(0, 3600, "seconds"), "how long a call waits at an engine that is full"
    )
    breaker_failure_rate: float | None = key(
        None, number(0.01, 1), "share of failed calls that opens a breaker"
    )
    breaker_slow_s: float | None = key(None, _SECONDS, "a call is slow from here on")
    breaker_slow_rate: float | None = key(
        None, number(0.01, 1), "share of slow calls that opens a breaker"
    )
    breaker_min_calls: int | None = key(
        None, integer(1, 100_000), "calls in the window before a breaker may open"
    )
    breaker_window_s: float | None = key(
        None, number(1, 3600, "seconds"), "the window over which calls are counted"
    )
    breaker_window_calls: int | None = key(
        None, integer(1, 100_000), "judge the last so many calls instead"
    )
    breaker_half_open_permits: int | None = key(
        None, integer(1, 1000), "probes that are out at once, and must succeed, to close a breaker"
    )
    breaker_cooldown_s: float | None = key(
        None, _SECONDS, "how long a breaker stays open before it probes"
    )
    breaker_cooldown_factor: float | None = key(
        None, number(1, 10), "what each opening that soon follows another one multiplies it by"
    )
    breaker_cooldown_max_s: float | None = key(
        None, number(0.001, 86_400, "seconds"), "the longest cooldown"
    )
    breaker_cooldown_jitter: float | None = key(
        None, number(0, 1), "each cooldown is longer by up to this share"
    )
    at_most_once: bool | None = key(
        None, BOOL, "never ask again, here or on a later tier, once a call may have been sent"
    )
    engines: dict[str, EngineOptions] = key(
        {}, table(EngineOptions, "engines"), "settings of single engines, by name"
    )
