"""How the shipped hubs encode ids and values, and check names, times to live and amounts.

An id is the time in microseconds since the Unix epoch, or the last id plus one if that is larger.
So ids grow across restarts and lost files, and the ids of different hubs can be compared: a reader
that changes from one hub to another continues at the same moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import msgspec

MAX_VALUE_BYTES = 1_000_000
"""The most bytes of an encoded message or value."""
MAX_NAME_CHARS = 1_000
"""The most characters of a topic, key or lease name."""
MAX_READ = 10_000
"""The most messages of one read."""
MAX_AMOUNT = 2**32
"""The largest amount that is added to a counter at once."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


def encode(what: str, data: object) -> bytes:
    """Encode JSON-like data as MessagePack.

    Args:
        what: the topic or key, for the error.

    Raises:
        ValueError: the data cannot be encoded, or has more than :data:`MAX_VALUE_BYTES`.
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
    """Decode MessagePack from a store that others may write to.

    Returns:
        Whether it could be decoded, and the data.
    """
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
    """An id as text: sixteen digits, so that texts sort like numbers (until the year 2286)."""
    return f"{number:016d}"


def read_id(text: str) -> int:
    """The number of an id; 0, which is less than all ids, for any other text."""
    # The text may come from a browser's Last-Event-ID, so it can be anything.
    if 0 < len(text) <= 18 and text.isascii() and text.isdigit():
        return int(text)
    return 0


def check_name(name: str) -> str:
    """Check a topic, key or lease name: every hub can store it.

    Raises:
        ValueError: it is empty, too long, or cannot be encoded as UTF-8.
    """
    if not name or len(name) > MAX_NAME_CHARS:
        raise ValueError(
            f"hub name {name[:40]!r}: must have 1 to {MAX_NAME_CHARS} characters, has {len(name)}"
        )
    if not name.isascii():
        name.encode()  # a lone surrogate raises UnicodeEncodeError, which is a ValueError
    return name


def check_ttl(name: str, ttl: float) -> float:
    """Check a name, and a time to live in seconds.

    Raises:
        ValueError: :func:`check_name` refuses the name, or the time is not a finite number above 0.
    """
    check_name(name)
    if not ttl > 0 or math.isinf(ttl):
        raise ValueError(f"hub {name!r}: ttl must be a number of seconds above 0, not {ttl!r}")
    return ttl


def check_amount(name: str, amount: int) -> int:
    """Check the amount that is added to a counter.

    Raises:
        ValueError: it is larger than :data:`MAX_AMOUNT`, up or down.
    """
    if not -MAX_AMOUNT <= amount <= MAX_AMOUNT:
        raise ValueError(f"hub counter {name!r}: amount {amount} is beyond ±{MAX_AMOUNT}")
    return amount


class LeaseKeeper(Protocol):
    """What a hub does for its leases."""

    def renew_lease(self, name: str, token: int, ttl: float) -> bool:
        """Extend the lease; False when it has expired or has another holder."""

    def release_lease(self, name: str, token: int) -> None:
        """End the lease, unless it has another holder."""


@dataclass(slots=True)
class HubLease:
    """A :class:`~om_plugins.protocols.Lease` that its hub identifies by name and token."""

    _hub: LeaseKeeper
    name: str
    token: int

    def renew(self, ttl: float) -> bool:
        return self._hub.renew_lease(self.name, self.token, ttl)

    def release(self) -> None:
        self._hub.release_lease(self.name, self.token)
