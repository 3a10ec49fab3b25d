"""Methods of the host's objects that ours take the place of on one instance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def get_late(owner: object, name: str) -> Callable[..., Any]:
    """Return a function that calls a method as it is then, before ours takes its place.

    Tracers patch the class when the instance has been made already. An attribute of the instance
    itself is called as it is now.

    Args:
        owner: the object.
        name: the method's name.
    """
    cls = type(owner)
    now = getattr(owner, name)
    if name in vars(owner):
        return now  # type: ignore[no-any-return]
    found = getattr(cls, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        if getattr(cls, name) is found:
            return now(*args, **kwargs)
        return _bind(owner, name)(*args, **kwargs)

    return call


def _bind(owner: object, name: str) -> Callable[..., Any]:
    cls = type(owner)
    attribute = next(vars(one)[name] for one in cls.__mro__ if name in vars(one))
    bind = getattr(type(attribute), "__get__", None)
    bound: Callable[..., Any] = attribute if bind is None else bind(attribute, owner, cls)
    return bound
