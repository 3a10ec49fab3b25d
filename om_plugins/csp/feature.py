"""The feature ``csp``: the settings of the policy, and the reports of browsers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import ConfigError
from ..plugins.feature import Feature
from ..plugins.kit import Card, Finding
from ..plugins.names import check_paths
from ..settings.kinds import (
    BOOL,
    CSP,
    CSP_CHANGES,
    CSP_PATHS,
    PATH_PATTERNS,
    POLICIES,
    STRINGS,
    TRUSTED_PATHS,
    choice,
    number,
)
from ..settings.table import Table, key

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment
    from click import Command

    from ..hookspecs import CspSources
    from ..plugins.kit import Kit

    AskCsp = Callable[[WSGIEnvironment], CspSources | None]

MAX_SHOWN = 30
"""How many groups of violations the console shows."""
CARD_S = 10.0
"""Seconds for which a card is used again, because making one scans the hub."""

_key = partial(key, group="Security headers")


@dataclass(frozen=True, slots=True, kw_only=True)
class CspKeys(Table):
    """The settings of the Content-Security-Policy."""

    PREFIX: ClassVar[str] = "OM_"

    csp_mode: str = _key(
        "adopt",
        choice("adopt", "enforce", "learn", "off"),
        "`adopt` enforces nothing, and a share of the pages reports on the strict policy; "
        "`enforce` enforces the strict policy; `learn` enforces nothing, and every page reports; "
        "`off` sends none",
    )
    csp_preset: str = _key(
        "strict",
        choice("strict", "compatible", "hash", "api", "own"),
        "`strict`: scripts need a nonce; `compatible`: external ones of the site and of "
        "`OM_CSP_SCRIPT_HOSTS` do not; `hash`: inline ones that never change do not either; "
        "`api`: pages may hold nothing at all; `own`: `OM_CSP` is the whole policy",
    )
    csp_script_hosts: tuple[str, ...] = _key(
        (), STRINGS, "hosts of the presets `compatible` and `hash`, such as `https://cdn.example`"
    )
    csp: dict[str, tuple[str, ...] | None] = _key(
        {}, CSP_CHANGES, "directives that replace those of the preset; `None` removes one"
    )
    csp_enforce_also: tuple[dict[str, tuple[str, ...]], ...] = _key(
        (), POLICIES, "more policies to enforce; in mode `learn` they are reported on"
    )
    csp_report_also: tuple[dict[str, tuple[str, ...]], ...] = _key(
        (), POLICIES, "more policies to report on, such as a planned one"
    )
    csp_api: dict[str, tuple[str, ...]] | None = _key(
        None,
        CSP,
        "the policy of JSON, images and style sheets in mode `enforce`; when not set "
        "`default-src 'none'` and what images need; none when empty",
    )
    csp_paths: dict[str, dict[str, Any]] = _key(
        {}, CSP_PATHS, "changes by path, as in `@om.csp(…)`; the longest pattern wins"
    )
    csp_report_sample: float = _key(
        0.01,
        number(0, 1),
        "share of HTML responses that ask browsers for reports; below 1, mode `adopt` "
        "chooses among pages that browsers open with GET (all in debug mode; none under "
        "`TESTING`, unless it is 1)",
    )
    csp_auto_nonce: bool = _key(
        True,
        BOOL,
        "add nonces to the literal `<script>`, `<style>` and `<link>` tags of Jinja templates",
    )
    csp_html_nonces: tuple[str, ...] = _key(
        (),
        TRUSTED_PATHS,
        "pages without markup of users that Python made, or that a cache of fragments keeps: their "
        "literal tags get nonces, too. `['/charts/*']` for some paths, `'trusted'` for all pages",
    )
    csp_doctor_except: tuple[str, ...] = _key(
        (),
        PATH_PATTERNS,
        "paths that `flask om doctor` does not open when it looks at pages, such as `/export/*`",
    )
    csp_hash_attributes: bool = _key(
        False,
        BOOL,
        "allow the literal event handlers and `style` attributes of Jinja templates by their "
        "hashes (`'unsafe-hashes'`)",
    )


class CspFeature(Feature["CspPart", CspKeys]):
    """Gives ``OM_CSP_…``, the hook ``om_csp`` and the endpoint of reports."""

    name = "csp"
    keys = CspKeys

    def build(self, kit: Kit, keys: CspKeys) -> CspPart:
        return CspPart(kit)

    def layer(self, kit: Kit, part: CspPart, app: WSGIApplication) -> WSGIApplication | None:
        keys = kit.settings.of(CspKeys)
        if keys.csp_mode == "off" or not keys.csp_html_nonces:
            return None
        from .html.layer import HtmlNonceLayer

        # a browser that has a page has its policy, too: another policy is another page
        mark = hashlib.blake2b(repr(keys).encode(), digest_size=4).hexdigest()
        return HtmlNonceLayer(app, keys.csp_html_nonces, mark)

    def endpoints(self, kit: Kit, part: CspPart) -> Mapping[str, WSGIApplication]:
        from .reports import ReportEndpoint

        return {
            "/csp": ReportEndpoint(
                hub=kit.hub,
                emit=kit.emit,
                clock=kit.clock,
                prefix=kit.keys.prefix,
                route_of=kit.host.route_of,
            )
        }

    def commands(self) -> Iterable[Command]:
        from .commands import csp_group

        return [csp_group]

    def card(self, kit: Kit, part: CspPart) -> Card:
        now = kit.clock.monotonic()
        if part.card is None or not 0 <= now - part.card_made_at < CARD_S:
            part.card, part.card_made_at = _violations(kit), now
        return part.card

    def name_findings(self, kit: Kit, part: CspPart) -> Iterable[Finding]:
        paths = kit.settings.of(CspKeys).csp_paths
        yield from check_paths("OM_CSP_PATHS[{!r}]", paths, kit.host.rules)

    def findings(self, kit: Kit, part: CspPart) -> Iterable[Finding]:
        keys = kit.settings.of(CspKeys)
        yield _check_mode(keys)
        yield from _find_weaknesses(keys)
        yield from _find_guards(kit, keys)


class CspPart:
    """The sources that plugins add to the policy of one application.

    Attributes:
        card, card_made_at: the newest card and when it was made.
    """

    def __init__(self, kit: Kit) -> None:
        self.card: Card | None = None
        self.card_made_at = 0.0
        self._plugins = kit.plugins

    def collect_sources(self) -> tuple[dict[str, list[str]], list[AskCsp]]:
        """Ask all plugins once.

        Returns:
            The merged sources, and the functions that are called for each page.
        """
        merged: dict[str, list[str]] = {}
        callables: list[AskCsp] = []
        for plugin, found in self._plugins.collect("om_csp", _check_sources):
            if callable(found):
                callables.append(self._guard(plugin, found))
                continue
            for directive, allowed in found.items():
                merged.setdefault(directive, []).extend(allowed)
        return merged, callables

    def _guard(self, plugin: str, ask: AskCsp) -> AskCsp:
        def guarded(environ: WSGIEnvironment) -> CspSources | None:
            worked, sources = self._plugins.call_guarded(plugin, ask, environ)
            return sources if worked else None

        guarded.__name__ = f"om_csp of the plugin {plugin!r}"
        return guarded


def _check_sources(found: CspSources | AskCsp) -> CspSources | AskCsp:
    from .policy import read_policy

    return found if callable(found) else read_policy(found, "om_csp")


def read_preset(keys: CspKeys) -> Mapping[str, Sequence[str]]:
    """Return the directives of ``OM_CSP_PRESET``.

    Raises:
        ConfigError: script hosts are set, but the preset does not use them; or ``OM_CSP`` must be
            the whole policy and is empty.
    """
    from .policy import read_policy
    from .presets import API, STRICT, by_hash, compatible

    where, hosts = "OM_CSP_SCRIPT_HOSTS", keys.csp_script_hosts
    if keys.csp_preset in ("compatible", "hash"):
        make = compatible if keys.csp_preset == "compatible" else by_hash
        return make(read_policy({"script-src": hosts}, where)["script-src"] if hosts else ())
    if hosts:
        raise ConfigError(
            where,
            hosts,
            f"the preset {keys.csp_preset!r} does not use hosts; set OM_CSP_PRESET = "
            "'compatible' or 'hash', or give the <script> tags their nonces",
        )
    if keys.csp_preset == "own":
        if keys.csp_mode != "off" and not keys.csp:
            raise ConfigError("OM_CSP_PRESET", "own", "OM_CSP is empty, but it is the whole policy")
        return {}
    return API if keys.csp_preset == "api" else STRICT


def _violations(kit: Kit) -> Card:
    """What browsers reported, with the changes that would allow it."""
    from .advisor import as_settings, suggest
    from .violations import groups

    policy = kit.part_of("headers").policy
    found = suggest(groups(kit.hub))
    data = {
        "mode": policy.mode,
        "suggestions": found[:MAX_SHOWN],
        "settings": as_settings(found, policy.rules.strict),
    }
    return Card("Policy violations", data={"violations": data})


_MODES: Mapping[str, tuple[Literal["ok", "warn"], str, str]] = {
    "enforce": ("ok", "The policy of OM_CSP_PRESET = '{preset}' is enforced.", ""),
    "adopt": (
        "warn",
        "No policy is enforced yet; a share of the pages reports on the strict policy.",
        "Protection begins with OM_CSP_MODE = 'enforce': set it when no more reports arrive.",
    ),
    "learn": (
        "warn",
        "No policy is enforced; every page reports on the strict policy.",
        "Protection begins with OM_CSP_MODE = 'enforce': set it when no more reports arrive.",
    ),
    "off": (
        "warn",
        "No Content-Security-Policy is sent.",
        "Set OM_CSP_MODE = 'adopt': it enforces nothing and reports on the strict policy.",
    ),
}


def _check_mode(keys: CspKeys) -> Finding:
    level, message, way_out = _MODES[keys.csp_mode]
    return Finding(level, "OM_CSP_MODE", message.format(preset=keys.csp_preset), way_out)


def _find_weaknesses(keys: CspKeys) -> Iterator[Finding]:
    """Find what makes a policy weaker than it looks."""
    from .modes import PolicyRules

    if keys.csp_mode == "off":
        return
    try:
        policy = PolicyRules(mode="enforce", base=read_preset(keys), own=keys.csp).strict
    except ConfigError:  # an application with such a setting does not start
        return
    scripts = policy.get("script-src", policy.get("default-src", ("*",)))
    guarded = any(one in scripts for one in ("'nonce'", "'hashes'")) or any(
        one.startswith("'sha") for one in scripts
    )
    places = [one for one in scripts if one in ("*", "https:", "http:", "data:", "blob:")]
    for wrong, message, way_out in (
        (
            "'unsafe-inline'" in scripts and not guarded,
            "Injected scripts run: the policy has 'unsafe-inline' without a nonce.",
            "Add 'nonce': browsers then ignore 'unsafe-inline'.",
        ),
        (
            "'unsafe-eval'" in scripts,
            "Every text that reaches eval runs: the policy has 'unsafe-eval'.",
            "Use a build of the library that does not need it.",
        ),
        (
            bool(places) and "'strict-dynamic'" not in scripts,
            f"Scripts may come from anywhere: {' '.join(places)}.",
            "Name the hosts, or add 'strict-dynamic'.",
        ),
        (
            not {"object-src", "default-src"} & policy.keys(),
            "Plug-ins may run: the policy has no object-src.",
            "Add object-src 'none'.",
        ),
        (
            "base-uri" not in policy and keys.csp_preset != "api",
            "An injected <base> changes the address of relative scripts: there is no base-uri.",
            "Add base-uri 'none'.",
        ),
    ):
        if wrong:
            yield Finding("warn", "OM_CSP", message, way_out)


def _find_guards(kit: Kit, keys: CspKeys) -> Iterator[Finding]:
    """Find event handlers in templates that are dangerous to stop."""
    if keys.csp_mode == "off" or keys.csp_preset == "api":
        return
    from .audit.findings import examine_templates
    from .modes import Paths, PolicyRules

    environment = kit.host.jinja_environment()
    if environment is None:
        return
    try:
        policy = PolicyRules(mode="enforce", base=read_preset(keys), own=keys.csp).strict
        changes = [*Paths(keys.csp_paths).all_changes(), *kit.host.declared.get("csp", ())]
    except ConfigError:  # an application with such a setting does not start
        return
    yield from examine_templates(
        environment,
        policy,
        changes,
        enforced=keys.csp_mode == "enforce",
        questions=keys.csp_auto_nonce and allows_questions(keys),
    )


def allows_questions(keys: CspKeys) -> bool:
    """Return whether pages allow event handlers that only ask by their hashes.

    A policy of the owner's own is sent as it is, and so is one that forbids all handlers.
    """
    forbidden = keys.csp.get("script-src-attr") == ("'none'",)
    return keys.csp_preset not in ("own", "api") and not forbidden
