"""Hashes of inline scripts and styles: how they are computed, and which of them a page used.

A script whose text never changes can be allowed by its hash instead of a nonce. The page is then
the same bytes each time, and any cache may store it. The hashes are computed when a template is
compiled. A page that is rendered notes the hashes of its tags in the request's state, and the
header lists them. Source: Content Security Policy Level 3, sections 6.7.3.3 and 8.3.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable

from ..core.request_state import RequestState
from .policy import Policy, find_sources
from .sources import (
    HASHES_SOURCE,
    NONCE_SOURCE,
    allows_all_inline,
    copy_sources,
    extend_sources,
)

OWN = "'self'"
"""Noted for a tag that loads a file of the site itself, which the policy allows anyway."""

_NOTE = re.compile(r"(script|style)-src(-attr)? 'sha256-[A-Za-z0-9+/]{43}='")
_SCHEME_OR_HOST = re.compile(r"\s*(?:[A-Za-z][A-Za-z0-9+.-]*:|//|\\)")


class WatchedNotes(dict[str, None]):
    """The notes of a part of a page; they hold :data:`OWN`, too."""


def hash_text(directive: str, text: str, *, attribute: bool = False) -> str:
    """Compute the hash of an inline text, as a page notes it.

    Args:
        directive: ``script-src``, ``style-src`` or one of their ``-attr``.
        text: as it stands in the template.
        attribute: the text is the value of an attribute, in which character references count as the
            characters that they stand for.

    Returns:
        The directive and the source: ``script-src 'sha256-…'``.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if attribute:
        text = html.unescape(text)
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8", "replace")).digest())
    return f"{directive} 'sha256-{digest.decode()}'"


def is_own(address: str) -> bool:
    """Return whether an address in a template's source is on the site itself: without scheme and
    host.

    An address that begins with a variable may be on any host, so it is not.
    """
    return "\0" not in address[:1] and not _SCHEME_OR_HOST.match(address)


def check_notes(notes: Iterable[str]) -> tuple[str, ...]:
    """Check the notes that a cache stored with a page.

    Raises:
        ValueError: one of them is not a hash.
    """
    found = tuple(notes)
    for one in found:
        if not _NOTE.fullmatch(one):
            raise ValueError(f"{one[:60]!r} is no hash of a page")
    return found


def note_hash(state: RequestState, what: str) -> bool:
    """Note what a tag needs in the policy.

    Args:
        state: of the request.
        what: what :func:`hash_text` returned, or :data:`OWN`.

    Returns:
        ``False`` when the tag must have a nonce, because the headers are sent, no policy lists
        hashes, or a view changed its policy to one with nonces.
    """
    found = state.hashes
    if not isinstance(found, dict):
        return False
    if "-attr " not in what and any(one.needs_nonces for one in state.overrides):
        return False
    if what != OWN or isinstance(found, WatchedNotes):
        found[what] = None
    return True


def close_notes(state: RequestState) -> tuple[str, ...]:
    """Return what the page noted. Nothing can be noted after this call."""
    found = state.hashes = tuple(state.hashes or ())
    return found


def add_hashes(
    policy: Policy, noted: Iterable[str], *, nonce: bool, keep_none: bool = False
) -> Policy:
    """Return ``policy`` with the hashes of one page.

    Args:
        policy: of the page.
        noted: what the page noted.
        nonce: the page needs its nonce, too. Otherwise the nonce is left out where hashes are
            listed.
        keep_none: a policy that forbids all handlers and styles of attributes stays as it is.
    """
    by_directive: dict[str, list[str]] = {}
    for one in noted:
        name, _, source = one.partition(" ")
        by_directive.setdefault(name, []).append(source)
    result: Policy = {}
    for name, sources in policy.items():
        if HASHES_SOURCE in sources:
            noted_here = by_directive.get(name.removesuffix("-elem"), ())
            result[name] = tuple(
                source
                for one in sources
                for source in (noted_here if one == HASHES_SOURCE else (one,))
                if nonce or source != NONCE_SOURCE
            ) or ("'none'",)
        else:
            result[name] = sources
    for name in ("script-src-attr", "style-src-attr"):
        base = find_sources(result, name)
        if base is None or name not in by_directive or allows_all_inline(name, base):
            continue
        if keep_none and find_sources(policy, name) == ("'none'",):
            continue
        result[name] = extend_sources(
            name, copy_sources(name, base), ("'unsafe-hashes'", *by_directive[name])
        )
    return result
