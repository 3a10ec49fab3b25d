"""The gateway: paths that an engine chain answers, and the deadline that a trusted proxy sets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import ConfigError, EngineError
from ..plugins.feature import Feature
from ..plugins.kit import Finding
from ..plugins.names import nearest
from ..settings.kinds import table
from ..settings.table import NoKeys, Table, key
from .options import RouteOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    from ..plugins.kit import Kit


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayKeys(Table):
    """The settings of engine routes."""

    PREFIX: ClassVar[str] = "OM_"

    routes: dict[str, RouteOptions] = key(
        {}, table(RouteOptions, "OM_ROUTES"), "paths that an engine chain answers", "Engines"
    )


class GatewayFeature(Feature["Mapping[str, RouteOptions]", GatewayKeys]):
    """``OM_ROUTES``."""

    name = "gateway"
    keys = GatewayKeys

    def build(self, kit: Kit, keys: GatewayKeys) -> Mapping[str, RouteOptions] | None:
        for path in keys.routes:
            if path == kit.keys.prefix or path.startswith(kit.keys.prefix + "/"):
                raise ConfigError(
                    f"OM_ROUTES[{path!r}]",
                    path,
                    f"is below OM_PREFIX {kit.keys.prefix!r}, where this package's own pages are; "
                    "choose another path",
                )
        return keys.routes or None

    def layer(
        self, kit: Kit, part: Mapping[str, RouteOptions], app: WSGIApplication
    ) -> WSGIApplication:
        from .layer import EngineRoutes

        return EngineRoutes(
            app,
            part,
            kit.part_of("chains").get,
            hub=kit.hub,
            secret=kit.secret,
            clock=kit.clock,
            inputs=kit.part_of("cache").internals.inputs,
            host_context=kit.host.request_context,
            observe_context=kit.host.observe_context,
            trusted_hosts=kit.trusted_hosts,
            trust_forwarded=bool(kit.keys.proxies),
            on_error=functools.partial(_count_error, kit),
            on_wrong_method=kit.part_of("recovery").wrong_methods.note,
        )

    def name_findings(self, kit: Kit, part: Mapping[str, RouteOptions]) -> Iterable[Finding]:
        chains = kit.part_of("chains").by_name
        rules = kit.host.rules() if kit.host.rules is not None else ()
        for path, route in part.items():
            subject = f"OM_ROUTES[{path!r}]"
            if route.chain not in chains:
                yield Finding(
                    "fail",
                    subject,
                    f"The chain {route.chain!r} has no engine, so every call ends in a 500.",
                    nearest(route.chain, chains)
                    or f"Add an engine to it: om.engine(…, chain={route.chain!r}).",
                )
            hidden = [
                rule for rule in rules if rule == path or (route.raw and rule.startswith(path))
            ]
            for rule in hidden:
                yield Finding(
                    "warn",
                    subject,
                    f"The app has a view of its own at {rule!r}, which is never called: the "
                    "engine route answers in its place, for all methods.",
                    "Take the view out, or give the engine route another path.",
                )

    def findings(self, kit: Kit, part: Mapping[str, RouteOptions]) -> Iterable[Finding]:
        chains = kit.part_of("chains").by_name
        for path, route in part.items():
            yield from _route_findings(f"OM_ROUTES[{path!r}]", route, chains)


def _count_error(kit: Kit, environ: WSGIEnvironment, chain: str, error: Exception) -> None:
    """Count what a route could not answer; a chain that gave up has reported it itself."""
    path = environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace")
    subject = f"chain:{chain}" if isinstance(error, EngineError) else f"route:{path}"
    kit.part_of("recovery").count(environ, subject, error)


def _route_findings(
    subject: str, route: RouteOptions, chains: Mapping[str, object]
) -> Iterable[Finding]:
    known = route.chain in chains
    risks = []
    if route.auth is None:
        risks.append(
            (
                "It has no auth: anybody may call it, and each call may cost money.",
                "Give it an auth callback; lambda request: True says that this is meant.",
            )
        )
    if route.rate is None:
        risks.append(
            (
                "It has no rate: one client may call it as often as it likes.",
                "Give it a rate such as '60/min'.",
            )
        )
    if "*" in route.cors:
        risks.append(
            (
                "Its cors is '*': a script on any site may call it from a visitor's browser.",
                "Name the sites that may.",
            )
        )
    for message, hint in risks:
        yield Finding("warn", subject, message, hint)
    if known and not risks:
        yield Finding("ok", subject, "It has a chain, an auth and a rate.")


class DeadlineFeature(Feature["Callable[[], float]", NoKeys]):
    """Reads the deadline that a trusted proxy sends; on only with ``OM_PROXIES``.

    Its part returns the deadline of the current request.
    """

    name = "deadline"

    def build(self, kit: Kit, keys: NoKeys) -> Callable[[], float] | None:
        if not kit.keys.proxies:
            return None
        from .deadline import DEADLINE

        return DEADLINE.get

    def layer(self, kit: Kit, part: Callable[[], float], app: WSGIApplication) -> WSGIApplication:
        from .deadline import DeadlineLayer

        return DeadlineLayer(app, kit.clock)
