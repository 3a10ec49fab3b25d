"""Keys: how a caller's key is encoded, and which keys an invalidation matches.

A key is text or a tuple of typed atoms. The encoding of an atom has its type, its length and its
bytes, so ``1``, ``True``, ``"1"`` and ``1.0`` are four keys, and ``("ab", "c")`` differs from
``("a", "bc")``. The encoding does not use ``repr``, which is neither unique nor stable.

A scope keeps users apart. It is a value of the same types, but there numbers and UUIDs count as
their texts: an id that was a number in the database is text in a URL, and both name one user.
:func:`encode_scope` decides it for all that store, look up, invalidate, remove or purge.

The other arguments of a look-up, times and tags, are checked here too, in one way for all that take
them.

This process finds an entry by its *ident*. The ident of unscoped text is the text itself, so that
the fast path encodes nothing; every other ident is ``bytes``. A store gets a digest of the ident.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from numbers import Real
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from ..core.moved import refuse_arguments
from ..errors import CacheError

Key: TypeAlias = Any
"""``str`` or a tuple of atoms (see :func:`encode`)."""

Scope: TypeAlias = Any
"""Text, or another atom (see :func:`encode_scope`); "" and ``None`` are no scope."""

ALL_SCOPES: Final = ...
"""The default of a call that takes entries back: those of every scope."""

Ident: TypeAlias = str | bytes

Dependencies: TypeAlias = tuple[tuple[Ident, tuple[str, ...]], ...]
"""The entries that a value was computed from, each with its tags."""

ANY: Ident = b""
"""In a value's dependencies: there are too many to name, so any invalidation concerns it."""

_SEPARATOR = re.compile("[:/]")
_LONGEST_GROUP = 80


class UnsupportedKey(CacheError, TypeError):
    """A key, or a part of it, has a type without an unambiguous encoding."""


def _write_datetime(value: datetime) -> bytes:
    zone = "" if value.tzinfo is None else str(value.tzinfo)
    return f"{value.isoformat()}/{value.fold}/{zone}".encode()


def _write_time(value: time) -> bytes:
    zone = "" if value.tzinfo is None else str(value.tzinfo)
    return f"{value.isoformat()}/{value.fold}/{zone}".encode()


ATOMS: dict[type, tuple[bytes, Callable[[Any], bytes]]] = {
    str: (b"s", lambda v: v.encode("utf-8", "surrogatepass")),
    int: (b"i", lambda v: b"%x" % v),
    bool: (b"b", lambda v: b"1" if v else b"0"),
    type(None): (b"n", lambda v: b""),
    float: (b"f", lambda v: struct.pack(">d", v)),
    bytes: (b"y", lambda v: v),
    datetime: (b"D", _write_datetime),
    date: (b"d", lambda v: v.isoformat().encode()),
    time: (b"c", _write_time),
    timedelta: (b"p", lambda v: b"%d/%d/%d" % (v.days, v.seconds, v.microseconds)),
    UUID: (b"u", lambda v: v.bytes),
    Decimal: (b"m", lambda v: str(v).encode()),
    tuple: (b"t", lambda v: b"".join(map(encode, v))),
    frozenset: (b"z", lambda v: b"".join(sorted(map(encode, v)))),
}

SCALARS = frozenset(ATOMS) - {tuple, frozenset}
"""The types of which :func:`encode` takes every value."""


def encode(value: object) -> bytes:
    """Encode one atom as its type, its length and its bytes.

    Args:
        value: ``str``, ``int``, ``float``, ``bool``, ``None``, ``bytes``, ``datetime``, ``date``,
            ``time``, ``timedelta``, ``UUID``, ``Decimal``, a member of an ``Enum``, a class that
            its module has under its name, a tuple or frozenset of these, or an object with a
            ``__cache_key__()`` method that returns one.

    Raises:
        UnsupportedKey: the atom has another type, which the message names. A subclass counts as
            another type.
    """
    found = ATOMS.get(type(value))
    if found is not None:
        tag, write = found
        return _frame(tag, write(value))
    if isinstance(value, Enum):
        return _frame(b"e", encode(_name(type(value))) + encode(value.name))
    own = getattr(type(value), "__cache_key__", None)
    if own is not None:
        return _frame(b"o", encode(_name(type(value))) + encode(own(value)))
    if isinstance(value, type):
        if is_found_by_name(value):
            return _frame(b"k", encode(_name(value)))
        raise UnsupportedKey(
            f"a cache key cannot hold the class {_name(value)}, which its module does not have "
            "under this name: define it at the top of a module, or give its metaclass a "
            "__cache_key__() method"
        )
    raise UnsupportedKey(
        f"a cache key cannot hold {_name(type(value))}: use str, int, float, bool, None, bytes, "
        "date, datetime, time, timedelta, UUID, Decimal, an Enum, a class, or a tuple or frozenset "
        "of these, or give the class a __cache_key__() method that returns one of them"
    )


def _frame(tag: bytes, content: bytes) -> bytes:
    return b"%b%d:%b" % (tag, len(content), content)


def _name(cls: type) -> str:
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )


def is_found_by_name(value: Any) -> bool:
    """Return whether a class or function is what its module has under its qualified name.

    Such a name means the same in every process; the rule is that of :mod:`pickle`.
    """
    found: object = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


def encode_body(key: Key) -> bytes:
    """Encode a key without its scope.

    The body of a prefix is the beginning of the bodies of all keys that the prefix matches: keys
    whose text begins with the prefix, or tuples whose first members are the prefix.
    """
    if type(key) is str:
        return b"S" + key.encode("utf-8", "surrogatepass")
    members = key if type(key) is tuple else (key,)
    return b"T" + b"".join(map(encode, members))


def encode_scope(scope: Scope) -> str:
    """Return a scope as text: the form in which entries and messages have it.

    Two values are the same scope when the text is the same. Text is itself. A number, a UUID, a
    date or a time is its ``str()``, and a member of an ``Enum`` that is text or a number is its
    value, also inside tuples. So ``7`` and ``"7"`` are one scope, as are ``("team", 7)`` and
    ``("team", "7")``. Nothing else is the same as a text.

    Give the cache the scope itself, not the result of this function.

    Returns:
        The text; "" for ``None`` and "", which are no scope.

    Raises:
        UnsupportedKey: the scope has another type (see :func:`encode`), or is a text that begins
            with a NUL character.
    """
    if scope is None:
        return ""
    plain = _simplify(scope)
    if type(plain) is not str:
        try:
            return _NOT_A_TEXT + encode(plain).decode("latin-1")
        except UnsupportedKey as error:
            raise UnsupportedKey(f"scope=: {error}") from None
    if plain.startswith(_NOT_A_TEXT):
        raise UnsupportedKey(
            f"the cache scope {plain!r} begins with a NUL character, which marks scopes that are "
            "no texts: give the scope itself, not its encoded form"
        )
    return plain


_NOT_A_TEXT = "\0"
_SAME_AS_THEIR_TEXT = frozenset({int, float, bool, Decimal, UUID, date, datetime, time, timedelta})


def _simplify(scope: object) -> object:
    kind = type(scope)
    if kind in _SAME_AS_THEIR_TEXT:
        return str(scope)
    if kind is tuple:
        return tuple(map(_simplify, scope))  # type: ignore[call-overload]
    if isinstance(scope, Enum) and isinstance(scope, str | int):
        return _simplify(scope.value)
    return scope


def identify(key: Key, scope: Scope = "") -> Ident:
    """Return the ident of ``key`` in one ``scope``; "" is the scope that all callers share.

    Raises:
        UnsupportedKey: an atom has an unsupported type (see :func:`encode`), or so has the scope
            (see :func:`encode_scope`).
    """
    named = "" if scope == "" else encode_scope(scope)
    if not named:
        return key if type(key) is str else _FOR_ALL + encode_body(key)
    return encode(named) + encode_body(key)


_FOR_ALL = encode("")


def split(ident: Ident) -> tuple[str, bytes]:
    """Return the scope and the body of an ident."""
    if isinstance(ident, str):
        return "", encode_body(ident)
    colon = ident.index(b":")
    end = colon + 1 + int(ident[1:colon])
    return ident[colon + 1 : end].decode("utf-8", "surrogatepass"), ident[end:]


def find_group(ident: Ident) -> str:
    """Return the group in which the cache counts an entry.

    The group is the part of the key that names a kind of values: for text the part before the
    first ``:`` or ``/``; for a tuple its first member, if that is text; for a memoized function
    the function's name; for a cached view its endpoint.
    """
    text = ident if isinstance(ident, str) else ""
    if not text:
        body = split(ident)[1]
        if body.startswith(b"T"):
            return _find_group_in(body[1:])
        text = body[1:].decode("utf-8", "replace")
    return _SEPARATOR.split(text, 1)[0][:_LONGEST_GROUP]


def _find_group_in(body: bytes) -> str:
    members = read_texts(body)
    first = next(members, None)
    if first is None:
        return "other"
    if first == "memoize":
        return (next(members, None) or first)[:_LONGEST_GROUP]
    if first == "view":
        endpoint = next(itertools.islice(members, 3, None), None)
        return f"view {endpoint}"[:_LONGEST_GROUP] if endpoint else first
    return first[:_LONGEST_GROUP]


def read_texts(body: bytes) -> Iterator[str | None]:
    """Yield the members of a tuple key; ``None`` stands for a member that is not text."""
    while body:
        colon = body.index(b":")
        end = colon + 1 + int(body[1:colon])
        if end <= colon:
            raise ValueError("the length of an atom is negative")
        yield body[colon + 1 : end].decode("utf-8", "replace") if body[:1] == b"s" else None
        body = body[end:]


def make_store_key(ident: Ident, namespace: str = "") -> str:
    """Return the key of an entry in a store: 160 bits of BLAKE2b, which every store accepts."""
    scope, body = split(ident)
    whole = encode(namespace) + encode(scope) + body
    return "om-" + hashlib.blake2b(whole, digest_size=20).hexdigest()


@dataclass(frozen=True, slots=True)
class Invalidation:
    """The entries that an invalidation matches: by the beginning of the key, or by a tag.

    Args:
        prefix: the body of the beginning of a key (see :func:`encode_body`); ``b""`` matches every
            key, ``None`` matches none.
        tags: an entry matches when it has any of these tags.
        scope: only entries of this scope match; "" means all scopes.
        hard: the cache removes the entries instead of marking them stale.
    """

    prefix: bytes | None = None
    tags: tuple[str, ...] = ()
    scope: str = ""
    hard: bool = False

    def concerns(self, ident: Ident, tags: Iterable[str], deps: Dependencies) -> bool:
        """Return whether an entry matches, or an entry that it was computed from."""
        return self.matches(ident, tags) or any(
            one == ANY or self.matches(one, tagged) for one, tagged in deps
        )

    def matches(self, ident: Ident, tags: Iterable[str]) -> bool:
        """Return whether an entry matches."""
        if self.prefix is None and not any(tag in self.tags for tag in tags):
            return False
        scope, body = split(ident)
        if self.scope and scope != self.scope:
            return False
        if self.prefix is not None and body.startswith(self.prefix):
            return True
        return any(tag in self.tags for tag in tags)


def normalize_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the tags in their order, each tag once.

    Raises:
        TypeError: ``tags`` is one text, whose letters would become the tags, or no list of texts.
    """
    return tuple(dict.fromkeys(check_texts("tags", tags))) if tags else ()


def check_texts(name: str, value: Iterable[str]) -> tuple[str, ...]:
    """Return the texts of an argument that is a list of them.

    Raises:
        TypeError: it is one text, whose letters would become the list, or no list of texts.
    """
    if isinstance(value, str):
        raise TypeError(f"{name} must be a list of texts, not the text {value!r}: [{value!r}]")
    texts = tuple(value) if isinstance(value, Iterable) else ()
    if not isinstance(value, Iterable) or not all(isinstance(one, str) for one in texts):
        raise TypeError(f"{name}={value!r} must be a list of texts, such as ['report']")
    return texts


LIFETIMES: Final = dict.fromkeys(
    ("timeout", "ttl", "expires", "max_age"),
    "stale_time=, how long it is fresh, and cache_time=, after which it is gone",
)
"""What to write in place of the one time that other caches have, by its name there."""


def refuse_lifetime(function: str, **given: object) -> None:
    """Refuse an argument that a method has for its error alone; ``None`` is not given.

    Args:
        function: what the error calls the method.
        given: such arguments, by name.

    Raises:
        TypeError: names the first one that is given, and what to write.
    """
    names = [name for name, value in given.items() if value is not None]
    refuse_arguments(function, names, LIFETIMES | {"retry": "retries="})


class DefaultTimes(NamedTuple):
    """The times of entries that have none of their own, in seconds."""

    stale_time: float
    cache_time: float

    def fill(self, stale_time: float | None, cache_time: float | None) -> tuple[float, float]:
        """Return both times, with the default where one is ``None``.

        A default never contradicts what a caller gave: a value is kept at least as long as it is
        fresh, and is fresh at most as long as it is kept.
        """
        if stale_time is None:
            kept = self.cache_time if cache_time is None else cache_time
            return min(self.stale_time, kept), kept
        return stale_time, max(self.cache_time, stale_time) if cache_time is None else cache_time


_MAY_BE_NONE = frozenset({"stale_time", "cache_time", "negative_time"})


def check_options(*, retries: int = 0, name: str = "", **seconds: float | None) -> None:
    """Check the arguments of a look-up; misses pay for it, and hits do not.

    Args:
        retries: a count.
        name: of a memoized function.
        seconds: the times by the names of their arguments.

    Raises:
        TypeError: one has a type that it cannot have.
        ValueError: one is negative, or not a number, or the stale time is longer than the cache
            time.
    """
    for argument, value in seconds.items():
        if type(value) is not float and type(value) is not int:
            if value is None and argument in _MAY_BE_NONE:
                continue
            if isinstance(value, bool) or not isinstance(value, Real):
                none = ", or None" if argument in _MAY_BE_NONE else ""
                way = ": write .total_seconds()" if hasattr(value, "total_seconds") else ""
                raise TypeError(f"{argument}={value!r} must be a number of seconds{none}{way}")
        if not value >= 0:  # nor is NaN
            raise ValueError(
                f"{argument}={value!r} must be a number of seconds of at least 0, which means "
                "not at all"
            )
    stale_time, cache_time = seconds.get("stale_time"), seconds.get("cache_time")
    if stale_time is not None and cache_time is not None and stale_time > cache_time:
        raise ValueError(
            f"stale_time={stale_time!r} is longer than cache_time={cache_time!r}: a value that is "
            "gone is not fresh; make cache_time at least as long, or leave it out"
        )
    if type(retries) is not int:
        raise TypeError(f"retries={retries!r} must be a whole number")
    if retries < 0:
        raise ValueError(f"retries={retries!r} must be at least 0, which means one attempt alone")
    if not isinstance(name, str):
        raise TypeError(f"name={name!r} must be a text, such as 'prices'")
