"""Plugin ``cache-memcached``: a cache store in memcached (``memcached://host[,host…]``).

The store uses get, set and delete of cachelib, with a pymemcache client that passes bytes through,
since the clients that cachelib finds by itself unpickle any value in the memcached.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import time
import weakref
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cachelib.memcached import MemcachedCache

from ...errors import ConfigError, MissingExtra
from .cachelib_bytes import to_seconds

_PORT = 11211
_TIMES = {"connect_timeout": 0.5, "timeout": 1.0}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@\s]+)(?::(\d{1,5}))?")
_PLAIN = re.compile(r"[\x21-\x7e]{1,200}")


class MemcachedStore:
    """Bytes in one memcached, or spread over several.

    A value above the limit of the server (1 MiB unless its option ``-I`` says otherwise) is not
    stored.

    Args:
        url: ``memcached://host[:port][,host[:port]…]`` or ``memcached:///path/of/socket``, with
            ``?timeout=`` and ``connect_timeout=`` in seconds after it if need be.

    Raises:
        MissingExtra: pymemcache is not installed.
        ConfigError: the URL means nothing.
    """

    def __init__(self, url: str) -> None:
        try:
            self._pymemcache: Any = importlib.import_module("pymemcache")
        except ModuleNotFoundError as error:
            if error.name != "pymemcache":
                raise
            raise MissingExtra("OM_CACHE_URL", url, "memcached") from None
        # Looking up a host imports it; a child forked just then would wait for that for ever.
        importlib.import_module("encodings.idna")
        self._servers, self._options = _parse_url(url)
        self._processes: dict[int, tuple[Any, Any]] = {}
        # an application that is dropped without a word leaves no connection open
        weakref.finalize(self, _close, self._processes).atexit = False

    def get(self, key: str) -> bytes | None:
        """The bytes last set, or ``None``.

        Raises:
            OSError, pymemcache.MemcacheError: the server does not answer; so do other methods.
        """
        found = self._get_clients()[0].get(_make_key(key))
        return found if isinstance(found, bytes) else None

    def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep ``value`` for ``ttl`` seconds, rounded up to whole ones."""
        cache = self._get_clients()[0]
        self._write(key, lambda: cache.set(_make_key(key), value, timeout=_seconds(ttl)))

    def compare_and_set(self, key: str, before: bytes | None, value: bytes, ttl: float) -> bool:
        """See :class:`om_plugins.protocols.FencedStore`; by memcached's own ``cas``."""
        name, client = _make_key(key), self._get_clients()[1]
        ends = int(time.time()) + _seconds(ttl)  # longer than a month must be a Unix time
        if before is None:
            return self._write(key, lambda: client.add(name, value, expire=ends))
        there, number = client.gets(name)
        if not isinstance(there, bytes) or not there.startswith(before):
            return False
        return self._write(key, lambda: client.cas(name, value, number, expire=ends))

    def _write(self, key: str, write: Callable[[], object]) -> bool:
        """What a write answered; of a value that the server does not take, nothing is there."""
        try:
            return bool(write())
        except self._pymemcache.MemcacheServerError as error:
            if b"too large" not in error.args[0]:
                raise
            self.delete(key)  # the one before must not stay in its place
            return True

    def delete(self, key: str) -> None:
        """Forget it; a missing key is fine."""
        self._get_clients()[0].delete(_make_key(key))

    def close(self) -> None:
        """Close this process's connections; the next use opens new ones."""
        _close(self._processes)

    def _get_clients(self) -> tuple[Any, Any]:
        """cachelib's cache, and the client that it asks."""
        pid = os.getpid()
        found = self._processes.get(pid)
        if found is None:
            client = self._make_client()
            found = self._processes.setdefault(pid, (MemcachedCache(client), client))
        return found

    def _make_client(self) -> Any:
        options = {"no_delay": True, "default_noreply": False, **self._options}
        if len(self._servers) == 1:
            return self._pymemcache.PooledClient(self._servers[0], **options)
        return self._pymemcache.HashClient(
            self._servers, use_pooling=True, retry_attempts=0, dead_timeout=5, **options
        )


def _close(processes: dict[int, tuple[Any, Any]]) -> None:
    found = processes.pop(os.getpid(), None)
    if found is not None:
        found[1].close()


def _parse_url(url: str) -> tuple[list[str | tuple[str, int]], dict[str, float]]:
    """The servers, and the times of a connection."""
    parts = urlsplit(url)
    options: dict[str, float] = dict(_TIMES)
    for name, given in parse_qs(parts.query, keep_blank_values=True).items():
        if name not in options:
            known = " and ".join(sorted(options))
            raise ConfigError("OM_CACHE_URL", url, f"unknown option {name!r}; known are {known}")
        if not re.fullmatch(r"\d{1,3}(\.\d+)?", given[-1]) or not float(given[-1]) > 0:
            raise ConfigError("OM_CACHE_URL", url, f"{name} must be seconds, not {given[-1]!r}")
        options[name] = float(given[-1])
    path = unquote(parts.path)
    if not parts.netloc and path.strip("/"):
        return [path], options
    servers: list[str | tuple[str, int]] = []
    for host in parts.netloc.split(","):
        found = _HOST.fullmatch(host)
        if found is None or path.strip("/"):
            raise ConfigError(
                "OM_CACHE_URL",
                url,
                "must be 'memcached://host:11211' with more hosts after commas, or "
                "'memcached:///path/of/socket'; memcached knows no user, password or database",
            )
        servers.append((found[1].strip("[]"), int(found[2] or _PORT)))
    return servers, options


def _seconds(ttl: float) -> int:
    # one more: they are added to the whole second that the clock shows
    return to_seconds(ttl) + 1


def _make_key(key: str) -> str:
    if _PLAIN.fullmatch(key):
        return f"om:{key}"
    return f"om#{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"
