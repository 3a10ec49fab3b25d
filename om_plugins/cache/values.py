"""Values as bytes: msgpack with extension types, so that a decoded value equals the original.

msgspec would silently encode a tuple, a set or an Enum as another type. :func:`encode` therefore
checks the exact type of each part of a value, refuses by name what would not come back unchanged,
and neither pickles nor imports anything by name.

:class:`PickleEncoder` pickles other values where an operator allows it. Unpickling executes
instructions from the bytes, so the cache unpickles only bytes of this process (:class:`Pickled`)
and bytes with this application's signature: HMAC-SHA256 over the key of the entry and the bytes,
compared in constant time. Any other pickle from a store is a miss.
"""

from __future__ import annotations

import hashlib
import hmac
import pickle
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from msgspec.msgpack import Ext

from ..errors import CacheError

_PLAIN = frozenset({type(None), bool, float, str, bytes})
_encode_plain = msgspec.msgpack.Encoder().encode
_read_plain: Callable[[bytes], Any] = msgspec.msgpack.Decoder().decode


def encode(value: object) -> bytes:
    """Encode a value.

    Args:
        value: ``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``, ``list``, ``dict``,
            ``tuple``, ``set``, ``frozenset``, ``datetime``, ``date``, ``time``, ``timedelta``,
            ``Decimal``, ``UUID``, nested to any depth.

    Raises:
        CacheError: the value has a type that would not come back unchanged; the message names the
            type and says what to cache instead.
    """
    try:
        # a copy: the buffer that msgspec returns is half as large again as its content
        return bytes(memoryview(_encode_plain(_convert(value))))
    except RecursionError:
        raise CacheError(
            "a value that contains itself, or is nested too deep, cannot be cached"
        ) from None
    except UnicodeEncodeError:
        raise CacheError("text with a lone surrogate cannot be cached: it is not Unicode") from None


def _convert(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list:
        return [_convert(item) for item in value]
    if kind is dict:
        return {_convert_key(k): _convert(item) for k, item in value.items()}
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


def _convert_key(value: Any) -> Any:
    # Ext is not hashable, so a dict's keys are the scalars that msgpack knows by itself
    if type(value) in _PLAIN or (type(value) is int and -(2**63) <= value < 2**64):
        return value
    kind = type(value)
    raise CacheError(
        f"a dict with a key of type {kind.__module__}.{kind.__qualname__} cannot be cached; "
        "use str, int, float, bool or bytes as its keys"
    )


def _write_zone(zone: tzinfo | None) -> Any:
    if zone is None:
        return None
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        return [offset.days, offset.seconds, offset.microseconds]
    from zoneinfo import ZoneInfo  # most applications cache no time with a zone

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
        from zoneinfo import ZoneInfo

        return ZoneInfo(found)
    days, seconds, microseconds = found
    return timezone(timedelta(days, seconds, microseconds))


def _write_datetime(value: datetime | time) -> bytes:
    naive = value.replace(tzinfo=None, fold=0)
    return _encode_plain([naive.isoformat(), value.fold, _write_zone(value.tzinfo)])


def _read_datetime(data: bytes) -> datetime:
    text, fold, zone = _read_plain(data)
    return datetime.fromisoformat(text).replace(fold=fold, tzinfo=_read_zone(zone))


def _read_time(data: bytes) -> time:
    text, fold, zone = _read_plain(data)
    return time.fromisoformat(text).replace(fold=fold, tzinfo=_read_zone(zone))


def _write_items(value: Any) -> bytes:
    return _encode_plain([_convert(item) for item in value])


_BIG_INT = 1
_ABSENT = 11
ABSENT = _encode_plain(Ext(_ABSENT, b""))
"""The bytes of "there is no value", which differ from those of the value ``None``."""

_PICKLE = 12


class Pickled(bytes):
    """A pickle that this process made, or whose signature this process verified."""

    __slots__ = ()


def _unpickle(data: memoryview) -> Any:
    if type(data.obj) is not Pickled:
        raise CacheError("a pickle of unknown origin is not read")
    return pickle.loads(data)  # noqa: S301 - see Pickled


_WRITERS: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    tuple: (2, _write_items),
    set: (3, _write_items),
    frozenset: (4, _write_items),
    datetime: (5, _write_datetime),
    date: (6, lambda v: v.isoformat().encode()),
    time: (7, _write_datetime),
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
    if code == _PICKLE:
        return _unpickle(data)
    return _READERS[code](bytes(data))


decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(ext_hook=_read_extension).decode
"""Decode bytes from :func:`encode`; each call returns a new value. Other bytes may raise any
exception: a caller that reads a shared store treats every exception as a miss."""


PICKLED = 1
"""The flag of a record whose body is a signature followed by a pickle."""
_PURPOSE = b"om_plugins cache pickle 1"
_SIGNATURE_BYTES = hashlib.sha256().digest_size


class PickleEncoder:
    """Pickles and signs values that :func:`encode` refuses.

    Args:
        secret: returns the operator's own key; ``None`` or "" when there is none. A key from a
            store would be known to everyone who can write there, so it cannot sign.
    """

    def __init__(self, secret: Callable[[], bytes | str | None]) -> None:
        self._secret = secret
        self._key: bytes | None = None

    def encode(self, value: object) -> bytes:
        """Encode a value, as a pickle when :func:`encode` refuses it.

        Raises:
            CacheError: the value cannot be pickled; the message gives both reasons.
        """
        try:
            return encode(value)
        except CacheError as refused:
            try:
                return Pickled(_encode_plain(Ext(_PICKLE, pickle.dumps(value, protocol=5))))
            except Exception as error:  # noqa: BLE001 - whatever a foreign __reduce__ does
                raise CacheError(f"{refused}; nor can it be pickled ({error})") from None

    def sign(self, key: str, data: bytes) -> bytes:
        """Return the signed body of a record.

        Args:
            key: the key of the record in the store.

        Raises:
            CacheError: there is no secret.
        """
        return self._signature(key, data) + data

    def verify(self, key: str, body: bytes) -> Pickled | None:
        """Return the signed bytes; ``None`` when the signature is wrong or is for another key."""
        signature, data = body[:_SIGNATURE_BYTES], body[_SIGNATURE_BYTES:]
        try:
            good = hmac.compare_digest(signature, self._signature(key, data))
        except CacheError:
            return None
        return Pickled(data) if good else None

    def _signature(self, key: str, data: bytes) -> bytes:
        if self._key is None:
            secret = self._secret()
            if not secret:
                raise CacheError(
                    "a pickle is kept in a shared store only when it can be signed: set "
                    "OM_SECRET_KEY, or Flask's SECRET_KEY"
                )
            secret = secret.encode() if isinstance(secret, str) else secret
            self._key = hmac.digest(secret, _PURPOSE, "sha256")
        return hmac.digest(self._key, b"%d:%b%b" % (len(key), key.encode(), data), "sha256")
