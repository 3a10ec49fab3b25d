"""The commands ``flask om csp …``: what templates and browsers' reports say about the policy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import click

from ..plugins.commands import as_json_option, plain, print_json
from ..plugins.kit import Kit
from .advisor import RISKS, Risk, Suggestion, as_settings, suggest
from .jinja.lint import DANGEROUS, lint_all
from .violations import MAX_GROUPS, groups

csp_group = click.Group(
    "csp", help="Look at templates and reports for the Content-Security-Policy."
)


@csp_group.command("lint")
@click.option("--errors", is_flag=True, help="Only what does not work under the strict policy.")
@click.argument("folders", nargs=-1, type=click.Path(exists=True, path_type=Path))
@as_json_option
@click.pass_obj
def lint_command(kit: Kit, folders: tuple[Path, ...], errors: bool, as_json: bool) -> None:
    """Say what the strict policy would stop in the templates, and what to write instead.

    Looks at every HTML template that the app can load, blueprints' and extensions' too, or only at
    those below FOLDERS. Exits with 1 when there are errors.
    """
    environment = kit.host.jinja_environment()
    if environment is None:
        raise click.ClickException("this application has no Jinja templates")
    try:
        hints = lint_all(environment)
    except TypeError as error:
        raise click.ClickException(f"the templates cannot be listed: {error}") from None
    if folders:
        hints = [one for one in hints if _is_below(Path(one.file), folders)]
    wrong = sum(hint.level == "error" for hint in hints)
    shown = [hint for hint in hints if hint.level == "error"] if errors else hints
    if as_json:
        print_json([dataclasses.asdict(hint) for hint in shown])
    else:
        for one in shown:
            place = f"{_shorten_path(one.file)}:{one.line}"
            click.echo(f"{place}: {one.level} {one.rule}: {plain(one.message)}")
            click.echo(f"    → {plain(one.fix)}")
        dangerous = sum(hint.rule in DANGEROUS for hint in hints)
        click.echo(
            f"{_count(wrong, 'error')}{f' ({dangerous} dangerous)' if dangerous else ''}, "
            f"{_count(len(hints) - wrong, 'note')}."
        )
    if wrong:
        raise SystemExit(1)


@csp_group.command("suggest")
@click.option(
    "--risk",
    type=click.Choice(RISKS),
    default="medium",
    show_default=True,
    help="Changes of a higher risk are not put into the settings.",
)
@click.option("--settings", "only_settings", is_flag=True, help="Print only the settings.")
@as_json_option
@click.pass_obj
def suggest_command(kit: Kit, risk: Risk, only_settings: bool, as_json: bool) -> None:
    """Say what browsers reported, how to fix it, and what change of policy would allow it.

    Nothing is applied. Anybody can post reports: allow only what you know.
    """
    suggestions = suggest(groups(kit.hub))
    settings = as_settings(suggestions, kit.part_of("headers").policy.rules.strict, risk)
    if as_json:
        print_json(
            {"suggestions": [dataclasses.asdict(one) for one in suggestions], "OM_CSP": settings}
        )
        return
    if not only_settings:
        for one in suggestions:
            _print_suggestion(one)
        if not suggestions:
            click.echo("No report in the last seven days.")
            if kit.hub_url().startswith("memory:"):
                click.echo("The hub is this process's memory: set OM_HUB_URL to see the workers'.")
    if len(suggestions) >= MAX_GROUPS:
        click.echo(
            f"# {MAX_GROUPS} kinds of reports are the most that one process counts: others are not "
            "counted. Somebody may be inventing them."
        )
    if settings:
        click.echo("# Anybody can send reports: allow only what you know.")
        if any("'sha256-" in " ".join(one) for one in settings.values()):
            click.echo("# A hash is that of a text without the blanks that may stand around it.")
        click.echo(f"OM_CSP = {json.dumps(settings, indent=4)}")
    elif suggestions:
        click.echo(f"# no change of policy with a risk of {risk} at most")


def _print_suggestion(one: Suggestion) -> None:
    group = one.group
    place = f" ({group.source}:{group.line})" if group.source else f" (line {group.line})"
    click.echo(
        plain(
            f"{group.count} × {group.directive} blocked {group.blocked or 'something'} "
            f"on {group.route or 'a page'}{place if group.line else ''}"
            + (f": {group.sample}" if group.sample else "")
        )
    )
    click.echo(f"    → {plain(one.fix)}")
    for directive, sources in one.change.items():
        click.echo(f"    or {plain(directive)} {plain(' '.join(sources))}")
        click.echo(f"       risk: {one.risk}. {one.cost}")


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _is_below(file: Path, folders: Iterable[Path]) -> bool:
    return any(file.resolve().is_relative_to(one.resolve()) for one in folders)


def _shorten_path(file: str) -> str:
    """The file as somebody in this folder would write it."""
    here = Path.cwd()
    return plain(str(Path(file).relative_to(here)) if Path(file).is_relative_to(here) else file)
