"""The forms of the engines' page: which fields they have, and what a sent one asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..builtin.engines.faults import ERRORS, GARBLES, ChaosOptions
from ..chains.options import BALANCES
from ..errors import ConfigError

__all__ = ["BREAKER", "CALLS", "CHAOS", "LASTS", "PLACE", "SWITCH", "Field", "asked_chaos",
           "changed", "explained", "shown"]  # fmt: skip

LASTS = {"3600": "1 hour", "28800": "8 hours", "86400": "1 day", "604800": "7 days"}
"""How long a change may be asked to last, in seconds."""


@dataclass(frozen=True, slots=True)
class Field:
    """One input.

    Attributes:
        name: the option's name.
        label: plain words.
        unit: stands behind it.
        choices: a list to choose from; free text without.
        empty: what nothing in it means.
    """

    name: str
    label: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    empty: str = ""


CALLS = (
    Field("timeout", "Timeout of a call", "s"),
    Field("attempt_timeout", "Attempt's timeout", "s", empty="none"),
    Field("retries", "Retries"),
    Field("retry_budget", "Retry budget", "per call"),
    Field("retry_budget_floor", "Budget's floor", "per s"),
    Field("balance", "Balance", choices=BALANCES),
    Field("eject_after", "Eject after", "failures"),
    Field("hedge", "Hedge from quantile"),
    Field("bulkhead_wait", "Wait when full", "s"),
)
BREAKER = (
    Field("breaker_failure_rate", "Opens at failures", "share"),
    Field("breaker_slow_rate", "Opens at slow", "share"),
    Field("breaker_slow", "Slow from", "s"),
    Field("breaker_min_calls", "Fewest calls"),
    Field("breaker_window", "Window", "s"),
    Field("breaker_window_calls", "Or the last", "calls", empty="by time"),
    Field("breaker_half_open_permits", "Probes at once"),
    Field("breaker_cooldown", "Cooldown", "s"),
    Field("breaker_cooldown_factor", "Grows by", "times"),
    Field("breaker_cooldown_max", "Longest cooldown", "s"),
    Field("breaker_cooldown_jitter", "Jitter", "share"),
)
PLACE = (
    Field("tier", "Tier"),
    Field("weight", "Weight"),
    Field("max_concurrency", "Calls at once", "0: any"),
)
SWITCH = (
    Field("breaker", "Breaker", choices=("auto", "closed", "open")),
    Field("enabled", "Enabled", choices=("true", "false")),
)
CHAOS = (
    Field("rate", "Calls hit", "0 to 1"),
    Field("latency", "Wait before asking", "s"),
    Field("error", "Raise", choices=("", *ERRORS)),
    Field("garble", "Spoil the answer", choices=("", *GARBLES)),
    Field("seed", "Seed", empty="by chance"),
)


def shown(value: object) -> str:
    """A setting as a field has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def changed(
    form: Mapping[str, str], fields: Sequence[Field], base: Mapping[str, object]
) -> dict[str, object]:
    """The options that somebody changed in a form.

    Args:
        form: what was sent; beside a field's value, ``was:<name>`` is what the page had there.
        fields: those that count.
        base: what holds without a change; asking for that, or for nothing, takes a change back.
    """
    found: dict[str, object] = {}
    for one in fields:
        said = form.get(one.name)
        if said is None or (said := said.strip()) == form.get("was:" + one.name):
            continue
        value = _read(said)
        found[one.name] = None if not said or shown(value) == shown(base.get(one.name)) else value
    return found


def asked_chaos(form: Mapping[str, str]) -> dict[str, object]:
    """The chaos that a form asks for, checked; an empty field takes what it said back.

    Raises:
        ConfigError: a value cannot work.
    """
    said = {one.name: _read(form.get(one.name, "").strip()) for one in CHAOS}
    found = {name: None if value == "" else value for name, value in said.items()}
    ChaosOptions.from_mapping({name: one for name, one in found.items() if one is not None})
    return found


def explained(error: ConfigError, fields: Sequence[Field]) -> dict[str, str]:
    """What is wrong, by the field that it stands beside; "" for none of them."""
    match = re.search(r"[a-z_]+$", error.key)
    name = match[0] if match and match[0] in {one.name for one in fields} else ""
    reason = error.reason
    if name:  # what Python says of a number that is none helps nobody
        reason = re.sub(r" \((could not convert|invalid literal).*\)$", "", reason)
    else:
        reason = f"{error.key}: {reason}"
    return {name: reason[:1].upper() + reason[1:] + "."}


def _read(said: str) -> object:
    for kind in (int, float):
        try:
            return kind(said)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(said, said)
