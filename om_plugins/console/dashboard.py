"""What the console shows: the monitoring's overview, and what else the application knows of itself.

Made at most once a second in a process, however many watch. Everything in it is data for JSON;
nothing of it is trusted to be harmless, which is why the page only ever sets text.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ..core.fork import renew_after_fork
from ..csp.advisor import as_settings, suggest
from ..csp.violations import groups
from ..notifications.audience import EVERYONE, OPERATORS
from ..notifications.notifications import TOPIC
from ..plugins.kit import Kit
from .doctor import examine

__all__ = ["RANGES", "Picture"]

logger = logging.getLogger("om_plugins")

RANGES = {"minutes": ("seconds", 1, 120), "hour": ("10s", 10, 360), "day": ("5min", 300, 288)}
"""What a chart may show: the name of the overview's points, seconds from one to the next, and how
many there are."""

MAX_ROUTES = 50
MAX_NOTES = 30
MAX_PROBLEMS = 20
MAX_RECOVERIES = 20
MAX_VIOLATIONS = 30
FRESH_S = 0.9
SLOW_S = 10.0
"""The set-up seldom changes."""

_SERIES = ("requests_per_s", "p50_ms", "p95_ms", "p99_ms", "success_rate", "in_flight",
           "cpu_percent", "rss_bytes")  # fmt: skip
_ZERO = frozenset({"requests_per_s", "in_flight", "cpu_percent"})
"""These are nought where nothing was noted; of the others nothing is known."""

_T = TypeVar("_T")


class Picture:
    """Puts the picture together.

    Args:
        kit: the application's parts.
    """

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._notes = _Notes(kit)
        self._started_anew()
        renew_after_fork(self)

    def _started_anew(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, tuple[float, Any]] = {}

    def after_fork(self) -> None:
        self._started_anew()

    def take(self, span: str = "minutes") -> dict[str, Any]:
        """The picture as it is now.

        Args:
            span: a key of :data:`RANGES`: how far back the charts go.
        """
        with self._lock:  # who waits here gets the one that was just made
            overview = self._kept("overview", FRESH_S, self._overview)
            picture = {
                key: one for key, one in overview.items() if key not in ("history", "seconds")
            }
            picture["series"] = _series(overview, span)
            return picture

    def _kept(self, name: str, fresh_s: float, make: Callable[[], _T]) -> _T:
        now = self._kit.clock.monotonic()
        found = self._made.get(name)
        if found is None or not 0 <= now - found[0] < fresh_s:
            found = self._made[name] = (now, make())
        value: _T = found[1]
        return value

    def _overview(self) -> dict[str, Any]:
        kit = self._kit
        overview = kit.part_of("monitoring").overview()
        overview["routes"] = overview["routes"][:MAX_ROUTES]
        return {
            **overview,
            "monitoring": "monitoring" in kit.layers,
            "hub": "alone" if kit.hub.alone else "shared",
            "chains": sorted(kit.part_of("chains").by_name),
            "notifications": self._part("notifications", self._notes.newest),
            "patterns": self._part("patterns", self._patterns),
            "wrong_methods": self._part("wrong methods", self._wrong_methods),
            "recoveries": self._part("recoveries", self._recoveries),
            "silences": kit.part_of("monitoring").alerts.read_silences(),
            "problems": self._part("problems", self._problems),
            "violations": self._kept("violations", SLOW_S, self._violations),
            "plugins": self._kept("plugins", SLOW_S, self._plugins),
            "findings": self._kept("findings", SLOW_S, self._findings),
        }

    def _part(self, name: str, make: Callable[[], list[Any]]) -> list[Any]:
        try:
            return make()
        except Exception:
            logger.exception("the console cannot show %s", name)
            return []

    def _patterns(self) -> list[Any]:
        found = self._kit.part_of("recovery").recovery.patterns()[:MAX_RECOVERIES]
        return [dataclasses.asdict(one) for one in found]

    def _wrong_methods(self) -> list[Any]:
        found = self._kit.part_of("recovery").wrong_methods.current()[:MAX_RECOVERIES]
        return [dataclasses.asdict(one) for one in found]

    def _recoveries(self) -> list[Any]:
        found = self._kit.part_of("recovery").recovery.history()[-MAX_RECOVERIES:]
        return [dataclasses.asdict(one) for one in reversed(found)]

    def _problems(self) -> list[Any]:
        return [
            dataclasses.asdict(one)
            for one in self._kit.part_of("notifications").problem_reports.read(MAX_PROBLEMS)
        ]

    def _violations(self) -> dict[str, Any]:
        found = suggest(self._part("violations", lambda: groups(self._kit.hub)))
        policy = self._kit.part_of("headers").policy.rules.strict
        return {
            "mode": self._kit.part_of("headers").policy.mode,
            "suggestions": [dataclasses.asdict(one) for one in found[:MAX_VIOLATIONS]],
            "settings": as_settings(found, policy),
        }

    def _plugins(self) -> list[Any]:
        return [
            {
                "name": one.name,
                "state": one.state,
                "version": one.version,
                "source": one.source,
                "about": one.reason or one.summary,
            }
            for one in self._kit.plugins.statuses()
        ]

    def _findings(self) -> list[Any]:
        order = ("fail", "warn", "ok")
        found = sorted(examine(self._kit), key=lambda one: order.index(one.level))
        return [dataclasses.asdict(one) for one in found]


class _Notes:
    """The newest notifications, each key once; read on from where the last look ended."""

    def __init__(self, kit: Kit) -> None:
        self._hub = kit.hub
        self._after = ""
        self._notes: deque[dict[str, Any]] = deque(maxlen=10 * MAX_NOTES)

    def newest(self) -> list[dict[str, Any]]:
        """Newest first."""
        while messages := self._hub.read(TOPIC, self._after, limit=1_000):
            self._after = messages[-1].id
            self._notes.extend(_note(m.id, m.at, m.data) for m in messages)
        found: dict[str, dict[str, Any]] = {}
        for note in reversed(self._notes):
            found.setdefault(note["key"] or note["id"], note)
            if len(found) == MAX_NOTES:
                break
        return list(found.values())


def _note(number: str, at: float, data: object) -> dict[str, Any]:
    said = data if isinstance(data, Mapping) else {}
    to = said.get("to")
    return {
        "id": number,
        "at": at,
        "kind": str(said.get("kind", "info")),
        "title": str(said.get("title") or ""),
        "message": str(said.get("message") or ""),
        "key": str(said.get("key") or ""),
        "progress": said.get("progress"),
        "to": _addressee(to),
        "ours": to in (OPERATORS, EVERYONE),
    }


def _addressee(to: object) -> str:
    """Whom a notification was for, without telling which browser."""
    return "one browser" if not isinstance(to, str) or to.startswith("sid:") else to


def _series(overview: Mapping[str, Any], span: str) -> dict[str, Any]:
    """A range's points as columns, the newest last and none left out."""
    name, step_s, count = RANGES.get(span, RANGES["minutes"])
    points: Sequence[Mapping[str, Any]] = (
        overview["seconds"] if name == "seconds" else overview["history"][name]
    )
    by_index = {int(point["at"]) // step_s: point for point in points}
    last = int(overview["at"]) // step_s
    whole = range(last - count, last)  # the present one is not complete
    return {
        "span": span if span in RANGES else "minutes",
        "step_s": step_s,
        "end": last * step_s,
        **{name: list(_column(name, by_index, whole)) for name in _SERIES},
    }


def _column(
    name: str, points: Mapping[int, Mapping[str, Any]], whole: Iterable[int]
) -> Iterable[float | None]:
    for index in whole:
        point = points.get(index)
        if point is None:
            yield 0 if name in _ZERO else None
        else:
            value = point[name]
            # a process that was not sampled then has no memory to speak of
            yield None if name == "rss_bytes" and not value else value
