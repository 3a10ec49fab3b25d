"""The forms of the engines' page: their fields, and how a sent form is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..builtin.engines.faults import ERRORS, GARBLES, ChaosOptions
from ..errors import ConfigError
from ..settings.table import Table

EVERY_CHAIN = "*"
"""The name that ``om.configure`` takes for every chain."""

LASTS = {"3600": "1 hour", "28800": "8 hours", "86400": "1 day", "604800": "7 days"}
"""How long a change may last, in seconds."""
DEFAULT_LASTS = "86400"


@dataclass(frozen=True, slots=True)
class FormField:
    """One input of a form.

    Attributes:
        name: the option's name.
        label: what people read beside it.
        unit: the unit of its value.
        choices: the values of a list; () for free text.
        empty: what an empty field means.
    """

    name: str
    label: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    empty: str = ""


CALLS = (
    FormField("timeout", "Timeout of a call", "s"),
    FormField("attempt_timeout", "Attempt's timeout", "s", empty="none"),
    FormField("retries", "Retries"),
    FormField("retry_budget", "Retry budget", "per call"),
    FormField("retry_budget_floor", "Budget's floor", "per s"),
    FormField("balance", "Balance"),
    FormField("eject_after", "Eject after", "failures"),
    FormField("hedge", "Hedge from quantile"),
    FormField("bulkhead_wait", "Wait when full", "s"),
)
BREAKER = (
    FormField("breaker_failure_rate", "Opens at failures", "share"),
    FormField("breaker_slow_rate", "Opens at slow", "share"),
    FormField("breaker_slow", "Slow from", "s"),
    FormField("breaker_min_calls", "Fewest calls"),
    FormField("breaker_window", "Window", "s"),
    FormField("breaker_window_calls", "Or the last", "calls", empty="by time"),
    FormField("breaker_half_open_permits", "Probes at once"),
    FormField("breaker_cooldown", "Cooldown", "s"),
    FormField("breaker_cooldown_factor", "Grows by", "times"),
    FormField("breaker_cooldown_max", "Longest cooldown", "s"),
    FormField("breaker_cooldown_jitter", "Jitter", "share"),
)
PLACE = (
    FormField("tier", "Tier"),
    FormField("weight", "Weight"),
    FormField("max_concurrency", "Calls at once", "0: any"),
)
SWITCH = (
    FormField("breaker", "Breaker", choices=("auto", "closed", "open")),
    FormField("enabled", "Enabled", choices=("true", "false")),
)
CHAOS = (
    FormField("rate", "Calls hit", "0 to 1"),
    FormField("latency", "Wait before asking", "s"),
    FormField("error", "Raise", choices=("", *ERRORS)),
    FormField("garble", "Spoil the answer", choices=("", *GARBLES)),
    FormField("seed", "Seed", empty="by chance"),
)


def fill_choices(fields: Sequence[FormField], table: type[Table]) -> tuple[FormField, ...]:
    """Return the fields with the choices that a table of settings allows."""
    checks = {name: row.metadata["check"] for name, row in table.keys().items()}
    return tuple(
        replace(one, choices=checks[one.name].choices) if checks[one.name].choices else one
        for one in fields
    )


def format_value(value: object) -> str:
    """Return the text of a setting's value in a field."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def read_changes(
    form: Mapping[str, str], fields: Sequence[FormField], base: Mapping[str, object]
) -> dict[str, object]:
    """Return the options that somebody changed in a form.

    Args:
        form: the form that was sent. Beside the value of a field, ``was:<name>`` is the value that
            the page showed.
        fields: the fields to look at.
        base: the values that hold without a live change. A field that is empty or has this value
            takes the change back, which is ``None`` in the result.
    """
    found: dict[str, object] = {}
    for one in fields:
        text = form.get(one.name)
        if text is None or (text := text.strip()) == form.get("was:" + one.name):
            continue
        is_base = not text or format_value(_parse(text)) == format_value(base.get(one.name))
        found[one.name] = None if is_base else _parse(text)
    return found


def read_chaos(form: Mapping[str, str]) -> dict[str, object]:
    """Return the chaos that a form asks for; an empty field takes its value back.

    Raises:
        ConfigError: a value cannot work.
    """
    values = {one.name: _parse(form.get(one.name, "").strip()) for one in CHAOS}
    found = {name: None if value == "" else value for name, value in values.items()}
    ChaosOptions.from_mapping({name: one for name, one in found.items() if one is not None})
    return found


def explain_error(error: ConfigError, fields: Sequence[FormField]) -> dict[str, str]:
    """Return what is wrong, by the field to show it at; "" for the form as a whole."""
    match = re.search(r"[a-z_]+$", error.key)
    name = match[0] if match and match[0] in {one.name for one in fields} else ""
    reason = error.reason
    if name:  # the words of Python's float() help nobody
        reason = re.sub(r" \((could not convert|invalid literal).*\)$", "", reason)
    else:
        reason = f"{error.key}: {reason}"
    return {name: reason[:1].upper() + reason[1:] + "."}


def _parse(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(text, text)
