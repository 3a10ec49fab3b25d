"""The newest notifications for operators, each key once."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..protocols import Hub
from .audience import EVERYONE, OPERATORS

MAX_RECENT = 30
_BATCH = 1_000


@dataclass(eq=False, repr=False)
class RecentNotifications:
    """Reads the hub's topic on from where the last read ended.

    Threads may read at the same time: a notification that two of them add counts once.

    Args:
        hub: the hub that the workers share.
        topic: of the notifications.
    """

    hub: Hub
    topic: str

    def __post_init__(self) -> None:
        self._after = ""
        self._newest: deque[dict[str, Any]] = deque(maxlen=10 * MAX_RECENT)

    def read(self) -> list[dict[str, Any]]:
        """Return the newest notifications as data for JSON, the newest first."""
        while messages := self.hub.read(self.topic, self._after, limit=_BATCH):
            self._after = messages[-1].id
            self._newest.extend(_as_data(one.id, one.at, one.data) for one in messages)
        found: dict[str, dict[str, Any]] = {}
        for note in reversed(list(self._newest)):
            found.setdefault(note["key"] or note["id"], note)
            if len(found) == MAX_RECENT:
                break
        return list(found.values())


def _as_data(number: str, at: float, data: object) -> dict[str, Any]:
    note = data if isinstance(data, Mapping) else {}
    to = note.get("to")
    return {
        "id": number,
        "at": at,
        "kind": str(note.get("kind", "info")),
        "title": str(note.get("title") or ""),
        "message": str(note.get("message") or ""),
        "key": str(note.get("key") or ""),
        "progress": note.get("progress"),
        "to": _name_audience(to),
        "ours": to in (OPERATORS, EVERYONE),
    }


def _name_audience(to: object) -> str:
    """Name the audience of a notification, without telling which browser it was for."""
    return "one browser" if not isinstance(to, str) or to.startswith("sid:") else to
