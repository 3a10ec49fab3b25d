"""What a notification may hold: sizes are cut, characters cleaned, unsafe links left out.

What is told to people often repeats what came from outside, so nothing about it is certain.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from ..types import Action, Kind, Notification

MAX_MESSAGE = 2000
MAX_TITLE = 200
MAX_KEY = 200
MAX_ACTIONS = 4
MAX_DATA_BYTES = 8_192
LONGEST_S = 3600.0

KINDS = frozenset(get_args(Kind))
_ACTIONS = frozenset({"refresh", "report", "link", "dismiss"})


def bounded(note: Notification, now: float) -> Notification:
    """A copy within the limits; ``now`` is its time when it has none."""
    return dataclasses.replace(
        note,
        kind=note.kind if note.kind in KINDS else "info",
        message=cleaned(note.message, MAX_MESSAGE, lines=True),
        title=cleaned(note.title, MAX_TITLE),
        actions=tuple(filter(None, map(_action, tuple(note.actions)[:MAX_ACTIONS]))),
        progress=None if note.progress is None else percent(note.progress),
        duration_s=None if note.duration_s is None else _clamped(note.duration_s, LONGEST_S),
        key=cleaned(note.key, MAX_KEY),
        at=note.at or now,
        data=_data(note.data),
    )


def cleaned(value: object, limit: int, *, lines: bool = False) -> str:
    """``value`` as text without control, format and surrogate characters.

    Args:
        limit: characters, at most.
        lines: whether line ends may stay.
    """
    text = str(value)[: 4 * limit]
    return "".join(c for c in text if c.isprintable() or (lines and c == "\n"))[:limit]


def percent(value: float) -> float:
    """A share of 100 that is really one; 0 for what is no number."""
    return _clamped(value, 100.0)


def same_origin_path(value: str) -> bool:
    """Whether a browser stays on this site when it follows ``value``."""
    # "//host" and "/\host" are other sites; white space inside would be dropped by browsers
    return (
        value.startswith("/")
        and value[1:2] not in ("/", "\\")
        and value.isprintable()
        and " " not in value
    )


def _action(action: Action) -> Action | None:
    value = str(action.value)[:MAX_MESSAGE]
    if action.action not in _ACTIONS or (action.action == "link" and not same_origin_path(value)):
        return None
    return Action(cleaned(action.label, 80), action.action, cleaned(value, MAX_MESSAGE))


def _clamped(value: float, high: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return 0.0 if math.isnan(number) else max(0.0, min(number, high))


def _data(data: Mapping[str, object]) -> dict[str, Any]:
    """JSON-like values; what JSON cannot say becomes its text, what is too large is left out."""
    if not data:
        return {}
    try:
        encoded = msgspec.json.encode(dict(data), enc_hook=str)
        found = msgspec.json.decode(encoded)
    except Exception:  # noqa: BLE001 - a hostile __str__, a cycle: it cannot be sent
        return {}
    return found if len(encoded) <= MAX_DATA_BYTES and isinstance(found, dict) else {}
