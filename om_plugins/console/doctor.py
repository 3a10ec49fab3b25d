"""What may be wrong with the configuration of an application.

The checks only read: they open, request and change nothing. ``flask om doctor`` shows these
findings, and those that need Flask.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from typing import Literal

from ..errors import ConfigError
from ..plugins.kit import Finding, Kit
from ..settings.extras import EXTRAS, install_command, is_installed

_SHARED = re.compile(r"(redis|valkey|unix|memcached)[a-z+]*:")
_COMMON_NAMES = frozenset({"app", "application", "api", "flask", "main", "server", "web", "wsgi"})


def examine(kit: Kit) -> list[Finding]:
    """Return the findings that need no web framework, those of all features included.

    Args:
        kit: the parts of the application.
    """
    return [
        *_check_switch(kit),
        *_check_plugins(kit),
        *kit.findings(),
        *_check_hub(kit),
        *_check_namespace(kit),
        *_check_uwsgi(),
        *_check_extras(kit),
    ]


def _check_switch(kit: Kit) -> Iterator[Finding]:
    if not kit.keys.enabled:
        yield Finding(
            "warn",
            "OM_ENABLED",
            "The kill switch is off: no request passes through om_plugins.",
            "Set OM_ENABLED = True, or take the key out.",
        )


def _check_plugins(kit: Kit) -> Iterator[Finding]:
    kit.plugin_parts.collect_all()
    active = 0
    for status in kit.plugins.get_statuses():
        subject = f"plugin {status.name}"
        if status.state == "active":
            active += 1
            if status.reason:
                level: Literal["warn", "fail"] = "fail" if status.failures else "warn"
                yield Finding(
                    level,
                    subject,
                    _end_sentence(status.reason),
                    "Repair it, or report it to its author.",
                )
        elif status.state != "disabled":
            # a setting that names no plugin: OM_PLUGINS_DISABLED would name none either
            missing = status.source in ("OM_PLUGINS", "OM_PLUGIN_CONFIG")
            yield Finding(
                "fail",
                subject,
                _end_sentence(f"It is not used: {status.reason}"),
                f"Install it, or take {status.name!r} out of {status.source}."
                if missing
                else f"Repair or uninstall it, or add {status.name!r} to OM_PLUGINS_DISABLED.",
            )
        elif status.source == "OM_PLUGINS_DISABLED":
            yield Finding("warn", subject, _end_sentence(status.reason))
    yield Finding("ok", "plugins", f"{active} are active.")


def _end_sentence(words: str) -> str:
    return words if words.endswith((".", "?", "!")) else f"{words}."


def _check_hub(kit: Kit) -> Iterator[Finding]:
    try:
        url = kit.hub_url()
    except ConfigError as error:
        yield Finding("fail", error.key, _end_sentence(str(error)))
        return
    scheme = url.partition(":")[0]
    if scheme == "memory" and not kit.host.testing:
        yield Finding(
            "warn",
            "OM_HUB_URL",
            "The hub is this process's memory: several workers would count, notify and hold "
            "leases each for itself.",
            "Serve with one worker, or set OM_HUB_URL to 'sqlite:///path' on a local disk, or to "
            "'redis://host'.",
        )
    else:
        yield Finding("ok", "OM_HUB_URL", f"The hub is {scheme}.")


def _check_namespace(kit: Kit) -> Iterator[Finding]:
    keys = kit.keys
    if keys.namespace is not None or kit.namespace not in _COMMON_NAMES:
        return
    if any(_SHARED.match(url) for url in (keys.hub_url, keys.cache_url)):
        yield Finding(
            "warn",
            "OM_NAMESPACE",
            f"The application is named {kit.namespace!r}, as many are: another one of that "
            "name on the same server would read its values and messages.",
            "Set OM_NAMESPACE to a name of its own.",
        )


def _check_uwsgi() -> Iterator[Finding]:
    way_out = "Start uWSGI with --enable-threads."
    running = sys.modules.get("uwsgi")
    if running is not None:
        options = {k.decode() if isinstance(k, bytes) else k for k in getattr(running, "opt", {})}
        if options & {"enable-threads", "threads"}:
            yield Finding("ok", "uWSGI", "Threads are on, so background work runs.")
        else:
            yield Finding("fail", "uWSGI", "Threads are off, so no background work runs.", way_out)
        return
    try:
        importlib.metadata.distribution("uwsgi")
    except importlib.metadata.PackageNotFoundError:
        return
    yield Finding(
        "warn", "uWSGI", "It is installed, and runs background work only with threads.", way_out
    )


def _check_extras(kit: Kit) -> Iterator[Finding]:
    missing = [extra for extra in EXTRAS if not is_installed(extra)]
    for key, url in (
        ("OM_HUB_URL", kit.keys.hub_url),
        ("OM_CACHE_URL", kit.keys.cache_url),
    ):
        found = _SHARED.match(url)
        extra = "memcached" if found and found[1] == "memcached" else "redis"
        if found and extra in missing:
            yield Finding("fail", key, "Its package is not installed.", install_command(extra))
    if missing:
        yield Finding(
            "ok",
            "extras",
            f"Optional packages that are not installed: {', '.join(missing)}.",
            install_command(*missing) + " brings them.",
        )
    else:
        yield Finding("ok", "extras", "All optional packages are installed.")
