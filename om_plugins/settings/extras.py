"""The optional packages, and the extras of this distribution that install them."""

from __future__ import annotations

import importlib.util

from ..errors import MissingExtra

EXTRAS = {
    "http": "h11",
    "redis": "redis",
    "memcached": "pymemcache",
    "system": "psutil",
    "prometheus": "prometheus_client",
    "otel": "opentelemetry",
    "apprise": "apprise",
}
"""From an extra to the module that its package provides."""


def is_installed(extra: str) -> bool:
    """Tell whether the package of an extra is installed, without importing it."""
    try:
        return importlib.util.find_spec(EXTRAS[extra]) is not None
    except (ImportError, ValueError):
        return False


def check_installed(key: str, value: object, extra: str) -> None:
    """Refuse a setting whose optional package is not installed.

    Raises:
        MissingExtra: names the command that installs it.
    """
    if not is_installed(extra):
        raise MissingExtra(key, value, extra)


def install_command(*extras: str) -> str:
    """Return the command that installs the packages of these extras."""
    return f"pip install 'om-plugins[{','.join(extras)}]'"
