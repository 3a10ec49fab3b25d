"""Checks of the arguments of decorators and constructors, by the same kinds as settings.

Settings also come as text, from the environment. An argument is written in Python, so a number that
is text is a mistake there.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from ..core.moved import explain_keyword
from ..errors import ConfigError
from .kinds import integer, number
from .table import Check

F = TypeVar("F", bound=Callable[..., Any])


def seconds(low: float = 0.0, high: float = math.inf, *, none: bool = False) -> Check:
    """Make the check for a number of seconds; with ``none``, ``None`` is allowed as well."""
    return _refuse_text(number(low, high, "seconds"), none=none)


def amount(low: float = 0.0, high: float = math.inf, *, none: bool = False) -> Check:
    """Make the check for a number; with ``none``, ``None`` is allowed as well."""
    return _refuse_text(number(low, high), none=none)


def whole(low: int = 0, high: float = math.inf, *, none: bool = False) -> Check:
    """Make the check for a whole number; with ``none``, ``None`` is allowed as well."""
    return _refuse_text(integer(low, high), none=none)


def flag(*, none: bool = False) -> Check:
    """Make the check for ``True`` or ``False``; with ``none``, ``None`` is allowed as well."""

    def read(value: Any) -> Any:
        if (none and value is None) or isinstance(value, bool):
            return value
        raise ValueError

    return Check("True or False" + _or_none(none), read)


def _or_none(none: bool) -> str:
    return ", or None" if none else ""


def _refuse_text(check: Check, *, none: bool) -> Check:
    def read(value: Any) -> Any:
        if none and value is None:
            return value
        if isinstance(value, str):
            raise ValueError("text is no number")
        if hasattr(value, "total_seconds"):
            raise ValueError("of a timedelta, write .total_seconds()")
        return check.read(value)

    return Check(check.allowed + _or_none(none), read)


def check_arguments(
    name: str,
    /,
    *,
    usage: str = "",
    keywords: Collection[str] = (),
    renamed: Mapping[str, str] | None = None,
    **checks: Check,
) -> Callable[[F], F]:
    """Return a decorator that checks the arguments of a function before it is called.

    For what is called once, such as decorators of views and constructors: a call costs some
    microseconds more.

    Args:
        name: what errors call the function, such as ``@om.engine``.
        usage: how to write a call, for errors of missing arguments.
        keywords: further keywords that the function takes by ``**``.
        renamed: names that other libraries have for an argument, with its name here.
        **checks: the checks by the names of the arguments. An argument that is annotated as
            ``bool`` needs none: it must be ``True`` or ``False``, because ``"no"`` is true.

    Raises:
        TypeError: by the function, for an unknown or a missing argument.
        ConfigError: by the function, for a value that is not allowed.
    """

    def decorate(checked: F) -> F:
        signature = inspect.signature(checked)
        parameters = [p for p in signature.parameters.values() if p.name != "self"]
        known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        known += keywords
        checked_by = {
            p.name: flag(none=p.annotation != "bool") for p in parameters if p.annotation in _FLAGS
        } | checks
        open_ended = not keywords and any(p.kind is p.VAR_KEYWORD for p in parameters)

        @functools.wraps(checked)
        def check_first(*args: Any, **kwargs: Any) -> Any:
            for given in () if open_ended else kwargs:
                if given not in known:
                    raise TypeError(explain_keyword(name, given, known, renamed, usage))
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                hint = f"; write {usage}" if usage else ""
                raise TypeError(f"{name}: {error}{hint}") from None
            arguments = {**bound.arguments, **kwargs}
            for given, check in checked_by.items():
                if given in arguments:
                    check_value(f"{name}({given})", arguments[given], check)
            return checked(*args, **kwargs)

        return check_first  # type: ignore[return-value]

    return decorate


_FLAGS = ("bool", "bool | None")
"""How the annotations of switches are written, as text: annotations are postponed everywhere."""


def check_value(key: str, value: object, check: Check) -> Any:
    """Return the value as its check reads it.

    Args:
        key: what the error calls it, such as ``@om.engine(tier)``.

    Raises:
        ConfigError: it is not allowed.
    """
    try:
        return check.read(value)
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        detail = f" ({error})" if str(error) else ""
        raise ConfigError(key, value, f"must be {check.allowed}{detail}") from None
