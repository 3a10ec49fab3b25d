"""What the commands share: the app at hand, and how answers are printed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click
from flask import Flask, current_app

if TYPE_CHECKING:
    from ..runtime import Runtime

__all__ = [
    "as_json_option",
    "current_host",
    "current_runtime",
    "plain",
    "print_json",
    "print_table",
]

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def current_host() -> Flask:
    return current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]


def current_runtime() -> Runtime:
    runtime = current_app.extensions.get("om_plugins")
    if runtime is None:
        raise click.ClickException(
            f"the app {current_app.name!r} has no OpenManager: add OpenManager(app), or "
            "om.init_app(app) in its factory"
        )
    found: Runtime = runtime
    return found


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [tuple(head), *(tuple(plain(cell) for cell in row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def plain(text: str) -> str:
    """One line without control characters: a plugin's words must not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
