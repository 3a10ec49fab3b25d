"""The rules of alerts with their defaults, and the readings that are compared with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from ..errors import ConfigError, suggest
from ..types import EngineHealth, Health
from ..workers.engine_health import count_fallbacks
from .windows import Slot, sum_slots

_Z = 1.96
_MIN_SAMPLES = 20
"""A share of fewer samples than this never makes an alert fire."""

RECENT_S = 60
"""The seconds that readings of the present cover."""


@dataclass(slots=True, frozen=True)
class AlertRule:
    """A threshold.

    Attributes:
        limit: the value from which on the rule is violated.
        clear: the value below which the rule is kept again. It is lower than ``limit``, so that a
            value near the limit does not make the alert flap.
        for_s: how many seconds the rule must be violated before the alert fires.
        keep_s: how many seconds the rule must be kept before the alert resolves.
        kind: the kind of the notification.
        message: the message, a format string with ``value``, ``limit`` and ``subject``.
    """

    name: str
    limit: float
    clear: float
    for_s: float
    keep_s: float
    kind: Literal["warning", "error"]
    message: str


RULES = (
    AlertRule("response_time", 2.0, 1.6, 60, 60, "warning",
         "Responses are slow: 5 % take longer than {value:.1f} s (limit {limit:g} s)"),
    AlertRule("error_rate", 0.05, 0.025, 60, 60, "error",
         "{value:.0%} of the requests fail (limit {limit:.0%})"),
    AlertRule("memory", 0.90, 0.85, 60, 60, "warning",
         "Memory is {value:.0%} full (limit {limit:.0%})"),
    AlertRule("engine_offline", 0.5, 0.5, 15, 15, "error",
         "The engine {subject} is offline"),
    AlertRule("fallback_rate", 0.10, 0.05, 30, 60, "warning",
         "{value:.0%} of the answers of {subject} come from a fallback (limit {limit:.0%})"),
    AlertRule("cache_hits", 0.5, 0.25, 60, 120, "warning",
         "The cache's hit rate fell by {value:.0%} against the last hour (limit {limit:.0%})"),
)  # fmt: skip
"""The defaults."""


class RuleOptions(Protocol):
    """What ``OM_ALERTS`` may change in a rule; ``None`` keeps the default."""

    @property
    def enabled(self) -> bool: ...
    @property
    def limit(self) -> float | None: ...
    @property
    def clear(self) -> float | None: ...
    @property
    def fire_after(self) -> float | None: ...
    @property
    def resolve_after(self) -> float | None: ...


def build_rules(options: Mapping[str, RuleOptions]) -> list[AlertRule]:
    """Apply ``OM_ALERTS`` to the rules.

    When only ``limit`` is set, ``clear`` changes in the same proportion.

    Raises:
        ConfigError: a rule is unknown, or ``clear`` is above ``limit``.
    """
    known = {rule.name: rule for rule in RULES}
    for name in options:
        if name not in known:
            reason = f"unknown alert; {suggest(name, known)}"
            raise ConfigError(f"OM_ALERTS[{name!r}]", options[name], reason)
    rules = []
    for name, rule in known.items():
        own = options.get(name)
        if own is None:
            rules.append(rule)
            continue
        if not own.enabled:
            continue
        limit = rule.limit if own.limit is None else own.limit
        clear = limit * rule.clear / rule.limit if own.clear is None else own.clear
        if clear > limit:
            raise ConfigError(
                f"OM_ALERTS[{name!r}].clear", clear, f"must not be above the limit, {limit:g}"
            )
        rules.append(
            replace(
                rule,
                limit=limit,
                clear=clear,
                for_s=rule.for_s if own.fire_after is None else own.fire_after,
                keep_s=rule.keep_s if own.resolve_after is None else own.resolve_after,
            )
        )
    return rules


@dataclass(slots=True)
class Reading:
    """A measured value.

    Attributes:
        value: in the rule's unit; ``None`` when there is nothing to measure.
        crossed: ``crossed(limit)`` returns whether the value is above a limit for certain, and not
            by chance because there are few samples.
    """

    rule: str
    subject: str
    value: float | None
    crossed: Callable[[float], bool]


def wilson_lower(hits: int, total: int) -> float:
    """Return the lower bound of the 95 % Wilson interval of a share; 0 for too few samples.

    Because of it, two failures of ten requests do not count as "20 %".
    Source: E. B. Wilson, JASA 22 (1927).
    """
    if total < _MIN_SAMPLES:
        return 0.0
    share = hits / total
    spread = _Z * math.sqrt(share * (1 - share) / total + _Z * _Z / (4 * total * total))
    return (share + _Z * _Z / (2 * total) - spread) / (1 + _Z * _Z / total)


def wilson_upper(hits: int, total: int) -> float:
    """Return the upper bound of the same interval; 1 for too few samples."""
    return 1 - wilson_lower(total - hits, total)


def take_readings(
    seconds: Sequence[Slot], hour: Sequence[Slot], engines: Iterable[EngineHealth], now: float
) -> list[Reading]:
    """Measure everything that the rules are about.

    Args:
        seconds: the one-second slots of all workers.
        hour: the ten-second slots of all workers.
        engines: the health of engines, merged from all workers.
        now: Unix time.
    """
    recent = sum_slots(slot for slot in seconds if slot.index >= int(now) - RECENT_S)
    base = sum_slots(slot for slot in hour if slot.index * 10 < int(now) - RECENT_S)
    health = list(engines)
    return [
        _read_response_time(recent),
        _read_share("error_rate", "", recent.errors, recent.requests),
        Reading("memory", "", recent.memory or None, lambda limit: recent.memory > limit),
        _read_cache_hits(recent, base),
        *(_read_offline(one) for one in health),
        *(
            _read_share("fallback_rate", chain, one.fell_back, one.answered)
            for chain, one in count_fallbacks(health).items()
        ),
    ]


def _read_response_time(recent: Slot) -> Reading:
    durations = recent.durations
    # the 95th percentile is above a limit when more than 5 % are
    return Reading(
        "response_time",
        "",
        durations.quantile(0.95),
        lambda limit: wilson_lower(durations.above(limit), durations.count) > 0.05,
    )


def _read_share(rule: str, subject: str, hits: int, total: int) -> Reading:
    return Reading(
        rule,
        subject,
        hits / total if total else None,
        lambda limit: wilson_lower(hits, total) > limit,
    )


def _read_offline(one: EngineHealth) -> Reading:
    # an operator who forced the breaker open knows that the engine is off
    offline = one.state is Health.OFFLINE and one.forced != "open"
    return Reading(
        "engine_offline",
        f"{one.chain}/{one.engine}",
        1.0 if offline else 0.0,
        lambda limit: offline,
    )


def _read_cache_hits(recent: Slot, base: Slot) -> Reading:
    """Measure how much of the last hour's hit rate was lost in the last minute."""
    before = base.cache_hits + base.cache_misses
    now = recent.cache_hits + recent.cache_misses
    usual = base.cache_hits / before if before >= 5 * _MIN_SAMPLES else 0.0
    if not usual or not now:
        return Reading("cache_hits", "", None, lambda limit: False)
    at_best = wilson_upper(recent.cache_hits, now)
    return Reading(
        "cache_hits",
        "",
        max(0.0, 1 - recent.cache_hits / now / usual),
        lambda limit: at_best < usual * (1 - limit),
    )
