"""The table that maps the HTTP status of an upstream to an engine error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

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
from .caller import identifies_caller
from .waits import read_asked_wait, read_wait

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

_ABOUT_THE_CALLER = frozenset({401, 402, 403, 429})
"""What an upstream may answer to one caller, where the request says who that is."""


def map_status(
    status: int,
    headers: Mapping[str, str],
    where: str,
    document: object = None,
    *,
    sent_names: Iterable[str] = (),
) -> EngineError:
    """The engine error for a status other than 2xx.

    Args:
        status: the upstream's status (RFC 9110 section 15).
        headers: the upstream's headers, with names in lower case or a case-insensitive mapping.
        where: the engine and its URL, for the message.
        document: the body, decoded from JSON or as text, where it was read. It may ask for a wait.
        sent_names: the names of the caller's own headers that the request carried. Where they say
            who the caller is (:func:`~om_plugins.builtin.http.caller.identifies_caller`), a 401,
            402, 403 or 429 concerns that caller.
    """
    wait = (read_wait if status == 429 else read_asked_wait)(headers, document)
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
    return cls(
        text,
        sent="yes",
        retry_after=wait,
        status=status,
        concerns_caller=status in _ABOUT_THE_CALLER and identifies_caller(sent_names),
    )


_STATUS_FIELDS = ("status", "status_code", "statusCode", "http_status", "code", "error_code")


_STATUS_TEXT = re.compile(r"(?:HTTP[ _-]?)?([3-5][0-9]{2})(?:[ _-][A-Za-z _-]{1,40})?")
"""``429``, ``HTTP_429``, ``429 Too Many Requests``."""


def find_status(document: object) -> int | None:
    """Return the status that an error names inside of a 200 or a stream, in its document.

    Args:
        document: a JSON value, for example ``{"error": {"code": 429, "message": "…"}}``.

    Returns:
        300 to 599; ``None`` when the document names none.
    """
    for _ in range(3):  # a gateway puts the error of its upstream into its own
        if not isinstance(document, Mapping):
            return None
        for name in _STATUS_FIELDS:
            value = document.get(name)
            if isinstance(value, str) and (found := _STATUS_TEXT.fullmatch(value)):
                value = int(found[1])
            if isinstance(value, int | float) and 300 <= value < 600 and value == int(value):
                return int(value)
        document = document.get("error")
    return None
