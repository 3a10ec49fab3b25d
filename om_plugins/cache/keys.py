"""Keys: what callers write, encoded without ambiguity, and the prefixes that match them.

A key is text or a tuple of typed atoms. Every atom is written as its type, its length and its
bytes, so ``1``, ``True``, ``"1"`` and ``1.0`` are four keys and ``("ab", "c")`` is not
``("a", "bc")``. ``repr`` is never used: it is neither unique nor stable.

In this process an entry is found by its *ident*: unscoped text is its own ident (nothing is
encoded on the fast path); everything else is ``bytes``. A store gets a digest of it.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import struct
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, TypeAlias
from uuid import UUID

from ..errors import CacheError

__all__ = [
    "Ident", "Key", "UnsupportedKey", "body_of", "encode", "group_of", "identify", "split",
    "store_key",
]  # fmt: skip

Key: TypeAlias = Any
"""``str`` or a tuple of atoms (see :func:`encode`)."""

Ident: TypeAlias = str | bytes

_SEPARATOR = re.compile("[:/]")
_LONGEST_GROUP = 80


class UnsupportedKey(CacheError, TypeError):
    """A key, or a part of it, has a type without an unambiguous encoding."""


def _moment(value: datetime) -> bytes:
    zone = "" if value.tzinfo is None else str(value.tzinfo)
    return f"{value.isoformat()}/{value.fold}/{zone}".encode()


def _clock_time(value: time) -> bytes:
    zone = "" if value.tzinfo is None else str(value.tzinfo)
    return f"{value.isoformat()}/{value.fold}/{zone}".encode()


_ATOMS: dict[type, tuple[bytes, Callable[[Any], bytes]]] = {
    str: (b"s", lambda v: v.encode("utf-8", "surrogatepass")),
    int: (b"i", lambda v: b"%x" % v),
    bool: (b"b", lambda v: b"1" if v else b"0"),
    type(None): (b"n", lambda v: b""),
    float: (b"f", lambda v: struct.pack(">d", v)),
    bytes: (b"y", lambda v: v),
    datetime: (b"D", _moment),
    date: (b"d", lambda v: v.isoformat().encode()),
    time: (b"c", _clock_time),
    timedelta: (b"p", lambda v: b"%d/%d/%d" % (v.days, v.seconds, v.microseconds)),
    UUID: (b"u", lambda v: v.bytes),
    Decimal: (b"m", lambda v: str(v).encode()),
    tuple: (b"t", lambda v: b"".join(map(encode, v))),
    frozenset: (b"z", lambda v: b"".join(sorted(map(encode, v)))),
}


def encode(value: object) -> bytes:
    """One atom as type, length and bytes.

    Args:
        value: ``str``, ``int``, ``float``, ``bool``, ``None``, ``bytes``, ``datetime``, ``date``,
            ``time``, ``timedelta``, ``UUID``, ``Decimal``, a member of an ``Enum``, a tuple or
            frozenset of these, or an object with a ``__cache_key__()`` method that returns one.

    Raises:
        UnsupportedKey: another type, named in the message. Subclasses are other types.
    """
    found = _ATOMS.get(type(value))
    if found is not None:
        tag, write = found
        return _framed(tag, write(value))
    if isinstance(value, Enum):
        return _framed(b"e", encode(_name(type(value))) + encode(value.name))
    own = getattr(type(value), "__cache_key__", None)
    if own is not None:
        return _framed(b"o", encode(_name(type(value))) + encode(own(value)))
    raise UnsupportedKey(
        f"a cache key cannot hold {_name(type(value))}: use str, int, float, bool, None, bytes, "
        "date, datetime, time, timedelta, UUID, Decimal, an Enum, or a tuple or frozenset of "
        "these, or give the class a __cache_key__() method that returns one of them"
    )


def _framed(tag: bytes, content: bytes) -> bytes:
    return b"%b%d:%b" % (tag, len(content), content)


def _name(cls: type) -> str:
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )


def body_of(key: Key) -> bytes:
    """A key without its scope; the body of a prefix begins the bodies of the keys it matches.

    For text that is a prefix of the text, for a tuple its first members.
    """
    if type(key) is str:
        return b"S" + key.encode("utf-8", "surrogatepass")
    members = key if type(key) is tuple else (key,)
    return b"T" + b"".join(map(encode, members))


def identify(key: Key, scope: str = "") -> Ident:
    """The ident of ``key`` for one ``scope`` ("" is the scope that all share).

    Raises:
        UnsupportedKey: see :func:`encode`; the scope must be text.
    """
    if type(scope) is not str:
        raise UnsupportedKey(f"a cache scope must be str, not {_name(type(scope))}")
    if not scope:
        return key if type(key) is str else _FOR_ALL + body_of(key)
    return encode(scope) + body_of(key)


_FOR_ALL = encode("")


def split(ident: Ident) -> tuple[str, bytes]:
    """The scope and the body of an ident."""
    if isinstance(ident, str):
        return "", body_of(ident)
    colon = ident.index(b":")
    end = colon + 1 + int(ident[1:colon])
    return ident[colon + 1 : end].decode("utf-8", "surrogatepass"), ident[end:]


def group_of(ident: Ident) -> str:
    """The group that an entry is counted in: the part of its key that names a kind of values.

    Of text it is what stands before the first ``:`` or ``/``; of a tuple its first member, if
    that is text; of a memoized function its name, of a cached view its endpoint.
    """
    text = ident if isinstance(ident, str) else ""
    if not text:
        body = split(ident)[1]
        if body.startswith(b"T"):
            return _group_of_members(body[1:])
        text = body[1:].decode("utf-8", "replace")
    return _SEPARATOR.split(text, 1)[0][:_LONGEST_GROUP]


def _group_of_members(body: bytes) -> str:
    members = _texts(body)
    first = next(members, None)
    if first is None:
        return "other"
    if first == "memoize":
        return (next(members, None) or first)[:_LONGEST_GROUP]
    if first == "view":
        endpoint = next(itertools.islice(members, 3, None), None)
        return f"view {endpoint}"[:_LONGEST_GROUP] if endpoint else first
    return first[:_LONGEST_GROUP]


def _texts(body: bytes) -> Iterator[str | None]:
    """The members of a tuple key; ``None`` for one that is not text."""
    while body:
        colon = body.index(b":")
        end = colon + 1 + int(body[1:colon])
        yield body[colon + 1 : end].decode("utf-8", "replace") if body[:1] == b"s" else None
        body = body[end:]


def store_key(ident: Ident, namespace: str = "") -> str:
    """What a store is asked for: 160 bits of BLAKE2b, safe in any store's key space."""
    scope, body = split(ident)
    whole = encode(namespace) + encode(scope) + body
    return "om-" + hashlib.blake2b(whole, digest_size=20).hexdigest()
