"""How a fetcher is run, and how often: retries in the foreground, back-off in the background.

In the foreground somebody waits: the sleeps between all attempts are at most one second together.
In the background nobody does and nothing sleeps: an entry carries the time before which no
refresh of it begins, and the first look-up after that time begins one.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from ..protocols import Clock
from .singleflight import Private

__all__ = ["Fetcher", "backoff", "fetch", "pauses", "run"]

Fetcher: TypeAlias = Callable[[], Any]

_RANDOM = random.SystemRandom()  # background threads leave the common source alone
FOREGROUND_SLEEP_S = 1.0
COOLDOWN_S = 30.0


def pauses(retry: int, retry_delay: float) -> list[float]:
    """The sleeps between the attempts of a foreground fetch: full jitter below ``retry_delay``
    times 1, 2, 4, …, scaled down so that they never exceed one second together."""
    caps = [retry_delay * 2.0**n for n in range(min(retry, 20))]
    scale = min(1.0, FOREGROUND_SLEEP_S / total) if (total := sum(caps)) > 0 else 0.0
    return [_RANDOM.uniform(0, cap * scale) for cap in caps]


def backoff(failures: int, retry: int, retry_delay: float) -> float:
    """Seconds until the next background refresh after ``failures`` in a row: full jitter below
    ``retry_delay`` times 1, 2, 4, … for the first ``retry`` ones, then a cooldown."""
    if failures > retry:
        return COOLDOWN_S
    return _RANDOM.uniform(0, min(COOLDOWN_S, retry_delay * 2.0 ** min(failures - 1, 20)))


def fetch(
    fetcher: Fetcher,
    clock: Clock,
    *,
    retry: int,
    retry_delay: float,
    final: tuple[type[Exception], ...],
    began: Callable[[], object],
    failed: Callable[[Exception], object],
) -> Any:
    """Run a fetcher in the foreground, again when it raises an ``Exception``.

    Args:
        final: errors that are an answer; they are raised at once.
        began: called before each attempt.
        failed: called after each attempt that raised.

    Raises:
        Exception: what the last attempt raised.
    """
    waits = pauses(retry, retry_delay)
    while True:
        began()
        try:
            return run(fetcher)
        except Private:
            raise
        except Exception as error:
            failed(error)
            if not waits or isinstance(error, (FetcherTypeError, *final)):
                raise
        clock.sleep(waits.pop(0))


class FetcherTypeError(TypeError):
    """The fetcher is of a kind that cannot be run."""


def run(fetcher: Fetcher) -> Any:
    """Call a fetcher once; an ``async def`` one is run to its end.

    Raises:
        TypeError: it is or returned a generator, or it is async and a loop runs in this thread.
    """
    value = fetcher()
    if inspect.isawaitable(value):
        return _run_async(value, fetcher)
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise FetcherTypeError(
            f"the fetcher {_named(fetcher)} returned a generator, which can be read only once: "
            "return a list"
        )
    return value


def check(fetcher: Fetcher) -> None:
    """Refuse what can never be run before anything else happens.

    Raises:
        TypeError: ``fetcher`` is not callable, or is a generator function.
    """
    if not callable(fetcher):
        raise FetcherTypeError(f"the fetcher must be callable, not {type(fetcher).__name__}")
    if inspect.isgeneratorfunction(fetcher) or inspect.isasyncgenfunction(fetcher):
        raise FetcherTypeError(
            f"the fetcher {_named(fetcher)} is a generator function: return a list"
        )


def _run_async(awaitable: Awaitable[Any], fetcher: Fetcher) -> Any:
    async def finish() -> Any:
        return await awaitable

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(finish())
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()  # a coroutine that is never awaited warns
    raise FetcherTypeError(
        f"the fetcher {_named(fetcher)} is async and an event loop is running in this thread: "
        "call the cache through asyncio.to_thread(...)"
    )


def _named(fetcher: object) -> str:
    return str(getattr(fetcher, "__qualname__", None) or type(fetcher).__name__)
