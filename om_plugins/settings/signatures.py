"""The keys of settings as keywords. ``docs/generate_settings.py`` writes this module."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from os import PathLike
from typing import Literal, TypedDict

from .table import Table


class SettingsKeywords(TypedDict, total=False):
    """All settings."""

    enabled: bool
    prefix: str
    proxies: int | Mapping[str, int]
    outbound_proxy: str | None
    trusted_hosts: Collection[str] | None
    secret_key: str | bytes | None
    strict: bool | None
    hub_url: str
    state_dir: PathLike[str] | str
    cache_url: str
    namespace: str | None
    workers: int
    worker_queue: int
    sse_max: int | Literal['auto']
    plugins: Collection[str] | None
    plugins_disabled: Collection[str]
    plugin_config: Mapping[str, object] | str
    plugin_failures: int
    monitoring: bool
    alerts: Mapping[str, object] | str
    metrics: bool
    headers: Mapping[str, str | None] | str
    secure_cookies: bool
    permissions_policy: Mapping[str, object] | str
    force_https: bool | Mapping[str, object] | Table | str
    hsts: Mapping[str, object] | Table | str | None
    console_auth: Callable[..., object] | str | None
    routes: Mapping[str, object] | str
    http_cache: bool | Mapping[str, object] | Table | str
    fallback: Mapping[str, object] | str
    csp_mode: Literal['adopt', 'enforce', 'learn', 'off']
    csp_preset: Literal['strict', 'compatible', 'hash', 'api', 'own']
    csp_script_hosts: Collection[str]
    csp: Mapping[str, object] | str
    csp_enforce_also: Sequence[Mapping[str, object] | str] | Mapping[str, object] | str
    csp_report_also: Sequence[Mapping[str, object] | str] | Mapping[str, object] | str
    csp_api: Mapping[str, object] | str | None
    csp_paths: Mapping[str, Mapping[str, object]] | str
    csp_report_sample: float
    csp_auto_nonce: bool
    csp_html_nonces: Collection[str]
    csp_doctor_except: Collection[str]
    csp_hash_attributes: bool
    cache_stale_time: float
    cache_time: float
    cache_jitter: float
    cache_l1_bytes: int
    cache_pickle: bool
    cache_max_value: int
    cache_variants: int
    cache_identities: Collection[str]
    cache_readers: Collection[str]
    chain_defaults: Mapping[str, object] | Table | str
    chains: Mapping[str, object] | str
    breaker_shared: bool
    probe_interval: float
    notify_audience: Callable[..., object] | None
    notify_queue: int
    notify_queue_bytes: int
    notify_queue_age: float
    display_names: Mapping[str, str | Mapping[str, str]] | str


class ChainChanges(TypedDict, total=False):
    """A chain's options."""

    timeout: float | None
    attempt_timeout: float | None
    retries: int | None
    retry_budget: float | None
    retry_budget_floor: float | None
    retry_on: type[Exception] | Collection[type[Exception] | str] | str | None
    give_up_on: type[Exception] | Collection[type[Exception] | str] | str | None
    retry_sleep: float | None
    balance: Literal['round_robin', 'least_in_flight', 'lowest_latency', 'in_order'] | None
    eject_after: int | None
    hedge: float | None
    bulkhead_wait: float | None
    breaker_failure_rate: float | None
    breaker_slow: float | None
    breaker_slow_rate: float | None
    breaker_min_calls: int | None
    breaker_window: float | None
    breaker_cooldown: float | None
    breaker_window_calls: int | None
    breaker_half_open_permits: int | None
    breaker_cooldown_factor: float | None
    breaker_cooldown_max: float | None
    breaker_cooldown_jitter: float | None
    delays: Sequence[float] | str | None
    at_most_once: bool | None
    engines: Mapping[str, object] | str | None


class FallbackKeywords(TypedDict, total=False):
    """A fallback's options."""

    statuses: Collection[int] | str
    methods: Collection[str]
    own_body: Literal['json', 'always', 'never']
    page: bool
    timeout: float | None
    keep: float
    copy_every: float
    max_copy: int
    copies: int
