"""``flask om …``: what an operator asks on the command line.

``plugins``, ``settings`` and ``doctor`` are here. All other commands come from the features, those
of the app's plugins included.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
from flask import Flask, current_app
from flask.cli import AppGroup, ScriptInfo
from werkzeug.middleware.proxy_fix import ProxyFix

from ..cache.responses.why import build_request
from ..console.doctor import examine
from ..core.stand_ins.transparent import find_replaced
from ..csp.feature import CspKeys
from ..errors import ConfigError, PluginError
from ..features import shipped
from ..flask.app_state import KEY
from ..headers.feature import HeaderKeys
from ..plugins.commands import as_json_option, plain, print_json, print_table
from ..plugins.kit import Finding, Kit
from .output import mask_secrets
from .pages import MAX_PAGES, build_session, examine_routes
from .routes import find_host

if TYPE_CHECKING:
    from ..runtime import Runtime

_COMMANDS = f"{__name__}.commands"
_HELP_ASKED = f"{__name__}.help"


class FeatureCommands(AppGroup):
    """A group whose commands are its own and those of the features.

    A command runs within the app's context. ``click.pass_obj`` gives it the app's
    :class:`~om_plugins.plugins.kit.Kit`.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self.commands, *_find_commands(ctx)})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return self.commands.get(name) or _find_commands(ctx).get(name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_HELP_ASKED] = any(name in args for name in ctx.help_option_names)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        if not ctx.meta[_HELP_ASKED]:  # help is printed without an app as well
            app = ctx.ensure_object(ScriptInfo).load_app()
            ctx.with_resource(app.app_context())
            ctx.obj = _current_runtime().kit
        try:
            return super().invoke(ctx)
        except ConfigError as error:  # of a setting that is looked at on first use
            raise click.ClickException(str(error)) from None


def _find_commands(ctx: click.Context) -> dict[str, click.Command]:
    """Find the commands of the shipped features, and of the app's others when there is an app."""
    found: dict[str, click.Command] | None = ctx.meta.get(_COMMANDS)
    if found is None:
        own = {one.name or "": one for feature in shipped() for one in feature.commands()}
        found = ctx.meta[_COMMANDS] = {**_find_brought_commands(ctx), **own}
    return found


def _find_brought_commands(ctx: click.Context) -> dict[str, click.Command]:
    """Find the commands that the app's plugins bring. Name what is broken, and leave it out."""
    try:
        runtime: Runtime | None = ctx.ensure_object(ScriptInfo).load_app().extensions.get(KEY)
        return runtime.kit.commands(om_group.commands) if runtime is not None else {}
    except Exception as error:  # noqa: BLE001 - an app may raise anything, and help still helps
        click.secho(f"The commands of the app's plugins are missing: {error}", err=True, fg="red")
        return {}


def _check_commands(kit: Kit) -> None:
    """Write wrong commands of the app's plugins into the plugins' status, to be shown."""
    with suppress(PluginError):
        kit.commands(om_group.commands)


def _current_runtime() -> Runtime:
    runtime: Runtime | None = current_app.extensions.get(KEY)
    if runtime is None:
        raise click.ClickException(
            f"the app {current_app.name!r} has no OpenManager: add OpenManager(app), or "
            "om.init_app(app) in its factory"
        )
    return runtime


om_group = FeatureCommands("om", help="Look at om_plugins: its plugins, settings, engines, set-up.")


@om_group.command("plugins")
@as_json_option
@click.pass_obj
def plugins(kit: Kit, as_json: bool) -> None:
    """List the plugins, also those that failed or were left out, with the reason."""
    _check_commands(kit)
    statuses = kit.plugins.get_statuses()
    if as_json:
        print_json([dataclasses.asdict(status) for status in statuses])
        return
    print_table(
        ("plugin", "state", "version", "from", "what it is, or what is wrong"),
        [(s.name, s.state, s.version, s.source, s.reason or s.summary) for s in statuses],
    )


@om_group.command("doctor")
@click.option(
    "--pages",
    type=click.IntRange(min=0),
    default=MAX_PAGES,
    show_default=True,
    help="How many routes are opened at most to see what enforce would stop; 0 for none.",
)
@click.option("--url", "urls", multiple=True, help="Open this as well, such as /search?q=tea.")
@click.option("--header", "headers", multiple=True, help="Of those requests: 'Name: value'.")
@click.option("--cookie", "cookies", multiple=True, help="Of those requests: 'name=value'.")
@click.option(
    "--session",
    "values",
    multiple=True,
    help="Of all requests: 'user_id=7'; text: '_user_id=\"7\"'.",
)
@as_json_option
@click.pass_obj
def doctor(
    kit: Kit,
    pages: int,
    urls: tuple[str, ...],
    headers: tuple[str, ...],
    cookies: tuple[str, ...],
    values: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say what may be wrong with the set-up, and the way out. Exits with 1 when something fails.

    Opens the routes that take a GET without arguments, in this process and without a session, and
    says what mode enforce would stop on their pages. --session gives them one. Routes whose names
    say that they may change something, such as /logout, and those of OM_CSP_DOCTOR_EXCEPT are left
    alone.
    """
    _check_commands(kit)
    order = ("fail", "warn", "ok")
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    host = find_host(app, kit)
    try:
        more = [
            (url, build_request(url, headers=headers, cookies=cookies, host=host)) for url in urls
        ]
        cookie = build_session(app, values, host) if values else ""
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    findings = [*examine(kit), *_examine_flask(app, kit)]
    findings += examine_routes(app, kit, most=pages, more=more, cookie=cookie)
    findings.sort(key=lambda finding: order.index(finding.level))
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        for one in findings:
            click.echo(f"{one.level:<4}  {plain(one.subject)}: {plain(one.message)}")
            if one.way_out:
                click.echo(f"      → {plain(one.way_out)}")
    if findings and findings[0].level == "fail":
        raise SystemExit(1)


@om_group.command("settings")
@as_json_option
@click.pass_obj
def settings(kit: Kit, as_json: bool) -> None:
    """Show every setting's value. Secrets are masked."""
    values = {
        written: mask_secrets(value, field.name, secret=field.metadata["check"].secret)
        for written, field, value in kit.settings.rows()
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


# --- what only Flask knows ----------------------------------------------------------------------


def _examine_flask(app: Flask, kit: Kit) -> Iterator[Finding]:
    # Flask-Caching keeps itself in app.extensions["cache"]
    if "cache" in app.extensions and kit.settings.of(CspKeys).csp_mode == "enforce":
        yield Finding(
            "warn",
            "Flask-Caching",
            "A page that it keeps whole comes back with an old nonce, and the browser stops the "
            "page's scripts and styles.",
            "Keep the data that a page shows instead, with om.cache.query or om.memoize.",
        )
    if kit.keys.secret_key or app.secret_key:
        yield Finding("ok", "OM_SECRET_KEY", "There is a secret key.")
    else:
        yield Finding(
            "warn",
            "OM_SECRET_KEY",
            "There is no secret key: a random one is kept in the hub, and is lost with it.",
            "Set SECRET_KEY or OM_SECRET_KEY to at least 32 random characters.",
        )
    proxies = kit.keys.proxies
    inner, outer = _find_proxy_fixes(app)
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
    elif kit.settings.of(HeaderKeys).force_https.all and not (proxies or outer):
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


def _find_proxy_fixes(app: Flask) -> tuple[bool, bool]:
    """Tell whether a ``ProxyFix`` of the app is inside OpenManager, and whether one is outside."""
    inner = outer = passed = False
    layer: object = app.wsgi_app
    for _ in range(50):
        within: object = find_replaced(layer)
        if within is not None:
            passed = True
        elif isinstance(layer, ProxyFix):
            inner, outer = inner or passed, outer or not passed
        if within is None:
            held = getattr(layer, "__dict__", {})
            within = next((held[name] for name in ("wsgi_app", "app") if name in held), None)
        if within is None or within is app:
            break
        layer = within
    return inner, outer
