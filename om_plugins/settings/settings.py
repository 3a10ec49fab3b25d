"""Settings: every ``OM_`` key with its type, default, check and documentation.

The table *is* the class: a field of :class:`Settings` named ``csp_mode`` is the key
``OM_CSP_MODE`` of ``app.config``. An unknown key or a bad value raises
:class:`~om_plugins.errors.ConfigError` when the application starts, naming the key, the value
and the way out. Text (from ``FLASK_OM_…`` environment variables) is read as the key's type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .kinds import (
    ACCESS,
    BOOL,
    CALLBACK,
    CSP,
    CSP_CHANGES,
    CSP_PATHS,
    EXCEPTIONS,
    FEATURES,
    HEADERS,
    MAPPING,
    NAMES,
    PATH_PATTERNS,
    POLICIES,
    PROXIES,
    SECRET,
    STRINGS,
    auto_or,
    choice,
    integer,
    number,
    single,
    table,
    text,
)
from .settings__options import (
    BALANCES,
    AlertOptions,
    ChainOptions,
    FallbackOptions,
    HstsOptions,
    HttpCacheOptions,
    RouteOptions,
)
from .table import Table, key

__all__ = ["Settings"]

_PREFIX = text(
    r"/[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*", "a path such as '/_om', without a slash at its end"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Table):
    """Every setting. Without Flask, pass fields as keywords: ``Settings(csp_mode="enforce")``."""

    PREFIX: ClassVar[str] = "OM_"
    RENAMED: ClassVar[Mapping[str, str]] = {"OM_SHIELD": "OM_FALLBACK"}

    # general
    enabled: bool = key(
        True, BOOL, "the kill switch: when false, no request passes through this package", "General"
    )
    prefix: str = key("/_om", _PREFIX, "where this package's own pages are", "General")
    proxies: dict[str, int] = key(
        {},
        PROXIES,
        "how many reverse proxies set `X-Forwarded-*`, as for werkzeug's `ProxyFix`",
        "General",
    )
    trusted_hosts: tuple[str, ...] | None = key(
        None, STRINGS, "host names that this package's own routes answer to; Flask's "
        "`TRUSTED_HOSTS` when not set", "General"
    )  # fmt: skip
    secret_key: bytes | None = key(
        None,
        SECRET,
        "signs and hides values; when not set, Flask's `SECRET_KEY`, else a random one in the hub",
        "General",
    )
    strict: bool | None = key(
        None, BOOL, "raise when a plugin is broken, instead of going on without it; "
        "when not set: only under `TESTING`", "General"
    )  # fmt: skip
    hub_url: str = key(
        "auto",
        text(
            r"auto|[a-z][a-z0-9+.-]*:.*", "'auto', 'memory://', 'sqlite:///path' or 'redis://host'"
        ),
        "what the workers share; `auto`: memory when testing, else the cache's Redis, else a file "
        "in the instance folder",
        "General",
    )
    namespace: str | None = key(
        None,
        text(r"[A-Za-z0-9._-]{1,64}", "1 to 64 letters, digits, '.', '_' and '-'"),
        "names the application in a Redis, memcached or folder that others use too; the "
        "application's own name when not set",
        "General",
    )
    workers: int = key(4, integer(1, 64), "background threads in a process, at most", "General")
    worker_queue: int = key(
        256, integer(1, 100_000), "background jobs waiting in a process, at most", "General"
    )
    # plugins
    plugins: tuple[str, ...] | None = key(
        None, STRINGS, "installed plugins to load; all when not set", "Plugins"
    )
    plugins_disabled: tuple[str, ...] = key(
        (), STRINGS, "plugins to leave out, built-in ones too", "Plugins"
    )
    plugin_config: dict[str, Any] = key(
        {}, MAPPING, "settings of plugins: a dict from a plugin's name to a dict", "Plugins"
    )
    plugin_failures: int = key(
        5, integer(1, 1000), "failures in a row of a plugin after which it is left out", "Plugins"
    )
    # engines
    chains: dict[str, ChainOptions] = key(
        {}, table(ChainOptions, "OM_CHAINS"), "settings of single chains", "Engines"
    )
    routes: dict[str, RouteOptions] = key(
        {}, table(RouteOptions, "OM_ROUTES"), "paths that an engine chain answers", "Engines"
    )
    fallback: dict[str, FallbackOptions] = key(
        {},
        table(FallbackOptions, "OM_FALLBACK"),
        "paths of the host app, with all that is below them, whose failures are answered: "
        "`{'/reports/': ['stale', 'reports']}`",
        "Engines",
    )
    timeout: float = key(
        10.0, number(0.001, 3600, "seconds"), "total deadline of a call to a chain", "Engines"
    )
    attempt_timeout: float | None = key(
        None,
        number(0.001, 3600, "seconds"),
        "longest time of one attempt; only the total deadline when not set",
        "Engines",
    )
    retries: int = key(
        3, integer(0, 20), "retries on the same engine after the first attempt", "Engines"
    )
    retry_budget: float = key(
        0.2, number(0, 10), "retries and hedges per call, over time: 0.2 is one in five", "Engines"
    )
    retry_budget_floor: float = key(
        1.0, number(0, 1000), "retries per second that the budget always allows", "Engines"
    )
    retry_on: tuple[type[Exception], ...] | None = key(
        None,
        EXCEPTIONS,
        "only these errors are retried, of those that may be; all of them when not set",
        "Engines",
    )
    give_up_on: tuple[type[Exception], ...] = key(
        (), EXCEPTIONS, "these errors are never retried; the next engine is asked", "Engines"
    )
    retry_sleep: float | None = key(
        None,
        number(0, 3600, "seconds"),
        "waits between the attempts of one call, in all, at most; when not set: 1 second where the "
        "server has one thread, else only the deadline",
        "Engines",
    )
    balance: str = key(
        "round_robin",
        choice(*BALANCES),
        "which engine of a tier is asked first",
        "Engines",
    )
    eject_after: int = key(
        5,
        integer(0, 1000),
        "failures in a row after which one of several engines of a tier is asked last for a while; "
        "0 for never",
        "Engines",
    )
    hedge: float = key(
        0.0,
        number(0, 0.999),
        "ask anew when an answer takes longer than this share of them: 0.95 is one in twenty; "
        "0 for never. Only engines that are idempotent and `hedge_safe`",
        "Engines",
    )
    bulkhead_wait: float = key(
        0.0,
        number(0, 3600, "seconds"),
        "how long a call waits at an engine that is at its `max_concurrency`",
        "Engines",
    )
    breaker_failure_rate: float = key(
        0.5, number(0.01, 1), "share of failed calls that opens a breaker", "Engines"
    )
    breaker_slow_s: float = key(
        5.0, number(0.001, 3600, "seconds"), "a call is slow from here on", "Engines"
    )
    breaker_slow_rate: float = key(
        0.9, number(0.01, 1), "share of slow calls that opens a breaker", "Engines"
    )
    breaker_min_calls: int = key(
        10, integer(1, 100_000), "calls in the window before a breaker may open", "Engines"
    )
    breaker_window_s: float = key(
        30.0, number(1, 3600, "seconds"), "the window over which calls are counted", "Engines"
    )
    breaker_cooldown_s: float = key(
        10.0,
        number(0.001, 3600, "seconds"),
        "how long a breaker stays open before it probes",
        "Engines",
    )
    breaker_window_calls: int | None = key(
        None,
        integer(1, 100_000),
        "judge the last so many calls instead of those of `OM_BREAKER_WINDOW_S`",
        "Engines",
    )
    breaker_half_open_permits: int = key(
        1,
        integer(1, 1000),
        "probes that are out at once, and that must succeed, to close a breaker",
        "Engines",
    )
    breaker_cooldown_factor: float = key(
        2.0,
        number(1, 10),
        "what each opening that soon follows another one multiplies the cooldown by",
        "Engines",
    )
    breaker_cooldown_max_s: float = key(
        60.0,
        number(0.001, 86_400, "seconds"),
        "the longest cooldown; never below `OM_BREAKER_COOLDOWN_S`",
        "Engines",
    )
    breaker_cooldown_jitter: float = key(
        0.0,
        number(0, 1),
        "each cooldown is longer by up to this share, so that workers do not probe all at once",
        "Engines",
    )
    breaker_shared: bool = key(
        False,
        BOOL,
        "a breaker that opens or is closed by a probe in one worker does so in all, by the hub",
        "Engines",
    )
    probe_interval: float = key(
        30.0,
        number(0, 86_400, "seconds"),
        "how often one worker probes the engines that have a `probe`; 0: never, as under `TESTING`",
        "Engines",
    )
    # cache
    cache_url: str = key(
        "memory://",
        text(
            r"[a-z][a-z0-9+.-]*:.*",
            "a URL such as 'memory://', 'file:///path', 'redis://host' or 'memcached://host'",
        ),
        "where cached values are kept",
        "Cache",
    )
    cache_stale_time: float = key(
        300.0, number(0, 31_536_000, "seconds"), "how long a value is fresh", "Cache"
    )
    cache_time: float = key(
        1800.0, number(0, 31_536_000, "seconds"), "how long a value is kept at all", "Cache"
    )
    cache_jitter: float = key(
        0.1,
        number(0, 0.9),
        "both times of a value are shortened by a random share of up to this, so that what was "
        "stored together does not end together; none under `TESTING`",
        "Cache",
    )
    cache_l1_bytes: int = key(
        64 * 2**20, integer(0, 2**40, "bytes"), "memory for cached values in a process", "Cache"
    )
    cache_pickle: bool = key(
        False,
        BOOL,
        "keep values of any type: what nothing else can write is pickled, and signed with "
        "`OM_SECRET_KEY` (or Flask's `SECRET_KEY`) in a store that others share",
        "Cache",
    )
    cache_max_value: int = key(
        4 * 2**20, integer(1, 2**31, "bytes"), "largest value that is cached", "Cache"
    )
    # shared HTTP cache
    http_cache: bool = key(
        False,
        BOOL,
        "store every response that says it may be; when false, only those of views with "
        "`@om.cached(shared=True)`",
        "Shared HTTP cache",
    )
    http_cache_l1_bytes: int = key(
        64 * 2**20,
        integer(0, 2**40, "bytes"),
        "memory for stored responses in a process",
        "Shared HTTP cache",
    )
    http_cache_max_body: int = key(
        2 * 2**20, integer(0, 2**31, "bytes"), "largest body that is stored", "Shared HTTP cache"
    )
    http_cache_max_age: float = key(
        31_536_000.0,
        number(0, 2**31, "seconds"),
        "longest freshness, whatever a response says",
        "Shared HTTP cache",
    )
    http_cache_variants: int = key(
        20, integer(1, 1000), "responses at one address, by `Vary`, at most", "Shared HTTP cache"
    )
    http_cache_stale_if_error: float = key(
        300.0,
        number(0, 31_536_000, "seconds"),
        "how long a stale response stands in for an error, if it does not say it; never with "
        "`must-revalidate`, `proxy-revalidate`, `no-cache` or `s-maxage`",
        "Shared HTTP cache",
    )
    http_cache_wait: float = key(
        10.0,
        number(0, 3600, "seconds"),
        "how long a request waits for another one that fetches the same page",
        "Shared HTTP cache",
    )
    http_cache_heuristic: bool = key(
        False,
        BOOL,
        "responses that say nothing are fresh for 10 % of the time since their `Last-Modified`",
        "Shared HTTP cache",
    )
    http_cache_client_directives: bool = key(
        False,
        BOOL,
        "obey `no-cache`, `max-age`, `min-fresh` and `max-stale` of requests, so that a reload "
        "reaches the app",
        "Shared HTTP cache",
    )
    http_cache_compliance: bool = key(
        False,
        BOOL,
        "store responses that set cookies or vary by them, as the specification allows: only for "
        "measuring, since one visitor's cookie reaches the next",
        "Shared HTTP cache",
    )
    http_cache_targets: tuple[str, ...] = key(
        ("CDN-Cache-Control",),
        STRINGS,
        "targeted fields that this cache obeys instead of `Cache-Control`, the first one first",
        "Shared HTTP cache",
    )
    http_cache_status: str = key(
        "OpenManager",
        text(r"([A-Za-z*][A-Za-z0-9:/!#$%&'*+.^_`|~-]*)?", "a token, or '' to send none"),
        "this cache's name in `Cache-Status`",
        "Shared HTTP cache",
    )
    http_cache_routes: dict[str, HttpCacheOptions] = key(
        {},
        table(HttpCacheOptions, "OM_HTTP_CACHE_ROUTES"),
        "what is different for some paths: `{'/news/*': {'max_age': 60}}`; `*` only at the end",
        "Shared HTTP cache",
    )
    # notifications
    sse_max: str | int = key(
        "auto",
        auto_or(integer(0, 100_000)),
        "streams of notifications in a process, at most; browsers beyond it poll. `auto`: none "
        "where the server has one thread, one where it has more, any number under gevent",
        "Notifications",
    )
    notify_audience: Callable[..., Any] | None = key(
        None,
        CALLBACK,
        "called with the request, in the host's request context; gives the addresses that it "
        "speaks for, such as `['user:7', 'role:editor', 'operators']`",
        "Notifications",
    )
    display_names: dict[str, str | dict[str, str]] = key(
        {},
        NAMES,
        "what people call a chain or a path: `{'assistant': 'The assistant', '/ask': 'Questions'}`"
        ", by language: `{'assistant': {'en': 'The assistant', 'ko': '도우미'}}`",
        "Notifications",
    )
    # monitoring
    monitoring: bool = key(
        True, BOOL, "count and time requests, sample the process, raise alerts", "Monitoring"
    )
    alerts: dict[str, AlertOptions] = key(
        {},
        table(AlertOptions, "OM_ALERTS"),
        "thresholds of `response_time`, `error_rate`, `memory`, `engine_offline`, "
        "`fallback_rate` and `cache_hits`",
        "Monitoring",
    )
    metrics: bool = key(
        False,
        BOOL,
        "serve counters of all workers at `/_om/metrics` in Prometheus's formats, to whoever may "
        "open the console; needs the extra `prometheus`",
        "Monitoring",
    )
    console_auth: Callable[..., Any] | str | None = key(
        None,
        ACCESS,
        "who may open the console: called with the request, in the host's request context, or a "
        "token to sign in with; when not set the console is off, except for this very machine in "
        "debug mode",
        "Monitoring",
    )
    # security headers
    csp_mode: str = key(
        "adopt",
        choice("adopt", "enforce", "learn", "off"),
        "`adopt` enforces only what breaks nothing and reports on the strict policy; `enforce` "
        "enforces the strict policy; `learn` only reports; `off` sends none",
        "Security headers",
    )
    csp_preset: str = key(
        "strict",
        choice("strict", "compatible", "hash", "api", "own"),
        "`strict`: scripts need a nonce; `compatible`: external ones of the site and of "
        "`OM_CSP_SCRIPT_HOSTS` do not; `hash`: inline ones that never change do not either; "
        "`api`: pages may hold nothing at all; `own`: `OM_CSP` is the whole policy",
        "Security headers",
    )
    csp_script_hosts: tuple[str, ...] = key(
        (), STRINGS, "hosts of the presets `compatible` and `hash`, such as `https://cdn.example`",
        "Security headers"
    )  # fmt: skip
    csp: dict[str, tuple[str, ...] | None] = key(
        {},
        CSP_CHANGES,
        "directives that replace those of the preset; `None` leaves one out",
        "Security headers",
    )
    csp_enforce_also: tuple[dict[str, tuple[str, ...]], ...] = key(
        (), POLICIES, "more policies to enforce; in mode `learn` they are reported on",
        "Security headers"
    )  # fmt: skip
    csp_report_also: tuple[dict[str, tuple[str, ...]], ...] = key(
        (), POLICIES, "more policies to report on, such as the one to come", "Security headers"
    )
    csp_api: dict[str, tuple[str, ...]] | None = key(
        None,
        CSP,
        "the policy of JSON, images and style sheets; `default-src 'none'` and what pictures need "
        "when not set, none when empty",
        "Security headers",
    )
    csp_paths: dict[str, dict[str, Any]] = key(
        {}, CSP_PATHS, "what changes by path, as in `@om.csp(…)`; the longest pattern wins",
        "Security headers"
    )  # fmt: skip
    csp_report_sample: float = key(
        0.01,
        number(0, 1),
        "share of HTML responses that ask browsers for reports (all in debug mode; under "
        "`TESTING` none, unless it is 1)",
        "Security headers",
    )
    csp_auto_nonce: bool = key(
        True,
        BOOL,
        "put nonces on the literal `<script>`, `<style>` and `<link>` tags of Jinja templates",
        "Security headers",
    )
    csp_hash_attributes: bool = key(
        False,
        BOOL,
        "allow the literal event handlers and `style` attributes of Jinja templates by their "
        "hashes (`'unsafe-hashes'`)",
        "Security headers",
    )
    headers: dict[str, str | None] = key(
        {},
        HEADERS,
        "companion headers, added where the app set none: overrides `X-Content-Type-Options`, "
        "`Referrer-Policy` and `Cross-Origin-Opener-Policy`, and adds others",
        "Security headers",
    )
    force_https: bool = key(
        False,
        BOOL,
        "redirect what comes over plain HTTP, except in debug mode; behind a proxy that ends TLS, "
        "`OM_PROXIES` must be set",
        "Security headers",
    )
    force_https_permanent: bool = key(
        False, BOOL, "redirect with 301 and 308, which browsers remember", "Security headers"
    )
    force_https_exempt: tuple[str, ...] = key(
        (),
        PATH_PATTERNS,
        "paths that are answered over plain HTTP, too, such as `/up` or `/status/*`; this "
        "package's own health checks always are",
        "Security headers",
    )
    secure_cookies: bool = key(
        False,
        BOOL,
        "the session cookie and Flask-Login's are `Secure` (not in debug mode, not under "
        "`TESTING`), `HttpOnly` and `SameSite=Lax`, where the app chose nothing else",
        "Security headers",
    )
    hsts: HstsOptions | None = key(
        None,
        single(HstsOptions, "OM_HSTS"),
        "browsers keep to HTTPS: `{'max_age': 31536000}`; sent over HTTPS alone, and not at all "
        "when not set",
        "Security headers",
    )
    permissions_policy: dict[str, tuple[str, ...]] = key(
        {},
        FEATURES,
        "which powers of a browser pages may use: `{'geolocation': 'self', 'camera': []}`",
        "Security headers",
    )

    def chain(self, name: str) -> ChainOptions:
        """The settings of one chain, its own or none."""
        return self.chains.get(name) or ChainOptions()
