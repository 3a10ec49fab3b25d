"""What alerts are about: the rules with their defaults, and the readings they are held against."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from ..errors import ConfigError
from ..types import EngineHealth, Health
from ..workers.engine_health import fallbacks
from .windows import Slot, added_up

__all__ = ["RULES", "Options", "Reading", "Rule", "read_all", "rules_from", "wilson_lower"]

_Z = 1.96
_FEWEST = 20
"""No share of fewer samples than this sets off an alert."""

RECENT_S = 60


@dataclass(slots=True, frozen=True)
class Rule:
    """A threshold.

    Attributes:
        limit: crossed from here on.
        clear: over again below this; lower than ``limit``, so that a value near it does not flap.
        for_s: how long it must be crossed before the alert fires.
        keep_s: how long it must be clear before the alert is over.
        kind: of the notification.
        words: the message; gets ``value``, ``limit`` and ``subject``.
    """

    name: str
    limit: float
    clear: float
    for_s: float
    keep_s: float
    kind: Literal["warning", "error"]
    words: str


RULES = (
    Rule("response_time", 2.0, 1.6, 60, 60, "warning",
         "Responses are slow: 5 % take longer than {value:.1f} s (limit {limit:g} s)"),
    Rule("error_rate", 0.05, 0.025, 60, 60, "error",
         "{value:.0%} of the requests fail (limit {limit:.0%})"),
    Rule("memory", 0.90, 0.85, 60, 60, "warning",
         "Memory is {value:.0%} full (limit {limit:.0%})"),
    Rule("engine_offline", 0.5, 0.5, 15, 15, "error",
         "The engine {subject} is offline"),
    Rule("fallback_rate", 0.10, 0.05, 30, 60, "warning",
         "{value:.0%} of the answers of {subject} come from a fallback (limit {limit:.0%})"),
    Rule("cache_hits", 0.5, 0.25, 60, 120, "warning",
         "The cache's hit rate fell by {value:.0%} against the last hour (limit {limit:.0%})"),
)  # fmt: skip
"""The defaults."""


class Options(Protocol):
    """What a setting may change of a rule; ``None`` leaves the default."""

    @property
    def enabled(self) -> bool: ...
    @property
    def limit(self) -> float | None: ...
    @property
    def clear(self) -> float | None: ...
    @property
    def for_s(self) -> float | None: ...
    @property
    def keep_s(self) -> float | None: ...


def rules_from(options: Mapping[str, Options]) -> list[Rule]:
    """The rules with their settings applied.

    A limit without a ``clear`` of its own keeps the default's proportion.

    Raises:
        ConfigError: a rule is unknown, or ``clear`` lies above ``limit``.
    """
    known = {rule.name: rule for rule in RULES}
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "known are " + ", ".join(known)
            raise ConfigError(f"OM_ALERTS[{name!r}]", options[name], f"unknown alert; {hint}")
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
                for_s=rule.for_s if own.for_s is None else own.for_s,
                keep_s=rule.keep_s if own.keep_s is None else own.keep_s,
            )
        )
    return rules


@dataclass(slots=True)
class Reading:
    """One measure.

    Attributes:
        value: in the rule's unit; ``None`` when there is nothing to measure.
        crossed: whether it is above a limit for sure: not by the accident of a few samples.
    """

    rule: str
    subject: str
    value: float | None
    crossed: Callable[[float], bool]


def wilson_lower(hits: int, total: int) -> float:
    """The lower bound of the 95 % Wilson interval of a share; 0 when there is nothing to tell.

    Source: E. B. Wilson, JASA 22 (1927). It is what keeps two failures of ten from counting as
    "20 %".
    """
    if total < _FEWEST:
        return 0.0
    share = hits / total
    spread = _Z * math.sqrt(share * (1 - share) / total + _Z * _Z / (4 * total * total))
    return (share + _Z * _Z / (2 * total) - spread) / (1 + _Z * _Z / total)


def wilson_upper(hits: int, total: int) -> float:
    """The upper bound; 1 when there is nothing to tell."""
    return 1 - wilson_lower(total - hits, total)


def read_all(
    seconds: Sequence[Slot], hour: Sequence[Slot], engines: Iterable[EngineHealth], now: float
) -> list[Reading]:
    """Everything that the rules are held against.

    Args:
        seconds: one-second slots of all workers.
        hour: ten-second slots of all workers.
        engines: merged health.
        now: Unix time.
    """
    recent = added_up(slot for slot in seconds if slot.index >= int(now) - RECENT_S)
    base = added_up(slot for slot in hour if slot.index * 10 < int(now) - RECENT_S)
    health = list(engines)
    return [
        _response_time(recent),
        _share("error_rate", "", recent.errors, recent.requests),
        Reading("memory", "", recent.memory or None, lambda limit: recent.memory > limit),
        _cache_hits(recent, base),
        *(_offline(one) for one in health),
        *(
            _share("fallback_rate", chain, one.fell_back, one.answered)
            for chain, one in fallbacks(health).items()
        ),
    ]


def _response_time(recent: Slot) -> Reading:
    durations = recent.durations
    # the 95th percentile is above a limit when more than 5 % are
    return Reading(
        "response_time",
        "",
        durations.quantile(0.95),
        lambda limit: wilson_lower(durations.above(limit), durations.count) > 0.05,
    )


def _share(rule: str, subject: str, hits: int, total: int) -> Reading:
    return Reading(
        rule,
        subject,
        hits / total if total else None,
        lambda limit: wilson_lower(hits, total) > limit,
    )


def _offline(one: EngineHealth) -> Reading:
    # what an operator forced open is known to be so
    offline = one.state is Health.OFFLINE and one.forced != "open"
    return Reading(
        "engine_offline",
        f"{one.chain}/{one.engine}",
        1.0 if offline else 0.0,
        lambda limit: offline,
    )


def _cache_hits(recent: Slot, base: Slot) -> Reading:
    """How much of the hit rate of the hour before was lost in the last minute."""
    before = base.cache_hits + base.cache_misses
    now = recent.cache_hits + recent.cache_misses
    usual = base.cache_hits / before if before >= 5 * _FEWEST else 0.0
    if not usual or not now:
        return Reading("cache_hits", "", None, lambda limit: False)
    at_best = wilson_upper(recent.cache_hits, now)
    return Reading(
        "cache_hits",
        "",
        max(0.0, 1 - recent.cache_hits / now / usual),
        lambda limit: at_best < usual * (1 - limit),
    )
