"""``flask om …``: what an operator asks on the command line.

Each command takes ``--json`` for machines. Only ``flask om cache purge`` changes anything.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from flask import Flask
from flask.cli import AppGroup
from werkzeug.middleware.proxy_fix import ProxyFix

from ..console.doctor import examine
from ..console.engines_view import ago
from ..csp.feature import CspKeys
from ..flask.app_state import AppEntry
from ..headers.feature import HeaderKeys
from ..plugins.command_output import (
    as_json_option,
    current_host,
    current_runtime,
    plain,
    print_json,
    print_table,
)
from ..plugins.feature import Finding
from ..types import EngineTraits
from ..workers.engine_health import encode_health
from .cache import cache_group
from .csp import csp_group

if TYPE_CHECKING:
    from ..runtime import Runtime

__all__ = ["om_group"]

om_group = AppGroup("om", help="Look at om_plugins: its plugins, settings, engines, set-up.")
om_group.add_command(cache_group)
om_group.add_command(csp_group)


@om_group.command("plugins")
@as_json_option
def plugins(as_json: bool) -> None:
    """List the plugins, also those that failed or were left out, with the reason."""
    statuses = current_runtime().plugins.statuses()
    if as_json:
        print_json([dataclasses.asdict(status) for status in statuses])
        return
    print_table(
        ("plugin", "state", "version", "from", "what it is, or what is wrong"),
        [(s.name, s.state, s.version, s.source, s.reason or s.summary) for s in statuses],
    )


@om_group.command("doctor")
@as_json_option
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Say what may be wrong with the set-up, and the way out. Exits with 1 when something fails."""
    runtime = current_runtime()
    order = ("fail", "warn", "ok")
    findings = [*examine(runtime.kit), *_examine_flask(current_host(), runtime)]
    findings.sort(key=lambda finding: order.index(finding.level))
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        for one in findings:
            click.echo(f"{one.level:<4}  {plain(one.subject)}: {plain(one.message)}")
            if one.way_out:
                click.echo(f"      → {plain(one.way_out)}")
    if findings and findings[0].level == "fail":
        context.exit(1)


@om_group.command("settings")
@as_json_option
def settings(as_json: bool) -> None:
    """Show every setting's value. Secrets are masked."""
    current = current_runtime().settings
    values = {
        written: masked(value, field.name, secret=field.metadata["check"].secret)
        for written, field, value in current.rows()
    }
    if as_json:
        print_json(values)
        return
    print_table(
        ("setting", "value"),
        [
            (written, "not set" if value is None else json.dumps(value, ensure_ascii=False))
            for written, value in values.items()
        ],
    )


@om_group.command("engines")
@as_json_option
def engines(as_json: bool) -> None:
    """List the engines of every chain, in the order in which they are asked, and how they are."""
    runtime = current_runtime()
    workers = 0
    if heard := _workers_may_be_heard(runtime):
        runtime.part_of("chains").live.poll()
        picture = runtime.part_of("monitoring").overview(watch=False, history=False)
        told = picture["engines"]
        workers = len(picture["workers"]) - 1  # this process is none
    else:
        told = encode_health(
            one for chain in runtime.part_of("chains").by_name.values() for one in chain.health()
        )
    rows = list(_engine_rows(runtime, told))
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
             ", ".join(_notes(r, runtime.clock.time())), ", ".join(r["traits"]))
            for r in rows
        ],
    )  # fmt: skip
    if workers:
        click.echo(f"Health: as {workers} worker{'s' if workers > 1 else ''} told.")
    elif heard and runtime.hub.alone:
        click.echo("Health: of this process alone; the hub is out of reach.")
    else:
        click.echo("Health: of this process alone; no worker is heard of.")


def _workers_may_be_heard(runtime: Runtime) -> bool:
    """Whether there is a hub that workers write to; looking must not make one."""
    url = runtime.hub_url()
    if url.startswith("sqlite:"):
        return Path(urlsplit(url).path).exists()
    return not url.startswith("memory:")


def _engine_rows(runtime: Runtime, told: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    health = {(one["chain"], one["engine"]): one for one in told}
    for name, chain in sorted(runtime.part_of("chains").by_name.items()):
        on = {place.name for place in chain.states}
        for place in chain.all_states:
            one = health.get((name, place.name), {})
            traits = getattr(place.spec.engine, "traits", EngineTraits())
            yield {
                "chain": name,
                "tier": place.tier,
                "engine": place.name,
                "weight": place.weight,
                "health": one.get("state", "no data") if place.name in on else "switched off",
                "forced": one.get("forced", ""),
                "ejected": one.get("ejected", False),
                "probed_at": one.get("probed_at"),
                "traits": list(_traits(traits)),
            }


def _notes(row: Mapping[str, Any], at: float) -> Iterator[str]:
    """What else is to be said of an engine, in plain words."""
    if row["forced"]:
        yield "breaker forced open" if row["forced"] == "open" else "breaker held closed"
    if row["ejected"]:
        yield "asked last"
    if row["probed_at"] is not None:
        yield f"probed {ago(at - row['probed_at'])}"


def _traits(traits: EngineTraits) -> Iterator[str]:
    for field in dataclasses.fields(traits):
        value = getattr(traits, field.name)
        if value is True:
            yield field.name
        elif value:
            yield f"{field.name}={value}"


# --- what only Flask knows ----------------------------------------------------------------------


def _examine_flask(app: Flask, runtime: Runtime) -> Iterator[Finding]:
    # Flask-Caching keeps itself in app.extensions["cache"]
    if "cache" in app.extensions and runtime.settings.of(CspKeys).csp_mode == "enforce":
        yield Finding(
            "warn",
            "Flask-Caching",
            "A page that it keeps whole comes back with an old nonce, and the browser stops the "
            "page's scripts and styles.",
            "Keep the data that a page shows instead, with om.cache.query or om.memoize.",
        )
    if runtime.keys.secret_key or app.secret_key:
        yield Finding("ok", "OM_SECRET_KEY", "There is a secret key.")
    else:
        yield Finding(
            "warn",
            "OM_SECRET_KEY",
            "There is no secret key: a random one is kept in the hub, and is lost with it.",
            "Set SECRET_KEY or OM_SECRET_KEY to at least 32 random characters.",
        )
    proxies = runtime.keys.proxies
    inner, outer = _proxy_fixes(app)
    if proxies and (inner or outer):
        yield Finding(
            "fail",
            "OM_PROXIES",
            "The app applies ProxyFix itself, so X-Forwarded-* is read twice and a client can "
            "choose its own address.",
            "Take out either ProxyFix or OM_PROXIES.",
        )
    elif inner:
        yield Finding(
            "warn",
            "OM_PROXIES",
            "ProxyFix is inside OpenManager, whose layers see the proxy's address.",
            "Take ProxyFix out and set OM_PROXIES to the number of proxies.",
        )
    elif runtime.settings.of(HeaderKeys).force_https and not (proxies or outer):
        yield Finding(
            "warn",
            "OM_FORCE_HTTPS",
            "No proxy is trusted: where a proxy ends TLS, every request looks like plain HTTP and "
            "is redirected for ever.",
            "Behind a proxy, set OM_PROXIES to the number of proxies that set X-Forwarded-Proto.",
        )
    elif proxies or outer:
        yield Finding("ok", "OM_PROXIES", "X-Forwarded-* is read once.")
    elif app.config.get("PREFERRED_URL_SCHEME") == "https":
        yield Finding(
            "warn",
            "OM_PROXIES",
            "PREFERRED_URL_SCHEME is https and no proxy is trusted: where a proxy ends TLS, "
            "requests look like http from the proxy's address.",
            "Behind a proxy, set OM_PROXIES to the number of proxies that set X-Forwarded-*.",
        )
    else:
        yield Finding(
            "ok",
            "OM_PROXIES",
            "No proxy is trusted: X-Forwarded-* is not read.",
            "Behind a proxy, set OM_PROXIES to the number of proxies that set it.",
        )


def _proxy_fixes(app: Flask) -> tuple[bool, bool]:
    """Whether a ``ProxyFix`` of the app's own is inside OpenManager, and outside of it."""
    inner = outer = passed = False
    layer: object = app.wsgi_app
    for _ in range(50):
        if isinstance(layer, ProxyFix):
            inner, outer = inner or passed, outer or not passed
        passed = passed or isinstance(layer, AppEntry)
        names = ("_wsgi_app", "wsgi_app", "app")
        within = next((vars(layer)[n] for n in names if n in getattr(layer, "__dict__", ())), None)
        if within is None or within is app:
            break
        layer = within
    return inner, outer


# --- printing -----------------------------------------------------------------------------------

_SECRET_NAME = re.compile(
    r"secret|token|passw|credential|private|dsn|authorization|cookie|(^|[_-])(api_?)?key($|[_-])",
    re.IGNORECASE,
)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+(?=@)|(?<=password=)[^&#\s]+")
MASK = "********"


def masked(value: Any, name: str = "", *, secret: bool = False) -> Any:
    """``value`` as JSON-like data, without what may be a secret.

    Masked are values under a name that speaks of a secret, credentials in URLs, and what is
    neither text nor number; functions are shown by name.

    Args:
        name: the key that it is under.
        secret: it is a secret whatever its name says, unless it is a function.
    """
    if value is None or isinstance(value, bool):
        return value
    if (secret and not callable(value)) or _SECRET_NAME.search(name):
        return MASK
    if isinstance(value, Mapping):
        return {str(key): masked(one, str(key)) for key, one in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: masked(getattr(value, f.name), f.name) for f in dataclasses.fields(value)}
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return _CREDENTIALS.sub(MASK, value)
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray):
        return [masked(one, name) for one in value]
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '?')}"
    return MASK
