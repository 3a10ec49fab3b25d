"""Plugin ``hub-redis``: the hub of many hosts, in a Redis or Valkey (6.2 or later).

Topics are streams. Values, counters and leases are keys that expire by themselves. All keys of an
application begin with ``om:{namespace}:``, so that several applications can share a server.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from ...errors import HubError
from ...protocols import Clock
from ...types import HubMessage
from . import redis_lua as lua
from .encoding import (
    MAX_READ,
    MAX_VALUE_BYTES,
    HubLease,
    check_amount,
    check_name,
    check_ttl,
    decode,
    encode,
    read_id,
    write_id,
)
from .redis_connection import BLOCK_S, RedisConnection

_KEY = "OM_HUB_URL"
_LONGEST_TTL_S = 10 * 366 * 86_400.0
_PAGE = 500
_BEYOND = 2**53
"""The largest exact integer of Lua. Ids reach it in the year 2255."""
_ID = re.compile(rb"(\d{1,18})-0")


@dataclass(eq=False, repr=False)
class RedisHub:
    """A :class:`~om_plugins.protocols.Hub` in a Redis.

    Times are those of the server. Every method raises :class:`~om_plugins.errors.HubError` when the
    server does not answer within a second. Data of others under its keys is ignored.

    Args:
        url: see :class:`.redis_connection.RedisConnection`.
        clock: measures how long readers wait.
        namespace: the name of the application, which separates it from others.
        max_messages: the most messages of a topic. The server drops old ones in batches of a
            hundred.
        max_age: seconds until a message is dropped.

    Raises:
        MissingExtra: redis-py is not installed.
        ConfigError: the URL is not valid.
    """

    url: str
    clock: Clock
    _: KW_ONLY
    namespace: str = "app"
    max_messages: int = 10_000
    max_age: float = 86_400.0

    def __post_init__(self) -> None:
        self._connection = self.check(self.url)
        # The braces put all keys into one slot, as a cluster's proxy requires of a script.
        prefix = f"om:{{{self.namespace}}}:"
        self._last = f"{prefix}last"
        self._names = f"{prefix}names"
        self._ends = f"{prefix}ends"
        self._stream, self._value, self._counter, self._lease = (
            f"{prefix}{kind}:" for kind in ("topic", "value", "counter", "lease")
        )
        self._scripts: dict[tuple[int, str], Any] = {}

    @staticmethod
    def check(url: str) -> RedisConnection:
        """Return the connection to a URL. It opens nothing."""
        return RedisConnection(_KEY, url, HubError)

    # --- the stream -----------------------------------------------------------------------------

    def publish(self, topic: str, data: object) -> str:
        check_name(topic)
        arguments = (encode(topic, data), self.max_messages, self.max_age)
        number = self._run(lua.PUBLISH, (self._last, self._stream + topic), arguments)
        return write_id(int(number))

    def read(
        self, topic: str, after: str = "", wait: float = 0.0, limit: int = 100
    ) -> list[HubMessage]:
        check_name(topic)
        limit = max(1, min(limit, MAX_READ))
        stream = self._stream + topic
        number, found = self._read_kept(topic, stream, read_id(after), limit)
        deadline = self.clock.monotonic() + wait
        while not found and (remaining := deadline - self.clock.monotonic()) > 0:
            entries = self._wait(stream, number, limit, min(remaining, BLOCK_S))
            number, found = _parse_messages(topic, entries, number)
        return found

    def _read_kept(
        self, topic: str, stream: str, number: int, limit: int
    ) -> tuple[int, list[HubMessage]]:
        """The stored messages after a number, and the number up to which the stream was read."""
        found: list[HubMessage] = []
        while True:
            wanted = limit - len(found)
            entries = self._run(lua.READ, (stream,), (number, wanted, self.max_age))
            number, some = _parse_messages(topic, entries, number)
            found += some
            if len(entries) < wanted or len(found) >= limit or number >= _BEYOND:
                return number, found

    def _wait(self, stream: str, number: int, limit: int, seconds: float) -> Sequence[Any]:
        def ask(client: Any) -> Any:
            client.set_response_callback("XREAD", _return_raw)
            return client.execute_command(
                "XREAD", "COUNT", limit, "BLOCK", math.ceil(seconds * 1000),
                "STREAMS", stream, f"{number}-{2**64 - 1}",
            )  # fmt: skip

        answer = self._connection.call(ask, blocking=True)
        return answer[0][1] if answer else ()

    def last_id(self, topic: str) -> str:
        check_name(topic)

        def ask(client: Any) -> Any:
            client.set_response_callback("XREVRANGE", _return_raw)
            return client.execute_command("XREVRANGE", self._stream + topic, "+", "-", "COUNT", 1)

        for message, _ in _parse_entries(self._connection.call(ask)):
            return write_id(message)
        return ""

    # --- the table ------------------------------------------------------------------------------

    def put(self, key: str, value: object, ttl: float) -> None:
        check_name(key)
        keys = (self._value + key, self._names, self._ends)
        if value is None:
            self._run(lua.REMOVE, keys, (key,))
            return
        check_ttl(key, ttl)
        self._run(lua.PUT, keys, (key, encode(key, value), _to_milliseconds(ttl)))

    def get(self, key: str) -> object:
        check_name(key)
        return _decode_bounded(self._connection.read_bytes(self._value + key, MAX_VALUE_BYTES))[1]

    def scan(self, prefix: str) -> dict[str, object]:
        begin = prefix.encode()
        first = b"[" + begin if begin else b"-"
        beyond = b"(" + begin + b"\xff" if begin else b"+"  # UTF-8 never contains this byte
        result: dict[str, object] = {}
        while True:
            arguments = (self._value, first, beyond, _PAGE, MAX_VALUE_BYTES)
            names, values = self._run(lua.SCAN, (self._names,), arguments)
            for name, encoded in zip(names, values, strict=True):
                readable, value = _decode_bounded(encoded)
                if readable:
                    result[name.decode(errors="replace")] = value
            if len(names) < _PAGE:
                return result
            first = b"(" + names[-1]

    def increment(self, key: str, amount: int = 1, ttl: float = 60.0) -> int:
        check_ttl(key, ttl)
        check_amount(key, amount)
        return int(self._run(lua.COUNT, (self._counter + key,), (amount, _to_milliseconds(ttl))))

    # --- leases ---------------------------------------------------------------------------------

    def lease(self, name: str, ttl: float) -> HubLease | None:
        check_ttl(name, ttl)
        token = self._run(lua.LEASE, (self._last, self._lease + name), (_to_milliseconds(ttl),))
        return None if token is None else HubLease(self, name, int(token))

    def renew_lease(self, name: str, token: int, ttl: float) -> bool:
        check_ttl(name, ttl)
        return bool(self._run(lua.RENEW, (self._lease + name,), (token, _to_milliseconds(ttl))))

    def release_lease(self, name: str, token: int) -> None:
        self._run(lua.RELEASE, (self._lease + name,), (token,))

    def close(self) -> None:
        self._connection.close()
        self._scripts.clear()

    # --- the server -----------------------------------------------------------------------------

    def _run(self, source: str, keys: Sequence[str], arguments: Sequence[object]) -> Any:
        def ask(client: Any) -> Any:
            mine = (os.getpid(), source)
            script = self._scripts.get(mine)
            if script is None:
                script = self._scripts[mine] = client.register_script(source)
            return script(keys=keys, args=arguments, client=client)

        return self._connection.call(ask)


def _return_raw(response: Any, **options: Any) -> Any:
    """Return the response as it is: how redis-py parses streams depends on its release."""
    return response


def _parse_entries(response: Any) -> Iterator[tuple[int, object]]:
    """Yield id and encoded data of the entries that a hub may have written."""
    for name, fields in response or ():
        found = _ID.fullmatch(name)
        if found is not None and fields is not None and len(fields) == 2 and fields[0] == b"d":
            yield int(found[1]), fields[1]


def _parse_messages(topic: str, response: Any, number: int) -> tuple[int, list[HubMessage]]:
    """The readable messages, and the number of the last entry, even if it is not readable."""
    messages: list[HubMessage] = []
    for message, encoded in _parse_entries(response):
        readable, data = _decode_bounded(encoded)
        if readable:
            messages.append(HubMessage(write_id(message), topic, data, message / 1e6))
    if response:
        number = max(number, int(response[-1][0].partition(b"-")[0]))
    return number, messages


def _decode_bounded(encoded: object) -> tuple[bool, object]:
    if not isinstance(encoded, bytes) or not 0 < len(encoded) <= MAX_VALUE_BYTES:
        return False, None
    return decode(encoded)


def _to_milliseconds(ttl: float) -> int:
    return max(1, math.ceil(min(ttl, _LONGEST_TTL_S) * 1000))
