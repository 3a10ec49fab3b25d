"""What ``flask om settings`` shows of a value: everything but secrets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

_SECRET_NAME = re.compile(
    r"secret|token|passw|credential|private|dsn|authorization|cookie|(^|[_-])(api_?)?key($|[_-])",
    re.IGNORECASE,
)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+(?=@)|(?<=password=)[^&#\s]+")
MASK = "********"


def mask_secrets(value: Any, name: str = "", *, secret: bool = False) -> Any:
    """Return ``value`` as JSON-like data, without what may be a secret.

    This masks values whose key suggests a secret, credentials in URLs, and values that are neither
    text nor number. It shows functions by their names.

    Args:
        value: any value of a setting.
        name: the key of the value.
        secret: the value is a secret whatever its key, unless it is a function.
    """
    if value is None or isinstance(value, bool):
        return value
    if (secret and not callable(value)) or _SECRET_NAME.search(name):
        return MASK
    if isinstance(value, Mapping):
        return {str(key): mask_secrets(one, str(key)) for key, one in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: mask_secrets(getattr(value, f.name), f.name) for f in dataclasses.fields(value)
        }
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return _CREDENTIALS.sub(MASK, value)
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray):
        return [mask_secrets(one, name) for one in value]
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '?')}"
    return MASK
