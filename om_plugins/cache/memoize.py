"""``memoize``: a function whose answers are cached by its arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .keys import UnsupportedKey, encode

if TYPE_CHECKING:
    from .cache import SmartCache

__all__ = ["Memoized", "memoize"]

_NO_DEFAULT = inspect.Parameter.empty


def memoize(
    get_cache: Callable[[], SmartCache | None],
    *,
    stale_time: float | None = None,
    cache_time: float | None = None,
    retry: int = 0,
    dedupe_time: float = 1.0,
    tags: Iterable[str] = (),
    scope: str | Callable[[], str] = "",
    negative_time: float | None = None,
) -> Callable[[Callable[..., Any]], Memoized]:
    """Cache what a function returns, by its arguments.

    Arguments are compared after defaults and keywords are put in their places: ``f(1)``,
    ``f(x=1)`` and ``f(1, y=DEFAULT)`` are one entry. An argument that no key can hold (see
    :func:`.keys.encode`) makes the call go straight through, with one warning; an object, such as
    a method's ``self``, can name itself with a ``__cache_key__()`` method.

    Args:
        get_cache: gives the cache at call time; with ``None`` the function is simply called.
        stale_time, cache_time, dedupe_time, tags, negative_time: as for
            :meth:`.smart.SmartCache.query`.
        retry: further attempts when the function raises; none by default, since an exception may
            well be its answer.
        scope: text, or a function called at each call, that keeps users apart.

    Returns:
        A decorator. The function it makes has ``cache_key(*args, **kwargs)`` and
        ``invalidate(*args, **kwargs)``; without arguments the latter means all calls.

    Raises:
        TypeError: at decoration, for a generator function or an ``async def``.
    """
    options = {
        "stale_time": stale_time,
        "cache_time": cache_time,
        "retry": retry,
        "dedupe_time": dedupe_time,
        "tags": tuple(tags),
        "negative_time": negative_time,
    }

    def decorate(function: Callable[..., Any]) -> Memoized:
        return Memoized(function, get_cache, options, scope)

    return decorate


class Memoized:
    """A memoized function, or method; made by :func:`memoize`."""

    def __init__(
        self,
        function: Callable[..., Any],
        get_cache: Callable[[], SmartCache | None],
        options: dict[str, Any],
        scope: str | Callable[[], str],
        bound: tuple[Any, ...] = (),
    ) -> None:
        name = getattr(function, "__qualname__", type(function).__name__)
        if inspect.iscoroutinefunction(function):
            raise TypeError(
                f"{name} is async and cannot be memoized: inside it, use "
                "await asyncio.to_thread(cache.query, key, fetcher)"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{name} is a generator function and cannot be memoized: return a list")
        functools.update_wrapper(self, function)
        self._function = function
        self._get_cache = get_cache
        self._options = options
        self._scope = scope
        self._bound = bound
        self._signature = inspect.signature(function)
        self._name = f"{getattr(function, '__module__', '')}.{name}"
        self._prefix = ("memoize", self._name)
        parameters = list(self._signature.parameters.values())
        simple = all(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
        # with plain parameters only, positional arguments are in their places already
        self._defaults = tuple(p.default for p in parameters) if simple else None

    def __get__(self, instance: object, owner: type | None = None) -> Memoized:
        if instance is None:
            return self
        bound = (instance,)
        return Memoized(self._function, self._get_cache, self._options, self._scope, bound)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args = self._bound + args
        cache = self._get_cache()
        if cache is None:
            return self._function(*args, **kwargs)
        key = (*self._prefix, *self._normal(args, kwargs))
        scope = self._scope if isinstance(self._scope, str) else self._scope()
        try:
            encode(key)
        except UnsupportedKey as error:
            cache.refuse("key", f"{self._name}()", str(error))
            return self._function(*args, **kwargs)
        return cache.query(
            key, lambda: self._function(*args, **kwargs), scope=scope, **self._options
        )

    def cache_key(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The key under which the answer for these arguments is kept.

        Raises:
            TypeError: an argument cannot be part of a key, or the call does not fit the function.
        """
        key = (*self._prefix, *self._normal(self._bound + args, kwargs))
        encode(key)
        return key

    def invalidate(self, *args: Any, **kwargs: Any) -> int:
        """Mark the answer for these arguments stale, in all scopes; without any, all answers.

        Returns:
            How many entries of this process were concerned.
        """
        cache = self._get_cache()
        if cache is None:
            return 0
        if not args and not kwargs:
            return cache.invalidate((*self._prefix, *self._bound))
        return cache.invalidate(self.cache_key(*args, **kwargs))

    def _normal(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        defaults = self._defaults
        if defaults is not None and not kwargs and len(args) <= len(defaults):
            rest = defaults[len(args) :]
            if not any(default is _NO_DEFAULT for default in rest):
                return args + rest
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = []
        for name, parameter in self._signature.parameters.items():
            value = bound.arguments[name]
            if parameter.kind is parameter.VAR_KEYWORD:
                value = tuple(sorted(value.items()))
            values.append(value)
        return tuple(values)
