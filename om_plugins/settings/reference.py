"""What ``docs/generate_settings.py`` writes from the tables: reference page and keywords."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field
from typing import Any

from .table import Table


def as_markdown(tables: Iterable[type[Table]]) -> str:
    """Render the reference page of all settings.

    Args:
        tables: the tables of all features. Nested tables follow at the end of the page.
    """
    lines = [
        "# Settings",
        "",
        "All settings are flat keys of `app.config`; `app.config.from_prefixed_env()` reads them",
        "from `FLASK_OM_…` variables. An unknown key is an error that names the nearest known one.",
        "Without Flask, the same names in lower case are keywords of `Settings`:",
        '`Settings(csp_mode="enforce")`.',
    ]
    groups: dict[str, list[tuple[str, Field[Any]]]] = {}
    inner: dict[type[Table], None] = {}
    for table in tables:
        for written, one in table.keys().items():
            groups.setdefault(one.metadata["group"], []).append((written, one))
            _add_inner(one, inner)
    for group, rows in groups.items():
        lines += ["", f"## {group}", "", *_rows(rows)]
    for table in inner:
        lines += ["", f"## {table.TITLE}", "", *_rows(list(table.keys().items()))]
    return "\n".join(lines) + "\n"


def _add_inner(declared: Field[Any], found: dict[type[Table], None]) -> None:
    """Add the tables that are nested in a setting, at all depths."""
    table = declared.metadata["check"].table
    if table is not None and table not in found:
        found[table] = None
        for one in table.keys().values():
            _add_inner(one, found)


def _rows(rows: list[tuple[str, Field[Any]]]) -> list[str]:
    lines = ["| key | default | allowed | what it does |", "|---|---|---|---|"]
    for written, one in rows:
        factory: Any = one.default_factory
        default = factory() if one.default is MISSING else one.default
        if isinstance(default, Table):
            default = default.as_written()
        allowed = str(one.metadata["check"].allowed).replace("|", "\\|")
        lines.append(f"| `{written}` | `{default!r}` | {allowed} | {one.metadata['doc']} |")
    return lines


def as_keywords(groups: Mapping[str, Iterable[type[Table]]]) -> str:
    """Render the source of :mod:`.keywords`: tables as keywords for type checkers and editors.

    Args:
        groups: from the name of a ``TypedDict`` to the tables whose keys it has. In a class that
            is named ``…Changes`` every keyword may be ``None``.
    """
    lines = [
        '"""The keys of settings as keywords. ``docs/generate_settings.py`` writes this module."""',
        "",
        "from __future__ import annotations",
        "",
        "from collections.abc import Callable, Collection, Mapping, Sequence",
        "from os import PathLike",
        "from typing import Literal, TypedDict",
        "",
        "from .table import Table",
    ]
    for name, tables in groups.items():
        title = next(iter(tables)).TITLE if name != "SettingsKeywords" else "All settings"
        lines += ["", "", f"class {name}(TypedDict, total=False):", f'    """{title}."""', ""]
        for table in tables:
            for written, one in table.keys().items():
                if written == table.SHORT:  # callers give these as positional arguments
                    continue
                accepts = one.metadata["check"].accepts
                if (one.default is None or name.endswith("Changes")) and accepts != "object":
                    accepts = accepts.removesuffix(" | None") + " | None"
                lines.append(f"    {one.name}: {accepts}")
    return "\n".join(lines) + "\n"
