"""The optional packages, and the extras of this distribution that install them."""

from __future__ import annotations

import importlib.util

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


def install_command(*extras: str) -> str:
    """Return the command that installs the packages of these extras."""
    return f"pip install 'om-plugins[{','.join(extras)}]'"
