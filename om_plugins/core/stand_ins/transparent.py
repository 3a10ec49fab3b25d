"""Objects that take the place of another one and have its attributes."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, ClassVar, SupportsIndex


class Transparent:
    """Takes the place of an object of the host and has that object's attributes.

    Reading, setting and deleting an attribute reaches the object that was replaced, so code that
    configures it goes on as before. Even ``isinstance``, ``vars`` and ``inspect.signature`` see the
    other's. What is looked up in the type alone is ours: ``type(...)``, ``repr(...)`` and equality.
    A copy or a pickle is one of the object that was replaced.

    Args:
        replaced: the object whose place it takes.
    """

    __slots__ = ("__weakref__", "_om_replaced")
    _om_replaced: Any
    _om_own: ClassVar[frozenset[str]] = frozenset()
    """The names of the attributes that are ours."""
    _om_methods: ClassVar[frozenset[str]] = frozenset({"__reduce_ex__"})
    """The names of the methods that are ours. Setting one reaches the object that was replaced."""

    def __init__(self, replaced: object) -> None:
        set_own(self, "_om_replaced", replaced)

    def __getattribute__(self, name: str) -> Any:
        cls = type(self)
        if name in cls._om_methods or name in cls._om_own:
            return object.__getattribute__(self, name)
        return getattr(_read_replaced(self), name)

    def __setattr__(self, name: str, value: object) -> None:
        if name in type(self)._om_own:
            set_own(self, name, value)
        else:
            setattr(_read_replaced(self), name, value)

    def __delattr__(self, name: str) -> None:
        if name in type(self)._om_own:
            object.__delattr__(self, name)
        else:
            delattr(_read_replaced(self), name)

    def __dir__(self) -> list[str]:
        return sorted({*dir(_read_replaced(self)), *type(self)._om_own, *type(self)._om_methods})

    def __copy__(self) -> Any:
        return copy(_read_replaced(self))

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return _get_replaced, (_read_replaced(self),)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} around {_read_replaced(self)!r}>"


def find_replaced(found: object) -> Any:
    """Return the object whose place ``found`` takes; ``None`` when it is none of ours."""
    return _read_replaced(found) if isinstance(found, Transparent) else None


def _get_replaced(replaced: object) -> object:
    return replaced


set_own = object.__setattr__
"""Sets an attribute of a :class:`Transparent` object itself."""
_read_replaced: Callable[[Transparent], Any] = Transparent.__dict__["_om_replaced"].__get__
