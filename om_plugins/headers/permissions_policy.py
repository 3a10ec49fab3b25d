"""``Permissions-Policy``: the browser features that a page and its frames may use.

Source: https://www.w3.org/TR/permissions-policy/ and its list of features,
https://github.com/w3c/webappsec-permissions-policy/blob/main/features.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import ConfigError, suggest

FEATURES = frozenset(
    """
    accelerometer all-screens-capture ambient-light-sensor aria-notify attribution-reporting
    autofill autoplay battery bluetooth browsing-topics camera captured-surface-control
    ch-device-memory ch-downlink ch-dpr ch-ect ch-prefers-color-scheme ch-prefers-reduced-motion
    ch-prefers-reduced-transparency ch-rtt ch-save-data ch-ua ch-ua-arch ch-ua-bitness
    ch-ua-form-factors ch-ua-full-version ch-ua-full-version-list ch-ua-high-entropy-values
    ch-ua-mobile ch-ua-model ch-ua-platform ch-ua-platform-version ch-ua-wow64 ch-viewport-height
    ch-viewport-width ch-width clipboard-read clipboard-write compute-pressure controlled-frame
    cross-origin-isolated deferred-fetch deferred-fetch-minimal device-attributes
    digital-credentials-create digital-credentials-get direct-sockets direct-sockets-private
    display-capture document-domain encrypted-media execution-while-not-rendered
    execution-while-out-of-viewport focus-without-user-activation fullscreen gamepad geolocation
    gyroscope haptics hid identity-credentials-get idle-detection interest-cohort
    join-ad-interest-group keyboard-map language-detector language-model local-fonts local-network
    local-network-access loopback-network magnetometer manual-text media-playback-while-not-visible
    mediasession microphone midi navigation-override on-device-speech-recognition otp-credentials
    payment picture-in-picture private-aggregation private-state-token-issuance
    private-state-token-redemption publickey-credentials-create publickey-credentials-get rewriter
    run-ad-auction screen-wake-lock serial shared-autofill shared-storage shared-storage-select-url
    smart-card speaker-selection speculation-rules storage-access summarizer sync-xhr tools
    translator unload usb usb-unrestricted vertical-scroll web-app-installation web-share
    window-management writer xr-spatial-tracking
    """.split()  # noqa: SIM905 - a hundred quotes say nothing
)
"""Names that a browser knows, or knew; a header may turn off what is no longer there."""

_LIST = "https://github.com/w3c/webappsec-permissions-policy/blob/main/features.md"
_ORIGIN = re.compile(r"(https?|wss?)://(\*\.)?[A-Za-z0-9.-]+(:[0-9]+)?")
_WORDS = {"self": "self", "'self'": "self", "src": "src", "'src'": "src"}


def build_permissions_policy(
    features: Mapping[str, Sequence[str]], where: str = "OM_PERMISSIONS_POLICY"
) -> str:
    """Return the value of the header.

    Args:
        features: from a feature to those who may use it: ``()`` or ``["none"]`` for nobody,
            ``["*"]`` for everybody, or ``self`` and origins such as ``https://maps.example``.
        where: the key that errors name.

    Raises:
        ConfigError: a feature is unknown, or a value is not allowed.
    """
    parts = []
    for feature, allowed in features.items():
        key = f"{where}[{feature!r}]"
        if feature not in FEATURES:
            hint = suggest(feature, sorted(FEATURES), f"they are listed at {_LIST}")
            raise ConfigError(key, list(allowed), f"unknown feature; {hint}")
        words = [_write_word(key, one) for one in allowed]
        if "*" in words:
            if len(words) > 1:
                raise ConfigError(key, list(allowed), "'*' allows all; remove the others")
            parts.append(f"{feature}=*")
        elif "" in words and len(words) > 1:
            raise ConfigError(key, list(allowed), "'none' must stand alone")
        else:
            parts.append(f"{feature}=({' '.join(words).strip()})")
    return ", ".join(parts)


def _write_word(key: str, said: str) -> str:
    if said in ("none", "'none'"):
        return ""
    if said == "*":
        return said
    if said in _WORDS:
        return _WORDS[said]
    if not _ORIGIN.fullmatch(said):
        raise ConfigError(
            key, said, "must be 'self', '*', 'none', or an origin such as 'https://maps.example'"
        )
    return f'"{said}"'
