"""Checks of URLs that name a part, such as a hub or a store: the scheme, then the rest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar

from ..errors import ConfigError, suggest
from .callbacks import explain_no_success, explain_unfinished

P = ParamSpec("P")
T = TypeVar("T")


def check_scheme(key: str, url: str, known: Collection[str]) -> None:
    """Check that the scheme of a URL is known.

    Raises:
        ConfigError: the scheme is unknown. The error names the nearest known one, or all.
    """
    scheme = url.partition(":")[0]
    if scheme in known:
        return
    raise ConfigError(key, url, f"unknown scheme {scheme!r}; {suggest(scheme, sorted(known))}")


@dataclass(frozen=True, slots=True)
class CheckedFactory(Generic[P, T]):
    """A factory that makes a part from its URL, and can check the URL before.

    Attributes:
        make: makes the part.
        check: raises :class:`~om_plugins.errors.ConfigError` for a wrong URL; opens nothing.
    """

    make: Callable[P, T]
    check: Callable[[str], object]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.make(*args, **kwargs)


def check_url(key: str, url: str, factories: Mapping[str, object]) -> None:
    """Check that something is known for a URL's scheme, and what that says of the rest.

    Args:
        factories: by scheme. A factory may have a method ``check(url)``.

    Raises:
        ConfigError: the URL is wrong. The error tells what to write instead.
    """
    check_scheme(key, url, list(factories))
    check = getattr(factories[url.partition(":")[0]], "check", None)
    if check is not None:
        result = check(url)  # a check may return what it has made
        problem = explain_no_success(result) if result is False else explain_unfinished(result)
        if problem:
            raise ConfigError(key, url, f"its check {problem}")
