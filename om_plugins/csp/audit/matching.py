"""Decides what a browser does with one part of a page under an enforced policy.

It is the browser's side of the policy: it reads the header that a response has, and compares tags,
attributes and addresses with the sources there. Source: Content Security Policy Level 3, sections
2.2.2 (parsing), 6.7.2 (addresses) and 6.7.3 (inline texts).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from ..policy import Policy, find_sources
from ..sources import allows_all_inline

Kind = Literal["tag", "attribute", "script-url", "load", "code"]

_HASH = re.compile(r"'(sha256|sha384|sha512)-([A-Za-z0-9+/_-]+=*)'")
_HOST = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?P<host>\*|[^/:]+)(?::(?P<port>\d+|\*))?(?P<path>/.*)?",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_UPGRADES = {"http": {"https"}, "ws": {"wss", "http", "https"}, "wss": {"https"}}
_NETWORK = frozenset({"http", "https", "ws", "wss"})


@dataclass(frozen=True, slots=True)
class PagePart:
    """Something of a page that a policy decides about.

    Attributes:
        kind: an element with text (``tag``), an event handler or style (``attribute``), a
            ``javascript:`` address (``script-url``), what is loaded or sent to (``load``), or text
            that becomes code (``code``).
        directive: that a browser asks.
        line: of the page, from 1.
        shown: the beginning of the tag, or the attribute.
        text: the inline text.
        url: the complete address; "" for inline parts.
        nonce: the tag's; "" for none.
        integrity: the hashes in the tag's ``integrity``.
        guards: it is an event handler that decides whether something happens.
        tool: the library or package that it certainly belongs to; "" for none.
        framed: it is in a document that a frame of the page holds in an attribute.
    """

    kind: Kind
    directive: str
    line: int
    shown: str
    text: str = ""
    url: str = ""
    nonce: str = ""
    integrity: str = ""
    guards: bool = False
    tool: str = ""
    framed: bool = False


def read_header(values: Iterable[str]) -> list[Policy]:
    """Read the policies of a response as browsers do: of a directive that occurs twice, the first
    counts.

    Args:
        values: of the headers ``Content-Security-Policy``.
    """
    found = []
    for text in ",".join(values).split(","):
        policy: Policy = {}
        for part in text.split(";"):
            name, *sources = part.split() or [""]
            if name:
                policy.setdefault(name.lower(), tuple(sources))
        if policy:
            found.append(policy)
    return found


def is_allowed(policy: Policy, part: PagePart, page: str) -> bool:
    """Return whether a policy lets a browser run, apply or load a part of a page.

    Args:
        policy: of the response, with its nonce.
        part: of the page.
        page: the page's own address.
    """
    sources = find_sources(policy, part.directive)
    if sources is None:
        return True
    if part.kind == "code":
        return "'unsafe-eval'" in sources
    if part.kind == "load":
        return _allows_load(sources, part, urlsplit(page))
    if allows_all_inline(part.directive, sources):
        return True
    if part.kind == "tag":
        return _has_nonce(sources, part) or _has_hash(sources, part.text)
    return "'unsafe-hashes'" in sources and _has_hash(sources, part.text)


def _allows_load(sources: Sequence[str], part: PagePart, page: SplitResult) -> bool:
    if part.directive in ("script-src-elem", "style-src-elem") and _has_nonce(sources, part):
        return True
    if part.directive == "script-src-elem":
        hashes = part.integrity.split()
        if hashes and all(f"'{one}'" in sources for one in hashes):
            return True
        if "'strict-dynamic'" in sources:  # the parser found the tag, no script made it
            return False
    return any(matches_url(one, urlsplit(part.url), page) for one in sources)


def matches_url(source: str, url: SplitResult, page: SplitResult) -> bool:
    """Return whether a source allows an address.

    Args:
        source: of the policy.
        url: the complete address.
        page: the address of the page, which ``'self'`` stands for.
    """
    if source == "*":
        return url.scheme in _NETWORK or url.scheme == page.scheme
    if source.lower() == "'self'":
        return (
            url.hostname == page.hostname
            and (url.scheme == page.scheme or url.scheme in _UPGRADES.get(page.scheme, ())
                 or url.scheme in _sockets_of(page.scheme))
            and (_port_of(url) == _port_of(page) or (not url.port and not page.port))
        )  # fmt: skip
    if source.startswith("'"):
        return False
    scheme = _SCHEME.fullmatch(source)
    if scheme:
        return _matches_scheme(scheme[1].lower(), url.scheme)
    host = _HOST.fullmatch(source)
    if host is None or not url.hostname:
        return False
    return (
        _matches_scheme((host["scheme"] or page.scheme).lower(), url.scheme)
        and _matches_host(host["host"].lower(), url.hostname)
        and _matches_port(host["port"], url)
        and _matches_path(host["path"] or "", url.path)
    )


def _sockets_of(scheme: str) -> set[str]:
    return {"http": {"ws", "wss"}, "https": {"wss"}}.get(scheme, set())


def _matches_scheme(allowed: str, scheme: str) -> bool:
    return allowed == scheme or scheme in _UPGRADES.get(allowed, ())


def _matches_host(allowed: str, host: str) -> bool:
    if allowed.startswith("*."):
        return host.endswith(allowed[1:])
    return allowed in ("*", host)


def _matches_port(allowed: str | None, url: SplitResult) -> bool:
    port = _port_of(url)
    if allowed is None:
        return port == _PORTS.get(url.scheme)
    return allowed == "*" or int(allowed) == port or (int(allowed) == 80 and port == 443)


def _matches_path(allowed: str, path: str) -> bool:
    if not allowed or (allowed == "/" and not path):
        return True
    allowed, path = unquote(allowed), unquote(path)
    return path.startswith(allowed) if allowed.endswith("/") else path == allowed


def _port_of(url: SplitResult) -> int | None:
    try:
        return url.port or _PORTS.get(url.scheme)
    except ValueError:
        return None


def _has_nonce(sources: Sequence[str], part: PagePart) -> bool:
    return bool(part.nonce) and f"'nonce-{part.nonce}'" in sources


def _has_hash(sources: Sequence[str], text: str) -> bool:
    data = text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace")
    for source in sources:
        match = _HASH.fullmatch(source)
        if match is not None:
            digest = base64.b64encode(hashlib.new(match[1], data).digest()).decode()
            if match[2].replace("-", "+").replace("_", "/") == digest:
                return True
    return False
