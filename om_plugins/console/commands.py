"""The command ``flask om engines``: the engines of all chains and their health."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from ..plugins.commands import as_json_option, print_json, print_table
from ..plugins.kit import Kit
from ..types import EngineTraits
from ..workers.engine_health import encode_health
from .engines_view import format_ago


@click.command("engines")
@as_json_option
@click.pass_obj
def engines_command(kit: Kit, as_json: bool) -> None:
    """List the engines of every chain, in the order in which they are asked, and how they are."""
    workers = 0
    if reachable := _hub_may_have_workers(kit):
        kit.part_of("chains").live.poll()
        overview = kit.part_of("monitoring").overview(watch=False, history=False)
        reported = overview["engines"]
        workers = len(overview["workers"]) - 1  # this process is none
    else:
        reported = encode_health(
            one for chain in kit.part_of("chains").by_name.values() for one in chain.health()
        )
    rows = list(_engine_rows(kit, reported))
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("No engine: add one with @om.engine(name, chain=…, tier=…).")
        return
    print_table(
        ("chain", "tier", "engine", "health", "notes", "traits"),
        [
            (r["chain"], str(r["tier"]), r["engine"], r["health"],
             ", ".join(_describe_notes(r, kit.clock.time())), ", ".join(r["traits"]))
            for r in rows
        ],
    )  # fmt: skip
    if workers:
        click.echo(f"Health: as {workers} worker{' reports' if workers == 1 else 's report'} it.")
    elif reachable and kit.hub.alone:
        click.echo("Health: of this process alone; the hub is out of reach.")
    else:
        click.echo("Health: of this process alone; no worker reports.")


def _hub_may_have_workers(kit: Kit) -> bool:
    """Whether there may be a hub that workers write to. This must not create one."""
    url = kit.hub_url()
    if url.startswith("sqlite:"):
        return Path(urlsplit(url).path).exists()
    return not url.startswith("memory:")


def _engine_rows(kit: Kit, reported: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row of each engine, by chain, in the order in which chains ask them."""
    health = {(one["chain"], one["engine"]): one for one in reported}
    for name, chain in sorted(kit.part_of("chains").by_name.items()):
        on = {state.name for state in chain.states}
        for state in chain.all_states:
            one = health.get((name, state.name), {})
            traits = getattr(state.spec.engine, "traits", EngineTraits())
            yield {
                "chain": name,
                "tier": state.tier,
                "engine": state.name,
                "weight": state.weight,
                "health": one.get("state", "no data") if state.name in on else "switched off",
                "forced": one.get("forced", ""),
                "ejected": one.get("ejected", False),
                "probed_at": one.get("probed_at"),
                "traits": list(_describe_traits(traits)),
            }


def _describe_notes(row: Mapping[str, Any], at: float) -> Iterator[str]:
    """Yield what operators should know beside the health."""
    if row["forced"]:
        yield "breaker forced open" if row["forced"] == "open" else "breaker held closed"
    if row["ejected"]:
        yield "asked last"
    if row["probed_at"] is not None:
        yield f"probed {format_ago(at - row['probed_at'])}"


def _describe_traits(traits: EngineTraits) -> Iterator[str]:
    """Yield the traits that are set, with their values unless these are just true."""
    for field in dataclasses.fields(traits):
        value = getattr(traits, field.name)
        if value is True:
            yield field.name
        elif value:
            yield f"{field.name}={value}"
