"""The contents of the engines' page: texts, marks and values, each by its place on the page.

The template is filled with them once, and ``engines.js`` fills the page again with each new board,
so all words are made here. Health, rates and calls come from all workers, through the monitoring.
Breaker, bulkhead and the like are those of the worker that answers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..builtin.engines.faults import Chaos
from ..plugins.kit import Kit
from ..policies.breaker import Breaker, BreakerView
from ..policies.cooldown import Cooldown
from ..types import EngineSpec
from .engine_forms import BREAKER, CALLS, CHAOS, EVERY_CHAIN, PLACE, format_value

EVERY = "every"
"""The place of the settings of every chain."""

_HEALTH = {"healthy": "good", "degraded": "warn", "offline": "bad"}
_STATES = {"closed": "good", "half-open": "warn", "open": "bad"}
_NONE = "–"


class ShownEngine(Protocol):
    """What the page needs of an engine of a chain."""

    name: str
    tier: int
    weight: float
    spec: EngineSpec
    breaker: Breaker
    cooldown: Cooldown
    ejection: Any
    traffic: Any
    ask: object

    @property
    def in_flight(self) -> int: ...


class ShownChain(Protocol):
    """What the page needs of a chain."""

    @property
    def all_states(self) -> Sequence[ShownEngine]: ...

    @property
    def policy(self) -> Any: ...


class ShownChange(Protocol):
    """What the page needs of a live change."""

    @property
    def until(self) -> float: ...

    @property
    def options(self) -> Mapping[str, object]: ...


@dataclass(slots=True)
class Board:
    """The page's contents.

    Attributes:
        at: when it was made, in Unix time.
        shape: the names of chains and engines; the page is loaded again when they change.
        texts, levels, flags, values: by place.
        orders: the places of a chain's engines by tier, by the place of the chain.
        chains: for the template: ``id``, ``name`` and ``engines`` of each.
    """

    at: float
    shape: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    levels: dict[str, str] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    orders: dict[str, list[str]] = field(default_factory=dict)
    chains: list[dict[str, Any]] = field(default_factory=list)

    def write(self, place: str, text: str, level: str = "") -> None:
        self.texts[place] = text
        self.levels[place] = level

    def as_data(self) -> dict[str, Any]:
        """Return the board for the page's script."""
        names = ("at", "shape", "texts", "levels", "flags", "values", "orders")
        return {name: getattr(self, name) for name in names}


def build_board(kit: Kit, overview: Mapping[str, Any]) -> Board:
    """Return the present board.

    Args:
        kit: the parts of the application.
        overview: the data of the first page, which has what all workers know.
    """
    board = Board(kit.clock.time())
    chains: Mapping[str, ShownChain] = kit.part_of("chains").by_name
    live = kit.part_of("chains").live
    changes: Mapping[str, ShownChange] = live.changes()
    workers = overview["workers"]
    board.write("workers", f"All {len(workers)} workers" if len(workers) > 1 else "All workers")
    board.write("worker", f"Worker {workers[0]['pid']}")
    board.flags["alone"] = kit.hub.alone
    board.flags["any_changed"] = bool(changes)
    board.flags["every"] = EVERY_CHAIN in changes
    board.write("every", _describe_change(board.at, changes.get(EVERY_CHAIN)))
    _fill_settings(board, kit, EVERY, EVERY_CHAIN, live.get_policy(EVERY_CHAIN), changes)
    shared = {(one["chain"], one["engine"]): one for one in overview["engines"]}
    for number, (name, chain) in enumerate(sorted(chains.items())):
        _fill_chain(board, kit, f"c{number}", name, chain, changes, shared)
    board.shape = "\n".join(
        repr((one["name"], [engine["name"] for engine in one["engines"]])) for one in board.chains
    )
    return board


def engine_values(engine: ShownEngine, options: Any) -> dict[str, object]:
    """Return an engine's settings: its options, else what it says of itself."""
    traits = engine.spec.engine.traits  # type: ignore[attr-defined]
    limit = traits.max_concurrency if options.max_concurrency is None else options.max_concurrency
    return {
        "tier": engine.spec.tier if options.tier is None else options.tier,
        "weight": engine.spec.weight if options.weight is None else options.weight,
        "max_concurrency": limit or 0,
        "breaker": options.breaker,
        "enabled": options.enabled,
    }


# --- a chain -------------------------------------------------------------------------------------


def _fill_chain(
    board: Board,
    kit: Kit,
    place: str,
    name: str,
    chain: ShownChain,
    changes: Mapping[str, ShownChange],
    shared: Mapping[tuple[str, str], Mapping[str, Any]],
) -> None:
    engines = chain.all_states
    places = {
        one.name: f"{place}e{i}" for i, one in enumerate(sorted(engines, key=lambda e: e.name))
    }
    board.chains.append(
        {
            "id": place,
            "name": name,
            "engines": [{"id": id_, "name": engine} for engine, id_ in places.items()],
        }
    )
    board.orders[place] = [places[one.name] for one in engines]
    tiers = _format_count(len({one.tier for one in engines}), "tier")
    board.write(f"{place}.about", f"{_format_count(len(engines), 'engine')} on {tiers}")
    own = changes.get(name)
    board.flags[f"{place}.changed"] = own is not None
    until = f"changed live, {_format_end(board.at, own.until)}" if own else ""
    board.write(f"{place}.until", until, "info")
    _fill_settings(board, kit, place, name, chain.policy, changes)
    of_engines = own.options.get("engines") if own else None
    for one in engines:
        changed = of_engines.get(one.name) if isinstance(of_engines, Mapping) else None
        _fill_engine(
            board,
            kit,
            places[one.name],
            name,
            one,
            shared.get((name, one.name)),
            changed if isinstance(changed, Mapping) else {},
        )


def _fill_settings(
    board: Board,
    kit: Kit,
    place: str,
    name: str,
    policy: Any,
    changes: Mapping[str, ShownChange],
) -> None:
    base = kit.part_of("chains").live.get_policy(name, own=False)
    own, every = changes.get(name), changes.get(EVERY_CHAIN)
    changed = 0
    for one in (*CALLS, *BREAKER):
        at = f"{place}.{one.name}"
        board.values[at] = format_value(getattr(policy, one.name))
        by_own = own is not None and one.name in own.options
        by_every = every is not None and one.name in every.options
        changed += by_own or by_every
        board.flags[at] = by_own
        if by_own and own is not None:
            before = _to_words(format_value(getattr(base, one.name)) or one.empty)
            if place == EVERY:
                before += ", or as a chain says"
            board.write(f"{at}.note", f"{_format_end(board.at, own.until)}; otherwise {before}")
        elif by_every and every is not None:
            board.write(f"{at}.note", f"for every chain, {_format_end(board.at, every.until)}")
        else:
            board.write(f"{at}.note", "")
    board.write(f"{place}.amount", f"{changed} changed" if changed else "", "info")
    board.write(
        f"{place}.summary",
        " · ".join(
            (
                f"timeout {format_value(policy.timeout)} s",
                "at most once"
                if policy.at_most_once
                else _format_count(policy.retries, "retry", "retries"),
                f"budget {_format_share(policy.retry_budget)}",
                _to_words(policy.balance),
                f"hedge at {format_value(policy.hedge)}" if policy.hedge else "no hedge",
                f"breaker at {_format_share(policy.breaker_failure_rate)} of "
                f"{policy.breaker_min_calls} calls or more",
            )
        ),
    )


# --- an engine -----------------------------------------------------------------------------------


def _fill_engine(
    board: Board,
    kit: Kit,
    place: str,
    chain: str,
    engine: ShownEngine,
    shared: Mapping[str, Any] | None,
    changed: Mapping[str, object],
) -> None:
    live = kit.part_of("chains").live
    options = live.get_options_of(chain, engine.name)
    now = kit.clock.monotonic()
    view = engine.breaker.view(now)
    board.write(f"{place}.tier", f"Tier {engine.tier}")
    board.flags[f"{place}.enabled"] = options.enabled
    board.flags[f"{place}.changed"] = bool(changed)
    _fill_shared(board, place, shared if options.enabled else None, options.enabled)
    _fill_own(board, place, engine, view, now)
    if view.probed_at is None and shared is not None and shared["probed_at"] is not None:
        ago = format_ago(board.at - shared["probed_at"])
        board.write(f"{place}.probe", f"elsewhere, {ago}")
    values = engine_values(engine, options)
    before = engine_values(engine, live.get_options_of(chain, engine.name, own=False))
    for one in PLACE:
        at = f"{place}.{one.name}"
        board.values[at] = format_value(values[one.name])
        board.flags[at] = one.name in changed
        note = f"otherwise {format_value(before[one.name])}" if one.name in changed else ""
        board.write(f"{at}.note", note)
    for state in ("auto", "closed", "open"):
        board.flags[f"{place}.is_{state}"] = options.breaker == state
    _fill_chaos(board, place, engine, options.chaos or {})


def _fill_shared(board: Board, place: str, shared: Mapping[str, Any] | None, enabled: bool) -> None:
    """Fill in what all workers know of an engine."""
    if shared is None:
        board.write(f"{place}.health", "no data" if enabled else "switched off")
        for name in ("failed", "slow", "calls", "since", "error", "asked"):
            board.write(f"{place}.{name}", _NONE)
        return
    board.write(f"{place}.health", shared["state"], _HEALTH.get(shared["state"], ""))
    calls = shared["samples"]
    board.write(f"{place}.failed", _format_share(shared["failure_rate"]) if calls else _NONE)
    board.write(f"{place}.slow", _format_share(shared["slow_rate"]) if calls else _NONE)
    board.write(f"{place}.calls", f"{calls:,}")
    board.write(f"{place}.since", format_ago(board.at - shared["since"]))
    board.write(f"{place}.error", shared["last_error"] or _NONE)
    board.write(f"{place}.asked", _describe_turn(shared))


def _describe_turn(shared: Mapping[str, Any]) -> str:
    """Say whether an engine gets calls, by what operators decided and how its equals do."""
    if shared["forced"] == "open":
        return "never, forced open"
    last = ", last of its tier" if shared["ejected"] else ""
    if shared["forced"] == "closed":
        return f"always, held closed{last}"
    return "last of its tier" if last else "in its turn"


def _fill_own(board: Board, place: str, engine: ShownEngine, view: BreakerView, now: float) -> None:
    """Fill in what this worker knows of an engine."""
    breaker = {"open": "forced open", "closed": "held closed"}.get(view.forced or "", view.state)
    board.write(f"{place}.breaker", f"breaker {breaker}", _STATES[view.state])
    wait = _NONE
    if view.retry_after_s is not None:
        wait = "the next call"
        if view.retry_after_s > 0:
            wait = f"in {_format_span(view.retry_after_s)}"
    elif view.state == "half-open":
        wait = "under way"
    board.write(f"{place}.next", wait)
    board.write(f"{place}.opened", _format_count(view.opened, "time") if view.opened else "never")
    board.write(f"{place}.flight", _describe_load(engine))
    board.write(f"{place}.weight", format_value(engine.weight))
    aside = _NONE
    if now < engine.ejection.until:
        aside = f"asked last, {_format_span(engine.ejection.until - now)}"
    elif now < engine.cooldown.until:
        aside = f"{engine.cooldown.reason}, {_format_span(engine.cooldown.until - now)}"
    board.write(f"{place}.aside", aside)
    probe = _NONE if hasattr(engine.spec.engine, "probe") else "has none"
    if view.probed_at is not None:
        failed = f"failed {view.probes_failed} ×" if view.probes_failed else "well"
        probe = f"{failed}, {format_ago(now - view.probed_at)}"
    board.write(f"{place}.probe", probe)


def _describe_load(engine: ShownEngine) -> str:
    traffic = engine.traffic
    bulkhead = traffic.bulkhead if traffic is not None else None
    if bulkhead is not None:
        waiting = f", {bulkhead.waiting} wait" if bulkhead.waiting else ""
        return f"{bulkhead.in_use} of {bulkhead.max_concurrency}{waiting}"
    counted = traffic is not None and traffic.load is not None
    return str(engine.in_flight) if counted else _NONE


def _fill_chaos(
    board: Board, place: str, engine: ShownEngine, options: Mapping[str, object]
) -> None:
    chaos = engine.ask if isinstance(engine.ask, Chaos) else None
    board.flags[f"{place}.chaos"] = chaos is not None
    if chaos is None:
        board.write(f"{place}.chaos", "")
    else:
        stats = chaos.stats()
        calls = stats.pop("calls")
        hits = f"{sum(stats.values()):,} of {calls:,} calls hit" if calls else "no call yet"
        board.write(f"{place}.chaos", f"chaos, {hits}", "bad")
    for one in CHAOS:
        board.values[f"{place}.{one.name}"] = format_value(options.get(one.name))


# --- words ---------------------------------------------------------------------------------------


def _describe_change(at: float, change: ShownChange | None) -> str:
    if change is None:
        return ""
    values = (f"{name} {_to_words(format_value(one))}" for name, one in change.options.items())
    return f"For every chain: {', '.join(values)}; {_format_end(at, change.until)}."


def _format_end(at: float, until: float) -> str:
    same_day = time.gmtime(at)[:3] == time.gmtime(until)[:3]
    when = time.strftime("%H:%M" if same_day else "%d %b %H:%M", time.gmtime(until))
    return f"until {when} UTC"


def _to_words(name: str) -> str:
    return name.replace("_", " ")


def _format_share(share: float) -> str:
    return f"{round(100 * share, 1):g}\u00a0%"


def _format_count(amount: int, one: str, many: str = "") -> str:
    return f"{amount} {one if amount == 1 else many or one + 's'}"


def _format_span(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600:
        return f"{round(seconds / 60)} min"
    if seconds < 86_400:
        return f"{round(seconds / 3600)} h"
    return _format_count(round(seconds / 86_400), "day")


def format_ago(seconds: float) -> str:
    """Return how long ago something was, in plain words."""
    return "now" if seconds < 3 else f"{_format_span(seconds)} ago"
