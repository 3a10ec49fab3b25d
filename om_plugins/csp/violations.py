"""Counts of the violations that browsers reported.

There is one group for each directive, blocked origin, source and route, and for each inline text
that is known as a whole. The groups are in the hub, so that every worker and the command line see
the same. A stranger can invent groups. Their number and their lifetime are limited, and no group
changes anything by itself.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..core.body import convert

if TYPE_CHECKING:
    from ..protocols import Clock, Hub
    from ..types import CspViolation

KEEP_S = 7 * 86_400.0
MAX_GROUPS = 300
"""Of one process; whoever sends more kinds than a site can have is inventing them."""

MAX_TEXTS = 10
"""The inline texts of one place that are groups of their own; all later texts are one group."""

_PREFIX = "csp-group/"
_COUNTS = "csp-count/"


@dataclass(frozen=True, slots=True)
class ViolationGroup:
    """Reports of one kind.

    Attributes:
        directive: the directive that does not allow it, such as ``script-src-elem``.
        blocked: the origin that was blocked, or a word: ``inline``, ``eval``, ``data``.
        source: the script that caused it, without host for the site's own; "" for the page itself.
        route: the URL rule of the page; ``<unmatched>`` for a page without a rule.
        line, sample, hash: of the newest report; the hash is that of the whole text, if known, and
            is the same in all reports of a group that has one.
        count: how often in the last seven days.
        first_at, last_at: Unix times.
        enforced: the browser blocked it; otherwise it only reported it.
        address: the newest blocked address, without its query.
    """

    directive: str
    blocked: str
    source: str
    route: str
    count: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    line: int = 0
    sample: str = ""
    hash: str = ""
    enforced: bool = False
    address: str = ""


@dataclass(eq=False, repr=False)
class Violations:
    """Counts reports and lists the groups.

    Args:
        hub: where the counts are stored.
        clock: the time.
        per_minute: how many reports are counted in this process; the rest is not.
    """

    hub: Hub
    clock: Clock
    _: KW_ONLY
    per_minute: int = 600

    def __post_init__(self) -> None:
        # no lock: two threads may let one report too many pass, which harms nothing
        self._window_end = -math.inf
        self._taken = 0
        self._first: dict[str, float] = {}
        self._texts: dict[tuple[str, ...], set[str]] = {}

    def count(self, one: CspViolation) -> None:
        """Count one report. A failing hub may raise."""
        now = self.clock.monotonic()
        if now >= self._window_end:
            self._window_end, self._taken = now + 60.0, 0
        if self._taken >= self.per_minute:
            return
        source = "" if one.source_file == one.document else _remove_host(one)
        blocked = _find_origin(one.blocked, one.document)
        place = (one.directive, blocked, source, one.route)
        known = self._texts.get(place, set())
        text = one.hash if blocked == "inline" else ""
        if text not in known and len(known) >= MAX_TEXTS:
            text = ""
        digest = hashlib.blake2b("\0".join((*place, text)).encode(), digest_size=12).hexdigest()
        if digest not in self._first:
            if len(self._first) >= MAX_GROUPS:
                return
            self._first[digest] = one.at
            if text:
                self._texts.setdefault(place, set()).add(text)
        self._taken += 1
        count = self.hub.increment(_COUNTS + digest, ttl=KEEP_S)
        group = ViolationGroup(
            directive=one.directive,
            blocked=blocked,
            source=source,
            route=one.route,
            count=count,
            first_at=self._first[digest],
            last_at=one.at,
            line=one.line,
            sample=one.sample,
            hash=text,
            enforced=one.disposition == "enforce",
            address=one.blocked,
        )
        self.hub.put(_PREFIX + digest, asdict(group), KEEP_S)

    def groups(self) -> list[ViolationGroup]:
        """Return all groups, the most frequent first."""
        return groups(self.hub)


def groups(hub: Hub) -> list[ViolationGroup]:
    """Return all groups in a hub, the most frequent first."""
    found = []
    for value in hub.scan(_PREFIX).values():
        group = _read(value)
        if group is not None:
            found.append(group)
    return sorted(found, key=lambda one: (-one.count, one.directive, one.blocked, one.route))


def _read(value: object) -> ViolationGroup | None:
    """Read a group from the hub, which another version may have written."""
    known = ViolationGroup.__dataclass_fields__
    if not isinstance(value, Mapping):
        return None
    given: dict[str, Any] = {str(k): v for k, v in value.items() if k in known}
    try:
        return convert(given, ViolationGroup)
    except ValueError:
        return None


def _find_origin(blocked: str, document: str) -> str:
    """Return the origin of an address, ``self`` for the page's own; words are returned
    unchanged.
    """
    if "://" not in blocked:
        return blocked
    parts, own = urlsplit(blocked), urlsplit(document)
    if (parts.scheme, parts.netloc) == (own.scheme, own.netloc):
        return "self"
    return f"{parts.scheme}://{parts.netloc}"


def _remove_host(one: CspViolation) -> str:
    source, own = urlsplit(one.source_file), urlsplit(one.document)
    return source.path if source.netloc == own.netloc else one.source_file
