"""What the engines' page shows: texts, marks and values, each by the place where it stands.

The page is a template filled with these once, and again by ``engines.js`` with each new board; so
words are made here, and nowhere twice. Health, rates and calls come from all workers, through the
monitoring; breaker, bulkhead and the like are those of the worker that answers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..builtin.engines.faults import Chaos
from ..chains.chain import EngineChain
from ..chains.engine_state import EngineState
from ..chains.live_settings import EVERY_CHAIN, LiveChange
from ..chains.options import ChainPolicy, EngineOptions
from ..plugins.kit import Kit
from ..policies.breaker import BreakerView
from .engine_forms import BREAKER, CALLS, CHAOS, PLACE, shown

__all__ = ["Board", "ago", "board", "engine_values"]

EVERY = "every"
"""The place of what is said of every chain at once."""

_HEALTH = {"healthy": "good", "degraded": "warn", "offline": "bad"}
_STATES = {"closed": "good", "half-open": "warn", "open": "bad"}
_NONE = "–"


@dataclass(slots=True)
class Board:
    """The page's contents.

    Attributes:
        at: when it was made (Unix time).
        shape: the names of chains and engines; with another shape the page is loaded anew.
        texts, levels, flags, values: by place.
        orders: by chain, its engines by tier.
        chains: what the template goes through: ``id``, ``name`` and ``engines``.
    """

    at: float
    shape: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    levels: dict[str, str] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    orders: dict[str, list[str]] = field(default_factory=dict)
    chains: list[dict[str, Any]] = field(default_factory=list)

    def say(self, place: str, text: str, level: str = "") -> None:
        self.texts[place] = text
        self.levels[place] = level

    def as_data(self) -> dict[str, Any]:
        """For the page's script."""
        names = ("at", "shape", "texts", "levels", "flags", "values", "orders")
        return {name: getattr(self, name) for name in names}


def board(kit: Kit, picture: Mapping[str, Any]) -> Board:
    """The board as it is now.

    Args:
        kit: the application's parts.
        picture: the console's, for what all workers know.
    """
    made = Board(kit.clock.time())
    changes = kit.part_of("chains").live.changes()
    workers = picture["workers"]
    made.say("workers", f"All {len(workers)} workers" if len(workers) > 1 else "All workers")
    made.say("worker", f"Worker {workers[0]['pid']}")
    made.flags["alone"] = kit.hub.alone
    made.flags["any_changed"] = bool(changes)
    made.flags["every"] = EVERY_CHAIN in changes
    made.say("every", _of_every(made.at, changes.get(EVERY_CHAIN)))
    policy = kit.part_of("chains").live.get_policy(EVERY_CHAIN)
    _settings(made, kit, EVERY, EVERY_CHAIN, policy, changes)
    shared = {(one["chain"], one["engine"]): one for one in picture["engines"]}
    for number, (name, chain) in enumerate(sorted(kit.part_of("chains").by_name.items())):
        _chain(made, kit, f"c{number}", name, chain, changes, shared)
    made.shape = "\n".join(
        repr((one["name"], [engine["name"] for engine in one["engines"]])) for one in made.chains
    )
    return made


def engine_values(place: EngineState, options: EngineOptions) -> dict[str, object]:
    """What an engine's options come to, with what it says of itself."""
    traits = place.spec.engine.traits  # type: ignore[attr-defined]
    limit = traits.max_concurrency if options.max_concurrency is None else options.max_concurrency
    return {
        "tier": place.spec.tier if options.tier is None else options.tier,
        "weight": place.spec.weight if options.weight is None else options.weight,
        "max_concurrency": limit or 0,
        "breaker": options.breaker,
        "enabled": options.enabled,
    }


# --- a chain -------------------------------------------------------------------------------------


def _chain(
    made: Board,
    kit: Kit,
    spot: str,
    name: str,
    chain: EngineChain,
    changes: Mapping[str, LiveChange],
    shared: Mapping[tuple[str, str], Mapping[str, Any]],
) -> None:
    everyone = chain.all_states
    spots = {
        one.name: f"{spot}e{i}" for i, one in enumerate(sorted(everyone, key=lambda p: p.name))
    }
    made.chains.append(
        {
            "id": spot,
            "name": name,
            "engines": [{"id": found, "name": engine} for engine, found in spots.items()],
        }
    )
    made.orders[spot] = [spots[one.name] for one in everyone]
    tiers = len({place.tier for place in everyone})
    made.say(f"{spot}.about", f"{_count(len(everyone), 'engine')} on {_count(tiers, 'tier')}")
    own = changes.get(name)
    made.flags[f"{spot}.changed"] = own is not None
    made.say(f"{spot}.until", f"changed live, {_until(made.at, own.until)}" if own else "", "info")
    _settings(made, kit, spot, name, chain.policy, changes)
    said = own.options.get("engines") if own else None
    bases = kit.part_of("chains").live.get_engine_options(name, own=False)
    for place in everyone:
        of_engine = said.get(place.name) if isinstance(said, Mapping) else None
        _engine(
            made,
            kit,
            spots[place.name],
            chain,
            place,
            shared.get((name, place.name)),
            of_engine if isinstance(of_engine, Mapping) else {},
            bases.get(place.name, EngineOptions()),
        )


def _settings(
    made: Board,
    kit: Kit,
    spot: str,
    name: str,
    policy: ChainPolicy,
    changes: Mapping[str, LiveChange],
) -> None:
    base = kit.part_of("chains").live.get_policy(name, own=False)
    own, every = changes.get(name), changes.get(EVERY_CHAIN)
    amount = 0
    for one in (*CALLS, *BREAKER):
        at = f"{spot}.{one.name}"
        made.values[at] = shown(getattr(policy, one.name))
        mine = own is not None and one.name in own.options
        of_all = every is not None and one.name in every.options
        amount += mine or of_all
        made.flags[at] = mine
        if mine and own is not None:
            before = _words(shown(getattr(base, one.name)) or one.empty)
            if spot == EVERY:
                before += ", or as a chain says"
            made.say(f"{at}.note", f"{_until(made.at, own.until)}; otherwise {before}")
        elif of_all and every is not None:
            made.say(f"{at}.note", f"for every chain, {_until(made.at, every.until)}")
        else:
            made.say(f"{at}.note", "")
    made.say(f"{spot}.amount", f"{amount} changed" if amount else "", "info")
    made.say(
        f"{spot}.summary",
        " · ".join(
            (
                f"timeout {shown(policy.timeout)} s",
                "at most once"
                if policy.at_most_once
                else _count(policy.retries, "retry", "retries"),
                f"budget {_percent(policy.retry_budget)}",
                _words(policy.balance),
                f"hedge at {shown(policy.hedge)}" if policy.hedge else "no hedge",
                f"breaker at {_percent(policy.breaker_failure_rate)} of "
                f"{policy.breaker_min_calls} calls or more",
            )
        ),
    )


# --- an engine -----------------------------------------------------------------------------------


def _engine(
    made: Board,
    kit: Kit,
    spot: str,
    chain: EngineChain,
    place: EngineState,
    shared: Mapping[str, Any] | None,
    said: Mapping[str, object],
    base: EngineOptions,
) -> None:
    options = chain.options.get(place.name, EngineOptions())
    now = kit.clock.monotonic()
    view = place.breaker.view(now)
    made.say(f"{spot}.tier", f"Tier {place.tier}")
    made.flags[f"{spot}.enabled"] = options.enabled
    made.flags[f"{spot}.changed"] = bool(said)
    _of_all_workers(made, spot, shared if options.enabled else None, options.enabled)
    _of_this_worker(made, spot, place, view, now)
    if view.probed_at is None and shared is not None and shared["probed_at"] is not None:
        made.say(f"{spot}.probe", f"elsewhere, {ago(made.at - shared['probed_at'])}")
    values, before = engine_values(place, options), engine_values(place, base)
    for one in PLACE:
        at = f"{spot}.{one.name}"
        made.values[at] = shown(values[one.name])
        made.flags[at] = one.name in said
        made.say(f"{at}.note", f"otherwise {shown(before[one.name])}" if one.name in said else "")
    for state in ("auto", "closed", "open"):
        made.flags[f"{spot}.is_{state}"] = options.breaker == state
    _chaos(made, spot, place, options)


def _of_all_workers(
    made: Board, spot: str, shared: Mapping[str, Any] | None, enabled: bool
) -> None:
    if shared is None:
        made.say(f"{spot}.health", "no data" if enabled else "switched off")
        for name in ("failed", "slow", "calls", "since", "error", "asked"):
            made.say(f"{spot}.{name}", _NONE)
        return
    made.say(f"{spot}.health", shared["state"], _HEALTH.get(shared["state"], ""))
    calls = shared["samples"]
    made.say(f"{spot}.failed", _percent(shared["failure_rate"]) if calls else _NONE)
    made.say(f"{spot}.slow", _percent(shared["slow_rate"]) if calls else _NONE)
    made.say(f"{spot}.calls", f"{calls:,}")
    made.say(f"{spot}.since", ago(made.at - shared["since"]))
    made.say(f"{spot}.error", shared["last_error"] or _NONE)
    made.say(f"{spot}.asked", _asked(shared))


def _asked(shared: Mapping[str, Any]) -> str:
    """Whether it gets calls, by what operators decided and how its equals do."""
    if shared["forced"] == "open":
        return "never, forced open"
    last = ", last of its tier" if shared["ejected"] else ""
    if shared["forced"] == "closed":
        return f"always, held closed{last}"
    return "last of its tier" if last else "in its turn"


def _of_this_worker(
    made: Board, spot: str, place: EngineState, view: BreakerView, now: float
) -> None:
    state = {"open": "forced open", "closed": "held closed"}.get(view.forced or "", view.state)
    made.say(f"{spot}.breaker", f"breaker {state}", _STATES[view.state])
    wait = _NONE
    if view.retry_after_s is not None:
        wait = f"in {_span(view.retry_after_s)}" if view.retry_after_s > 0 else "the next call"
    elif view.state == "half-open":
        wait = "under way"
    made.say(f"{spot}.next", wait)
    made.say(f"{spot}.opened", _count(view.opened, "time") if view.opened else "never")
    made.say(f"{spot}.flight", _in_flight(place))
    made.say(f"{spot}.weight", shown(place.weight))
    aside = _NONE
    if now < place.ejection.until:
        aside = f"asked last, {_span(place.ejection.until - now)}"
    elif now < place.cooldown.until:
        aside = f"{place.cooldown.reason}, {_span(place.cooldown.until - now)}"
    made.say(f"{spot}.aside", aside)
    probe = _NONE if hasattr(place.spec.engine, "probe") else "has none"
    if view.probed_at is not None:
        failed = f"failed {view.probes_failed} ×" if view.probes_failed else "well"
        probe = f"{failed}, {ago(now - view.probed_at)}"
    made.say(f"{spot}.probe", probe)


def _in_flight(place: EngineState) -> str:
    traffic = place.traffic
    bulkhead = traffic.bulkhead if traffic is not None else None
    if bulkhead is not None:
        waiting = f", {bulkhead.waiting} wait" if bulkhead.waiting else ""
        return f"{bulkhead.in_use} of {bulkhead.max_concurrency}{waiting}"
    counted = traffic is not None and traffic.load is not None
    return str(place.in_flight) if counted else _NONE


def _chaos(made: Board, spot: str, place: EngineState, options: EngineOptions) -> None:
    chaos = place.ask if isinstance(place.ask, Chaos) else None
    made.flags[f"{spot}.chaos"] = chaos is not None
    if chaos is None:
        made.say(f"{spot}.chaos", "")
    else:
        stats = chaos.stats()
        calls = stats.pop("calls")
        told = f"{sum(stats.values()):,} of {calls:,} calls hit" if calls else "no call yet"
        made.say(f"{spot}.chaos", f"chaos, {told}", "bad")
    said = options.chaos or {}
    for one in CHAOS:
        made.values[f"{spot}.{one.name}"] = shown(said.get(one.name))


# --- words ---------------------------------------------------------------------------------------


def _of_every(at: float, change: LiveChange | None) -> str:
    if change is None:
        return ""
    told = ", ".join(f"{name} {_words(shown(one))}" for name, one in change.options.items())
    return f"For every chain: {told}; {_until(at, change.until)}."


def _until(at: float, until: float) -> str:
    same_day = time.gmtime(at)[:3] == time.gmtime(until)[:3]
    when = time.strftime("%H:%M" if same_day else "%d %b %H:%M", time.gmtime(until))
    return f"until {when} UTC"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _percent(share: float) -> str:
    return f"{round(100 * share, 1):g}\u00a0%"


def _count(amount: int, one: str, many: str = "") -> str:
    return f"{amount} {one if amount == 1 else many or one + 's'}"


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600:
        return f"{round(seconds / 60)} min"
    if seconds < 86_400:
        return f"{round(seconds / 3600)} h"
    return _count(round(seconds / 86_400), "day")


def ago(seconds: float) -> str:
    """How long ago, in plain words."""
    return "now" if seconds < 3 else f"{_span(seconds)} ago"
