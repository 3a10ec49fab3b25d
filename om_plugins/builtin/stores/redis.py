"""Plugin ``cache-redis``: a cache store in a Redis or Valkey, for many hosts (``redis://host``).

The store uses get, set and delete of cachelib, with a serializer that passes bytes through, since
cachelib's own serializer would unpickle any value in the Redis. The client is this package's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cachelib.redis import RedisCache

from ..hubs.redis_connection import RedisConnection
from .cachelib_bytes import MAX_BYTES, RawBytes, to_seconds

_IF_THERE = """
-- KEYS: value. ARGV: how what is there begins ('' for nothing), new value, seconds
local size = redis.pcall('STRLEN', KEYS[1])
if type(size) == 'number' and size > 0 then  -- what is no text is nothing of ours
  if ARGV[1] == '' then return 0 end
  local there = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1)
  if string.sub(there, 2) ~= string.sub(ARGV[1], 2) then return 0 end  -- whatever its mark is
elseif ARGV[1] ~= '' then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""


@dataclass(slots=True, eq=False, repr=False)
class _Client:
    """What cachelib asks of redis-py. A value that is too large is not read."""

    link: RedisConnection

    def get(self, name: str) -> bytes | None:
        found = self.link.read_bytes(name, MAX_BYTES)
        return found if found is not None and len(found) <= MAX_BYTES else None

    def set(self, name: str, value: bytes, ex: int) -> Any:
        return self.link.call(lambda client: client.set(name, value, ex=ex))

    def setex(self, name: str, value: bytes, time: int) -> Any:
        return self.set(name, value, time)  # what cachelib called before 0.14

    def delete(self, name: str) -> Any:
        return self.link.call(lambda client: client.delete(name))


class RedisStore:
    """Bytes under keys that run out by themselves.

    Args:
        url: see :class:`.redis_connection.RedisConnection`.

    Raises:
        MissingExtra: redis-py is not installed.
        ConfigError: the URL means nothing.
    """

    def __init__(self, url: str) -> None:
        self._link = RedisConnection("OM_CACHE_URL", url, ConnectionError)
        values: Any = RedisCache(host=_Client(self._link))
        values.serializer = RawBytes
        self._values = values

    def get(self, key: str) -> bytes | None:
        """The bytes last set, or ``None``.

        Raises:
            ConnectionError: the server does not answer; so do the other methods.
        """
        found: bytes | None = self._values.get(_make_key(key))
        return None if found is None else found[1:]

    def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep ``value`` for ``ttl`` seconds, rounded up to whole ones."""
        self._values.set(_make_key(key), b"=" + value, timeout=to_seconds(ttl))

    def compare_and_set(self, key: str, before: bytes | None, value: bytes, ttl: float) -> bool:
        """See :class:`om_plugins.protocols.FencedStore`; one step on the server."""
        there = b"" if before is None else b"=" + before

        def ask(client: Any) -> Any:
            return client.eval(_IF_THERE, 1, _make_key(key), there, b"=" + value, to_seconds(ttl))

        return bool(self._link.call(ask))

    def delete(self, key: str) -> None:
        """Forget it; a missing key is fine."""
        self._values.delete(_make_key(key))

    def close(self) -> None:
        """Close this process's connections; the next use opens new ones."""
        self._link.close()


def _make_key(key: str) -> str:
    return f"om:cache:{key}"
