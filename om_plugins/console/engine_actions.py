"""The engines' page: what people change there, and the answer.

Each action is a form. A browser without scripts gets the page again; the page's own script, or
somebody's own, asks for JSON. Changes go through the live settings of the chains, which check them
and carry them to every worker.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.problem import Refusal
from ..errors import ConfigError
from ..plugins.kit import Kit
from .dashboard import Dashboard
from .engine_forms import (
    BREAKER,
    CALLS,
    CHAOS,
    DEFAULT_LASTS,
    EVERY_CHAIN,
    LASTS,
    PLACE,
    SWITCH,
    FormField,
    explain_error,
    fill_choices,
    format_value,
    read_changes,
    read_chaos,
)
from .engines_view import Board, build_board, engine_values

logger = logging.getLogger("om_plugins")


@dataclass(slots=True)
class FormOutcome:
    """The outcome of an action.

    Attributes:
        message: for a toast; "" when nothing was done.
        form: the form that was sent.
        errors: by the name of the field, "" for the form as a whole.
        values: the text of each field.
    """

    message: str = ""
    form: str = ""
    errors: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)


class EnginesPage:
    """The engines' page of one application.

    Args:
        kit: the parts of the application.
        dashboard: has what all workers know.
    """

    def __init__(self, kit: Kit, dashboard: Dashboard) -> None:
        self._kit = kit
        self._dashboard = dashboard

    def board(self) -> Board:
        """Return what the page shows, with what was changed in another worker just now."""
        self._kit.part_of("chains").live.poll()
        return build_board(self._kit, self._dashboard.read())

    def page(self, outcome: FormOutcome | None = None, done: str = "") -> dict[str, Any]:
        """Return the values of the template.

        Args:
            outcome: the outcome of a form that was refused.
            done: the word in the address for what was done; an unknown one says nothing.
        """
        return {
            "board": self.board(),
            "outcome": outcome or FormOutcome(),
            "done": _DONE.get(done, ""),
            "debug": self._kit.host.debug,
            "fields": {"calls": self._calls(), "breaker": BREAKER, "place": PLACE, "chaos": CHAOS},
            "lasts": LASTS,
        }

    def change(self, form: Mapping[str, str], by: str) -> FormOutcome:
        """Do what a form asks for.

        Args:
            form: the text of its fields.
            by: how the sender was let in, for the log.

        Raises:
            Refusal: 400, 403 or 404.
        """
        kind = form.get("do", "")
        outcome = FormOutcome(form=form.get("form", "")[:40])
        fields: tuple[FormField, ...] = ()
        try:
            if kind == "reset":
                outcome.message = self._take_all_back(form, by)
            elif kind == "settings":
                fields = (*CALLS, *BREAKER)
                outcome.message = self._change_settings(form, by)
            elif kind in ("place", "switch"):
                fields = PLACE if kind == "place" else SWITCH
                outcome.message = self._change_engine(form, by, fields)
            elif kind == "chaos":
                fields = CHAOS
                outcome.message = self._change_chaos(form, by)
            else:
                raise Refusal(400, "Send a form of the engines' page.")
        except ConfigError as error:
            outcome.errors = explain_error(error, fields)
            outcome.values = {one.name: form.get(one.name, "")[:200] for one in fields}
        return outcome

    # --- the forms ----------------------------------------------------------------------------

    def _calls(self) -> tuple[FormField, ...]:
        policy = self._kit.part_of("chains").live.get_policy(EVERY_CHAIN)
        return fill_choices(CALLS, type(policy))

    def _take_all_back(self, form: Mapping[str, str], by: str) -> str:
        name = form.get("chain", "")
        if not name:
            self._kit.part_of("chains").live.reset()
            return self._report("all live changes", "taken back", by)
        if name != EVERY_CHAIN:
            self._read_chain(form)
        self._kit.part_of("chains").live.reset(name)
        return self._report(f"the live changes of {_name_chain(name)}", "taken back", by)

    def _change_settings(self, form: Mapping[str, str], by: str) -> str:
        every = form.get("chain") == EVERY_CHAIN
        name = EVERY_CHAIN if every else self._read_chain(form)
        back = form.get("back", "")
        fields = (*CALLS, *BREAKER)
        if any(one.name == back for one in fields):
            return self._take_back(name, {back: None}, f"{back} of {_name_chain(name)}", by)
        policy = self._kit.part_of("chains").live.get_policy(name, own=False)
        # for every chain there is no base: chains may have settings of their own, so that the
        # default is a change, too
        base = {} if every else {one.name: getattr(policy, one.name) for one in fields}
        return self._configure(form, by, name, "", read_changes(form, fields, base))

    def _change_engine(
        self, form: Mapping[str, str], by: str, fields: tuple[FormField, ...]
    ) -> str:
        name, engine = self._read_chain(form), self._read_engine(form)
        where = f"engine {engine!r} of chain {name!r}"
        if form.get("back"):
            return self._take_back(name, {"engines": {engine: None}}, where, by)
        chains = self._kit.part_of("chains")
        everyone, live = chains.by_name[name].all_states, chains.live
        state = next(one for one in everyone if one.name == engine)
        base = engine_values(state, live.get_options_of(name, engine, own=False))
        return self._configure(form, by, name, engine, read_changes(form, fields, base))

    def _change_chaos(self, form: Mapping[str, str], by: str) -> str:
        if not self._kit.host.debug:
            raise Refusal(403, "Chaos is for debug mode alone.")
        name, engine = self._read_chain(form), self._read_engine(form)
        if form.get("back"):
            options: dict[str, object] = {"engines": {engine: {"chaos": None}}}
            return self._take_back(name, options, f"chaos of engine {engine!r}", by)
        return self._configure(form, by, name, engine, {"chaos": read_chaos(form)})

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
        lasts_s = float(lasts if lasts in LASTS else DEFAULT_LASTS)
        asked = {"engines": {engine: options}} if engine else options
        self._kit.part_of("chains").live.configure(name, lasts=lasts_s, **asked)
        where = f"engine {engine!r} of chain {name!r}" if engine else _name_chain(name)
        what = ", ".join(_describe(key, value) for key, value in options.items())
        until = LASTS.get(lasts, LASTS[DEFAULT_LASTS])
        return self._report(where, f"{what}; for {until}", by)

    def _take_back(self, name: str, options: dict[str, object], what: str, by: str) -> str:
        live = self._kit.part_of("chains").live
        change = live.changes().get(name)
        if change is None:
            return "Nothing was changed."
        # the other changes of this chain end when they would have ended
        left_s = change.until - self._kit.clock.time()
        live.configure(name, lasts=max(left_s, 1.0), **options)
        return self._report(what, "taken back", by)

    def _report(self, where: str, what: str, by: str) -> str:
        logger.warning("console (%s): %s: %s", by, where, what)
        return f"{where[:1].upper()}{where[1:]}: {what}."

    def _read_chain(self, form: Mapping[str, str]) -> str:
        name = form.get("chain", "")
        if name not in self._kit.part_of("chains").by_name:
            raise Refusal(404, "There is no such chain any more. Load the page again.")
        return name

    def _read_engine(self, form: Mapping[str, str]) -> str:
        name = form.get("engine", "")
        if all(
            one.name != name
            for one in self._kit.part_of("chains").by_name[form["chain"]].all_states
        ):
            raise Refusal(404, "There is no such engine any more. Load the page again.")
        return name


def _name_chain(chain: str) -> str:
    return "every chain" if chain == EVERY_CHAIN else f"chain {chain!r}"


_DONE = {"changed": "Done: it holds in every worker within a second."}


_WORDS = {
    ("enabled", True): "switched on",
    ("enabled", False): "switched off",
    ("breaker", "open"): "breaker forced open",
    ("breaker", "closed"): "breaker held closed",
    ("breaker", "auto"): "breaker decides by itself",
}


def _describe(name: str, value: object) -> str:
    """Return one change in words."""
    if value is None:
        return f"{name} as without a change"
    if isinstance(value, Mapping):
        inside = ", ".join(
            f"{key} {format_value(one)}" for key, one in value.items() if one is not None
        )
        return f"{name} ({inside or 'none'})"
    return _WORDS.get((name, value), f"{name} {format_value(value)}")
