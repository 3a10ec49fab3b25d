"""The hub of one process: ``memory://``.

Its content is lost when the process ends. A forked child starts with a copy of the parent's values,
holds no leases, and shares nothing with the parent.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from itertools import islice, takewhile

from ...core.fork import renew_after_fork
from ...hookspecs import hookimpl
from ...protocols import Clock, HubFactory, PluginContext
from ...types import HubMessage, PluginInfo
from .encoding import (
    MAX_READ,
    HubLease,
    check_amount,
    check_name,
    check_ttl,
    decode,
    encode,
    next_id,
    read_id,
    write_id,
)

_SWEEP_EVERY_S = 30.0


_Message = tuple[int, float, float, bytes]
"""Id, Unix time, monotonic time, encoded data."""


@dataclass(slots=True)
class _Topic:
    """Messages, oldest first."""

    messages: deque[_Message] = field(default_factory=deque)
    size_bytes: int = 0

    def drop_oldest(self) -> None:
        self.size_bytes -= len(self.messages.popleft()[3])


@dataclass(slots=True)
class _HeldLease:
    """One lease: the token of its holder, and its end on the monotonic clock."""

    token: int
    expires: float


@dataclass(eq=False, repr=False)
class MemoryHub:
    """A :class:`~om_plugins.protocols.Hub` in this process's memory.

    Args:
        url: ``memory://``; the rest is ignored.
        clock: values and leases expire by its monotonic time; ids come from its Unix time.
        max_messages: the most messages of a topic.
        max_age: seconds until a message is dropped.
        max_bytes: the most bytes of a topic.
        max_keys: the most values, and the most counters. Beyond it the oldest is dropped.
    """

    url: str
    clock: Clock
    _: KW_ONLY
    max_messages: int = 10_000
    max_age: float = 86_400.0
    max_bytes: int = 64_000_000
    max_keys: int = 100_000
    _condition: threading.Condition = field(init=False, default_factory=threading.Condition)
    _last: int = field(init=False, default=0)
    _topics: dict[str, _Topic] = field(init=False, default_factory=dict)
    _values: dict[str, tuple[bytes, float]] = field(init=False, default_factory=dict)
    _counters: dict[str, tuple[int, float]] = field(init=False, default_factory=dict)
    _leases: dict[str, _HeldLease] = field(init=False, default_factory=dict)
    _next_sweep: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Renew the lock in a child process, which holds none of its parent's leases."""
        self._condition = threading.Condition()
        self._leases.clear()

    def publish(self, topic: str, data: object) -> str:
        check_name(topic)
        encoded = encode(topic, data)
        condition = self._condition
        with condition:
            now = self.clock.time()
            self._last = next_id(self._last, now)
            kept = self._topics.setdefault(topic, _Topic())
            kept.messages.append((self._last, now, self.clock.monotonic(), encoded))
            kept.size_bytes += len(encoded)
            self._trim(kept)
            condition.notify_all()
            return write_id(self._last)

    def read(
        self, topic: str, after: str = "", wait: float = 0.0, limit: int = 100
    ) -> list[HubMessage]:
        check_name(topic)
        number = read_id(after)
        limit = max(1, min(limit, MAX_READ))
        condition = self._condition
        with condition:
            if wait > 0 and not self._has_newer(topic, number):
                condition.wait_for(lambda: self._has_newer(topic, number), wait)
            kept = self._topics.get(topic)
            if kept is None:
                return []
            self._trim(kept)
            found = _find_after(kept.messages, number, limit)
        return [
            HubMessage(write_id(message), topic, decode(encoded)[1], at)
            for message, at, _, encoded in found
        ]

    def last_id(self, topic: str) -> str:
        check_name(topic)
        with self._condition:
            kept = self._topics.get(topic)
            return write_id(kept.messages[-1][0]) if kept and kept.messages else ""

    def put(self, key: str, value: object, ttl: float) -> None:
        if value is None:
            check_name(key)
            with self._condition:
                self._values.pop(key, None)
            return
        check_ttl(key, ttl)
        encoded = encode(key, value)
        with self._condition:
            now = self.clock.monotonic()
            self._sweep(now)
            self._values.pop(key, None)  # so that the last written is the last to be dropped
            self._values[key] = (encoded, now + ttl)
            if len(self._values) > self.max_keys:
                del self._values[next(iter(self._values))]

    def get(self, key: str) -> object:
        check_name(key)
        with self._condition:
            found = self._values.get(key)
            if found is None or found[1] <= self.clock.monotonic():
                return None
        return decode(found[0])[1]

    def scan(self, prefix: str) -> dict[str, object]:
        with self._condition:
            now = self.clock.monotonic()
            found = [
                (key, encoded)
                for key, (encoded, expires) in self._values.items()
                if expires > now and key.startswith(prefix)
            ]
        return {key: decode(encoded)[1] for key, encoded in sorted(found)}

    def increment(self, key: str, amount: int = 1, ttl: float = 60.0) -> int:
        check_ttl(key, ttl)
        check_amount(key, amount)
        with self._condition:
            now = self.clock.monotonic()
            self._sweep(now)
            value, expires = self._counters.get(key, (0, 0.0))
            if expires <= now:
                self._counters.pop(key, None)
                value, expires = 0, now + ttl
            self._counters[key] = (value + amount, expires)
            if len(self._counters) > self.max_keys:
                del self._counters[next(iter(self._counters))]
            return value + amount

    def lease(self, name: str, ttl: float) -> HubLease | None:
        check_ttl(name, ttl)
        with self._condition:
            now = self.clock.monotonic()
            self._sweep(now)
            held = self._leases.get(name)
            if held is not None and held.expires > now:
                return None
            # From the same numbers as ids: the token grows even if the last lease was swept.
            self._last = next_id(self._last, self.clock.time())
            self._leases[name] = _HeldLease(self._last, now + ttl)
            return HubLease(self, name, self._last)

    def close(self) -> None:
        """Do nothing: there is nothing to close, and the content stays."""

    def _has_newer(self, topic: str, number: int) -> bool:
        kept = self._topics.get(topic)
        return bool(kept and kept.messages and kept.messages[-1][0] > number)

    def _trim(self, kept: _Topic) -> None:
        too_old = self.clock.monotonic() - self.max_age
        while kept.messages and (
            len(kept.messages) > self.max_messages
            or kept.size_bytes > self.max_bytes
            or kept.messages[0][2] < too_old
        ):
            kept.drop_oldest()

    def _sweep(self, now: float) -> None:
        if now < self._next_sweep:
            return
        self._next_sweep = now + _SWEEP_EVERY_S
        for table in (self._values, self._counters):
            for key in [key for key, (_, expires) in table.items() if expires <= now]:
                del table[key]
        for name in [name for name, held in self._leases.items() if held.expires <= now]:
            del self._leases[name]
        for topic, kept in list(self._topics.items()):
            self._trim(kept)
            if not kept.messages:
                del self._topics[topic]

    def renew_lease(self, name: str, token: int, ttl: float) -> bool:
        check_ttl(name, ttl)
        with self._condition:
            now = self.clock.monotonic()
            held = self._leases.get(name)
            if held is None or held.token != token or held.expires <= now:
                return False
            held.expires = now + ttl
            return True

    def release_lease(self, name: str, token: int) -> None:
        with self._condition:
            held = self._leases.get(name)
            if held is not None and held.token == token:
                del self._leases[name]


def _find_after(messages: deque[_Message], number: int, limit: int) -> list[_Message]:
    """The first messages after an id, searched from the end that is usually nearer."""
    if not messages or number < messages[0][0]:
        return list(islice(messages, limit))
    newer = list(takewhile(lambda message: message[0] > number, reversed(messages)))
    return newer[: -limit - 1 : -1]


@hookimpl
def om_plugin_info() -> PluginInfo:
    return PluginInfo(summary="A hub in the memory of one process (memory://)")


@hookimpl
def om_hubs(context: PluginContext) -> Mapping[str, HubFactory]:
    return {"memory": MemoryHub}
