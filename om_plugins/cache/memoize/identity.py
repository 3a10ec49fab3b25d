"""What tells one memoized function from another, in words that workers and restarts agree on.

The identity of a function has its module, its qualified name, the position and the content of its
code, and the values that it was made with: what a closure closes over, the arguments of a
``functools.partial``, the object of a bound method, the attributes of a callable object. Functions
among these values have an identity of their own. The global names of a module are not among them;
a namespace of :func:`exec` or :mod:`runpy`, which is no imported module's, is a value that no key
can hold. :mod:`.parts` reads all this.

A value that can change, such as a list, counts as it was when the function was decorated. A value
that no key can hold, such as a database, does not count at all. So a cache gives an identity with
such values to one function only (:class:`FunctionOwners`): two functions that differ in them never
share an entry.

``name=`` takes the place of the module, the qualified name and the code.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

from ...errors import CacheError
from ..keys import UnsupportedKey, encode, is_found_by_name
from .parts import FunctionParts, digest, read_function

_VERSION = "2"
"""The form of an identity. It is a part of it, so that workers of an older version, which named
functions in another way, neither read these entries nor write others in their place."""

_MOST_OWNERS = 10_000


class NameTaken(CacheError):
    """Two functions have one ``name=``."""


class FunctionOwners:
    """The functions of one cache whose identity does not say everything; each identity has one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_identity: dict[object, tuple[object, str, tuple[object, ...]]] = {}

    def claim(self, identity: object, owner: object, code: str, held: tuple[object, ...]) -> bool:
        """Return whether ``owner`` may use an identity: it has it, or nobody else has.

        An owner with the same code, made with the very same objects, is the same owner.

        Raises:
            UnsupportedKey: there are too many identities.
        """
        found = self._by_identity.get(identity)
        if found is None:
            with self._lock:
                if len(self._by_identity) >= _MOST_OWNERS and identity not in self._by_identity:
                    raise UnsupportedKey(
                        f"the cache knows {_MOST_OWNERS} functions that only their objects or "
                        "names tell apart: define a function once, and pass values as arguments"
                    )
                found = self._by_identity.setdefault(identity, (owner, code, held))
        known, known_code, known_held = found
        return known is owner or (
            code == known_code
            and len(held) == len(known_held)
            and all(one is other for one, other in zip(held, known_held, strict=True))
        )

    def claim_class(self, cls: type) -> object:
        """Return what stands for a class in a key: the class, else a text if it has no namesake.

        Raises:
            UnsupportedKey: another class has the name of this one.
        """
        if is_found_by_name(cls):
            return cls
        name = f"class {cls.__module__}.{cls.__qualname__}"
        if not self.claim(name, cls, "", (cls,)):
            encode(cls)  # raises, and says why
        return name


class FunctionIdentity:
    """The identity of one function.

    Args:
        function: what is memoized.
        name: stands in place of the module, the qualified name and the code; "" for none.
        own_defaults: the defaults of the function's parameters are a part of its identity. They
            need not be where the key of a call has all arguments.

    Attributes:
        label: the name, else the module and the qualified name.
        prefix: the first members of all keys of the function, when ``is_fixed``.
        is_fixed: nothing can change, and the prefix says everything.
    """

    def __init__(self, function: object, name: str, own_defaults: bool) -> None:
        self.label = name or describe(function)
        self._function = function
        self._name = name
        self._own_defaults = own_defaults
        self._state = parts, self.prefix = self._read()
        self.is_fixed = not (name or parts.held or parts.cells or parts.self_naming)

    def find_prefix(self, owners: FunctionOwners | None, shared: bool) -> tuple[Any, ...]:
        """Return the first members of all keys of the function.

        Args:
            owners: the functions of the cache; ``None`` without a cache.
            shared: other processes use the entries.

        Raises:
            UnsupportedKey: the function cannot be told from others; the message names ``name=``.
                Or an object that names itself does so with what a key cannot hold.
            NameTaken: another function has this ``name=``.
        """
        if not self._state[0].is_current():
            self._state = self._read()
        parts, prefix = self._state
        if parts.opaque and shared and not self._name:
            raise UnsupportedKey(
                f"it was made with {parts.opaque}, which a cache key cannot hold, and other "
                f"processes share the store: {_WAY_OUT}"
            )
        identity = encode(prefix) if parts.self_naming else prefix
        if owners is None or not (parts.held or self._name):
            return prefix
        if owners.claim(identity, self._function, parts.code, parts.held):
            return prefix
        if self._name:
            raise NameTaken(
                f"name={self._name!r} is taken: {describe(self._function)} ({parts.position}) is "
                "another function, or was made with other objects; give each a name of its own, "
                f"such as name=f'{self._name} {{…}}' with what tells them apart"
            )
        raise UnsupportedKey(
            "another function of the same code was made with other objects than this one, such as "
            f"{parts.opaque or type(parts.held[0]).__name__}: {_WAY_OUT}"
        )

    def _read(self) -> tuple[FunctionParts, tuple[Any, ...]]:
        parts = read_function(self._function, self._own_defaults)
        if self._name:
            text = ":".join(filter(None, (_VERSION, "name", parts.values)))
        else:
            text = f"{_VERSION}:{parts.position}:{digest((parts.code, parts.values))}"
        return parts, ("memoize", self.label, text, *parts.self_naming)


_WAY_OUT = (
    "give it a name of its own with name=, pass the value as an argument, or give its class a "
    "__cache_key__() method"
)


def describe(function: object) -> str:
    """Return the name of a function for people."""
    if isinstance(function, functools.partial):
        return f"functools.partial({describe(function.func)})"
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{getattr(kind, '__module__', None) or 'builtins'}.{kind.__qualname__}"
