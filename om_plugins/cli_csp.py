"""``flask om csp …``: look at templates and at what browsers reported, and say what to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
from flask.cli import AppGroup

from .cli_parts import as_json_option, current_host, plain, print_json
from .security.template_lint import lint_all

__all__ = ["csp_group"]

csp_group = AppGroup("csp", help="Look at templates and reports for the Content-Security-Policy.")


@csp_group.command("lint")
@click.option("--errors", is_flag=True, help="Only what does not work under the strict policy.")
@as_json_option
@click.pass_context
def lint_command(context: click.Context, errors: bool, as_json: bool) -> None:
    """Say what the strict policy would stop in the templates, and what to write instead.

    Looks at every HTML template that the app can load, blueprints' too. Exits with 1 when there
    are errors.
    """
    try:
        hints = lint_all(current_host().jinja_env)
    except TypeError as error:
        raise click.ClickException(f"the templates cannot be listed: {error}") from None
    wrong = sum(hint.level == "error" for hint in hints)
    shown = [hint for hint in hints if hint.level == "error"] if errors else hints
    if as_json:
        print_json([dataclasses.asdict(hint) for hint in shown])
    else:
        for one in shown:
            place = f"{_near(one.file)}:{one.line}"
            click.echo(f"{place}: {one.level} {one.rule}: {plain(one.message)}")
            click.echo(f"    → {plain(one.fix)}")
        click.echo(f"{wrong} errors, {len(hints) - wrong} notes.")
    if wrong:
        context.exit(1)


def _near(file: str) -> str:
    """The file as somebody in this folder would write it."""
    here = Path.cwd()
    return plain(str(Path(file).relative_to(here)) if Path(file).is_relative_to(here) else file)
