"""The shared HTTP cache: whole responses, in front of the app (RFC 9111)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..cache.feature import cache_metrics, store_metrics
from ..errors import ConfigError
from ..plugins.feature import Feature
from ..plugins.kit import Finding, Metric
from ..plugins.names import check_paths
from ..settings.kinds import BOOL, STRINGS, integer, number, single, table, text
from ..settings.paths import explain_placeholder
from ..settings.table import NoKeys, Table, key

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from click import Command

    from ..plugins.kit import Kit
    from .cache import CacheRules, HttpCachePart, RouteRule
    from .rfc9111 import StorageOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCachePathOptions(Table):
    """What the shared HTTP cache does differently for one path."""

    TITLE: ClassVar[str] = "Options of a path in the shared HTTP cache"

    store: bool = key(True, BOOL, "false: responses are never stored")
    query: bool = key(True, BOOL, "false: the query is no part of the key")
    max_age: float | None = key(
        None, number(0, 31_536_000, "seconds"), "freshness of responses that do not say their own"
    )
    stale_while_revalidate: float | None = key(
        None,
        number(0, 31_536_000, "seconds"),
        "how long after that they are served while a new one is fetched, if they do not say it",
    )
    stale_if_error: float | None = key(
        None,
        number(0, 31_536_000, "seconds"),
        "how long after that they stand in for an error, if they do not say it",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCacheOptions(Table):
    """What the shared HTTP cache does. Times are in seconds."""

    TITLE: ClassVar[str] = "Options of the shared HTTP cache"
    SWITCH: ClassVar[str] = "all"

    all: bool = key(
        True,
        BOOL,
        "store every response that says it may be; when false, only those of views with "
        "`@om.cached(shared=True)`",
    )
    l1_bytes: int = key(
        64 * 2**20,
        integer(0, 2**40, "bytes"),
        "memory for stored responses in a process",
    )
    max_body: int = key(2 * 2**20, integer(0, 2**31, "bytes"), "largest body that is stored")
    max_age: float = key(
        31_536_000.0,
        number(0, 2**31, "seconds"),
        "longest freshness, whatever a response says",
    )
    variants: int = key(20, integer(1, 1000), "responses at one address, by `Vary`, at most")
    stale_if_error: float = key(
        300.0,
        number(0, 31_536_000, "seconds"),
        "how long a stale response stands in for an error, if it does not say it; never with "
        "`must-revalidate`, `proxy-revalidate`, `no-cache` or `s-maxage`",
    )
    wait: float = key(
        10.0,
        number(0, 3600, "seconds"),
        "how long a request waits for another one that fetches the same page",
    )
    heuristic: bool = key(
        False,
        BOOL,
        "responses that say nothing are fresh for 10 % of the time since their `Last-Modified`",
    )
    client_directives: bool = key(
        False,
        BOOL,
        "obey `no-cache`, `max-age`, `min-fresh` and `max-stale` of requests, so that a reload "
        "reaches the app",
    )
    cookies: bool = key(
        False,
        BOOL,
        "keep a response whose code looked at cookies for each of their values; when false, it is "
        "kept for requests without these cookies only, and the others pass by",
    )
    detail: bool = key(
        True,
        BOOL,
        "`Cache-Status` says which input, function and line made a page cold",
    )
    targets: tuple[str, ...] = key(
        ("CDN-Cache-Control",),
        STRINGS,
        "targeted fields that this cache obeys instead of `Cache-Control`, the first one first",
    )
    status: str = key(
        "OpenManager",
        text(r"([A-Za-z*][A-Za-z0-9:/!#$%&'*+.^_`|~-]*)?", "a token, or '' to send none"),
        "this cache's name in `Cache-Status`",
    )
    routes: dict[str, HttpCachePathOptions] = key(
        {},
        table(HttpCachePathOptions, "routes"),
        "what is different for some paths: `{'/news/*': {'max_age': 60}}`; `*` only at the end",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCacheKeys(Table):
    """The settings of the shared HTTP cache."""

    PREFIX: ClassVar[str] = "OM_"
    RENAMED: ClassVar[Mapping[str, str]] = {
        f"OM_HTTP_CACHE_{name.upper()}": f"OM_HTTP_CACHE = {{{name!r}: …}}"
        for name in HttpCacheOptions.keys()  # noqa: SIM118
    }
    REMOVED: ClassVar[Mapping[str, str]] = {
        "OM_HTTP_CACHE_COMPLIANCE": "it was for measurements only, and there is no other key for it"
    }

    http_cache: HttpCacheOptions = key(
        HttpCacheOptions(all=False),
        single(HttpCacheOptions, "OM_HTTP_CACHE"),
        "store every response that says it may be; when false, only those of views with "
        "`@om.cached(shared=True)`. Options switch it on as well: `{'max_body': 500_000}`, unless "
        "they have `'all': False`",
        "Shared HTTP cache",
    )


_LOOKUPS = {
    "hits": "fresh",
    "stale": "stale",
    "validated": "validated",
    "coalesced": "coalesced",
    "misses": "miss",
    "passed": "bypass",
}


class HttpCacheFeature(Feature["HttpCachePart", HttpCacheKeys]):
    """``OM_HTTP_CACHE`` and ``@om.cached(shared=True)``."""

    name = "http_cache"
    keys = HttpCacheKeys

    def is_needed(self, kit: Kit, keys: HttpCacheKeys) -> bool:
        return (
            keys.http_cache.all
            or bool(keys.http_cache.routes)
            or bool(kit.host.declared.get(self.name))
        )

    def build(self, kit: Kit, keys: HttpCacheKeys) -> HttpCachePart:
        from .cache import HttpCachePart

        cache = kit.part_of("cache").internals
        return HttpCachePart(
            build_rules(keys.http_cache),
            l1_bytes=keys.http_cache.l1_bytes,
            clock=kit.clock,
            scheduler=kit.scheduler,
            bus=cache.bus,
            store=kit.store,
            trusted_hosts=kit.trusted_hosts,
            hooks=kit.part_of("headers").cached_pages,
            emit=kit.emit,
            inputs=cache.inputs,
            observes=kit.host.observes,
        )

    def layer(self, kit: Kit, part: HttpCachePart, app: WSGIApplication) -> WSGIApplication | None:
        if not part.wanted and not kit.host.declared.get(self.name):
            return None
        from .layer import HttpCacheLayer

        part.wanted = True
        return HttpCacheLayer(app, part)

    def commands(self) -> Iterable[Command]:
        return [_build_commands()]

    def metrics(self, kit: Kit, part: HttpCachePart) -> Iterable[Metric]:
        yield from cache_metrics("om_http_cache", part.cache.stats(), _LOOKUPS)
        yield from store_metrics(part.cache.store_stats())

    def name_findings(self, kit: Kit, part: HttpCachePart) -> Iterable[Finding]:
        paths = kit.settings.of(HttpCacheKeys).http_cache.routes
        yield from check_paths("OM_HTTP_CACHE.routes[{!r}]", paths, kit.host.rules)

    def findings(self, kit: Kit, part: HttpCachePart) -> Iterable[Finding]:
        everything = kit.settings.of(HttpCacheKeys).http_cache.all
        unobserved = kit.host.unobserved
        if unobserved and (everything or kit.host.declared.get(self.name)):
            yield Finding(
                "warn",
                "app.wsgi_app",
                f"The middleware {unobserved} was wrapped around the app before OpenManager(app), "
                "and what it looks at cannot be observed: a request with a cookie is neither "
                "answered from the cache nor kept.",
                "Wrap it after OpenManager(app); or name it in OM_CACHE_READERS, if it puts "
                "nothing of a visitor into a response.",
            )
        if everything and not kit.trusted_hosts:
            yield Finding(
                "warn",
                "OM_HTTP_CACHE",
                "Every name in a Host header gets pages of its own in memory.",
                "Set OM_TRUSTED_HOSTS to the names of this site.",
            )
        elif everything:
            yield Finding(
                "ok", "OM_HTTP_CACHE", "Responses that allow it are kept, by known hosts."
            )


class FastPathFeature(Feature[bool, NoKeys]):
    """A hit leaves here, past the layers below, with the headers that they would add."""

    name = "fast_path"

    def build(self, kit: Kit, keys: NoKeys) -> bool:
        return True

    def layer(self, kit: Kit, part: bool, app: WSGIApplication) -> WSGIApplication | None:
        pages, counter = kit.layers.get("http_cache"), kit.layers.get("monitoring")
        headers = kit.part_of("headers")
        if pages is None or not headers.policy.alike or "https" in kit.layers:
            return None
        from .fast_path import FastPath, HitCounter
        from .layer import HttpCacheLayer

        if not isinstance(pages, HttpCacheLayer):
            return None
        if counter is not None and not isinstance(counter, HitCounter):
            return None
        return FastPath(app, pages, headers.of_hits, counter)


def build_rules(given: HttpCacheOptions) -> CacheRules:
    """Build the rules from ``OM_HTTP_CACHE``.

    Raises:
        ConfigError: one of the ``routes`` has an unknown form.
    """
    from .cache import CacheRules
    from .rfc9111 import StorageOptions

    options = StorageOptions(
        vary_cookie=given.cookies,
        heuristic=given.heuristic,
        targets=tuple(name.lower() for name in given.targets),
        longest_s=given.max_age,
        stale_if_error_s=given.stale_if_error,
    )
    return CacheRules(
        everything=given.all,
        client_directives=given.client_directives,
        name=given.status,
        max_body=given.max_body,
        variants=given.variants,
        wait_s=given.wait,
        cookies=given.cookies,
        detail=given.detail,
        options=options,
        routes=tuple(_route_rules(given.routes, options)),
    )


def _route_rules(routes: Mapping[str, Any], options: StorageOptions) -> Iterable[RouteRule]:
    from .cache import RouteRule

    for path, route in routes.items():
        if not path.startswith("/") or "*" in path[:-1]:
            raise ConfigError(
                "OM_HTTP_CACHE['routes']",
                path,
                "must be a path that begins with '/', with '*' only at its end, as '/news/*'",
            )
        problem = explain_placeholder(path)
        if problem:
            raise ConfigError("OM_HTTP_CACHE['routes']", path, problem)
        changes = {
            name: value
            for name, value in (
                ("default_s", route.max_age),
                ("stale_while_revalidate_s", route.stale_while_revalidate),
                ("stale_if_error_s", route.stale_if_error),
            )
            if value is not None
        }
        yield RouteRule(path, route.store, route.query, replace(options, **changes))


def _build_commands() -> Command:
    """Build the group ``flask om cache``."""
    import click

    from ..plugins.commands import as_json_option, plain, print_json

    group = click.Group("cache", help="Explain why a page is kept or not, and take pages back.")

    @group.command("purge")
    @click.option("--url", default="", help="A path or URL; without a query, with all its queries.")
    @click.option("--prefix", default=None, help="The beginning of a path or URL; / is everything.")
    @click.option("--tag", "tags", multiple=True, help="A tag; may be given more than once.")
    @click.option("--soft", is_flag=True, help="Make them stale instead of taking them away.")
    @as_json_option
    @click.pass_obj
    def purge_command(
        kit: Kit, url: str, prefix: str | None, tags: tuple[str, ...], soft: bool, as_json: bool
    ) -> None:
        """Take stored pages back, in all workers that share the hub."""
        if kit.hub_url().startswith("memory:"):
            raise click.ClickException(
                "the hub is memory://, which other processes cannot hear: set OM_HUB_URL to "
                "sqlite:///… or redis://…, or purge from the console"
            )
        try:
            kit.part_of("http_cache").cache.purge(url, prefix=prefix, tags=tags, soft=soft)
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        if kit.hub.alone:
            raise click.ClickException("the hub cannot be reached, so no worker learned of it")
        if as_json:
            print_json({"url": url, "prefix": prefix, "tags": list(tags), "soft": soft})
        else:
            click.echo("Purged: every worker hears of it within a second.")

    @group.command("why")
    @click.argument("path")
    @click.option("--header", "headers", multiple=True, help="As 'Accept-Language: de'.")
    @click.option("--cookie", "cookies", multiple=True, help="As 'name=value'.")
    @click.option("--host", default="", help="As example.com or https://example.com.")
    @as_json_option
    @click.pass_obj
    def why_command(
        kit: Kit,
        path: str,
        headers: tuple[str, ...],
        cookies: tuple[str, ...],
        host: str,
        as_json: bool,
    ) -> None:
        """Say which caches keep the page at PATH, or why they do not, and who looked at what.

        One GET is made of the whole app, in this process. Hooks, view and templates run as for a
        visitor, with your database and services. The caches and the hub of om_plugins are new ones
        in memory for this command: nothing is read from OM_CACHE_URL and OM_HUB_URL or written
        there, so a running server does not notice.
        """
        from ..cache.responses.why import ask, build_request, write_lines

        try:
            environ = build_request(path, headers=headers, cookies=cookies, host=host)
            said = ask(kit, environ).describe()
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        if as_json:
            print_json(said)
        else:
            for line in write_lines(said):
                click.echo(plain(line))

    return group
