"""The callable engine: a Python function is the engine."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, Unpack

from ...core.engine import EngineTraitKeywords
from ...errors import AttemptTimeout, CallerDeadline, Cancelled
from ...settings.arguments import check_arguments, flag, whole
from ...settings.callbacks import (
    explain_cached,
    explain_partial,
    find_called,
    has_kind,
    read_signature,
    takes_arguments,
)
from ...types import Call, EngineTraits
from .pool import AttemptTimer, BoundedPool

Function = Callable[..., Any]


class CallableEngine:
    """Answers with what a function returns.

    Args:
        name: its name in the chain.
        function: takes the call or no argument, and returns a payload or an ``Answer``. A
            generator function yields chunks. A coroutine function runs to its end in the calling
            thread, within ``call.remaining()``; if that thread already runs an event loop (in an
            async view), it runs in another thread.
        **traits: fields of :class:`~om_plugins.types.EngineTraits`. By default ``streaming`` is
            True for a generator function, ``cancellable`` is True for a coroutine function, and
            the others are False. Pass ``idempotent=True`` when calling twice does no harm, and
            ``local=True`` when the function has no effect outside this process.
        max_threads: run the function in a pool of this many threads per process, and leave it
            there at the deadline. For functions that cannot be interrupted. When all threads are
            busy, calls fail at once with ``EngineUnavailable``.
        interrupt: at the attempt's deadline, too, a timer thread runs what the function passed to
            ``call.on_cancel``. For functions that only another thread can stop, with
            ``call.on_cancel(connection.cancel)`` of a database or the ``kill`` of a subprocess.

    Raises:
        TypeError: the function takes other arguments, or a trait is unknown.
        ConfigError: ``max_threads`` is not a number from 1 to 1000.

    Without these options a plain function is not interrupted: pass ``call.remaining()`` as the
    timeout of whatever it waits for.
    """

    @check_arguments(
        "CallableEngine",
        usage="CallableEngine('local', function)",
        keywords=EngineTraitKeywords.__annotations__,
        max_threads=whole(1, 1000, none=True),
        interrupt=flag(),
    )
    def __init__(
        self,
        name: str,
        function: Function,
        *,
        max_threads: int | None = None,
        interrupt: bool = False,
        **traits: Unpack[EngineTraitKeywords],
    ) -> None:
        if not callable(function):
            raise TypeError(f"engine {name!r}: {function!r} is not a function")
        kind = find_called(function)
        problem = explain_cached(kind)
        if problem:
            raise TypeError(f"engine {name!r}: {problem}")
        if has_kind(inspect.isasyncgenfunction, kind):
            raise TypeError(
                f"engine {name!r}: an async generator cannot stream through a chain, which is "
                "not async; use a plain generator, or a coroutine that returns the whole answer"
            )
        traits.setdefault("streaming", has_kind(inspect.isgeneratorfunction, kind))
        asynchronous = has_kind(inspect.iscoroutinefunction, kind)
        traits.setdefault("cancellable", asynchronous or max_threads is not None or interrupt)
        self.name = name
        self.traits = EngineTraits(**traits)
        taking_call = function if _takes_call(name, function) else _ignore_call(function)
        ask = _run_in_event_loop(taking_call) if asynchronous else taking_call
        if interrupt:
            ask = _add_interrupt(name, ask)
        self.pool: BoundedPool | None = None
        if max_threads is not None:
            if has_kind(inspect.isgeneratorfunction, kind):
                raise TypeError(
                    f"engine {name!r}: a generator cannot run in a pool, for it is read in the "
                    "caller's thread; return the whole answer"
                )
            self.pool = BoundedPool(name, max_threads)
            ask = _run_in_pool(self.pool, ask)
        self._ask = ask

    def call(self, call: Call) -> object:
        """Call the function and return its result.

        Raises:
            TypeError: the function returned a coroutine but is not a coroutine function.
        """
        result = self._ask(call)
        if type(result) is CoroutineType:
            result.close()
            raise TypeError(
                f"engine {self.name!r} returned a coroutine; register the coroutine function "
                "itself ('async def'), and it will be awaited"
            )
        return result


def _takes_call(name: str, function: Function) -> bool:
    """Return whether a function takes the call; if not, it takes no argument.

    A wrapper that takes anything is asked what it wraps, since it may pass on what it gets.
    """
    signature = read_signature(function)
    if signature is None:
        problem = explain_partial(function)
        if problem:
            raise TypeError(f"engine {name!r}: the function {problem}")
        return True
    with_call, without = takes_arguments(signature, 1), takes_arguments(signature, 0)
    if not (with_call or without):
        raise TypeError(
            f"engine {name!r}: the function must take one argument, the call, or none; "
            f"it takes {signature}"
        )
    if with_call and without and hasattr(function, "__wrapped__"):
        wrapped = inspect.signature(function)
        return takes_arguments(wrapped, 1) or not takes_arguments(wrapped, 0)
    return with_call


def _ignore_call(function: Function) -> Function:
    return lambda call: function()


def _run_in_pool(pool: BoundedPool, function: Function) -> Function:
    return lambda call: pool.run(lambda: function(call), call)


def _add_interrupt(name: str, function: Function) -> Function:
    timer = AttemptTimer(name)

    def ask(call: Call) -> object:
        with timer.watching(call):
            try:
                return function(call)
            except (Cancelled, CallerDeadline, AttemptTimeout):
                raise
            except Exception as error:
                # An interrupted function may raise anything: the interruption is the cause.
                try:
                    call.raise_if_done()
                except Exception as over:
                    raise over from error
                raise

    return ask


def _run_in_event_loop(function: Callable[[Call], Coroutine[Any, Any, object]]) -> Function:
    import asyncio

    async def bounded(call: Call) -> object:
        task = asyncio.ensure_future(function(call))
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            loop.call_soon_threadsafe(task.cancel)

        remove = call.on_cancel(cancel)
        remaining_s = call.remaining()
        limit = asyncio.timeout(None if remaining_s == float("inf") else remaining_s)
        try:
            async with limit:
                return await task
        except TimeoutError as error:
            if not limit.expired():
                raise  # a timeout of the function itself
            call.raise_if_done()
            raise AttemptTimeout(f"call {call.id}: attempt {call.attempt} took too long") from error
        except asyncio.CancelledError:
            if call.cancelled:
                raise Cancelled(f"call {call.id} was cancelled") from None
            raise
        finally:
            remove()

    def run(call: Call) -> object:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(bounded(call))
        return _run_in_thread(lambda: asyncio.run(bounded(call)))

    return run


def _run_in_thread(work: Callable[[], object]) -> object:
    """Run ``work`` in a new thread with the caller's context variables, and wait for its end."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, "om-async-engine") as pool:
        return pool.submit(contextvars.copy_context().run, work).result()
