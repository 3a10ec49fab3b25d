"""Checks of what a third party's feature returns, where it comes in.

Each function returns what can be used, and raises or collects what is wrong. The texts name the
value and the way out; :class:`~om_plugins.plugins.feature_kit.FeatureKit` adds the plugin and the
feature.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, cast

from ..settings.callbacks import explain_kind, explain_wsgi_app
from .kit import Card, Finding, Metric

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from click import Command

OWN_METRICS = re.compile(
    r"om_(alert|cache|chain|engine|fallback|http|hub|memory|process|workers)(_.*)?"
)
"""The names of the shipped metrics, and those that later releases may add."""

MOST = 1e18
"""The greatest amount of a metric."""
MAX_LABELS = 4
MAX_TEXT = 300
"""The longest name of a metric; longer helps and labels are cut."""

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")
_LEVELS = ("ok", "warn", "fail")


def is_text(value: object) -> bool:
    """Tell whether a value is text that can be encoded: lone surrogates cannot."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _iterate(found: object) -> Iterable[object]:
    if not isinstance(found, Iterable):
        raise TypeError(f"it returned {found!r}: return a list")
    return found


def check_layer(layer: object, problems: list[str]) -> WSGIApplication | None:
    """Return a WSGI app or ``None``; add a text to ``problems`` for anything else."""
    problem = "" if layer is None else explain_wsgi_app(layer)
    if not problem:
        return cast("WSGIApplication | None", layer)
    problems.append(f"{layer!r} is no WSGI app ({problem}): return one, or None for no layer")
    return None


def check_endpoints(found: object, problems: list[str]) -> dict[str, WSGIApplication]:
    """Return the endpoints that can be served; add a text to ``problems`` for each other one.

    Raises:
        TypeError: it is no mapping.
    """
    if not isinstance(found, Mapping):
        raise TypeError(f"{found!r} is no mapping: return a dict from path to WSGI app")
    sound = {}
    for path, app in found.items():
        if problem := explain_wsgi_app(app):
            problems.append(f"{path!r}: {app!r} is no WSGI app ({problem})")
        elif reason := _explain_path(path):
            problems.append(f"{path!r}: {reason}")
        else:
            sound[path] = app
    return sound


def _explain_path(path: object) -> str:
    from werkzeug.routing import Map, Rule

    if not is_text(path) or not str(path).startswith("/"):
        return "a path is text that begins with '/'"
    try:
        Map([Rule(str(path), endpoint=path)])
    except Exception as error:  # noqa: BLE001 - werkzeug raises errors of many classes here
        return f"is no rule of werkzeug's: {error}"
    return ""


def check_commands(found: object, problems: list[str]) -> list[Command]:
    """Return the commands with a name; add a text to ``problems`` for each other one.

    Raises:
        TypeError: it is no list.
    """
    from click import Command

    sound = []
    for one in _iterate(found):
        if not isinstance(one, Command):
            problems.append(f"{one!r} is no click.Command")
        elif not (is_text(one.name) and one.name):
            problems.append(f"a command has the name {one.name!r}: name it with @click.command")
        elif one.callback is not None and (problem := explain_kind(one.callback)):
            problems.append(f"the command {one.name!r} would run nothing: {problem}")
        else:
            sound.append(one)
    return sound


def check_card(card: object) -> Card | None:
    """Refuse what is no card.

    Raises:
        TypeError: it is neither a card nor ``None``.
    """
    if card is not None and not isinstance(card, Card):
        raise TypeError(f"{card!r} is no om_plugins.Card: return one, or None")
    return card


def check_findings(found: object, problems: list[str]) -> list[Finding]:
    """Return the sound findings; add a text to ``problems`` for each other one.

    Raises:
        TypeError: it is no list.
    """
    sound = []
    for one in _iterate(found):
        if not isinstance(one, Finding):
            problems.append(f"{one!r} is no om_plugins.Finding")
        elif one.level not in _LEVELS:
            problems.append(f"the level {one.level!r} is none of ok, warn and fail")
        elif not all(map(is_text, (one.subject, one.message, one.way_out))):
            problems.append(f"{one!r} has a part that is no text")
        else:
            sound.append(one)
    return sound


def check_metrics(found: object, problems: list[str]) -> list[Metric]:
    """Return the sound metrics; add a text to ``problems`` for each other one.

    Raises:
        TypeError: it is no list.
    """
    sound = []
    for one in _iterate(found):
        try:
            sound.append(check_metric(one))
        except ValueError as error:
            problems.append(str(error))
    return sound


def check_metric(metric: object) -> Metric:
    """Return the metric with a plain ``float``.

    Raises:
        ValueError: it is no metric, or a field cannot be counted.
    """
    if not isinstance(metric, Metric):
        raise ValueError(f"{metric!r} is no om_plugins.Metric")
    from decimal import Decimal

    name, labels = metric.name, metric.labels
    value: object = metric.value
    if not (is_text(name) and _NAME.fullmatch(name) and len(name) <= MAX_TEXT):
        raise ValueError(f"the metric {name!r}: a name is letters, digits and '_'")
    if metric.kind not in ("counter", "gauge"):
        raise ValueError(f"the metric {name}: the kind {metric.kind!r} is no counter or gauge")
    if metric.kind == "counter" and name.endswith("_total"):
        raise ValueError(f"the metric {name}: leave out '_total', which the text format adds")
    if OWN_METRICS.fullmatch(name):
        raise ValueError(
            f"the metric {name}: om_plugins has metrics of such names; begin it with the name of "
            "your feature"
        )
    if not is_text(metric.about):
        raise ValueError(f"the metric {name}: the help {metric.about!r} is no text")
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        raise ValueError(f"the metric {name}: the value {value!r} is no number")
    try:
        number = float(value)
    except (OverflowError, ValueError):
        number = math.inf
    if not 0 <= number <= MOST:
        raise ValueError(f"the metric {name}: the value {value!r} is not between 0 and {MOST:g}")
    if labels is None:
        labels = {}
    if not (
        isinstance(labels, Mapping)
        and len(labels) <= MAX_LABELS
        and all(is_text(text) for pair in labels.items() for text in pair)
        and all(_NAME.fullmatch(label) for label in labels)
    ):
        raise ValueError(
            f"the metric {name}: the labels {labels!r} are no mapping of at most {MAX_LABELS} "
            "names to texts"
        )
    return Metric(str(name), str(metric.about), number, dict(labels), metric.kind)
