"""Connections to a Redis or Valkey: parses the URL and keeps the clients of each process.

Blocking reads have their own connections, so that no command waits behind one. Commands are not
retried and timeouts are short, because the callers can continue without the server. Each process
has its own connections; a child never uses those of its parent.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Collection
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from ...errors import ConfigError, MissingExtra, without_password

T = TypeVar("T")

_SENTINEL = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_ALIASES = {"valkey": "redis", "valkeys": "rediss"}
SCHEMES: Collection[str] = ("redis", "rediss", "unix", *_ALIASES, *_SENTINEL)
"""The schemes of a URL."""

BLOCK_S = 5.0
"""The most seconds of one blocking read; a longer wait is made of several."""
_CONNECT_S = 0.5
_ANSWER_S = 1.0
_SENTINEL_PORT = 26379


class RedisConnection:
    """The clients of one URL. Each process creates its own on first use.

    Args:
        key: the setting with the URL, for errors.
        url: ``redis://[user:password@]host[:port][/db]``, ``rediss://`` for TLS,
            ``unix://[user:password@]/path?db=0``, or
            ``redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db]``.
            The query has options of redis-py, such as ``?socket_timeout=2&ssl_ca_certs=/path``;
            for Sentinel also ``sentinel_username`` and ``sentinel_password``.
        failure: the class of the error when a command fails.

    Raises:
        MissingExtra: redis-py is not installed.
        ConfigError: the URL, or an option in it, is not valid.
    """

    def __init__(self, key: str, url: str, failure: type[Exception]) -> None:
        try:
            self._redis: Any = importlib.import_module("redis")
        except ModuleNotFoundError as error:
            if error.name != "redis":
                raise
            raise MissingExtra(key, url, "redis") from None
        # Name resolution imports it. A child forked during that import would wait for ever.
        importlib.import_module("encodings.idna")
        self._url = url
        self._failure = failure
        self.display_url = without_password(url.partition("?")[0])
        self._clients: dict[int, tuple[Any, Any]] = {}
        try:
            self._make_clients()  # opens no connection; checks the URL
        except (ValueError, TypeError, self._redis.RedisError) as error:
            raise ConfigError(key, url, f"is no address of a Redis ({error})") from None

    def call(self, ask: Callable[[Any], T], *, blocking: bool = False) -> T:
        """Call a function with one of the clients, each a ``redis.Redis``.

        Args:
            ask: the function.
            blocking: the function reads for up to :data:`BLOCK_S` seconds; else its commands are
                answered at once.

        Raises:
            Exception: an error of the class ``failure``; the message names the URL.
        """
        try:
            return ask(self._get_clients()[blocking])
        except (self._redis.RedisError, OSError) as error:
            raise self._failure(f"{self.display_url}: {error}") from error

    def read_bytes(self, name: str, longest: int) -> bytes | None:
        """The string value of a key, or its first ``longest + 1`` bytes.

        Returns:
            ``None`` when there is no value, or a value of another type, which others have written.
        """

        def ask(client: Any) -> bytes:
            try:
                return client.getrange(name, 0, longest)  # type: ignore[no-any-return]
            except self._redis.ResponseError as error:
                if "WRONGTYPE" in str(error):
                    return b""
                raise

        return self.call(ask) or None

    def close(self) -> None:
        """Close this process's connections; the next use opens new ones."""
        for client in self._clients.pop(os.getpid(), ()):
            client.connection_pool.disconnect()

    def _get_clients(self) -> tuple[Any, Any]:
        pid = os.getpid()
        found = self._clients.get(pid)
        return found if found is not None else self._clients.setdefault(pid, self._make_clients())

    def _make_clients(self) -> tuple[Any, Any]:
        options = {
            "socket_timeout": _ANSWER_S,
            "socket_connect_timeout": _CONNECT_S,
            "retry": importlib.import_module("redis.retry").Retry(
                importlib.import_module("redis.backoff").NoBackoff(), 0
            ),
            "protocol": 2,
        }
        scheme, _, rest = self._url.partition("://")
        if scheme in _SENTINEL:
            return self._make_sentinel_clients(scheme, options)
        url = f"{_ALIASES.get(scheme, scheme)}://{rest}"
        pool = self._redis.ConnectionPool.from_url(url, **options)
        kinds = {"connection_class": pool.connection_class, **pool.connection_kwargs}
        patient = self._redis.ConnectionPool(**_allow_blocking(kinds))
        return self._check_pool(pool), self._check_pool(patient)

    def _make_sentinel_clients(self, scheme: str, options: dict[str, Any]) -> tuple[Any, Any]:
        parts = urlsplit(self._url)
        login, at, hosts = parts.netloc.rpartition("@")
        _, service, *rest = [*parts.path.split("/"), ""]
        if not service:
            raise ValueError("it names no service, as in redis+sentinel://host:26379/service")
        # redis-py parses everything except the hosts
        plain = f"{_SENTINEL[scheme]}://{login}{at}host/{rest[0]}?{parts.query}"
        pool = self._redis.ConnectionPool.from_url(plain, **options)
        kinds = dict(pool.connection_kwargs)
        kinds.pop("host", None)
        asking = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout")}
        for name in ("username", "password"):
            given = kinds.pop(f"sentinel_{name}", None)
            if given:
                asking[name] = given
        sentinel = importlib.import_module("redis.sentinel").Sentinel(
            [_parse_address(host) for host in hosts.split(",")], sentinel_kwargs=asking
        )
        secure = scheme == "rediss+sentinel"

        def client(kinds: dict[str, Any]) -> Any:
            return sentinel.master_for(unquote(service), ssl=secure, **kinds)

        self._check_pool(
            self._redis.ConnectionPool(connection_class=pool.connection_class, **kinds)
        )
        return client(kinds), client(_allow_blocking(kinds))

    def _check_pool(self, pool: Any) -> Any:
        pool.connection_class(**pool.connection_kwargs)  # an unknown option is a TypeError
        return self._redis.Redis(connection_pool=pool)


def _allow_blocking(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a connection whose timeout allows for a blocking read."""
    return {**options, "socket_timeout": BLOCK_S + float(options["socket_timeout"])}


def _parse_address(host: str) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?", host)
    if found is None:
        raise ValueError(f"{host!r} is no host")
    return found[1].strip("[]"), int(found[2] or _SENTINEL_PORT)
