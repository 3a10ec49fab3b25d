"""The table that maps the HTTP status of an upstream to an engine error."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from ...errors import (
    AttemptTimeout,
    EngineError,
    InvalidRequest,
    Misconfigured,
    RateLimited,
    TooLong,
    Transient,
    Unsupported,
)

MAX_RETRY_AFTER_S = 3600.0
"""The limit for Retry-After, so that no header can disable an engine for good."""

_BY_STATUS: Mapping[int, type[EngineError]] = {
    400: InvalidRequest,
    401: Misconfigured,
    402: Misconfigured,
    403: Misconfigured,
    404: Misconfigured,
    405: Misconfigured,
    407: Misconfigured,
    408: AttemptTimeout,
    409: InvalidRequest,
    410: Misconfigured,
    413: TooLong,
    414: TooLong,
    415: Unsupported,
    421: Misconfigured,
    422: InvalidRequest,
    425: Transient,
    426: Misconfigured,
    429: RateLimited,
    431: TooLong,
    501: Unsupported,
    505: Unsupported,
    511: Misconfigured,
}

_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")


def map_status(status: int, headers: Mapping[str, str], where: str) -> EngineError:
    """The engine error for a status other than 2xx.

    Args:
        status: the upstream's status (RFC 9110 section 15).
        headers: the upstream's headers, with names in lower case or a case-insensitive mapping.
        where: the engine and its URL, for the message.
    """
    wait = parse_retry_after(headers)
    cls = _BY_STATUS.get(status)
    if cls is None:
        if status == 503 and wait is not None:
            cls = RateLimited
        elif 300 <= status < 400:
            cls = Misconfigured
        elif 400 <= status < 500:
            cls = Unsupported  # refused for a special reason; another engine may accept it
        else:
            cls = Transient
    text = f"{where}: answered {status}"
    if 300 <= status < 400:
        text += "; redirects are not followed: give the engine the final address"
    return cls(text, sent="yes", retry_after=wait, status=status)


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of a ``Retry-After`` header (RFC 9110 section 10.2.3), 0 to 3600.

    A date is compared with the ``Date`` of the same response, so that a difference of clocks makes
    no difference. ``None`` when the header is missing or not readable.
    """
    value = (headers.get("retry-after") or "").strip()
    if not value or len(value) > 64:
        return None
    if _SECONDS.fullmatch(value):
        seconds = float(value)
    else:
        until = _parse_date(value)
        if until is None:
            return None
        now = _parse_date((headers.get("date") or "").strip()[:64])
        seconds = until - (time.time() if now is None else now)
    return None if math.isnan(seconds) else min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _parse_date(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return None
