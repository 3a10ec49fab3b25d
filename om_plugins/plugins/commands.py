"""Commands of ``flask om``: what they print with, and ``om`` among the commands of an app.

``flask om`` finds its commands as an entry point. An app's own ``app.cli``, which
``app.test_cli_runner()`` uses, knows only what was added to it; there ``om`` imports its commands
when it is called.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: object) -> None:
    """Print a value as JSON; what JSON does not know is printed as text."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below a head, in columns that are as wide as their longest cell."""
    lines = [tuple(head), *(tuple(plain(cell) for cell in row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def plain(text: str) -> str:
    """Return one line without control characters, so that a plugin cannot steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


HOME = "om_plugins.cli.main:om_group"
"""Where the commands are; imported by name, since they import the extension that adds them."""


class LazyCommand(click.Command):
    """Stands for the group ``om`` until it is called."""

    def __init__(self) -> None:
        super().__init__("om", short_help="Look at om_plugins: its plugins, settings, set-up.")

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Return the context of the group itself, whose command click then calls."""
        module, _, name = HOME.partition(":")
        group: click.Group = getattr(importlib.import_module(module), name)
        return group.make_context(*args, **kwargs)


def add_commands(group: click.Group) -> None:
    """Add ``om`` to an app's own commands, unless the app has one of that name."""
    if "om" not in group.commands:
        group.add_command(LazyCommand())
