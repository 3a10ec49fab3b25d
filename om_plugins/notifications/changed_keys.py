"""Changed keys: tell browsers which keys of the cache changed, so that they ask for them again.

A message names a key that the application made live, and the addresses that may know of it. It
never holds a value. Each message is also kept for a minute, so that a browser whose stream was
interrupted, or that only polls, gets it with its next request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

import msgspec

from ..protocols import Hub
from ..types import HubMessage

KEPT_S = 60.0
"""How many seconds a browser may be away and still get a message."""

_KEPT = "cache-changed/"
_MAX_KEYS = 1_000


class ChangedKeys:
    """The keys that changed lately.

    Args:
        hub: carries the messages to all workers.

    Attributes:
        topic: the hub's topic of the messages.
    """

    topic = "cache-changes"

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def publish(self, key: object, to: Iterable[str]) -> None:
        """Tell the browsers at these addresses that ``key`` changed."""
        data: dict[str, object] = {"key": key, "to": sorted(to)}
        name = hashlib.blake2b(msgspec.json.encode(data), digest_size=16).hexdigest()
        self._hub.put(_KEPT + name, data, KEPT_S)
        self._hub.publish(self.topic, data)

    def read_recent(self, addresses: Collection[str]) -> list[object]:
        """Return the keys that changed in the last minute, as far as ``addresses`` may know."""
        return _select(self._hub.scan(_KEPT).values(), addresses)

    def select(self, messages: Iterable[HubMessage], addresses: Collection[str]) -> list[object]:
        """Return the keys in messages of :attr:`topic` that ``addresses`` may know, each once.

        Args:
            messages: messages of any topics.
            addresses: the addresses of one browser.
        """
        found = (message.data for message in messages if message.topic == self.topic)
        return _select(found, addresses)


def _select(messages: Iterable[object], addresses: Collection[str]) -> list[object]:
    keys: dict[bytes, object] = {}
    for data in messages:
        if not isinstance(data, dict):
            continue
        key, to = data.get("key"), data.get("to")
        if not isinstance(key, str | list) or not isinstance(to, list):
            continue
        if any(isinstance(address, str) and address in addresses for address in to):
            keys[msgspec.json.encode(key)] = key
            if len(keys) >= _MAX_KEYS:
                break
    return list(keys.values())
