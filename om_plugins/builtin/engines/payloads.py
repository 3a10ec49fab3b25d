"""A payload as an HTTP request: as a JSON body, or as a query."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec

from ...errors import InvalidRequest

_LONGEST_QUERY = 32_000


def encode_payload(
    method: str, target: str, payload: object, where: str
) -> tuple[str, bytes | None]:
    """The target and the body of the request that sends a payload: as a query for GET, else as
    JSON.

    Raises:
        InvalidRequest: the payload cannot be sent in this way.
    """
    if method != "GET":
        return target, encode_json(payload, where)
    query = encode_query(payload, where)
    return (f"{target}{'&' if '?' in target else '?'}{query}" if query else target), None


def encode_json(payload: object, where: str) -> bytes:
    """A payload as JSON.

    Raises:
        InvalidRequest: it is not JSON.
    """
    try:
        return msgspec.json.encode(payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{where}: the payload is not JSON: {error}", sent="no") from None


def encode_query(payload: object, where: str) -> str:
    """A payload as a query string: a list repeats its key, nested values become JSON."""
    if payload is None:
        return ""
    if not isinstance(payload, Mapping):
        raise InvalidRequest(
            f"{where}: a GET engine takes a dict, not {type(payload).__name__}", sent="no"
        )
    pairs: list[tuple[str, str]] = []
    try:
        for key, value in payload.items():
            for item in value if isinstance(value, list | tuple) else (value,):
                if item is not None:
                    text = item if isinstance(item, str) else msgspec.json.encode(item).decode()
                    pairs.append((str(key), text))
        query = urlencode(pairs)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{where}: the payload fits no query: {error}", sent="no") from None
    if len(query) > _LONGEST_QUERY:
        raise InvalidRequest(f"{where}: the payload is too long for a query", sent="no")
    return query
