"""The policies and headers that are shipped.

Sources: "CSP Is Dead, Long Live CSP!" (Weichselbaum et al., CCS 2016) and
https://web.dev/articles/strict-csp for the script part of :data:`STRICT`.
"""

from __future__ import annotations

from collections.abc import Mapping

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

BASELINE: Mapping[str, tuple[str, ...]] = {
    "object-src": ("'none'",),
    "base-uri": ("'self'",),
    "frame-ancestors": ("'self'",),
}
"""What mode ``adopt`` enforces: no plug-ins, no foreign ``<base>``, no framing by other sites."""

COMPANIONS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Cross-Origin-Opener-Policy": "same-origin-allow-popups",
}
"""Headers that go with every response whose application set none."""

HTML_ONLY = frozenset({"cross-origin-opener-policy"})
"""Companion headers (lower case) that mean something on documents alone."""
