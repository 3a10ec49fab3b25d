"""The policies that are shipped, and the kinds of content that each is for.

Sources: "CSP Is Dead, Long Live CSP!" (Weichselbaum et al., CCS 2016) and
https://web.dev/articles/strict-csp for the script part of :data:`STRICT`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

STRICT: Mapping[str, tuple[str, ...]] = {
    # Browsers with CSP3 obey the nonce and 'strict-dynamic'; "https:" and 'unsafe-inline' are what
    # older ones fall back to, and are ignored by the others.
    "script-src": ("'nonce'", "'strict-dynamic'", "https:", "'unsafe-inline'", "'report-sample'"),
    "style-src": ("'self'", "'nonce'", "'report-sample'"),
    "style-src-attr": ("'unsafe-inline'",),
    "object-src": ("'none'",),
    "base-uri": ("'none'",),
    "frame-ancestors": ("'self'",),
}
"""Stops injected scripts and styles. No ``default-src``, ``img-src`` or ``connect-src``: they stop
no script and break pages."""


def compatible(hosts: Iterable[str] = ()) -> Mapping[str, tuple[str, ...]]:
    """Return a policy for pages whose scripts load others by writing ``<script src>`` into the
    page.

    External scripts of the site itself and of ``hosts`` run without a nonce; inline scripts need
    it, as under :data:`STRICT`. The policy is weaker: whatever an attacker can load from one of
    these hosts (a JSONP endpoint, an old framework, an uploaded file) runs, too.
    """
    return {
        "script-src": ("'self'", "'nonce'", *hosts, "'report-sample'"),
        "style-src": ("'self'", "'nonce'", "'report-sample'"),
        "style-src-attr": ("'unsafe-inline'",),
        "object-src": ("'none'",),
        "base-uri": ("'self'",),
        "frame-ancestors": ("'self'",),
    }


def by_hash(hosts: Iterable[str] = ()) -> Mapping[str, tuple[str, ...]]:
    """Return :func:`compatible` with hashes for inline scripts and styles whose text never changes.

    A page whose scripts are all of that kind, or files of the site and of ``hosts``, has no nonce.
    It is the same bytes each time, and any cache may store it.
    """
    policy = dict(compatible(hosts))
    for name in ("script-src", "style-src"):
        sources = policy[name]
        policy[name] = (sources[0], "'hashes'", *sources[1:])
    return policy


API: Mapping[str, tuple[str, ...]] = {
    # browsers draw a picture or a drawing that is opened alone with a style of their own
    "default-src": ("'none'",),
    "style-src": ("'unsafe-inline'",),
    "frame-ancestors": ("'self'",),
}
"""For what is no page: data, pictures, style sheets. Should a browser ever take one for a document,
nothing in it runs or is loaded."""

FRAME_ANCESTORS: Mapping[str, tuple[str, ...]] = {"DENY": ("'none'",), "SAMEORIGIN": ("'self'",)}
"""The ``frame-ancestors`` that say what ``X-Frame-Options`` says."""

PAGE, DATA, OTHER, UNKNOWN = range(4)
"""A page; what is no page (data, images, style sheets); what is left alone; not known."""


def content_kind(content_type: str) -> int:
    """Return which policy a response with this ``Content-Type`` may have at all: one of
    :data:`PAGE`, :data:`DATA` and :data:`OTHER`."""
    essence = content_type.partition(";")[0].strip().lower()
    if essence in ("text/html", "application/xhtml+xml"):
        return PAGE
    if essence in ("application/xml", "text/xml"):  # opened as documents, they run scripts
        return DATA
    if essence in ("application/json", "text/css") or essence.endswith("+json"):
        return DATA
    return DATA if essence.startswith("image/") else OTHER
