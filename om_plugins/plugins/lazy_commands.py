"""``om`` among the commands of an app: its commands are imported when it is called.

``flask om`` finds its commands as an entry point. An app's own ``app.cli``, which
``app.test_cli_runner()`` uses, knows only what was added to it.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

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
