"""The reference page of all settings, ``docs/settings.md``, made from the tables themselves."""

from __future__ import annotations

from dataclasses import MISSING, Field
from typing import Any

from .settings import Settings
from .settings__options import (
    AlertOptions,
    ChainOptions,
    EngineOptions,
    FallbackOptions,
    HstsOptions,
    HttpCacheOptions,
    RouteOptions,
)

__all__ = ["as_markdown"]


def as_markdown() -> str:
    """The reference page of all settings, generated from the tables."""
    lines = [
        "# Settings",
        "",
        "All settings are flat keys of `app.config`; `app.config.from_prefixed_env()` reads them",
        "from `FLASK_OM_…` variables. An unknown key is an error that names the nearest known one.",
        "Without Flask, the same names in lower case are keywords of `Settings`:",
        '`Settings(csp_mode="enforce")`.',
    ]
    groups: dict[str, list[tuple[str, Field[Any]]]] = {}
    for written, one in Settings.keys().items():
        groups.setdefault(one.metadata["group"], []).append((written, one))
    for group, rows in groups.items():
        lines += ["", f"## {group}", "", *_rows(rows)]
    for title, cls in (
        ("A chain's options", ChainOptions),
        ("An engine's options", EngineOptions),
        ("A route's options", RouteOptions),
        ("A fallback's options", FallbackOptions),
        ("An alert's options", AlertOptions),
        ("HSTS's options", HstsOptions),
        ("Options of a path in the shared HTTP cache", HttpCacheOptions),
    ):
        lines += ["", f"## {title}", "", *_rows(list(cls.keys().items()))]
    return "\n".join(lines) + "\n"


def _rows(rows: list[tuple[str, Field[Any]]]) -> list[str]:
    lines = ["| key | default | allowed | what it does |", "|---|---|---|---|"]
    for written, one in rows:
        factory: Any = one.default_factory
        default = factory() if one.default is MISSING else one.default
        allowed = str(one.metadata["check"].allowed).replace("|", "\\|")
        lines.append(f"| `{written}` | `{default!r}` | {allowed} | {one.metadata['doc']} |")
    return lines
