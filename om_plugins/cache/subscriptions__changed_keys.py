"""Announcements: browsers are told that a key of the cache changed, and ask for it again.

A message names a key that the application made live, and says to whom; a value is never sent. What
was announced lately is kept for a minute as well, so that a browser whose stream was away for a
moment, or that only polls, is told of it on its next request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

import msgspec

from ..protocols import Hub
from ..types import HubMessage

__all__ = ["KEPT_S", "TOPIC", "Announcements", "keys_of"]

TOPIC = "cache-changes"
KEPT_S = 60.0
"""How long a browser may be away and still be told."""

_KEPT = "cache-changed/"
_MOST_KEYS = 1_000


class Announcements:
    """What was announced.

    Args:
        hub: carries it to all workers.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def __call__(self, key: object, to: Iterable[str]) -> None:
        """Tell the browsers at these addresses that ``key`` changed."""
        data: dict[str, object] = {"key": key, "to": sorted(to)}
        name = hashlib.blake2b(msgspec.json.encode(data), digest_size=16).hexdigest()
        self._hub.put(_KEPT + name, data, KEPT_S)
        self._hub.publish(TOPIC, data)

    def recent(self, mine: Collection[str]) -> list[object]:
        """The keys that changed in the last minute, for one browser's addresses."""
        return _keys(self._hub.scan(_KEPT).values(), mine)


def keys_of(messages: Iterable[HubMessage], mine: Collection[str]) -> list[object]:
    """The keys that messages name to one browser, each once."""
    return _keys((message.data for message in messages), mine)


def _keys(said: Iterable[object], mine: Collection[str]) -> list[object]:
    found: dict[bytes, object] = {}
    for data in said:
        if not isinstance(data, dict):
            continue
        key, to = data.get("key"), data.get("to")
        if isinstance(key, str | list) and isinstance(to, list) and any(one in mine for one in to):
            found[msgspec.json.encode(key)] = key
            if len(found) >= _MOST_KEYS:
                break
    return list(found.values())
