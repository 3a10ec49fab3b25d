"""The values that cross walls: what one room hands to another, and to plugins.

Small classes with slots and no behaviour beyond what their own fields answer. Times named
``*_s`` are seconds; ``at`` is seconds since the Unix epoch; ``deadline`` is on the monotonic
clock of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .core.call import Answer, Call
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
    "Notification",
    "PluginInfo",
    "PluginStatus",
    "ProblemReport",
    "RecoveryReport",
    "Sample",
    "StoreStats",
]


@dataclass(slots=True)
class HubMessage:
    """One message of a hub topic; ``id`` is opaque and grows with each message."""

    id: str
    topic: str
    data: object
    at: float


ChangeKind = Literal["set", "refreshed", "invalidated", "removed"]


@dataclass(frozen=True, slots=True)
class CacheChange:
    """What happened to a cache key, as a subscription's callback gets it.

    Attributes:
        key: as it was subscribed to.
        kind: ``set`` (put, or fetched where there was no value), ``refreshed`` (fetched in the
            background), ``invalidated`` (marked stale) or ``removed``.
        scope: as it was subscribed to.
    """

    key: Any
    kind: ChangeKind
    scope: str = ""


@dataclass(slots=True)
class CacheStats:
    """Counted since the process began, never estimated.

    Attributes:
        fresh, stale, coalesced, negative: hits by kind; *coalesced* waited for another's fetch,
            *negative* are told of an error, or that there is none.
        misses: look-ups that had to fetch.
        fetches: fetchers run in the foreground.
        refreshes: fetchers run in the background, that succeeded.
        failures: fetchers that raised.
        evictions: entries pushed out by the size bound.
        dropped: refreshes not begun because the queue was full.
        entries: entries in this process now.
        size_bytes: their serialized size.
        subscriptions: callbacks that are told of changes, in this process now.
        bytes_saved: serialized bytes of all hits that were values.
        saved_us: what fetching them took, in microseconds: the time that hits saved.
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
        """Look-ups answered without a fetch of their own."""
        return self.fresh + self.stale + self.coalesced + self.negative

    @property
    def hit_rate(self) -> float | None:
        """Hits per look-up, 0 to 1; ``None`` before the first look-up."""
        total = self.hits + self.misses
        return self.hits / total if total else None

    def add(self, other: CacheStats) -> None:
        """Add another's counters to these."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class HttpCacheStats:
    """Counted in this process, exact.

    Attributes:
        hits: answered fresh from memory or the store; stale: answered stale; validated: answered
            after a 304 of the application.
        misses: requests that went to the application and might have been answered.
        passed: requests that the cache had nothing to do with (``bypass``).
        coalesced: answered from another request's trip to the application.
        stored: responses kept; refreshes: of these in the background; failures: refreshes and
            validations that failed; dropped: refreshes that found no room in the queue.
        evictions: pushed out of memory by its bound.
        entries, size_bytes: what memory holds now.
        bytes_saved, fetch_s_saved: the bodies that the application did not have to make for hits,
            and the time that it took for them when it did.
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
        """The share of hits, stale and coalesced ones too; ``None`` when nothing was asked for."""
        good = self.hits + self.stale + self.coalesced
        return good / (good + self.misses) if good + self.misses else None

    def add(self, other: HttpCacheStats) -> None:
        """Add another process's counters."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class StoreStats:
    """What was asked of a shared store by this process.

    Attributes:
        hits, misses: reads that found an entry, or none.
        writes, deletes: entries kept and forgotten.
        failures: times that it raised.
        read_bytes, written_bytes: sizes of the entries.
    """

    hits: int = 0
    misses: int = 0
    writes: int = 0
    deletes: int = 0
    failures: int = 0
    read_bytes: int = 0
    written_bytes: int = 0

    def add(self, other: StoreStats) -> None:
        """Add another process's counters."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


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
    """Something to tell people.

    Attributes:
        kind: success, error, warning, info or progress.
        message: plain words for end users; never markup.
        title: a short heading, "" for none.
        to: ``sid:<id>`` (one browser), ``user:<id>``, ``role:<name>``, ``operators`` or
            ``everyone``.
        actions: buttons.
        progress: percent done, 0 to 100; ``None`` when it is not a progress.
        duration_s: how long a toast stays; ``None`` for the kind's default.
        key: a later notification with the same key replaces this one.
        id: given by the hub.
        at: when it was made (Unix time).
        data: more for machines; JSON-like.
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
    """One answered request, as monitors get it.

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
        fired_at, resolved_at: Unix times; 0 while it has not happened.
        silenced: people were not told.
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
    """One browser report, cleaned: queries stripped, lengths capped, nothing trusted.

    Attributes:
        route: the url rule of the document, ``<unmatched>`` for none, "" where there are no rules.
        hash: ``sha256-…`` of the inline text, if the report brought all of it.
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
    """How one recovery ended: the steps done, and whether the probe succeeded."""

    subject: str
    fingerprint: str
    succeeded: bool
    steps: tuple[str, ...]
    started_at: float
    duration_s: float


@dataclass(slots=True)
class ProblemReport:
    """A person pressed "Report problem"."""

    id: str
    at: float
    message: str
    route: str
    fingerprint: str = ""
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class PluginInfo:
    """What a plugin says of itself in ``om_plugin_info``.

    Attributes:
        summary: one line for people.
        version: the plugin's own version; the distribution's when empty.
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
