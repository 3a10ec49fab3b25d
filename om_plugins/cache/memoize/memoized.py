"""``memoize``: a function whose values are cached by its arguments.

:mod:`.identity` says what tells one function from another.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from types import FunctionType, MethodType
from typing import Any, TypedDict

from ...settings.arguments import check_arguments
from ...settings.callbacks import explain_callback
from ..cache import SmartCache
from ..keys import (
    LIFETIMES,
    SCALARS,
    Scope,
    UnsupportedKey,
    check_options,
    encode,
    encode_scope,
    normalize_tags,
)
from .identity import FunctionIdentity, describe
from .parts import CachedFunction

_NO_DEFAULT = inspect.Parameter.empty
_PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


class MemoizeQueryOptions(TypedDict, total=False):
    """The keywords of :func:`memoize` that each look-up gets."""

    stale_time: float | None
    cache_time: float | None
    retries: int
    dedupe_time: float
    tags: Iterable[str]
    negative_time: float | None


class MemoizeOptions(MemoizeQueryOptions, total=False):
    """The keywords of :func:`memoize`."""

    scope: Scope | Callable[[], Scope]
    name: str


@check_arguments(
    "@om.memoize",
    renamed=LIFETIMES | {"retry": "retries=", "make_name": "name="},
)
def memoize(
    get_cache: Callable[[], SmartCache | None],
    /,
    *,
    stale_time: float | None = None,
    cache_time: float | None = None,
    retries: int = 0,
    dedupe_time: float = 1.0,
    tags: Iterable[str] = (),
    scope: Scope | Callable[[], Scope] = "",
    negative_time: float | None = None,
    name: str = "",
) -> Callable[[Any], Memoized]:
    """Cache the values of a function by its arguments.

    The key has the arguments after defaults and keywords are put in their places: ``f(1)``,
    ``f(x=1)`` and ``f(1, y=DEFAULT)`` are one entry. When an argument cannot be part of a key (see
    :func:`.keys.encode`), the call goes straight to the function, with one warning. An object, such
    as a method's ``self``, can name itself with a ``__cache_key__()`` method.

    Two functions never share an entry. What tells them apart are the module, the qualified name and
    the code, and the values that a function was made with: those that a closure closes over, the
    arguments of a ``partial``, the attributes of a callable object. Of a value that can change,
    such as a list, the content at decoration counts. Where the values cannot tell two functions
    apart, the calls of the second go straight to the function, with one warning; in a store that
    processes share, so do the calls of any function that was made with an object that no key can
    hold.

    Args:
        get_cache: returns the cache at each call; with ``None`` the function is simply called.
        stale_time, cache_time, dedupe_time, tags, negative_time: as for
            :meth:`SmartCache.query`.
        retries: further attempts when the function raises; none by default, since an exception may
            well be its answer.
        scope: keeps users apart, as for :meth:`SmartCache.query`, or a function that returns the
            scope at each call.
        name: stands in the key in place of the module, the qualified name and the code. With it,
            entries outlive a change of the code, and objects that no key can hold do not matter.

    Returns:
        A decorator for functions, methods, and what ``classmethod`` and ``staticmethod`` return.
        The decorated function has the methods ``cache_key(*args, **kwargs)`` and
        ``invalidate(*args, **kwargs)``; the latter without arguments means all calls.

    Raises:
        TypeError: at decoration, for a generator function, an ``async def``, what is not callable
            or has no signature, and an argument of a wrong type.
        ValueError: a time is negative.
        NameTaken: at a call, when another function has this ``name``.
    """
    check_options(
        stale_time=stale_time, cache_time=cache_time, negative_time=negative_time,
        retries=retries, dedupe_time=dedupe_time, name=name,
    )  # fmt: skip
    if not callable(scope):
        encode_scope(scope)
    elif problem := explain_callback(scope, 0):
        raise TypeError(f"scope={scope!r} cannot be called: {problem}")
    options: MemoizeQueryOptions = {
        "stale_time": stale_time,
        "cache_time": cache_time,
        "retries": retries,
        "dedupe_time": dedupe_time,
        "tags": normalize_tags(tags),
        "negative_time": negative_time,
    }

    def decorate(function: Any) -> Memoized:
        return Memoized(function, get_cache, options, scope, name)

    return decorate


class Memoized(CachedFunction):
    """A function or method whose values are cached; :func:`memoize` makes it."""

    def __init__(
        self,
        function: Any,
        get_cache: Callable[[], SmartCache | None],
        options: MemoizeQueryOptions,
        scope: Scope | Callable[[], Scope],
        name: str,
    ) -> None:
        self._binds = _find_binding(function)
        if isinstance(function, classmethod | staticmethod):
            function = function.__func__
        self._signature, self._passes_on = _read_signature(function)
        is_python = isinstance(function, FunctionType)
        functools.update_wrapper(self, function, updated=("__dict__",) if is_python else ())
        self._function = function
        self._get_cache = get_cache
        self._options = options
        self._scope = scope
        self._identity = FunctionIdentity(
            function, name, own_defaults=hasattr(function, "__signature__")
        )
        parameters = list(self._signature.parameters.values())
        # with plain parameters only, positional arguments are in their places already
        self._defaults = (
            tuple(p.default for p in parameters)
            if all(p.kind in _PLAIN for p in parameters)
            else None
        )

    def __get__(self, instance: object, owner: type | None = None) -> Memoized | BoundMemoized:
        if self._binds == "class":
            return BoundMemoized(self, type(instance) if owner is None else owner)
        if instance is None or not self._binds:
            return self
        return BoundMemoized(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        cache = self._get_cache()
        if cache is None:
            return self._function(*args, **kwargs)
        try:
            key = self._build_key(cache, args, kwargs)
        except UnsupportedKey as error:
            cache.internals.refuse("key", f"{self._identity.label}()", str(error))
            return self._function(*args, **kwargs)
        scope = self._scope
        return cache.query(
            key,
            lambda: self._function(*args, **kwargs),
            scope=scope() if callable(scope) else scope,
            **self._options,
        )

    def cache_key(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Return the key of the value for these arguments.

        Raises:
            TypeError: an argument cannot be part of a key, or the call does not fit the function.
        """
        return self._build_key(self._get_cache(), args, kwargs)

    def invalidate(self, *args: Any, **kwargs: Any) -> int:
        """Mark the value for these arguments stale, in all scopes; without arguments, all values.

        Returns:
            How many entries of this process were concerned.

        Raises:
            TypeError: as for :meth:`cache_key`.
        """
        cache = self._get_cache()
        if cache is None:
            return 0
        if args or kwargs:
            return cache.invalidate(self._build_key(cache, args, kwargs))
        return cache.invalidate(self._find_prefix(cache))

    def invalidate_bound(self, instance: object) -> int:
        """Mark all values of one object, or class, stale; as :meth:`invalidate`."""
        cache = self._get_cache()
        if cache is None:
            return 0
        return cache.invalidate((*self._find_prefix(cache), *_place(cache, (instance,))))

    def _build_key(
        self, cache: SmartCache | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, ...]:
        values = self._normalize(args, kwargs)
        for value in values:
            if type(value) not in SCALARS:
                values = _place(cache, values)
                break
        identity = self._identity
        prefix = identity.prefix if identity.is_fixed else self._find_prefix(cache)
        return (*prefix, *values)

    def _find_prefix(self, cache: SmartCache | None) -> tuple[Any, ...]:
        if cache is None:
            return self._identity.find_prefix(None, shared=False)
        internals = cache.internals
        return self._identity.find_prefix(internals.functions, internals.store is not None)

    def _normalize(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Put the arguments in their places, with the defaults of those that are not given."""
        defaults = self._defaults
        if defaults is not None and not kwargs and len(args) <= len(defaults):
            rest = defaults[len(args) :]
            if not any(default is _NO_DEFAULT for default in rest):
                return args + rest
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError:
            if not self._passes_on:
                raise
            # the wrapper gives the function arguments of its own; one member more than the
            # function's parameters keeps this key apart from those of other calls
            return (
                (args, tuple(sorted(kwargs.items()))),
                *[None] * len(self._signature.parameters),
            )
        bound.apply_defaults()
        values = []
        for name, parameter in self._signature.parameters.items():
            value = bound.arguments[name]
            if parameter.kind is parameter.VAR_KEYWORD:
                value = tuple(sorted(value.items()))
            values.append(value)
        return tuple(values)


class BoundMemoized(CachedFunction):
    """A memoized function of one object, or of one class."""

    def __init__(self, memoized: Memoized, instance: object) -> None:
        self._memoized = memoized
        self._instance = instance
        self.__doc__ = memoized.__doc__

    @property
    def __wrapped__(self) -> MethodType:
        """The method without the cache."""
        return MethodType(self._memoized.__wrapped__, self._instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memoized, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._memoized(self._instance, *args, **kwargs)

    def cache_key(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Return the key of the value for these arguments; see :meth:`Memoized.cache_key`."""
        return self._memoized.cache_key(self._instance, *args, **kwargs)

    def invalidate(self, *args: Any, **kwargs: Any) -> int:
        """Mark the value for these arguments stale; without arguments, all of this object."""
        if not args and not kwargs:
            return self._memoized.invalidate_bound(self._instance)
        return self._memoized.invalidate(self._instance, *args, **kwargs)


def _place(cache: SmartCache | None, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Check that a key can hold the arguments; put what stands for a class in its place.

    Raises:
        UnsupportedKey: a key cannot hold an argument.
    """
    if cache is not None and cache.internals.store is None:
        claim = cache.internals.functions.claim_class
        values = tuple(claim(v) if issubclass(type(v), type) else v for v in values)
    for value in values:
        encode(value)
    return values


def _find_binding(function: object) -> str:
    """Return what an access over an object puts before the arguments: it, its class, or nothing."""
    if isinstance(function, classmethod):
        return "class"
    if isinstance(function, staticmethod | MethodType):
        return ""
    return "object" if hasattr(type(function), "__get__") else ""


def _read_signature(function: Any) -> tuple[inspect.Signature, bool]:
    """Return the signature of a function that can be memoized.

    Returns:
        The signature; and whether it is that of a wrapped function, since its wrapper's own
        signature says nothing.

    Raises:
        TypeError: it cannot be memoized; the message says what can.
    """
    if isinstance(function, int | float | str):
        raise TypeError(
            f"{function!r} is no function: write @om.memoize, or @om.memoize(stale_time=60) with "
            "the names of the arguments"
        )
    if not callable(function):
        raise TypeError(
            f"a {type(function).__name__} cannot be memoized: put memoize below it, next to the "
            "function"
        )
    label = describe(function)
    called = (function, type(function).__call__)
    if any(map(inspect.iscoroutinefunction, called)):
        raise TypeError(
            f"{label} is async and cannot be memoized: inside it, use "
            "await asyncio.to_thread(cache.query, key, fetcher)"
        )
    if any(map(inspect.isgeneratorfunction, called)) or any(
        map(inspect.isasyncgenfunction, called)
    ):
        raise TypeError(f"{label} is a generator function and cannot be memoized: return a list")
    wraps = hasattr(function, "__wrapped__")
    try:
        own = inspect.signature(function, follow_wrapped=False)
    except ValueError:
        own = None
    if own is not None and not (wraps and {p.kind for p in own.parameters.values()} <= _VARIABLE):
        return own, False
    try:
        return inspect.signature(function), wraps
    except ValueError:
        raise TypeError(
            f"{label} does not tell its parameters and cannot be memoized: memoize a function of "
            "your own that calls it"
        ) from None
