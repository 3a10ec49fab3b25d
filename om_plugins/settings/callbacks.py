"""Functions that someone gives: can they be called as they will be, and what do their answers mean?

They are looked at when they are registered, and so is each answer: a function that is not async may
still return a coroutine. A permission is ``True`` itself and nothing else, because a forgotten
``return``, a coroutine, a generator or a mock would let everybody in, or nobody, and tell no one.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

logger = logging.getLogger("om_plugins")


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


def explain_kind(value: object, *, may_yield: bool = False) -> str:
    """Explain why a call of a function would not run its body; "" when it would.

    Args:
        value: a function, a method, a partial or an object with ``__call__``.
        may_yield: whoever calls it reads what it yields.
    """
    called = find_called(value)
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        return "an async function is never awaited here: write it with a plain def"
    if inspect.isgeneratorfunction(called) and not may_yield:
        return "a generator function does nothing when it is called: write return, not yield"
    return ""


def explain_callback(value: object, arguments: int, *, may_yield: bool = False) -> str:
    """Explain why a value cannot be called back with so many arguments; "" when it can.

    Args:
        value: what somebody gave.
        arguments: how many arguments it will get, by position.
        may_yield: whoever calls it reads what it yields.
    """
    if not callable(value):
        return f"{value!r} is no function"
    return explain_kind(value, may_yield=may_yield) or explain_arguments(value, arguments)


def explain_wsgi_app(value: object) -> str:
    """Explain why a value is no WSGI app; "" when it may be one. An ASGI app is none."""
    return explain_callback(value, 2, may_yield=True)


def find_called(value: object) -> object:
    """Return the function that runs when a value is called.

    It looks into partials, methods and objects with ``__call__``; a class is called as it is.
    What a decorator has wrapped is left alone: only the decorator knows how it calls that.
    """
    for _ in range(_DEEPEST):
        if isinstance(value, functools.partial | functools.partialmethod):
            value = value.func
        elif isinstance(value, staticmethod | classmethod):
            value = value.__func__
        elif (
            isinstance(value, type)
            or inspect.isroutine(value)
            or inspect.iscoroutinefunction(value)  # marked as one, as mocks are
        ):
            break
        else:
            called = inspect.getattr_static(type(value), "__call__", None)
            if called is None or type(called) is _SLOT:
                break
            value = called
    return value


_DEEPEST = 20
_SLOT = type(object.__init__)


def explain_unfinished(result: object) -> str:
    """Explain why a result is none, since the function that returned it has not run; "" if it has.

    Coroutines and generators are closed.
    """
    if inspect.isawaitable(result) or inspect.isasyncgen(result):
        if inspect.iscoroutine(result):
            result.close()  # else Python warns that nobody awaited it
        return f"returned {name_type(result)}, which nobody awaits; return the value itself"
    if inspect.isgenerator(result):
        result.close()
        return "returned a generator, of which nothing has run; write return, not yield"
    return ""


def refuse_unfinished(result: T) -> T:
    """Return a result, unless the function that returned it has not run.

    Raises:
        TypeError: it is a coroutine, a generator or the like.
    """
    problem = explain_unfinished(result) if result is not None else ""
    if problem:
        raise TypeError(f"it {problem}")
    return result


def is_permitted(answer: object, asked: str, more: str = "") -> bool:
    """Return whether an answer is a permission: ``True`` is one, and nothing else.

    An answer that is neither ``True`` nor ``False`` is logged with the way out. Its value is not,
    because it may be a secret.

    Args:
        answer: what somebody's function returned.
        asked: what gave the answer, such as the name of a setting.
        more: what else may be returned, for the log.
    """
    if answer is True:
        return True
    if answer is not False:
        said = explain_unfinished(answer)
        if not said and answer is None:
            said = "returned None: a return may be missing; return True or False"
        elif not said:
            said = f"returned {name_type(answer)}; return True or False, as bool(…) does"
        logger.error("%s %s%s. It counts as no: only True is a yes", asked, said, more)
    return False


def explain_no_success(result: object) -> str:
    """Explain why a function that returns nothing, or raises, has failed all the same.

    ``None`` and ``True`` are a success and give "". Nothing else is: who returns ``False``, a
    coroutine or a word has something to say that nobody would hear.
    """
    if result is None or result is True:
        return ""
    if result is False:
        return "returned False; raise an error that says what is wrong"
    unfinished = explain_unfinished(result)
    return unfinished or (
        f"returned {name_type(result)}; return None when all is well, and raise an error else"
    )


def name_type(value: object) -> str:
    """Return the name of a value's class with its article."""
    name = type(value).__name__
    if value is None or isinstance(value, bool):
        return repr(value)
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"
