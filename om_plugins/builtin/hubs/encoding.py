"""How the shipped hubs write ids, names, times to live and values.

An id is the time in microseconds since the Unix epoch, or one more than the last id where that is
larger. So ids grow over restarts and lost files, and ids of different hubs can be compared: a
reader that goes from one hub to another goes on at the same moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import msgspec

MAX_VALUE_BYTES = 1_000_000
"""Largest encoded message or value."""
MAX_NAME_CHARS = 1_000
"""Longest topic, key or lease name."""
MAX_READ = 10_000
"""Most messages of one read."""
MAX_AMOUNT = 2**32
"""Largest step of a counter."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


def encode(what: str, data: object) -> bytes:
    """Write JSON-like data as MessagePack.

    Args:
        what: the topic or key, for the error.

    Raises:
        ValueError: the data has no encoding, or is longer than :data:`MAX_VALUE_BYTES`.
    """
    try:
        encoded = _encoder.encode(data)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise ValueError(
            f"hub {what!r}: {type(data).__name__} cannot be kept ({error}); "
            "use None, bool, int, float, str, bytes, list and dict"
        ) from None
    if len(encoded) > MAX_VALUE_BYTES:
        raise ValueError(
            f"hub {what!r}: {len(encoded)} bytes are more than {MAX_VALUE_BYTES}; "
            "keep the value elsewhere and only its address in the hub"
        )
    return encoded


def decode(encoded: object) -> tuple[bool, object]:
    """Read MessagePack that others wrote; ``(False, None)`` when it is damaged."""
    if not isinstance(encoded, bytes):
        return False, None
    try:
        return True, _decoder.decode(encoded)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return False, None


def next_id(last: int, now: float) -> int:
    """The id after ``last`` at Unix time ``now``."""
    return max(last + 1, microseconds(now))


def microseconds(now: float) -> int:
    """Unix time as an id."""
    return int(now * 1_000_000)


def write_id(number: int) -> str:
    """An id as text: sixteen digits, so that texts sort as numbers (until the year 2286)."""
    return f"{number:016d}"


def read_id(text: str) -> int:
    """The number of an id; 0, which is before all, for a text that is not one of ours."""
    # It may come from a browser's Last-Event-ID, so nothing about it is certain.
    if 0 < len(text) <= 18 and text.isascii() and text.isdigit():
        return int(text)
    return 0


def check_name(name: str) -> str:
    """A topic, key or lease name that every hub can keep.

    Raises:
        ValueError: it is empty, too long, or not text that UTF-8 can carry.
    """
    if not name or len(name) > MAX_NAME_CHARS:
        raise ValueError(
            f"hub name {name[:40]!r}: must have 1 to {MAX_NAME_CHARS} characters, has {len(name)}"
        )
    if not name.isascii():
        name.encode()  # a lone surrogate raises UnicodeEncodeError, which is a ValueError
    return name


def check_ttl(name: str, ttl: float) -> float:
    """A time to live in seconds that can be added to a time.

    Raises:
        ValueError: it is not a number, or not above 0.
    """
    if not ttl > 0 or math.isinf(ttl):
        raise ValueError(f"hub {name!r}: ttl must be a number of seconds above 0, not {ttl!r}")
    return ttl


def check_amount(name: str, amount: int) -> int:
    """A step of a counter.

    Raises:
        ValueError: it is beyond :data:`MAX_AMOUNT`.
    """
    if not -MAX_AMOUNT <= amount <= MAX_AMOUNT:
        raise ValueError(f"hub counter {name!r}: amount {amount} is beyond ±{MAX_AMOUNT}")
    return amount


class LeaseKeeper(Protocol):
    """What a hub does for the leases it gave."""

    def renew_lease(self, name: str, token: int, ttl: float) -> bool:
        """Hold it longer; False when another holds it now."""

    def release_lease(self, name: str, token: int) -> None:
        """Give it back, unless another holds it now."""


@dataclass(slots=True)
class HubLease:
    """A :class:`~om_plugins.protocols.Lease` that its hub keeps by name and token."""

    _hub: LeaseKeeper
    name: str
    token: int

    def renew(self, ttl: float) -> bool:
        return self._hub.renew_lease(self.name, self.token, ttl)

    def release(self) -> None:
        self._hub.release_lease(self.name, self.token)
