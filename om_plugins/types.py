"""The values that features pass to each other and to plugins.

They are small classes with slots, whose methods use only their own fields. Names that end in
``_s`` are seconds, ``at`` is seconds since the Unix epoch, and ``deadline`` is on the monotonic
clock of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from .core.call import Answer, Call, ModelRefusal, ToolCall, ToolCalls
from .core.engine import (
    Attempt,
    EngineHealth,
    EngineSpec,
    EngineTraits,
    Health,
    HttpRequest,
    HttpResponse,
)

__all__ = [
    "Action",
    "Alert",
    "Answer",
    "Attempt",
    "CacheChange",
    "CacheStats",
    "Call",
    "Caller",
    "CspViolation",
    "EngineHealth",
    "EngineSpec",
    "EngineTraits",
    "ErrorPattern",
    "Health",
    "HttpCacheStats",
    "HttpRequest",
    "HttpResponse",
    "HubMessage",
    "ModelRefusal",
    "Notification",
    "PluginInfo",
    "PluginStatus",
    "ProblemReport",
    "RecoveryReport",
    "Sample",
    "StoreStats",
    "ToolCall",
    "ToolCalls",
]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a caller is. A route's ``auth`` lets a request in with it, as it does with ``True``.

    Attributes:
        id: tells this caller from all others, such as the id of the user.

    Raises:
        TypeError: the id is no text and no number.
        ValueError: the id is empty.
    """

    id: str | int

    def __post_init__(self) -> None:
        if isinstance(self.id, bool) or not isinstance(self.id, str | int):
            raise TypeError(
                f"Caller({type(self.id).__name__}): an id is a text or a whole number; return "
                "False for nobody"
            )
        if self.id == "":
            raise ValueError("Caller(''): an id is not empty; return False for nobody")


@dataclass(slots=True)
class HubMessage:
    """One message of a hub topic. Only compare its ``id``: it is larger for each later message."""

    id: str
    topic: str
    data: object
    at: float


ChangeKind = Literal["set", "refreshed", "invalidated", "removed"]


@dataclass(frozen=True, slots=True)
class CacheChange:
    """What happened to a cache key, as a subscription's callback gets it.

    Attributes:
        key: the key, as in the subscription.
        kind: ``set`` (put, or fetched where there was no value), ``refreshed`` (fetched in the
            background), ``invalidated`` (marked stale) or ``removed``.
        scope: the scope, as in the subscription.
    """

    key: Any
    kind: ChangeKind
    scope: Any = ""


class _Counters:
    """The base of dataclasses whose fields are numbers that can be added."""

    __slots__: tuple[str, ...] = ()

    def add(self, other: Self) -> None:
        """Add the numbers of another process, or of another part of this one."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class CacheStats(_Counters):
    """What a cache counted since the process began. Nothing is estimated.

    Attributes:
        fresh, stale, coalesced, negative: hits by kind; a *coalesced* one waited for the fetch of
            another caller, a *negative* one got an error or "there is none".
        misses: look-ups that had to fetch.
        fetches: fetchers run in the foreground.
        refreshes: fetchers run in the background, that succeeded.
        failures: fetchers that raised.
        evictions: entries that were dropped because of the limit on memory.
        dropped: refreshes that were not begun because the queue was full.
        entries: entries in this process now.
        size_bytes: their serialized size.
        subscriptions: callbacks that get changes, in this process now.
        bytes_saved: serialized bytes of all hits that were values.
        saved_us: the time that hits saved, in microseconds: how long their fetches took.
    """

    fresh: int = 0
    stale: int = 0
    coalesced: int = 0
    negative: int = 0
    misses: int = 0
    fetches: int = 0
    refreshes: int = 0
    failures: int = 0
    evictions: int = 0
    dropped: int = 0
    entries: int = 0
    size_bytes: int = 0
    subscriptions: int = 0
    bytes_saved: int = 0
    saved_us: int = 0

    @property
    def hits(self) -> int:
        """Look-ups that needed no fetch of their own."""
        return self.fresh + self.stale + self.coalesced + self.negative

    @property
    def hit_rate(self) -> float | None:
        """Hits per look-up, 0 to 1; ``None`` before the first look-up."""
        total = self.hits + self.misses
        return self.hits / total if total else None


@dataclass(slots=True)
class HttpCacheStats(_Counters):
    """What the HTTP cache counted in this process. Nothing is estimated.

    Attributes:
        hits: fresh responses from memory or the store.
        stale: stale responses that were served.
        validated: responses that were served after a 304 of the application.
        misses: requests that the cache could have answered, but that went to the application.
        passed: requests that the cache does not handle (``bypass``).
        coalesced: requests that got the response to another, equal request.
        stored: responses that were stored.
        refreshes: those of them that were fetched in the background.
        failures: refreshes and validations that failed.
        dropped: refreshes that were not begun because the queue was full.
        evictions: responses that were dropped because of the limit on memory.
        entries, size_bytes: what memory holds now.
        bytes_saved: bytes of the bodies that the application did not have to make for hits.
        fetch_s_saved: how long the application took for these bodies when it made them.
    """

    hits: int = 0
    stale: int = 0
    validated: int = 0
    misses: int = 0
    passed: int = 0
    coalesced: int = 0
    stored: int = 0
    refreshes: int = 0
    failures: int = 0
    dropped: int = 0
    evictions: int = 0
    entries: int = 0
    size_bytes: int = 0
    bytes_saved: int = 0
    fetch_s_saved: float = 0.0

    @property
    def hit_rate(self) -> float | None:
        """The share of hits, with stale and coalesced ones; ``None`` before the first request."""
        good = self.hits + self.stale + self.coalesced
        return good / (good + self.misses) if good + self.misses else None


@dataclass(slots=True)
class StoreStats(_Counters):
    """How this process used a shared store.

    Attributes:
        hits, misses: reads that found an entry, or none.
        writes, deletes: entries that were written and deleted.
        failures: how often the store raised.
        read_bytes, written_bytes: sizes of the entries.
    """

    hits: int = 0
    misses: int = 0
    writes: int = 0
    deletes: int = 0
    failures: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


Kind = Literal["success", "error", "warning", "info", "progress"]


@dataclass(slots=True)
class Action:
    """A button on a notification.

    Attributes:
        label: plain words.
        action: ``refresh``, ``report``, ``link`` or ``dismiss``.
        value: the link's same-origin path, or the report's reference.
    """

    label: str
    action: Literal["refresh", "report", "link", "dismiss"]
    value: str = ""


@dataclass(slots=True, kw_only=True)
class Notification:
    """A message for people.

    Attributes:
        kind: success, error, warning, info or progress.
        message: plain words for end users; never markup.
        title: a short heading, "" for none.
        to: ``sid:<id>`` (one browser), ``user:<id>``, ``role:<name>``, ``operators`` or
            ``everyone``.
        actions: buttons.
        progress: how much is done, 0 to 100; ``None`` when it is not a progress.
        duration_s: how long a toast stays; ``None`` for the kind's default.
        key: a later notification with the same key replaces this one.
        id: the id that the hub gave it.
        at: when it was made (Unix time).
        data: more details for programs; JSON-like.
    """

    kind: Kind
    message: str
    title: str = ""
    to: str = "operators"
    actions: tuple[Action, ...] = ()
    progress: float | None = None
    duration_s: float | None = None
    key: str = ""
    id: str = ""
    at: float = 0.0
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Sample:
    """One request with its response, as monitors get it.

    Attributes:
        route: the URL rule, never the raw path; ``<unmatched>`` for none.
        method: the HTTP method, ``_OTHER`` for an unknown one.
        status: the HTTP status code.
        duration_s: to the end of the body's iteration.
        size_bytes: body bytes sent.
    """

    route: str
    method: str
    status: int
    duration_s: float
    size_bytes: int
    at: float


@dataclass(slots=True)
class Alert:
    """A threshold that was crossed.

    Attributes:
        name: the rule: ``response_time``, ``error_rate``, ``memory``, ``engine_offline``,
            ``fallback_rate`` or ``cache_hits``.
        state: ``pending`` (crossed, not for long enough yet), ``firing`` or ``resolved``.
        value: the newest measure, in the rule's unit; ``None`` when nothing is measured now.
        threshold: what it crossed.
        since: when it was first crossed (Unix time).
        message: what is wrong, in plain words.
        subject: what it is about, such as ``chain/engine``; "" for the application.
        kind: how bad it is.
        fired_at, resolved_at: Unix times; 0 before it happened.
        silenced: no notification was sent.
    """

    name: str
    state: Literal["pending", "firing", "resolved"]
    value: float | None
    threshold: float
    since: float
    message: str = ""
    subject: str = ""
    kind: Literal["warning", "error"] = "warning"
    fired_at: float = 0.0
    resolved_at: float = 0.0
    silenced: bool = False


@dataclass(slots=True)
class CspViolation:
    """One report of a browser, cleaned: without queries of URLs, with limited lengths.

    Anybody can send reports, so do not trust its texts.

    Attributes:
        route: the URL rule of the document, ``<unmatched>`` for none, "" where there are no rules.
        hash: ``sha256-…`` of the inline text, if the report has all of it.
    """

    directive: str
    blocked: str
    document: str
    source_file: str = ""
    line: int = 0
    column: int = 0
    sample: str = ""
    disposition: Literal["enforce", "report"] = "report"
    at: float = 0.0
    route: str = ""
    hash: str = ""


@dataclass(slots=True)
class ErrorPattern:
    """Errors of one kind in one place: ``subject`` is ``chain:<name>`` or ``route:<rule>``."""

    fingerprint: str
    subject: str
    count: int
    first_at: float
    last_at: float
    example: str


@dataclass(slots=True)
class RecoveryReport:
    """How a recovery ended: the steps that ran, and whether the probe succeeded."""

    subject: str
    fingerprint: str
    succeeded: bool
    steps: tuple[str, ...]
    started_at: float
    duration_s: float


@dataclass(slots=True)
class ProblemReport:
    """What a person sent with "Report problem"."""

    id: str
    at: float
    message: str
    route: str
    fingerprint: str = ""
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class PluginInfo:
    """What a plugin says about itself in ``om_plugin_info``.

    Attributes:
        summary: one line for people.
        version: the plugin's own version; when empty, that of its distribution.
        hook_api: the hook API it was written for (:data:`om_plugins.hookspecs.HOOK_API`).
        config_class: a dataclass (or any callable taking keywords) made from
            ``OM_PLUGIN_CONFIG["<name>"]``; ``None`` when the plugin has no settings.
    """

    summary: str = ""
    version: str = ""
    hook_api: int = 1
    config_class: Callable[..., object] | None = None


@dataclass(slots=True)
class PluginStatus:
    """One plugin as ``flask om plugins`` shows it.

    Attributes:
        state: ``active``, ``disabled`` (by a setting), ``failed`` (could not be loaded) or
            ``quarantined`` (failed too often while running).
        reason: why it is not active, in words.
    """

    name: str
    state: Literal["active", "disabled", "failed", "quarantined"]
    source: str
    version: str = ""
    summary: str = ""
    hooks: tuple[str, ...] = ()
    failures: int = 0
    reason: str = ""
