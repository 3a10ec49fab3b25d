"""Values as bytes: msgpack with extension types, so that what comes back equals what went in.

msgspec would write a tuple, a set or an Enum as something else without a word; here a value is
checked on its way in, by exact type. Whatever cannot come back unchanged is refused by name, and
nothing is pickled or imported by name here. Where an operator allows it, :mod:`.pickles` does; such
bytes are read again when they are this process's own (:class:`Pickled`), and never else.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec.msgpack import Ext

from ..errors import CacheError

__all__ = ["ABSENT", "PICKLE", "Pickled", "decode", "encode"]

_PLAIN = frozenset({type(None), bool, float, str, bytes})
_encode_plain = msgspec.msgpack.Encoder().encode
_read_plain: Callable[[bytes], Any] = msgspec.msgpack.Decoder().decode


def encode(value: object) -> bytes:
    """The bytes of a value.

    Args:
        value: ``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``, ``list``, ``dict``,
            ``tuple``, ``set``, ``frozenset``, ``datetime``, ``date``, ``time``, ``timedelta``,
            ``Decimal``, ``UUID``, nested as one likes.

    Raises:
        CacheError: a type that would not come back as it is; the message names it and the way out.
    """
    try:
        # a copy: what msgspec returns has half as much again allocated behind its end
        return bytes(memoryview(_encode_plain(_portable(value))))
    except RecursionError:
        raise CacheError(
            "a value that contains itself, or is nested too deep, cannot be cached"
        ) from None
    except UnicodeEncodeError:
        raise CacheError("text with a lone surrogate cannot be cached: it is not Unicode") from None


def _portable(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list:
        return [_portable(item) for item in value]
    if kind is dict:
        return {_portable_key(k): _portable(item) for k, item in value.items()}
    if kind is int:
        return value if -(2**63) <= value < 2**64 else Ext(_BIG_INT, b"%x" % value)
    found = _WRITERS.get(kind)
    if found is None:
        raise CacheError(
            f"a value of type {kind.__module__}.{kind.__qualname__} cannot be cached: it would "
            "not come back as it is. Cache plain data instead (dict, list, str, numbers, dates; "
            "for an object its fields, for Markup or another subclass str(value))"
        )
    code, write = found
    return Ext(code, write(value))


def _portable_key(value: Any) -> Any:
    # Ext is not hashable, so a dict's keys are the scalars that msgpack knows by itself
    if type(value) in _PLAIN or (type(value) is int and -(2**63) <= value < 2**64):
        return value
    kind = type(value)
    raise CacheError(
        f"a dict with a key of type {kind.__module__}.{kind.__qualname__} cannot be cached; "
        "use str, int, float, bool or bytes as its keys"
    )


def _zone(zone: tzinfo | None) -> Any:
    if zone is None:
        return None
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        return [offset.days, offset.seconds, offset.microseconds]
    if type(zone) is ZoneInfo and zone.key:
        return zone.key
    raise CacheError(
        f"a time with a {type(zone).__module__}.{type(zone).__qualname__} as its zone cannot be "
        "cached; use datetime.timezone or zoneinfo.ZoneInfo"
    )


def _read_zone(found: Any) -> tzinfo | None:
    if found is None:
        return None
    if isinstance(found, str):
        return ZoneInfo(found)
    days, seconds, microseconds = found
    return timezone(timedelta(days, seconds, microseconds))


def _write_moment(value: datetime | time) -> bytes:
    naive = value.replace(tzinfo=None, fold=0)
    return _encode_plain([naive.isoformat(), value.fold, _zone(value.tzinfo)])


def _read_datetime(data: bytes) -> datetime:
    text, fold, zone = _read_plain(data)
    return datetime.fromisoformat(text).replace(fold=fold, tzinfo=_read_zone(zone))


def _read_time(data: bytes) -> time:
    text, fold, zone = _read_plain(data)
    return time.fromisoformat(text).replace(fold=fold, tzinfo=_read_zone(zone))


def _write_items(value: Any) -> bytes:
    return _encode_plain([_portable(item) for item in value])


_BIG_INT = 1
_ABSENT = 11
ABSENT = _encode_plain(Ext(_ABSENT, b""))
"""The bytes of "there is none", told from a ``None`` that is a value like any other."""

PICKLE = 12
"""The extension type of a pickle."""


class Pickled(bytes):
    """A pickle that this process made, or whose signature it checked."""

    __slots__ = ()


def _unpickled(data: memoryview) -> Any:
    if type(data.obj) is not Pickled:
        raise CacheError("a pickle of unknown origin is not read")
    return pickle.loads(data)  # noqa: S301 - see Pickled


_WRITERS: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    tuple: (2, _write_items),
    set: (3, _write_items),
    frozenset: (4, _write_items),
    datetime: (5, _write_moment),
    date: (6, lambda v: v.isoformat().encode()),
    time: (7, _write_moment),
    timedelta: (8, lambda v: _encode_plain([v.days, v.seconds, v.microseconds])),
    Decimal: (9, lambda v: str(v).encode()),
    UUID: (10, lambda v: v.bytes),
}
_READERS: dict[int, Callable[[bytes], Any]] = {
    1: lambda data: int(data, 16),
    2: lambda data: tuple(decode(data)),
    3: lambda data: set(decode(data)),
    4: lambda data: frozenset(decode(data)),
    5: _read_datetime,
    6: lambda data: date.fromisoformat(data.decode()),
    7: _read_time,
    8: lambda data: timedelta(*_read_plain(data)),
    9: lambda data: Decimal(data.decode()),
    10: lambda data: UUID(bytes=data),
    _ABSENT: lambda data: None,
}


def _read_extension(code: int, data: memoryview) -> Any:
    if code == PICKLE:
        return _unpickled(data)
    return _READERS[code](bytes(data))


decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(ext_hook=_read_extension).decode
"""The value of bytes that :func:`encode` made, a new one each time. Bytes from elsewhere may raise
anything: a caller that reads a shared store treats that as a miss."""
