"""Whether a function that someone gives can be called in the way in which it will be called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def explain_arguments(called: Callable[..., Any], count: int) -> str:
    """Explain why a function cannot be called with so many arguments; "" when it can."""
    try:
        signature = inspect.signature(called)
    except (ValueError, TypeError):  # some built-in functions have no signature
        return ""
    try:
        signature.bind(*[None] * count)
    except TypeError:
        counted = "no argument" if not count else f"{count} argument{'s' * (count > 1)}"
        return f"must take {counted}; it takes {signature}"
    return ""


def explain_callback(value: object, arguments: int) -> str:
    """Explain why a value cannot be called back with so many arguments; "" when it can."""
    if not callable(value):
        return f"{value!r} is no function"
    if any(map(_is_async, (value, getattr(value, "__call__", None)))):  # noqa: B004
        return "an async function is never awaited here: write it with a plain def"
    return explain_arguments(value, arguments)


def _is_async(value: object) -> bool:
    return inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value)
