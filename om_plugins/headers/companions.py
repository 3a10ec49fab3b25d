"""The headers beside the Content-Security-Policy: their defaults and their allowed values.

A header is added to a response when the application has not set a header of that name. Some headers
have an effect on HTML pages only, and ``Strict-Transport-Security`` on HTTPS only (RFC 6797,
section 7.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..csp.modes import OBSERVING
from ..csp.presets import FRAME_ANCESTORS
from ..errors import ConfigError, suggest
from ..settings.kinds import FEATURES, HEADERS
from ..settings.table import Check
from .permissions_policy import build_permissions_policy

Header = tuple[str, str]

DEFAULTS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Cross-Origin-Opener-Policy": "same-origin-allow-popups",
}
"""Headers that go with every response whose application set none, except in the modes of
:data:`~om_plugins.csp.modes.OBSERVING`, because each of them breaks a page that works today:

- ``nosniff`` stops scripts and style sheets whose type is wrong, such as a script that a view
  returns as text: Flask calls it ``text/html``.
- ``Referrer-Policy`` on a redirect or a style sheet also changes requests of pages that chose
  another policy, and in older browsers all requests to other sites.
- ``Cross-Origin-Opener-Policy`` ends what a page of another site does with a popup that it opened.

Other headers are sent in every mode, because they are there only when the owner has set them.
"""

_HTML_ONLY = frozenset(
    {"cross-origin-opener-policy", "cross-origin-embedder-policy", "document-policy"}
    | {"permissions-policy"}
)
_HTTPS_ONLY = frozenset({"strict-transport-security"})
_NOT_OURS = frozenset(
    {"cache-control", "connection", "content-encoding", "content-length", "content-type", "etag"}
    | {"location", "set-cookie", "transfer-encoding"}
)
_POLICIES = ("content-security-policy", "content-security-policy-report-only")
_ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(_POLICIES, "OM_CSP and OM_CSP_MODE"),
    "strict-transport-security": "OM_HSTS",
    "permissions-policy": "OM_PERMISSIONS_POLICY",
}
_FRAMING = re.compile(r"\bframe-ancestors [^;]*")
_REFERRERS = (
    "no-referrer no-referrer-when-downgrade origin origin-when-cross-origin same-origin "
    "strict-origin strict-origin-when-cross-origin unsafe-url"
)
_ALLOWED: Mapping[str, frozenset[str]] = {
    name: frozenset(values.split())
    for name, values in {
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY SAMEORIGIN",
        "referrer-policy": _REFERRERS,
        "cross-origin-opener-policy": "unsafe-none same-origin-allow-popups same-origin "
        "noopener-allow-popups",
        "cross-origin-embedder-policy": "unsafe-none require-corp credentialless",
        "cross-origin-resource-policy": "same-site same-origin cross-origin",
        "origin-agent-cluster": "?0 ?1",
        "x-dns-prefetch-control": "on off",
        "x-permitted-cross-domain-policies": "none master-only by-content-type all",
    }.items()
}
_DOCUMENT_POLICY = re.compile(
    r"[a-z*][a-z0-9_.*-]*(=(\?[01]|[0-9.]+|\"[^\"]*\"))?(;[a-z-]+=[a-z0-9-]+)?"
)


@dataclass(frozen=True, slots=True)
class Companion:
    """One header, and the responses that it is added to."""

    name: str
    value: str
    html_only: bool = False
    https_only: bool = False


def list_companions(headers: Mapping[str, str]) -> list[Companion]:
    """Return the headers together with the responses that each one is added to."""
    return [
        Companion(name, value, name.lower() in _HTML_ONLY, name.lower() in _HTTPS_ONLY)
        for name, value in headers.items()
    ]


def merge_with_defaults(
    headers: Mapping[str, str | None],
    mode: str,
    *,
    hsts: str = "",
    permissions: Mapping[str, Sequence[str] | str] | None = None,
) -> dict[str, str]:
    """The companion headers of an application.

    Args:
        headers: ``OM_HEADERS``, over :data:`DEFAULTS`; ``None`` leaves a header out.
        mode: ``OM_CSP_MODE``; one that only reports has no defaults.
        hsts: the value of ``Strict-Transport-Security``; "" for none.
        permissions: ``OM_PERMISSIONS_POLICY``.

    Raises:
        ConfigError: names the key, the value and the way out.
    """
    defaults = {} if mode in OBSERVING else DEFAULTS
    merged = {name.lower(): (name, value) for name, value in defaults.items()}
    for name, value in headers.items():
        folded = name.lower()
        if value is not None:
            _check(name, value)
            merged[folded] = (name, value)
        elif folded in _ELSEWHERE or folded in _NOT_OURS:
            _check(name, "")
        else:
            merged.pop(folded, None)
    for name, value in (
        ("Strict-Transport-Security", hsts),
        ("Permissions-Policy", build_permissions_policy(permissions or {})),
    ):
        if value:
            merged[name.lower()] = (name, value)
    return dict(merged.values())


def read_changes(
    headers: Mapping[str, str | None],
    permissions: Mapping[str, Sequence[str] | str] | None = None,
) -> tuple[tuple[str, str | None], ...]:
    """Check the headers that a view changes, for :attr:`RequestState.header_changes`.

    Args:
        headers: from a name to the value, or ``None`` to leave the header out.
        permissions: replaces ``OM_PERMISSIONS_POLICY`` for this view.

    Returns:
        Pairs of a name and a value.

    Raises:
        ConfigError: a name or a value is not allowed.
    """
    where = "headers"
    result: list[tuple[str, str | None]] = []
    headers = _read(HEADERS, headers, where)
    for name, value in headers.items():
        if name.lower() in _POLICIES:
            raise ConfigError(f"{where}[{name!r}]", value, "use @om.csp(…) instead")
        if value is not None or name.lower() in _NOT_OURS:
            _check(name, value or "", where)
        result.append((name, value))
    if permissions is not None:
        where = f"{where}(permissions_policy)"
        policy = build_permissions_policy(_read(FEATURES, permissions, where), where)
        result.append(("Permissions-Policy", policy or None))
    return tuple(result)


def _read(check: Check, value: object, where: str) -> Any:
    try:
        return check.read(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(where, value, str(error) or f"must be {check.allowed}") from None


def _check(name: str, value: str, where: str = "OM_HEADERS") -> None:
    key, folded = f"{where}[{name!r}]", name.lower()
    if folded in _ELSEWHERE:
        raise ConfigError(key, value or None, f"set {_ELSEWHERE[folded]} instead")
    if folded in _NOT_OURS:
        raise ConfigError(key, value or None, "belongs to each response; the application sets it")
    if folded == "document-policy":
        for one in value.split(","):
            if not _DOCUMENT_POLICY.fullmatch(one.strip()):
                raise ConfigError(key, value, f"{one.strip()!r} is not like 'document-write=?0'")
        return
    allowed = _ALLOWED.get(folded)
    if allowed is None:
        return
    words = value.split(",") if folded == "referrer-policy" else [value.partition(";")[0]]
    for word in words:
        if word.strip() not in allowed:
            raise ConfigError(key, value, _explain_value(word.strip(), allowed))


def _explain_value(word: str, allowed: Iterable[str]) -> str:
    return f"unknown value {word!r}; {suggest(word, sorted(allowed))}"


def apply_changes(
    added: list[Header], changes: Iterable[tuple[str, str | None]], own: Iterable[Header]
) -> list[Header]:
    """Return ``added`` with the changes of a view.

    Headers that the application set itself are kept. Browsers that know ``frame-ancestors`` ignore
    ``X-Frame-Options`` beside it, so ``frame-ancestors`` is changed to say the same.

    Args:
        added: the headers to add to the response.
        changes: of the view.
        own: the headers that the application set.
    """
    wanted = {name.lower(): (name, value) for name, value in changes}
    kept = [header for header in added if header[0].lower() not in wanted]
    present = {name.lower() for name, _ in own}
    sources = FRAME_ANCESTORS.get((wanted.get("x-frame-options", ("", None))[1] or "").upper())
    if sources and "x-frame-options" not in present:
        said = "frame-ancestors " + " ".join(sources)
        kept = [
            (name, _FRAMING.sub(said, value) if name.lower() in _POLICIES else value)
            for name, value in kept
        ]
    for folded, (name, value) in wanted.items():
        if value is not None and folded not in present:
            kept.append((name, value))
    return kept
