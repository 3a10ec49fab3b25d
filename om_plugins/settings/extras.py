"""The optional packages, each by the extra of this distribution that brings it."""

from __future__ import annotations

import importlib.util

__all__ = ["EXTRAS", "install_command", "is_installed"]

EXTRAS = {
    "http": "h11",
    "redis": "redis",
    "memcached": "pymemcache",
    "system": "psutil",
    "prometheus": "prometheus_client",
    "otel": "opentelemetry",
    "apprise": "apprise",
}
"""From an extra to the module by which its package is found."""


def is_installed(extra: str) -> bool:
    """Whether the package of an extra can be imported; it is not imported here."""
    try:
        return importlib.util.find_spec(EXTRAS[extra]) is not None
    except (ImportError, ValueError):
        return False


def install_command(*extras: str) -> str:
    """The command that installs the packages of these extras."""
    return f"pip install 'om-plugins[{','.join(extras)}]'"
