"""What may be wrong with an application's set-up, told before it hurts.

Only what can be read: nothing is opened, asked or changed. ``flask om doctor`` shows these
findings, and those that need Flask.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ..csp.modes import PolicyRules, preset
from ..errors import ConfigError
from ..plugins.host import PluginHost
from ..settings.settings import Settings
from ..settings.settings__options import STALE, FallbackOptions
from ..types import EngineSpec

__all__ = ["EXTRAS", "Examined", "Finding", "examine"]

EXTRAS = {
    "http": "h11",
    "redis": "redis",
    "memcached": "pymemcache",
    "system": "psutil",
    "prometheus": "prometheus_client",
    "otel": "opentelemetry",
    "apprise": "apprise",
}
"""Each optional extra, and the module by which it is found."""

_SHARED = re.compile(r"(redis|valkey|unix|memcached)[a-z+]*:")
_COMMON_NAMES = frozenset({"app", "application", "api", "flask", "main", "server", "web", "wsgi"})
_GUESSED = re.compile(r"password|secret|change.?me|letmein|12345|qwerty|admin|token", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``ok``, ``warn`` (works, and should be looked at) or ``fail`` (does not work).
        subject: the setting, plugin or part that it is about.
        message: what was found, in one plain sentence.
        way_out: what to do; "" when there is nothing to do.
    """

    level: Literal["ok", "warn", "fail"]
    subject: str
    message: str
    way_out: str = ""


class _Chain(Protocol):
    @property
    def engines(self) -> Sequence[EngineSpec]: ...


class Examined(Protocol):
    """What is looked at; :class:`om_plugins.runtime.Runtime` is one."""

    settings: Settings
    plugins: PluginHost
    testing: bool
    namespace: str
    trusted_hosts: Sequence[str] | None
    view_fallbacks: Sequence[FallbackOptions]

    @property
    def chains(self) -> Mapping[str, _Chain]: ...

    def hub_url(self) -> str: ...


def examine(runtime: Examined) -> list[Finding]:
    """Look at everything that needs no web framework.

    Args:
        runtime: an application's parts.
    """
    return [
        *_switch(runtime),
        *_plugins(runtime),
        *_routes(runtime),
        *_chains(runtime),
        *_fallbacks(runtime),
        *_hub(runtime),
        *_namespace(runtime),
        *_policy(runtime),
        *_sources(runtime),
        *_http_cache(runtime),
        *_console(runtime),
        *_uwsgi(),
        *_extras(runtime),
    ]


def _switch(runtime: Examined) -> Iterator[Finding]:
    if not runtime.settings.enabled:
        yield Finding(
            "warn",
            "OM_ENABLED",
            "The kill switch is off: no request passes through om_plugins.",
            "Set OM_ENABLED = True, or take the key out.",
        )


def _plugins(runtime: Examined) -> Iterator[Finding]:
    active = 0
    for status in runtime.plugins.statuses():
        subject = f"plugin {status.name}"
        if status.state == "active":
            active += 1
            if status.reason:
                level: Literal["warn", "fail"] = "fail" if status.failures else "warn"
                yield Finding(
                    level, subject, _sentence(status.reason), "Mend it, or tell its author."
                )
        elif status.state != "disabled":
            yield Finding(
                "fail",
                subject,
                _sentence(f"It is not used: {status.reason}"),
                f"Mend or uninstall it, or add {status.name!r} to OM_PLUGINS_DISABLED.",
            )
        elif status.source == "OM_PLUGINS_DISABLED":
            yield Finding("warn", subject, _sentence(status.reason))
    yield Finding("ok", "plugins", f"{active} are active.")


def _sentence(words: str) -> str:
    return words if words.endswith((".", "?", "!")) else f"{words}."


def _routes(runtime: Examined) -> Iterator[Finding]:
    for path, route in runtime.settings.routes.items():
        subject = f"OM_ROUTES[{path!r}]"
        sound = True
        if route.chain not in runtime.chains:
            sound = False
            yield Finding(
                "fail",
                subject,
                f"The chain {route.chain!r} has no engine, so every call ends in a 500.",
                _nearest(route.chain, runtime.chains)
                or f"Add an engine to it: om.engine(…, chain={route.chain!r}).",
            )
        if route.auth is None:
            sound = False
            yield Finding(
                "warn",
                subject,
                "It has no auth: anybody may call it, and each call may cost money.",
                "Give it an auth callback; lambda request: True says that this is meant.",
            )
        if route.rate is None:
            sound = False
            yield Finding(
                "warn",
                subject,
                "It has no rate: one client may call it as often as it likes.",
                "Give it a rate such as '60/min'.",
            )
        if "*" in route.cors:
            sound = False
            yield Finding(
                "warn",
                subject,
                "Its cors is '*': a script on any site may call it from a visitor's browser.",
                "Name the sites that may.",
            )
        if sound:
            yield Finding("ok", subject, "It has a chain, an auth and a rate.")


def _chains(runtime: Examined) -> Iterator[Finding]:
    for name in runtime.settings.chains:
        if name not in runtime.chains:
            yield Finding(
                "warn",
                f"OM_CHAINS[{name!r}]",
                "No engine belongs to this chain, so its options do nothing.",
                _nearest(name, runtime.chains) or "Add an engine, or take the options out.",
            )
    for name, chain in runtime.chains.items():
        if len(chain.engines) == 1:
            yield Finding(
                "warn",
                f"chain {name}",
                "It has one engine: when that fails there is nothing to fall back to.",
                "Add a later tier, such as a StaticEngine or a local function.",
            )
        else:
            yield Finding("ok", f"chain {name}", f"It has {len(chain.engines)} engines.")


def _fallbacks(runtime: Examined) -> Iterator[Finding]:
    for subject, options in (
        *((f"OM_FALLBACK[{path!r}]", one) for path, one in runtime.settings.fallback.items()),
        *((f"@om.fallback({', '.join(map(repr, o.answers))})", o) for o in runtime.view_fallbacks),
    ):
        unknown = [n for n in options.answers if n != STALE and n not in runtime.chains]
        for name in unknown:
            yield Finding(
                "fail",
                subject,
                f"No engine belongs to the chain {name!r}, so it never answers for a view.",
                _nearest(name, {STALE: None, **runtime.chains})
                or f"Add an engine to it: om.engine(…, chain={name!r}).",
            )
        if not unknown:
            yield Finding("ok", subject, "What it asks for an answer is there.")


def _hub(runtime: Examined) -> Iterator[Finding]:
    try:
        url = runtime.hub_url()
    except ConfigError as error:
        yield Finding("fail", "OM_HUB_URL", _sentence(str(error)))
        return
    scheme = url.partition(":")[0]
    if scheme == "memory" and not runtime.testing:
        yield Finding(
            "warn",
            "OM_HUB_URL",
            "The hub is this process's memory: several workers would count, notify and hold "
            "leases each for itself.",
            "Serve with one worker, or set OM_HUB_URL to 'sqlite:///path' on a local disk, or to "
            "'redis://host'.",
        )
    else:
        yield Finding("ok", "OM_HUB_URL", f"The hub is {scheme}.")


def _namespace(runtime: Examined) -> Iterator[Finding]:
    settings = runtime.settings
    if settings.namespace is not None or runtime.namespace not in _COMMON_NAMES:
        return
    if any(_SHARED.match(url) for url in (settings.hub_url, settings.cache_url)):
        yield Finding(
            "warn",
            "OM_NAMESPACE",
            f"The application is named {runtime.namespace!r}, as many are: another one of that "
            "name on the same server would read its values and messages.",
            "Set OM_NAMESPACE to a name of its own.",
        )


def _policy(runtime: Examined) -> Iterator[Finding]:
    mode = runtime.settings.csp_mode
    if mode == "enforce":
        which = runtime.settings.csp_preset
        yield Finding("ok", "OM_CSP_MODE", f"The policy of OM_CSP_PRESET = '{which}' is enforced.")
    elif mode == "adopt":
        yield Finding(
            "ok",
            "OM_CSP_MODE",
            "Only what breaks nothing is enforced; browsers report on the strict policy.",
            "Once no more reports come, set OM_CSP_MODE = 'enforce'.",
        )
    elif mode == "learn":
        yield Finding(
            "warn",
            "OM_CSP_MODE",
            "No policy is enforced; browsers only report.",
            "Set OM_CSP_MODE to 'adopt', then to 'enforce'.",
        )
    else:
        yield Finding(
            "warn",
            "OM_CSP_MODE",
            "No Content-Security-Policy is sent.",
            "Set OM_CSP_MODE = 'adopt': it enforces only what breaks nothing.",
        )


def _sources(runtime: Examined) -> Iterator[Finding]:
    """What makes a policy weaker than it looks."""
    settings = runtime.settings
    if settings.csp_mode == "off":
        return
    try:
        policy = PolicyRules(mode="enforce", base=preset(settings), own=settings.csp).strict
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
            "Scripts that somebody injects run: 'unsafe-inline' stands without a nonce.",
            "Put 'nonce' beside it: browsers then ignore 'unsafe-inline'.",
        ),
        (
            "'unsafe-eval'" in scripts,
            "Whatever text reaches eval runs: 'unsafe-eval'.",
            "Look for a build of the library that does without.",
        ),
        (
            bool(places) and "'strict-dynamic'" not in scripts,
            f"Scripts may come from anywhere: {' '.join(places)}.",
            "Name the hosts, or add 'strict-dynamic'.",
        ),
        (
            not {"object-src", "default-src"} & policy.keys(),
            "Plug-ins may run: there is no object-src.",
            "Add object-src 'none'.",
        ),
        (
            "base-uri" not in policy and settings.csp_preset != "api",
            "An injected <base> decides where relative scripts come from: there is no base-uri.",
            "Add base-uri 'none'.",
        ),
        (
            "frame-ancestors" not in policy
            and not any(name.lower() == "x-frame-options" for name in settings.headers),
            "Every site may show the pages in a frame: there is no frame-ancestors.",
            "Add frame-ancestors 'self'; let single views differ with @om.csp.",
        ),
    ):
        if wrong:
            yield Finding("warn", "OM_CSP", message, way_out)


def _http_cache(runtime: Examined) -> Iterator[Finding]:
    settings = runtime.settings
    if settings.http_cache_compliance:
        yield Finding(
            "fail",
            "OM_HTTP_CACHE_COMPLIANCE",
            "Responses that set cookies are stored: one visitor's cookie reaches the next.",
            "Take it out; it is for measuring only.",
        )
    if settings.http_cache and not runtime.trusted_hosts:
        yield Finding(
            "warn",
            "OM_HTTP_CACHE",
            "Every name in a Host header gets pages of its own in memory.",
            "Set OM_TRUSTED_HOSTS to the names of this site.",
        )
    elif settings.http_cache:
        yield Finding("ok", "OM_HTTP_CACHE", "Responses that allow it are kept, by known hosts.")


def _console(runtime: Examined) -> Iterator[Finding]:
    subject, access = "OM_CONSOLE_AUTH", runtime.settings.console_auth
    if access is None:
        yield Finding(
            "ok",
            subject,
            "The console is off, except for this machine itself in debug mode.",
            "To open it, set a token of at least 16 characters, or a callback.",
        )
    elif not isinstance(access, str):
        yield Finding("ok", subject, "A callback says who may open the console.")
    elif len(set(access)) < 8 or _GUESSED.search(access):
        yield Finding(
            "warn",
            subject,
            "The token looks easy to guess, and who has it sees and repairs everything.",
            "Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'.",
        )
    else:
        yield Finding("ok", subject, "The console asks for a token.")


def _uwsgi() -> Iterator[Finding]:
    way_out = "Start uWSGI with --enable-threads."
    running = sys.modules.get("uwsgi")
    if running is not None:
        options = {k.decode() if isinstance(k, bytes) else k for k in getattr(running, "opt", {})}
        if options & {"enable-threads", "threads"}:
            yield Finding("ok", "uWSGI", "Threads are on, so background work runs.")
        else:
            yield Finding("fail", "uWSGI", "Threads are off, so no background work runs.", way_out)
        return
    try:
        importlib.metadata.distribution("uwsgi")
    except importlib.metadata.PackageNotFoundError:
        return
    yield Finding(
        "warn", "uWSGI", "It is installed, and runs background work only with threads.", way_out
    )


def _extras(runtime: Examined) -> Iterator[Finding]:
    missing = [extra for extra, module in EXTRAS.items() if not _importable(module)]
    for key, url in (
        ("OM_HUB_URL", runtime.settings.hub_url),
        ("OM_CACHE_URL", runtime.settings.cache_url),
    ):
        found = _SHARED.match(url)
        extra = "memcached" if found and found[1] == "memcached" else "redis"
        if found and extra in missing:
            yield Finding("fail", key, "Its package is not installed.", _install(extra))
    if runtime.settings.metrics and "prometheus" in missing:
        yield Finding("fail", "OM_METRICS", "Its package is not installed.", _install("prometheus"))
    if missing:
        yield Finding(
            "ok",
            "extras",
            f"Optional packages that are not installed: {', '.join(missing)}.",
            _install(",".join(missing)) + " brings them.",
        )
    else:
        yield Finding("ok", "extras", "All optional packages are installed.")


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _install(extra: str) -> str:
    return f"pip install 'om-plugins[{extra}]'"


def _nearest(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {near[0]!r}?" if near else ""
