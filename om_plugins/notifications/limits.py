"""The limits of a notification: cut its size, clean its text, drop links to other sites.

What an application tells people often repeats what came from outside, so nothing in it is trusted.
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
MAX_DURATION_S = 3600.0

KINDS = frozenset(get_args(Kind))
_ACTIONS = frozenset({"refresh", "report", "link", "dismiss"})


def limit_notification(note: Notification, now: float) -> Notification:
    """Return a copy of a notification that keeps the limits.

    Args:
        note: the notification.
        now: Unix time, for a notification without a time.
    """
    return dataclasses.replace(
        note,
        kind=note.kind if note.kind in KINDS else "info",
        message=clean_text(note.message, MAX_MESSAGE, line_breaks=True),
        title=clean_text(note.title, MAX_TITLE),
        actions=tuple(filter(None, map(_limit_action, tuple(note.actions)[:MAX_ACTIONS]))),
        progress=None if note.progress is None else clamp_percent(note.progress),
        duration_s=None if note.duration_s is None else _clamp(note.duration_s, MAX_DURATION_S),
        key=clean_text(note.key, MAX_KEY),
        at=note.at or now,
        data=_limit_data(note.data),
    )


def clean_text(value: object, limit: int, *, line_breaks: bool = False) -> str:
    """Return ``value`` as text without control, format and surrogate characters.

    Args:
        value: anything.
        limit: the greatest number of characters.
        line_breaks: whether line feeds stay.
    """
    text = str(value)[: 4 * limit]
    return "".join(c for c in text if c.isprintable() or (line_breaks and c == "\n"))[:limit]


def clamp_percent(value: float) -> float:
    """Return ``value`` within 0 to 100; 0 for what is not a number."""
    return _clamp(value, 100.0)


def is_same_origin_path(value: str) -> bool:
    """Return whether a browser that follows ``value`` stays on this site."""
    # "//host" and "/\host" are other sites; browsers drop white space inside an address
    return (
        value.startswith("/")
        and value[1:2] not in ("/", "\\")
        and value.isprintable()
        and " " not in value
    )


def _limit_action(action: Action) -> Action | None:
    value = str(action.value)[:MAX_MESSAGE]
    if action.action not in _ACTIONS:
        return None
    if action.action == "link" and not is_same_origin_path(value):
        return None
    return Action(clean_text(action.label, 80), action.action, clean_text(value, MAX_MESSAGE))


def _clamp(value: float, high: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return 0.0 if math.isnan(number) else max(0.0, min(number, high))


def _limit_data(data: Mapping[str, object]) -> dict[str, Any]:
    """Return data that JSON can hold: other values become text, too much data is dropped."""
    if not data:
        return {}
    try:
        encoded = msgspec.json.encode(dict(data), enc_hook=str)
        decoded = msgspec.json.decode(encoded)
    except Exception:  # noqa: BLE001 - a hostile __str__, a cycle: it cannot be sent
        return {}
    return decoded if len(encoded) <= MAX_DATA_BYTES and isinstance(decoded, dict) else {}
