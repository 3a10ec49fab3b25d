"""The health of engines, merged from all workers.

Each worker has its own breakers. An engine is offline when at least half of the workers that have
data about it say so, degraded when any of them says offline or degraded, and healthy when any has
used it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from ..core.body import convert
from ..types import EngineHealth, Health

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Name = Annotated[str, msgspec.Meta(max_length=200)]


class _HealthWire(msgspec.Struct):
    """The health of one engine as it is stored in the hub."""

    engine: _Name
    chain: _Name
    tier: int
    state: Health
    failure_rate: _Share
    slow_rate: _Share
    samples: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    since: float
    last_error: _Name = ""
    # workers of an earlier version, which serve during a deployment, do not send these
    forced: Literal["", "open", "closed"] = ""
    ejected: bool = False
    probed_at: float | None = None


def encode_health(health: Iterable[EngineHealth]) -> list[dict[str, object]]:
    """Encode health for the hub and for JSON."""
    return [
        {
            **{name: getattr(one, name) for name in _HealthWire.__struct_fields__},
            "engine": one.engine[:200],
            "chain": one.chain[:200],
            "state": one.state.value,
            "failure_rate": round(one.failure_rate, 4),
            "slow_rate": round(one.slow_rate, 4),
            "last_error": one.last_error[:200],
        }
        for one in health
    ]


def decode_health(data: object) -> list[EngineHealth]:
    """Decode the result of :func:`encode_health`.

    Raises:
        ValueError: the data is something else.
    """
    wires = convert(data, Annotated[list[_HealthWire], msgspec.Meta(max_length=1000)])
    return [
        EngineHealth(*(getattr(w, name) for name in _HealthWire.__struct_fields__)) for w in wires
    ]


def merge_health(workers: Iterable[Iterable[EngineHealth]]) -> list[EngineHealth]:
    """Merge the health that the workers report into one row per engine, by chain and tier."""
    found: dict[tuple[str, str, int], list[EngineHealth]] = {}
    for worker in workers:
        for one in worker:
            found.setdefault((one.chain, one.engine, one.tier), []).append(one)
    merged = [_merge_rows(rows) for rows in found.values()]
    # sorted() is stable: engines of one tier keep the order in which they are called
    return sorted(merged, key=lambda one: (one.chain, one.tier))


def _merge_rows(rows: list[EngineHealth]) -> EngineHealth:
    first = rows[0]
    samples = sum(row.samples for row in rows)
    state = _merge_states([row.state for row in rows])
    return EngineHealth(
        engine=first.engine,
        chain=first.chain,
        tier=first.tier,
        state=state,
        failure_rate=sum(r.failure_rate * r.samples for r in rows) / samples if samples else 0.0,
        slow_rate=sum(r.slow_rate * r.samples for r in rows) / samples if samples else 0.0,
        samples=samples,
        since=min((r.since for r in rows if r.state is state), default=first.since),
        last_error=next((r.last_error for r in rows if r.last_error), ""),
        forced=next((r.forced for r in rows if r.forced), ""),
        ejected=any(r.ejected for r in rows),
        probed_at=max((r.probed_at for r in rows if r.probed_at is not None), default=None),
    )


def _merge_states(states: list[Health]) -> Health:
    known = [state for state in states if state is not Health.NO_DATA]
    if not known:
        return Health.NO_DATA
    if 2 * known.count(Health.OFFLINE) >= len(known):
        return Health.OFFLINE
    if Health.OFFLINE in known or Health.DEGRADED in known:
        return Health.DEGRADED
    return Health.HEALTHY


@dataclass(slots=True)
class FallbackCounts:
    """How many answers of a chain came from a tier after its first, in the breakers' window."""

    answered: int = 0
    fell_back: int = 0


def count_fallbacks(health: Iterable[EngineHealth]) -> dict[str, FallbackCounts]:
    """Count answers by chain: each call that a breaker counted as no failure was an answer."""
    first: dict[str, int] = {}
    counted: dict[str, FallbackCounts] = {}
    rows = list(health)
    for one in rows:
        first[one.chain] = min(first.get(one.chain, one.tier), one.tier)
    for one in rows:
        answers = round(one.samples * (1 - one.failure_rate))
        total = counted.setdefault(one.chain, FallbackCounts())
        total.answered += answers
        if one.tier > first[one.chain]:
            total.fell_back += answers
    return counted
