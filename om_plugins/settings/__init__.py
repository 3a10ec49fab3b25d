"""How settings are declared, read and checked; the keys themselves are with their features."""

from __future__ import annotations

from ..core.moved import refuse_moved

__all__: list[str] = []


def __getattr__(name: str) -> object:
    refuse_moved(f"settings.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
