"""Headers that say who the caller is: credentials, and addresses that proxies add."""

from __future__ import annotations

import re
from collections.abc import Iterable

_CREDENTIALS = re.compile(
    r"(?:.*[-_])?(?:auth|authorization|authentication|cookie2?|(?:api|app|access|subscription)[-_]?key"
    r"|key|token|jwt|bearer|secret|credentials?|session|session[-_]?id|password|signature|dpop)"
)
_NO_CREDENTIALS = frozenset({"idempotency-key", "x-idempotency-key", "sec-websocket-key"})
_ADDRESSES = frozenset(
    {
        "forwarded", "x-forwarded-for", "x-real-ip", "x-client-ip", "client-ip", "true-client-ip",
        "cf-connecting-ip", "fastly-client-ip", "x-cluster-client-ip", "from", "remote-user",
        "x-remote-user", "x-forwarded-user", "x-forwarded-email", "x-user", "x-user-id",
    }
)  # fmt: skip


def brings_credentials(names: Iterable[str]) -> bool:
    """Return whether one of some headers holds credentials of whoever sends the request.

    Args:
        names: the names of the headers, in any case: ``Authorization``, ``Cookie``, ``X-Api-Key``,
            ``X-Auth-Token``, …
    """
    return any(
        _CREDENTIALS.fullmatch(name) and name not in _NO_CREDENTIALS
        for name in map(str.lower, names)
    )


def identifies_caller(names: Iterable[str]) -> bool:
    """Return whether one of some headers tells the upstream who the caller is.

    Such an upstream may refuse this caller and answer all others.

    Args:
        names: as for :func:`brings_credentials`; here the address of the caller counts as well
            (``Forwarded``, ``X-Forwarded-For``, ``X-Real-IP``, …).
    """
    lower = {name.lower() for name in names}
    return bool(lower & _ADDRESSES) or brings_credentials(lower)
