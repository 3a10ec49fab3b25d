"""The engines' page: what is asked of an engine or a chain there, and how it is answered.

Each action is a form. A browser without scripts gets the page again; the page's script, and a
script of somebody's own, asks for JSON. What is changed goes through
:class:`~om_plugins.chains.live_settings.LiveSettings`, which checks it and carries it to every
worker.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..chains.live_settings import DEFAULT_LASTS_S, EVERY_CHAIN
from ..chains.options import EngineOptions
from ..core.problem import Refusal
from ..errors import ConfigError
from ..plugins.kit import Kit
from .dashboard import Dashboard
from .engine_forms import (
    BREAKER,
    CALLS,
    CHAOS,
    LASTS,
    PLACE,
    SWITCH,
    Field,
    asked_chaos,
    changed,
    explained,
    shown,
)
from .engines_view import Board, board, engine_values

__all__ = ["Engines", "Outcome"]

logger = logging.getLogger("om_plugins")


@dataclass(slots=True)
class Outcome:
    """What became of an action.

    Attributes:
        message: for a toast; "" when nothing was done.
        form: which form was sent.
        errors: by field, "" for the form as a whole.
        values: what was typed.
    """

    message: str = ""
    form: str = ""
    errors: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)


class Engines:
    """The engines' page of one application.

    Args:
        kit: its parts.
        dashboard: knows what all workers know.
    """

    def __init__(self, kit: Kit, dashboard: Dashboard) -> None:
        self._kit = kit
        self._dashboard = dashboard

    def board(self) -> Board:
        """What the page shows."""
        return board(self._kit, self._dashboard.read())

    def page(self, outcome: Outcome | None = None, done: str = "") -> dict[str, Any]:
        """What the template needs.

        Args:
            outcome: of a form that was refused.
            done: what the address says was done; one of a few words that are known.
        """
        return {
            "board": self.board(),
            "outcome": outcome or Outcome(),
            "done": _DONE.get(done, ""),
            "debug": self._kit.host.debug,
            "fields": {"calls": CALLS, "breaker": BREAKER, "place": PLACE, "chaos": CHAOS},
            "lasts": LASTS,
        }

    def change(self, form: Mapping[str, str], by: str) -> Outcome:
        """Do what a form asks for.

        Args:
            form: its fields.
            by: how whoever sent it came in, for the log.

        Raises:
            Refusal: 400, 403 or 404.
        """
        kind = form.get("do", "")
        outcome = Outcome(form=form.get("form", "")[:40])
        fields: tuple[Field, ...] = ()
        try:
            if kind == "reset":
                outcome.message = self._reset(form, by)
            elif kind == "settings":
                fields = (*CALLS, *BREAKER)
                outcome.message = self._settings(form, by)
            elif kind in ("place", "switch"):
                fields = PLACE if kind == "place" else SWITCH
                outcome.message = self._engine(form, by, fields)
            elif kind == "chaos":
                fields = CHAOS
                outcome.message = self._chaos(form, by)
            else:
                raise Refusal(400, "Send a form of the engines' page.")
        except ConfigError as error:
            outcome.errors = explained(error, fields)
            outcome.values = {one.name: form.get(one.name, "")[:200] for one in fields}
        return outcome

    # --- the forms ----------------------------------------------------------------------------

    def _reset(self, form: Mapping[str, str], by: str) -> str:
        name = form.get("chain", "")
        if not name:
            self._kit.part_of("chains").live.reset()
            return self._told("all live changes", "taken back", by)
        if name != EVERY_CHAIN:
            self._chain(form)
        self._kit.part_of("chains").live.reset(name)
        return self._told(f"the live changes of {_called(name)}", "taken back", by)

    def _settings(self, form: Mapping[str, str], by: str) -> str:
        every = form.get("chain") == EVERY_CHAIN
        name = EVERY_CHAIN if every else self._chain(form)
        back = form.get("back", "")
        fields = (*CALLS, *BREAKER)
        if any(one.name == back for one in fields):
            return self._take_back(name, {back: None}, f"{back} of {_called(name)}", by)
        policy = self._kit.part_of("chains").live.get_policy(name, own=False)
        # a chain's own setting may differ from that of all: to ask for the latter is a change
        base = {} if every else {one.name: getattr(policy, one.name) for one in fields}
        return self._configure(form, by, name, "", changed(form, fields, base))

    def _engine(self, form: Mapping[str, str], by: str, fields: tuple[Field, ...]) -> str:
        name, engine = self._chain(form), self._engine_of(form)
        where = f"engine {engine!r} of chain {name!r}"
        if form.get("back"):
            return self._take_back(name, {"engines": {engine: None}}, where, by)
        chains = self._kit.part_of("chains")
        everyone, live = chains.by_name[name].all_states, chains.live
        place = next(one for one in everyone if one.name == engine)
        options = live.get_engine_options(name, own=False).get(engine, EngineOptions())
        base = engine_values(place, options)
        return self._configure(form, by, name, engine, changed(form, fields, base))

    def _chaos(self, form: Mapping[str, str], by: str) -> str:
        if not self._kit.host.debug:
            raise Refusal(403, "Chaos is for debug mode alone.")
        name, engine = self._chain(form), self._engine_of(form)
        if form.get("back"):
            options: dict[str, object] = {"engines": {engine: {"chaos": None}}}
            return self._take_back(name, options, f"chaos of engine {engine!r}", by)
        return self._configure(form, by, name, engine, {"chaos": asked_chaos(form)})

    # --- what they do -------------------------------------------------------------------------

    def _configure(
        self,
        form: Mapping[str, str],
        by: str,
        name: str,
        engine: str,
        options: dict[str, object],
    ) -> str:
        if not options:
            return "Nothing was changed."
        lasts = form.get("lasts", "")
        lasts_s = float(lasts) if lasts in LASTS else DEFAULT_LASTS_S
        asked = {"engines": {engine: options}} if engine else options
        self._kit.part_of("chains").live.configure(name, lasts=lasts_s, **asked)
        where = f"engine {engine!r} of chain {name!r}" if engine else _called(name)
        what = ", ".join(_said(key, value) for key, value in options.items())
        until = LASTS.get(lasts, LASTS["86400"])
        return self._told(where, f"{what}; for {until}", by)

    def _take_back(self, name: str, options: dict[str, object], what: str, by: str) -> str:
        live = self._kit.part_of("chains").live
        change = live.changes().get(name)
        if change is None:
            return "Nothing was changed."
        # the others of this chain end as they would have
        left_s = change.until - self._kit.clock.time()
        live.configure(name, lasts=max(left_s, 1.0), **options)
        return self._told(what, "taken back", by)

    def _told(self, where: str, what: str, by: str) -> str:
        logger.warning("console (%s): %s: %s", by, where, what)
        return f"{where[:1].upper()}{where[1:]}: {what}."

    def _chain(self, form: Mapping[str, str]) -> str:
        name = form.get("chain", "")
        if name not in self._kit.part_of("chains").by_name:
            raise Refusal(404, "There is no such chain any more. Load the page again.")
        return name

    def _engine_of(self, form: Mapping[str, str]) -> str:
        name = form.get("engine", "")
        if all(
            one.name != name
            for one in self._kit.part_of("chains").by_name[form["chain"]].all_states
        ):
            raise Refusal(404, "There is no such engine any more. Load the page again.")
        return name


def _called(chain: str) -> str:
    return "every chain" if chain == EVERY_CHAIN else f"chain {chain!r}"


_DONE = {"changed": "Done: it holds in every worker within a second."}


_SAID = {
    ("enabled", True): "switched on",
    ("enabled", False): "switched off",
    ("breaker", "open"): "breaker forced open",
    ("breaker", "closed"): "breaker held closed",
    ("breaker", "auto"): "breaker decides by itself",
}


def _said(name: str, value: object) -> str:
    """One change, in words."""
    if value is None:
        return f"{name} as without a change"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key} {shown(one)}" for key, one in value.items() if one is not None)
        return f"{name} ({inside or 'none'})"
    return _SAID.get((name, value), f"{name} {shown(value)}")
