"""The tables inside the settings: the options of one chain, engine, route, fallback, alert, page.

Each is read and checked as :class:`~om_plugins.settings.Settings` is; an unknown key or a bad value
raises :class:`~om_plugins.errors.ConfigError` that names where it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from .kinds import (
    BOOL,
    CALLBACK,
    CORS,
    EXCEPTIONS,
    MAPPING,
    METHODS,
    RATE,
    STATUSES,
    STRINGS,
    choice,
    integer,
    number,
    table,
    text,
)
from .table import Table, key

__all__ = [
    "BALANCES",
    "STALE",
    "AlertOptions",
    "ChainOptions",
    "EngineOptions",
    "FallbackOptions",
    "HstsOptions",
    "HttpCacheOptions",
    "RouteOptions",
]

BALANCES = ("round_robin", "least_in_flight", "lowest_latency", "in_order")
"""How an engine of a tier is chosen."""

STALE = "stale"
"""Among what answers for a view with a fallback: the copy of the last good answer."""

_SECONDS = number(0.001, 3600, "seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions(Table):
    """What is said of one engine of a chain, over what it says of itself."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertOptions(Table):
    """One alert's threshold; what is ``None`` is the rule's default."""

    enabled: bool = key(True, BOOL, "false switches this alert off")
    limit: float | None = key(
        None, number(0, 1e9), "crossed from here on: seconds, or a share from 0 to 1"
    )
    clear: float | None = key(
        None, number(0, 1e9), "over again below this; in the default's proportion when not set"
    )
    for_s: float | None = key(
        None, number(0, 86_400, "seconds"), "how long it must be crossed before the alert fires"
    )
    keep_s: float | None = key(
        None, number(0, 86_400, "seconds"), "how long it must be clear before the alert is over"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteOptions(Table):
    """One path that an engine chain answers."""

    chain: str = key("", text(r".+", "the name of a chain"), "the chain that answers")
    auth: Callable[..., Any] | None = key(
        None,
        CALLBACK,
        "called with the request, in the host's request context; a false answer is a 401",
    )
    rate: tuple[int, int] | None = key(
        (60, 60),
        RATE,
        "calls per client, over all workers",
    )
    cors: tuple[str, ...] = key(
        (),
        CORS,
        "other sites that may call it from a browser",
    )
    max_body: int = key(1_000_000, integer(1, 2**31, "bytes"), "largest request body")
    timeout: float | None = key(
        None, number(0.001, 3600, "seconds"), "deadline of a call; the chain's own when not set"
    )
    idempotency_s: float = key(
        86_400.0,
        number(0, 31_536_000, "seconds"),
        "how long the answer to a POST with an `Idempotency-Key` is kept; 0 keeps none",
    )
    require_key: bool = key(False, BOOL, "refuse a POST without an `Idempotency-Key`")
    raw: bool = key(
        False,
        BOOL,
        "pass whole requests on, of all methods and all paths below this one, which ends with `/`; "
        "for chains of proxy engines",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HstsOptions(Table):
    """What ``Strict-Transport-Security`` says (RFC 6797). Browsers remember it."""

    max_age: int = key(
        31_536_000, integer(0, 2**31, "seconds"), "how long browsers keep to HTTPS; 0 ends it"
    )
    include_subdomains: bool = key(False, BOOL, "subdomains, too: all of them must speak HTTPS")
    preload: bool = key(False, BOOL, "the site may be put on the list that browsers are built with")


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackOptions(Table):
    """What answers in place of a view of the host app that failed."""

    SHORT: ClassVar[str] = "answers"

    answers: tuple[str, ...] = key(
        (STALE,),
        STRINGS,
        "what answers instead, in this order: `stale` (the last good answer of that very address) "
        "or the name of a chain; a friendly page comes after the last one",
    )
    statuses: tuple[int, ...] = key(
        (500, 502, 503, 504), STATUSES, "answers of the app that count as failed"
    )
    methods: tuple[str, ...] = key(
        ("GET", "HEAD"),
        METHODS,
        "methods for which chains are asked; a copy answers GET and HEAD alone",
    )
    own_body: str = key(
        "json",
        choice("json", "always", "never"),
        "which of the app's own error bodies are sent when nothing else answers: its JSON, any "
        "that it made on purpose, or none",
    )
    page: bool = key(
        True, BOOL, "the friendly page; when false the app's own error is sent, or raised"
    )
    timeout: float | None = key(
        None, number(0.001, 3600, "seconds"), "deadline of a chain; its own when not set"
    )
    keep_s: float = key(
        86_400.0, number(1, 31_536_000, "seconds"), "how old a copy may be that answers"
    )
    copy_every_s: float = key(
        60.0, number(0, 86_400, "seconds"), "a copy of one address is renewed no sooner"
    )
    max_copy: int = key(256 * 1024, integer(1, 2**31, "bytes"), "largest body that is copied")
    copies: int = key(
        200, integer(1, 100_000), "addresses of which a process keeps copies, at most"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCacheOptions(Table):
    """What the shared HTTP cache does differently for one path."""

    store: bool = key(True, BOOL, "false: responses are never stored")
    query: bool = key(True, BOOL, "false: the query is no part of the key")
    max_age: float | None = key(
        None, number(0, 31_536_000, "seconds"), "freshness of responses that do not say their own"
    )
    stale_while_revalidate: float | None = key(
        None,
        number(0, 31_536_000, "seconds"),
        "how long after that they are served while a new one is fetched, if they do not say it",
    )
    stale_if_error: float | None = key(
        None,
        number(0, 31_536_000, "seconds"),
        "how long after that they stand in for an error, if they do not say it",
    )
