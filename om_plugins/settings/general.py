"""General settings: the ones that belong to no feature."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .kinds import BOOL, MAPPING, PROXIES, SECRET, STRINGS, auto_or, integer, text
from .table import Check, Table, key

_PREFIX = text(
    r"/[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*", "a path such as '/_om', without a slash at its end"
)


_PROXY = re.compile(r"environment|http://([^\s/@]*@)?[^\s/@?#]+/?")


def _read_outbound_proxy(value: Any) -> str:
    if not isinstance(value, str) or not _PROXY.fullmatch(value):
        raise ValueError
    return value


def _read_state_dir(value: Any) -> str:
    path = os.fspath(value)
    if not isinstance(path, str) or "\0" in path:
        raise ValueError
    if path not in ("auto", "instance") and not Path(path).is_absolute():
        raise ValueError("a relative path would depend on where a worker was started")
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralKeys(Table):
    """The settings that several features need, and those of plugins and workers."""

    PREFIX: ClassVar[str] = "OM_"

    enabled: bool = key(
        True, BOOL, "the kill switch: when false, no request passes through this package", "General"
    )
    prefix: str = key("/_om", _PREFIX, "where this package's own pages are", "General")
    proxies: dict[str, int] = key(
        {},
        PROXIES,
        "how many reverse proxies set `X-Forwarded-*`, as for werkzeug's `ProxyFix`",
        "General",
    )
    outbound_proxy: str | None = key(
        None,
        Check(
            "'environment' or a URL such as 'http://proxy.internal:3128'",
            _read_outbound_proxy,
            "str",
            secret=True,  # it may hold a password
        ),
        "the forward proxy for what this package's HTTP engines and its webhook send; "
        "`environment`: as `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say",
        "General",
    )
    trusted_hosts: tuple[str, ...] | None = key(
        None, STRINGS, "host names that this package's own routes answer to; Flask's "
        "`TRUSTED_HOSTS` when not set", "General"
    )  # fmt: skip
    secret_key: bytes | None = key(
        None,
        SECRET,
        "signs and hides values; when not set, Flask's `SECRET_KEY`, else a random one in the hub",
        "General",
    )
    strict: bool | None = key(
        None, BOOL, "raise when a plugin is broken, instead of going on without it; "
        "when not set: only under `TESTING`", "General"
    )  # fmt: skip
    hub_url: str = key(
        "auto",
        text(
            r"auto|[a-z][a-z0-9+.-]*:.*", "'auto', 'memory://', 'sqlite:///path' or 'redis://host'"
        ),
        "what the workers share; `auto`: memory when testing, else the cache's Redis, else a file "
        "in the state directory",
        "General",
    )
    state_dir: str = key(
        "auto",
        Check("'auto', 'instance' or an absolute path", _read_state_dir, "PathLike[str] | str"),
        "where this package may write. `auto`: `om` in the instance folder where that folder "
        "exists, else a directory for this application in `$XDG_STATE_HOME` or `~/.local/state`; "
        "`instance`: `om` in the instance folder, which is made when it is not there",
        "General",
    )
    cache_url: str = key(
        "memory://",
        text(
            r"[a-z][a-z0-9+.-]*:.*",
            "a URL such as 'memory://', 'file:///path', 'redis://host' or 'memcached://host'",
        ),
        "where cached values are kept",
        "Cache",
    )
    namespace: str | None = key(
        None,
        text(r"[A-Za-z0-9._-]{1,64}", "1 to 64 letters, digits, '.', '_' and '-'"),
        "names the application in a Redis, memcached or folder that others use too; the "
        "application's own name when not set",
        "General",
    )
    workers: int = key(4, integer(1, 64), "background threads in a process, at most", "General")
    worker_queue: int = key(
        256, integer(1, 100_000), "background jobs waiting in a process, at most", "General"
    )
    sse_max: str | int = key(
        "auto",
        auto_or(integer(0, 100_000)),
        "streams of notifications in a process, at most; browsers beyond it poll. `auto`: none "
        "where the server has one thread, one where it has more, any number under gevent",
        "Notifications",
    )
    plugins: tuple[str, ...] | None = key(
        None, STRINGS, "installed plugins to load; all when not set", "Plugins"
    )
    plugins_disabled: tuple[str, ...] = key(
        (), STRINGS, "plugins to leave out, built-in ones too", "Plugins"
    )
    plugin_config: dict[str, Any] = key(
        {}, MAPPING, "settings of plugins: a dict from a plugin's name to a dict", "Plugins"
    )
    plugin_failures: int = key(
        5, integer(1, 1000), "failures in a row of a plugin after which it is left out", "Plugins"
    )
