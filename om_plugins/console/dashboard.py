"""The data of the console's first page: the overview of monitoring and what each feature adds.

Each process makes it at most once a second, however many people watch. All of it is data for JSON.
None of it is trusted, so the page sets it as text only.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from ..core.fork import renew_after_fork
from ..plugins.kit import Card, Kit
from .doctor import examine

RANGES = {"minutes": ("seconds", 1, 120), "hour": ("10s", 10, 360), "day": ("5min", 300, 288)}
"""What a chart may show: the name of the overview's points, the seconds from one point to the next,
and the number of points."""

MAX_ROUTES = 50
MAX_CARD_ROWS = 100
FRESH_S = 0.9
SLOW_S = 10.0
"""How long plugins and findings are kept: the set-up seldom changes."""

_SERIES = ("requests_per_s", "p50_ms", "p95_ms", "p99_ms", "success_rate", "in_flight",
           "cpu_percent", "rss_bytes")  # fmt: skip
_ZERO = frozenset({"requests_per_s", "in_flight", "cpu_percent"})
"""These are zero at a time without a point. The others are unknown then."""

_T = TypeVar("_T")


class Dashboard:
    """Collects what the first page shows.

    Args:
        kit: the parts of the application.
    """

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Make a new lock in a child: a thread of the parent may hold the old one for ever."""
        self._lock = threading.Lock()
        self._made: dict[str, tuple[float, Any]] = {}

    def read(self, span: str = "minutes") -> dict[str, Any]:
        """Return the present data.

        Args:
            span: a key of :data:`RANGES`: how far back the charts go.
        """
        with self._lock:  # a thread that waited here gets what was made meanwhile
            overview = self._reuse("overview", FRESH_S, self._collect)
            data = {key: one for key, one in overview.items() if key not in ("history", "seconds")}
            data["series"] = _build_series(overview, span)
            return data

    def _reuse(self, name: str, fresh_s: float, make: Callable[[], _T]) -> _T:
        now = self._kit.clock.monotonic()
        found = self._made.get(name)
        if found is None or not 0 <= now - found[0] < fresh_s:
            found = self._made[name] = (now, make())
        value: _T = found[1]
        return value

    def _collect(self) -> dict[str, Any]:
        kit = self._kit
        overview = kit.part_of("monitoring").overview()
        overview["routes"] = overview["routes"][:MAX_ROUTES]
        tables, data = self._read_cards()
        return {
            **data,
            **overview,
            "monitoring": "monitoring" in kit.layers,
            "hub": "alone" if kit.hub.alone else "shared",
            "cards": tables,
            "plugins": self._reuse("plugins", SLOW_S, self._list_plugins),
            "findings": self._reuse("findings", SLOW_S, self._list_findings),
        }

    def _read_cards(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The features' tables by the name of the feature, and what else they add."""
        tables: dict[str, Any] = {}
        data: dict[str, Any] = {}
        # read under guard, too: one value that is no JSON must not take the page from all
        for name, (is_table, encoded) in self._kit.cards(_read_card).items():
            if is_table:
                tables[name] = encoded
            else:
                data = {**encoded, **data}  # a third party's come last, and replace nothing
        return tables, data

    def _list_plugins(self) -> list[Any]:
        return [
            {
                "name": _clean(one.name),
                "state": one.state,
                "version": _clean(one.version),
                "source": _clean(one.source),
                "about": _clean(one.reason or one.summary),
            }
            for one in self._kit.plugins.get_statuses()
        ]

    def _list_findings(self) -> Any:
        order = ("fail", "warn", "ok")
        found = sorted(examine(self._kit), key=lambda one: order.index(one.level))
        return msgspec.to_builtins(found)


def _clean(text: object) -> str:
    return str(text).encode("utf-8", "backslashreplace").decode()  # a plugin's may be no Unicode


def _read_card(card: Card) -> tuple[bool, dict[str, Any]]:
    encoded = _encode_card(card)
    msgspec.json.encode(encoded)  # raises for text that is no Unicode, such as a lone surrogate
    return card.data is None, encoded


def _encode_card(card: Card) -> dict[str, Any]:
    if card.data is not None:
        data: dict[str, Any] = msgspec.to_builtins(dict(card.data))
        return data
    return {
        "title": str(card.title),
        "columns": [str(one) for one in card.columns],
        "rows": [[_encode_cell(cell) for cell in row] for row in card.rows[:MAX_CARD_ROWS]],
        "empty": str(card.empty),
    }


def _encode_cell(cell: object) -> str | int | float:
    if isinstance(cell, int) or (isinstance(cell, float) and math.isfinite(cell)):
        return cell
    return str(cell)  # JSON has no infinity, and a feature may give objects


def _build_series(overview: Mapping[str, Any], span: str) -> dict[str, Any]:
    """Return the points of a range as columns, the newest last and none left out."""
    name, step_s, count = RANGES.get(span, RANGES["minutes"])
    points: Sequence[Mapping[str, Any]] = (
        overview["seconds"] if name == "seconds" else overview["history"][name]
    )
    by_index = {int(point["at"]) // step_s: point for point in points}
    last = int(overview["at"]) // step_s
    indexes = range(last - count, last)  # the present one is not complete
    return {
        "span": span if span in RANGES else "minutes",
        "step_s": step_s,
        "end": last * step_s,
        **{name: list(_build_column(name, by_index, indexes)) for name in _SERIES},
    }


def _build_column(
    name: str, points: Mapping[int, Mapping[str, Any]], indexes: Iterable[int]
) -> Iterable[float | None]:
    for index in indexes:
        point = points.get(index)
        if point is None:
            yield 0 if name in _ZERO else None
        else:
            value = point[name]
            # zero memory means that no process was sampled
            yield None if name == "rss_bytes" and not value else value
