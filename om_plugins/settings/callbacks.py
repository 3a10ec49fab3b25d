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
from types import CoroutineType, GeneratorType, MethodType
from typing import Any, TypeVar

T = TypeVar("T")

logger = logging.getLogger("om_plugins")


def read_signature(called: Callable[..., Any]) -> inspect.Signature | None:
    """Return the arguments that a function itself takes; ``None`` when it does not tell.

    What a decorator has wrapped says nothing: the decorator may give it other arguments.
    ``functools.lru_cache`` and other wrappers without a signature of their own pass on what they
    get.
    """
    for follow_wrapped in (False, True):
        try:
            return inspect.signature(called, follow_wrapped=follow_wrapped)
        except (ValueError, TypeError):  # some built-in functions have no signature
            pass
    return None


def takes_arguments(signature: inspect.Signature, count: int) -> bool:
    """Return whether a function with this signature can be called with so many arguments."""
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def explain_arguments(called: Callable[..., Any], count: int) -> str:
    """Explain why a function cannot be called with so many arguments; "" when it can."""
    signature = read_signature(called)
    if signature is None:
        return explain_partial(called)
    if takes_arguments(signature, count):
        return ""
    counted = "no argument" if not count else f"{count} argument{'s' * (count > 1)}"
    return f"must take {counted}; it takes {signature}"


def explain_partial(called: object) -> str:
    """Explain why a partial without a signature can never be called; "" for anything else."""
    if not isinstance(called, functools.partial):
        return ""
    whole = read_signature(called.func)
    return "" if whole is None else f"is a partial with other arguments than {whole}"


def explain_kind(value: object, *, may_yield: bool = False) -> str:
    """Explain why a call of a function would not run its body; "" when it would.

    Args:
        value: a function, a method, a partial or an object with ``__call__``.
        may_yield: whoever calls it reads what it yields.
    """
    called = find_called(value)
    if has_kind(inspect.iscoroutinefunction, called) or has_kind(
        inspect.isasyncgenfunction, called
    ):
        return "an async function is never awaited here: write it with a plain def"
    if has_kind(inspect.isgeneratorfunction, called) and not may_yield:
        return "a generator function does nothing when it is called: write return, not yield"
    return explain_cached(called)


def explain_cached(called: object) -> str:
    """Explain why ``functools.lru_cache`` cannot keep what a function returns; "" when it can.

    Args:
        called: what :func:`find_called` returned.
    """
    if type(called) is _CACHED and explain_kind(called.__wrapped__):
        return "lru_cache keeps a coroutine or a generator, which can be used once: take it off"
    return ""


def has_kind(test: Callable[[Any], bool], value: object) -> bool:
    """Ask a test of :mod:`inspect`, which raises for a mock of a function."""
    try:
        return test(value)
    except TypeError:
        return False


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
        elif isinstance(value, staticmethod | classmethod | MethodType):
            value = value.__func__
        elif (
            isinstance(value, type)
            or inspect.isroutine(value)
            or has_kind(inspect.iscoroutinefunction, value)  # marked as one, as mocks are
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
_CACHED = type(functools.lru_cache(lambda: None))


def explain_unfinished(result: Any) -> str:
    """Explain why a result is none, since the function that returned it has not run; "" if it has.

    Coroutines and generators are closed. The object is not asked, only its class: a mock or a proxy
    may say anything of itself.
    """
    cls: Any = type(result)
    if hasattr(cls, "__await__") or hasattr(cls, "__anext__"):
        if cls is CoroutineType:
            cls.close(result)  # else Python warns that nobody awaited it
        return f"returned {name_type(result)}, which nobody awaits; return the value itself"
    if cls is GeneratorType:
        cls.close(result)
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


def describe_result(result: Any) -> str:
    """Return what a function returned, for an error about it: ``returned a dict``."""
    return explain_unfinished(result) or f"returned {name_type(result)}"


def name_type(value: object) -> str:
    """Return the name of a value's class with its article."""
    name = type(value).__name__
    if value is None or value is True or value is False:
        return repr(value)
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"
