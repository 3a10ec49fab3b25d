"""What a shared HTTP cache may store, for how long, and when it may use what it has stored.

The functions decide as RFC 9111 does, with RFC 5861 (``stale-while-revalidate``,
``stale-if-error``), RFC 9213 (targeted fields) and RFC 9211 (``Cache-Status``). They are pure: time
and all other facts are arguments.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ..builtin.http.forwarding import HOP_BY_HOP
from .fields import (
    Directives,
    age_seconds,
    delta_seconds,
    dictionary,
    directives,
    entity_tags,
    field_names,
    http_date,
    same_tag,
)

Header = tuple[str, str]
Headers = Sequence[Header]

UNDERSTOOD = frozenset(
    {200, 203, 204, 300, 301, 302, 303, 304, 307, 308}
    | {400, 401, 403, 404, 405, 406, 408, 409, 410, 411, 413, 414, 415, 421, 422, 429}
    | {500, 501, 502, 503, 504}
)
"""Status codes that this cache understands, for ``must-understand``."""

HEURISTIC = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""Status codes that are cacheable without explicit freshness (RFC 9110 section 15.1)."""

_NEVER = frozenset({206, 304, 416})
_HEURISTIC_SHARE = 0.1
_HEURISTIC_MOST_S = 86_400.0

_OF_THE_BODY = frozenset({"content-length", "content-encoding", "content-range"})


class ForwardReason(StrEnum):
    """Why a request goes to the application: the values of ``fwd`` (RFC 9211 section 2.2)."""

    BYPASS = "bypass"
    MISS = "uri-miss"
    VARY = "vary-miss"
    REQUEST = "request"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How the settings want responses to be stored.

    Attributes:
        heuristic: a response without explicit freshness is fresh for 10 % of the time since its
            ``Last-Modified``.
        ignore_cookies: treat cookies like other fields, as the specification does: store responses
            that set them, and give the response to a request with a cookie to everybody.
        vary_cookie: store responses that vary by the whole cookie header.
        targets: names of targeted fields, in lower case; the first that a response has counts.
        longest_s: bound on every freshness.
        default_s: freshness of responses without an explicit one; 0 for none.
        stale_while_revalidate_s, stale_if_error_s: for responses that do not state their own.
    """

    heuristic: bool = False
    ignore_cookies: bool = False
    vary_cookie: bool = False
    targets: tuple[str, ...] = ("cdn-cache-control",)
    longest_s: float = 2.0**31
    default_s: float = 0.0
    stale_while_revalidate_s: float = 0.0
    stale_if_error_s: float = 0.0


@dataclass(slots=True)
class ResponseFacts:
    """One response, and what must be known of its request.

    Attributes:
        status: its status code.
        headers: the application's.
        authorized: the request had an ``Authorization`` field.
        no_store: the request had the directive ``no-store``.
        knows_cookies: which cookies the response depends on is known, whatever its ``Vary`` says.
        requested_at, received_at: Unix time of the request and of the response.
        fields: the values of the headers by lower-case name.
    """

    status: int
    headers: Headers
    authorized: bool = False
    no_store: bool = False
    knows_cookies: bool = False
    requested_at: float = 0.0
    received_at: float = 0.0
    fields: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.fields = {}
        for name, value in self.headers:
            self.fields.setdefault(name.lower(), []).append(value)

    def one(self, name: str) -> str | None:
        """Return a field's value; ``None`` when the response has none or several lines of it."""
        values = self.fields.get(name, ())
        return values[0].strip(" \t") if len(values) == 1 else None

    def joined(self, name: str) -> str:
        """Return a list field, its lines joined."""
        return ", ".join(self.fields.get(name, ()))


@dataclass(slots=True)
class CacheVerdict:
    """What may be done with a response.

    Attributes:
        refused: why it is not stored, in one word; "" when it is.
        lifetime_s: how long it is fresh, from its ``Date`` on.
        age_s: its age when it was received.
        while_revalidating_s, if_error_s: how long after its freshness it may be served stale.
        validate: it must not be used without asking the application (``no-cache``).
        public: it may be stored although its request had ``Authorization``.
        shared: it is for everybody, whoever asked: it says ``public`` or ``s-maxage``.
        vary: names of the request fields that select it.
        left_out: names of fields that are not stored.
        etag, modified: its validators.
    """

    refused: str = ""
    lifetime_s: float = 0.0
    age_s: float = 0.0
    while_revalidating_s: float = 0.0
    if_error_s: float = 0.0
    validate: bool = False
    public: bool = False
    shared: bool = False
    vary: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()
    etag: str = ""
    modified: float | None = None


def judge(facts: ResponseFacts, options: StorageOptions) -> CacheVerdict:
    """Decide whether a shared cache may store a response to a GET, and how long it may use it.

    The reasons to refuse are a table; the first that applies counts (RFC 9111 section 3).

    Args:
        facts: about the response and its request.
        options: of the settings.
    """
    control, targeted = _control(facts, options.targets)
    understood = facts.status in UNDERSTOOD
    no_store = "no-store" in control and not ("must-understand" in control and understood)
    named = {
        name
        for directive in ("no-cache", "private")
        if control.get(directive)
        for name in field_names(control[directive] or "")
    } - {"*"}
    public = not {"public", "s-maxage", "must-revalidate"}.isdisjoint(control)
    explicit = _explicit(facts, control, targeted=targeted)
    etag = facts.one("etag") or ""
    modified = http_date(facts.one("last-modified"), facts.received_at)
    validate = "no-cache" in control and not control["no-cache"]
    usable = validate and bool(etag or modified is not None)
    lifetime = explicit
    if lifetime is None:
        lifetime = _implied(facts, control, modified, options)
    vary = field_names(facts.joined("vary"))
    if "content-encoding" in facts.fields and vary != ("*",):
        # a compressed response whose author forgot to name the field in Vary
        vary = tuple(sorted({*vary, "accept-encoding"}))
    if facts.knows_cookies:
        vary = tuple(name for name in vary if name != "cookie")
    by_cookie = options.vary_cookie or options.ignore_cookies
    sets_cookie = "set-cookie" in facts.fields and "set-cookie" not in named

    table = (
        (facts.status < 200 or facts.status in _NEVER, "status"),
        ("must-understand" in control and not understood, "status"),
        (no_store or facts.no_store, "no-store"),
        ("private" in control and not control["private"], "private"),
        (sets_cookie and not options.ignore_cookies, "cookie"),
        (vary == ("*",), "vary"),
        ("cookie" in vary and not by_cookie, "vary-cookie"),
        (facts.authorized and not public, "authorization"),
        (lifetime is None and not usable, "no-freshness"),
    )
    reason = next((reason for refused, reason in table if refused), "")
    lifetime = 0.0 if lifetime is None else min(lifetime, options.longest_s)
    swr, sie = _stale_windows(control, lifetime, options)
    return CacheVerdict(
        refused=reason,
        lifetime_s=lifetime,
        age_s=_age(facts),
        while_revalidating_s=swr,
        if_error_s=sie,
        validate=validate,
        public=public,
        shared=options.ignore_cookies or not {"public", "s-maxage"}.isdisjoint(control),
        vary=vary,
        left_out=frozenset(named) | hop_by_hop(facts.joined("connection")),
        etag=etag,
        modified=modified,
    )


def _control(facts: ResponseFacts, targets: Iterable[str]) -> tuple[Directives, bool]:
    """Return the directives that count, and whether a targeted field has them (RFC 9213 2.2)."""
    for name in targets:
        if name in facts.fields:
            found = dictionary(facts.joined(name))
            if found is not None:
                return found, True
    return directives(facts.joined("cache-control")), False


def _explicit(facts: ResponseFacts, control: Directives, *, targeted: bool) -> float | None:
    """Return explicit freshness in seconds (RFC 9111 section 4.2.1); 0 for a malformed one."""
    for name in ("s-maxage", "max-age"):
        if name in control:
            return float(delta_seconds(control[name]) or 0)
    if targeted or "expires" not in facts.fields:
        return None
    expires = http_date(facts.one("expires"), facts.received_at)
    if expires is None:
        return 0.0
    made = http_date(facts.one("date"), facts.received_at)
    return max(0.0, expires - (facts.received_at if made is None else made))


def _implied(
    facts: ResponseFacts, control: Directives, modified: float | None, options: StorageOptions
) -> float | None:
    """Return the freshness of a response without an explicit one; ``None`` for none."""
    if facts.status not in HEURISTIC and "public" not in control:
        return None
    if options.default_s > 0:
        return options.default_s
    if not options.heuristic or modified is None:
        return None
    made = http_date(facts.one("date"), facts.received_at) or facts.received_at
    return min(max(0.0, made - modified) * _HEURISTIC_SHARE, _HEURISTIC_MOST_S)


def _age(facts: ResponseFacts) -> float:
    """Return the corrected initial age in seconds (RFC 9111 section 4.2.3)."""
    made = http_date(facts.one("date"), facts.received_at)
    apparent = 0.0
    # a date has no fractions: the second in which the request began belongs to this exchange
    if made is not None and made < math.floor(facts.requested_at):
        apparent = facts.received_at - made
    delay = max(0.0, facts.received_at - facts.requested_at)
    said = age_seconds(facts.fields.get("age", ()))
    return max(apparent, said + delay)


def _stale_windows(
    control: Directives, lifetime: float, options: StorageOptions
) -> tuple[float, float]:
    """Return how long a stale response may be served while it is revalidated, and on errors."""
    if not {"must-revalidate", "proxy-revalidate", "no-cache"}.isdisjoint(control):
        return 0.0, 0.0
    windows = []
    for name, default in (
        ("stale-while-revalidate", options.stale_while_revalidate_s),
        ("stale-if-error", options.stale_if_error_s),
    ):
        if name in control:
            windows.append(float(delta_seconds(control[name]) or 0))
        else:
            # s-maxage alone forbids it (RFC 9111 5.2.2.10); a directive beside it allows it
            windows.append(0.0 if "s-maxage" in control else default)
    return windows[0], windows[1]


def hop_by_hop(connection: str = "") -> frozenset[str]:
    """Return the names of fields of one connection, which are not stored (RFC 9110 7.6.1)."""
    if not connection:
        return HOP_BY_HOP
    return HOP_BY_HOP | {name.strip(" \t").lower() for name in connection.split(",")} - {""}


# --- using what is stored -----------------------------------------------------------------------


def allows(request: Directives, *, age_s: float, lifetime_s: float, stale_allowed: bool) -> bool:
    """Whether a request's own ``Cache-Control`` lets a stored response answer it.

    Args:
        request: the request's directives (RFC 9111 section 5.2.1).
        age_s: the response's age now.
        lifetime_s: how long the response is fresh.
        stale_allowed: the response may be served stale.
    """
    if "no-cache" in request or "no-store" in request:
        return False
    if "max-age" in request and age_s > (delta_seconds(request["max-age"]) or 0):
        return False
    left = lifetime_s - age_s
    if "min-fresh" in request:
        return left >= (delta_seconds(request["min-fresh"]) or 0)
    if left > 0:
        return True
    if "max-stale" not in request or not stale_allowed:
        return False
    most = request["max-stale"]
    return most is None or -left <= (delta_seconds(most) or 0)


def matches(environ: Mapping[str, object], etag: str, modified: float | None, date: float) -> bool:
    """Whether the client has a stored response already and gets 304 (RFC 9111 section 4.3.2).

    Args:
        environ: the request; ``HTTP_IF_NONE_MATCH`` counts before ``HTTP_IF_MODIFIED_SINCE``.
        etag: of the response; "" for none.
        modified: Unix time of its ``Last-Modified``; ``None`` uses ``date`` instead.
        date: Unix time of its ``Date``.
    """
    wanted = environ.get("HTTP_IF_NONE_MATCH")
    if isinstance(wanted, str):
        tags = entity_tags(wanted)
        return tags == ("*",) or (bool(etag) and any(same_tag(tag, etag) for tag in tags))
    since = environ.get("HTTP_IF_MODIFIED_SINCE")
    if not isinstance(since, str):
        return False
    at = http_date(since.strip(" \t"), date)
    return at is not None and (date if modified is None else modified) <= at


def update_headers(stored: Headers, fresh: Headers) -> list[Header]:
    """Update the headers of a stored response from a 304 (RFC 9111 section 3.2).

    Fields that describe the stored body stay. A field of the 304 replaces all lines of its name.

    Args:
        stored: the headers of the stored response.
        fresh: the headers of the 304.
    """
    connection = ", ".join(v for n, v in fresh if n.lower() == "connection")
    kept_out = _OF_THE_BODY | hop_by_hop(connection)
    new = [(n, v) for n, v in fresh if n.lower() not in kept_out]
    names = {name.lower() for name, _ in new} | {"age"}
    return [(n, v) for n, v in stored if n.lower() not in names] + new


def cache_status(name: str, details: Iterable[tuple[str, object]]) -> str:
    """Format one member of ``Cache-Status`` (RFC 9211): ``name; hit; ttl=30``."""
    parts = [name]
    for key, value in details:
        parts.append(key if value is True else f"{key}={value}")
    return "; ".join(parts)


def same_response(stored_etag: str, stored_modified: float | None, facts: ResponseFacts) -> bool:
    """Whether a 304 is about the stored response (RFC 9111 section 4.3.4).

    It is, unless it has another entity tag or another ``Last-Modified``.
    """
    etag = facts.one("etag")
    if etag and stored_etag:
        return same_tag(etag, stored_etag)
    modified = http_date(facts.one("last-modified"), facts.received_at)
    if modified is not None and stored_modified is not None:
        return modified == stored_modified
    return True


def is_unsafe(method: str, safe: Collection[str] = ("GET", "HEAD", "OPTIONS", "TRACE")) -> bool:
    """Whether a method may change a resource (RFC 9110 section 9.2.1); an unknown one may."""
    return method not in safe
