"""``flask om cache …``: the shared HTTP cache on the command line."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from ..plugins.command_output import as_json_option, current_runtime, print_json

__all__ = ["cache_group"]

cache_group = AppGroup("cache", help="Take stored pages back.")


@cache_group.command("purge")
@click.option("--url", default="", help="A path or URL; without a query, with all its queries.")
@click.option("--prefix", default=None, help="The beginning of a path or URL; / is everything.")
@click.option("--tag", "tags", multiple=True, help="A tag; may be given more than once.")
@click.option("--soft", is_flag=True, help="Make them stale instead of taking them away.")
@as_json_option
def purge_command(
    url: str, prefix: str | None, tags: tuple[str, ...], soft: bool, as_json: bool
) -> None:
    """Take stored pages back, in all workers that share the hub."""
    runtime = current_runtime()
    if runtime.hub_url().startswith("memory:"):
        raise click.ClickException(
            "the hub is memory://, which other processes cannot hear: set OM_HUB_URL to "
            "sqlite:///… or redis://…, or purge from the console"
        )
    try:
        runtime.part_of("http_cache").cache.purge(url, prefix=prefix, tags=tags, soft=soft)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if runtime.hub.alone:
        raise click.ClickException("the hub cannot be reached, so no worker has heard of it")
    if as_json:
        print_json({"url": url, "prefix": prefix, "tags": list(tags), "soft": soft})
    else:
        click.echo("Purged: every worker hears of it within a second.")
