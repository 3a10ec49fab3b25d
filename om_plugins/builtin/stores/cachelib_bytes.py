"""What the stores over cachelib share: bytes that pass unchanged, and times in whole seconds."""

from __future__ import annotations

import math
from typing import IO

MAX_BYTES = 256 * 2**20
"""A larger value is not read: only others can have written it."""

_YEAR_S = 366 * 86_400


class RawBytes:
    """A serializer for cachelib that writes and reads bytes unchanged.

    Cachelib's own serializer would unpickle any value that others write to a store.
    """

    @staticmethod
    def dump(value: bytes, file: IO[bytes]) -> None:
        file.write(value)

    @staticmethod
    def load(file: IO[bytes]) -> bytes | None:
        data = file.read(MAX_BYTES + 1)
        return data if len(data) <= MAX_BYTES else None

    @staticmethod
    def dumps(value: bytes) -> bytes:
        return value

    @staticmethod
    def loads(value: bytes | None) -> bytes | None:
        return value


def to_seconds(ttl: float) -> int:
    """A time to live in whole seconds, rounded up: at least one, at most a year.

    0 would mean for ever to cachelib, and the expiry has 32 bits in a file.
    """
    return min(max(1, math.ceil(min(ttl, _YEAR_S))), _YEAR_S)
